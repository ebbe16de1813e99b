"""How much of its datasheet a GPU delivers: the measured figures of `data/speed.toml`, found for a GPU and an engine.

Every figure of the table is per generation of GPUs, kind of kernel, number format or engine, never per model.
"""

# No annotations as text here: msgspec compiles each of them when it first reads the table, a fortieth of `soong plan`.

from functools import cache
from typing import TYPE_CHECKING

import msgspec

from soong.memory.dividing import NEWEST, version_tuple
from soong.tables import packaged_document

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.speed.work import Storage


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """How well one kind of matrix product runs on one generation.

    part: dense, experts, or llama.cpp. format: a `Storage`. rate: the key of `Gpu.dense_flops` it multiplies with.
    memory, compute: shares of peak bandwidth and of that rate. launch_us: microseconds a product takes at least.
    """

    generation: str
    part: str
    format: str
    rate: str
    memory: float
    compute: float
    launch_us: float
    source: str = ""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs whose kernels are alike.

    capabilities: CUDA's. gpus: ids of those that have none. like: the generation whose kernels are taken for those
    not listed. attention_memory: share of the bandwidth at which the past is read. attention_compute: share of the
    16-bit rate, in prefill. passing: share of the bandwidth at which hidden states pass between kernels.
    attention_us, state_us, mixture_us, layer_us: microseconds for each layer that attends, keeps a state, routes to
    experts, and for all else in a layer. start_us: a kernel's start under llama.cpp.
    """

    name: str
    capabilities: tuple[tuple[int, int], ...] = ()
    gpus: tuple[str, ...] = ()
    like: str = ""
    attention_memory: float
    attention_compute: float
    attention_us: float
    state_us: float
    mixture_us: float = 0.0
    layer_us: float
    passing: float = 0.7
    source: str = ""
    start_us: float = 5.0


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Adding up hidden states over one kind of link. By the number of GPUs, from 2 up, the next smaller one counting.

    start_us: microseconds of the smallest message. share: of the link's rate in one direction, for large ones.
    """

    name: str
    start_us: dict[str, float]
    share: dict[str, float]
    source: str = ""


class Starts(msgspec.Struct, frozen=True, kw_only=True):
    """Kernels of an engine without captured fusions (llama.cpp), in units of its generation's `start_us`.

    product, norm, attention, expert, state: for each product, norm, layer that attends, of experts, with a state.
    """

    product: float
    norm: float
    attention: float
    expert: float
    state: float


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine adds to its kernels.

    until: the first version that this is not for; empty for the newest.
    step_us: between two steps. sequence_us: for each sequence of a step: scheduling, sampling, detokenizing.
    request_us: for each request, once, while the GPU waits. first_us: from a request to its first pass, while others
    are served: tokenizing, queueing, the step that runs. launches: how much of the kernels' least times remains in
    captured graphs.
    decode, prefill: how much longer all kernels of such a step take than each measured alone.
    """

    name: str
    until: str = ""
    step_us: float
    sequence_us: float
    request_us: float
    first_us: float = 0.0
    launches: float
    decode: float
    prefill: float
    starts: Starts | None = None
    source: str = ""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Measured over predicted, the tenth and the ninetieth of a hundred, for a class of published runs.

    engine; load: `alone`, `many` at once, or a `burst`, of rates; `first-token`, of times to it for few users.
    runs: how many.
    """

    engine: str
    load: str
    low: float
    high: float
    runs: int


class SpeedTable(msgspec.Struct, frozen=True, kw_only=True):
    """All of `data/speed.toml`."""

    generation: tuple[Generation, ...]
    kernel: tuple[Kernel, ...]
    link: tuple[Link, ...]
    engine: tuple[Engine, ...]
    spread: tuple[Spread, ...] = ()


WITHOUT_PEERS = ("RTX 20", "RTX 30", "RTX 40", "RTX 50")
"""GeForce cards, whose driver lets no card read another's memory: NVIDIA NCCL documentation, NCCL_P2P_DISABLE."""


class Rates(msgspec.Struct, frozen=True):
    """All that the roofline needs to know of one GPU under one engine. link: None for a GPU that has none."""

    generation: Generation
    engine: Engine
    kernels: dict[tuple[str, str], Kernel]
    link: Link | None


class Efficiencies:
    """The table, with the ways to find things in it."""

    def __init__(self, table: SpeedTable) -> None:
        self.table = table
        self._generations = {row.name: row for row in table.generation}
        self._engines: dict[str, list[tuple[tuple[int, ...], Engine]]] = {}
        for row in table.engine:
            self._engines.setdefault(row.name, []).append((version_tuple(row.until), row))
        self._links = {row.name: row for row in table.link}
        self._by_capability = {
            tuple(capability): row for row in table.generation for capability in row.capabilities
        }
        self._by_gpu = {gpu: row for row in table.generation for gpu in row.gpus}
        self._kernels: dict[str, dict[tuple[str, str], Kernel]] = {}
        for kernel in table.kernel:
            self._kernels.setdefault(kernel.generation, {})[kernel.part, kernel.format] = kernel
        self._spreads = {(row.engine, row.load): row for row in table.spread}

    def rates(self, gpu: "Gpu", engine: str, version: str = "") -> Rates | None:
        """What is known of a GPU under an engine; None where nothing is."""
        generation = self._generation(gpu)
        asked = version_tuple(version)
        rows = [row for row in self._engines.get(engine, []) if asked < row[0] or row[0] == NEWEST]
        found = min(rows, key=lambda row: row[0])[1] if rows else None
        if generation is None or found is None or not gpu.bandwidth_bytes_per_second or not gpu.dense_flops:
            return None
        return Rates(generation, found, self._kernels_of(generation), self._link(gpu))

    def spread(self, engine: str, load: str) -> Spread | None:
        """How far measured runs of this class (`alone`, `many` or `burst`) lie from what is predicted."""
        return self._spreads.get((engine, load))

    def _generation(self, gpu: "Gpu") -> Generation | None:
        if gpu.id in self._by_gpu:
            return self._by_gpu[gpu.id]
        if gpu.vendor == "amd":
            return self._generations["cdna3" if "instinct" in gpu.name.lower() else "rdna"]
        if gpu.compute_capability is None:
            return None
        known = [capability for capability in self._by_capability if capability <= gpu.compute_capability]
        return self._by_capability[max(known)] if known else None

    def _kernels_of(self, generation: Generation) -> dict[tuple[str, str], Kernel]:
        own = self._kernels.get(generation.name, {})
        if not generation.like:
            return own
        return {**self._kernels_of(self._generations[generation.like]), **own}

    def _link(self, gpu: "Gpu") -> Link | None:
        words = gpu.interconnect.lower()
        name = "nvlink" if "nvlink" in words else "infinity-fabric" if "infinity" in words else "pcie"
        if name == "pcie" and gpu.id.startswith("rtx") and gpu.name.startswith(WITHOUT_PEERS):
            name = "pcie-through-host"
        return self._links.get(name)


@cache
def packaged_efficiencies() -> Efficiencies:
    """The packaged table; read once in a process."""
    return Efficiencies(packaged_document("speed", SpeedTable))


def kernel_of(rates: Rates, part: str, storage: "Storage", native: tuple[str, ...]) -> Kernel | None:
    """The kernel that multiplies matrices of a storage.

    Args:
        rates: of the GPU and engine. part: dense or experts. storage: of the matrices.
        native: number formats that the GPU multiplies; others are unpacked to 16 bits by a weight-only kernel.
    """
    if storage == "gguf":
        part = "llama.cpp"
    found = rates.kernels.get((part, storage))
    if found is not None and (found.rate in native or found.rate == "16-bit"):
        return found
    unpacked = UNPACKED.get(storage, storage)
    return rates.kernels.get((part, unpacked)) or rates.kernels.get((part, "16-bit"))


UNPACKED = {
    "fp8": "int8-only", "int8": "int8-only", "nvfp4": "int4-only", "mxfp4": "int4-only", "int8-only": "int8-only",
    "int4-only": "int4-only",
}  # fmt: skip
"""The weight-only kernel that stands in where a GPU has no such numbers: Marlin's, in vLLM and SGLang."""
