"""The published cases as values: what was started, with which flags, and what the engine printed.

`published/logs.jsonl` holds one start-up a line (figures, flags, and the address they stand at),
`published/vllm_classes.jsonl` what vLLM's own model classes computed, `published/configs.jsonl` the few keys of each
`config.json` that memory follows from, for models that the catalogue lacks. `published/why.toml` explains the errors
that are understood.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from soong.models.resolve import ResolvedModel

CASES = Path(__file__).parent / "published"
GIB = 1 << 30


class Concurrency(msgspec.Struct, frozen=True):
    """The engine's "maximum concurrency": how many sequences (x) of how many tokens."""

    context_length: int
    x: float


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """One published start-up; what the source does not show is None. GiB as printed, per GPU.

    engine_version: as printed, or the newest release on the log's day.
    config: the repository whose config.json was served, where `model` names another one.
    format: the number format, as the source calls it; `none` is plain 16 bit.
    quantization: the format that the engine was told to pack plain weights in.
    flags: those that the source states; the rest is unknown.
    outcome: ok, oom, or None where the log ends early. unscored: why the figures say nothing of the model alone.
    """

    id: str
    source: str
    as_of: str
    engine: str
    model: str
    format: str
    tensor_parallel: int
    engine_version: str | None = None
    config: str | None = None
    quantization: str | None = None
    gpu: str | None = None
    gpu_memory_gib: float | None = None
    pipeline_parallel: int = 1
    flags: dict[str, Any] = {}
    weights_gib: float | None = None
    pool_gib: float | None = None
    tokens: int | None = None
    activations_gib: float | None = None
    graphs_gib: float | None = None
    non_torch_gib: float | None = None
    concurrency: Concurrency | None = None
    outcome: str | None = None
    unscored: str = ""

    @property
    def repository(self) -> str:
        """Whose config.json decides."""
        return self.config or self.model

    @property
    def on_a_known_gpu(self) -> bool:
        """Whether the source says on what it ran, without which no launch can be predicted."""
        return bool(self.gpu or self.gpu_memory_gib)

    @property
    def states_version_and_fraction(self) -> bool:
        """Whether the source says by which rules and with which share of the GPU the engine started."""
        return bool(
            self.engine_version and {"gpu_memory_utilization", "mem_fraction_static"} & set(self.flags)
        )

    @property
    def of_the_sweep(self) -> bool:
        """Whether it belongs to the one careful sweep (vLLM 0.15 to 0.19, H100) that most constants were fitted on."""
        return "/llm-d-planner/" in self.source


class ClassPool(msgspec.Struct, frozen=True, kw_only=True):
    """What vLLM makes of a pool of known size; tokens is None where it refuses the context."""

    context: int
    pool_bytes: int
    max_num_batched_tokens: int
    max_num_seqs: int
    kv_dtype: str
    tokens: int | None = None
    concurrency: float | None = None
    refused: bool = False


class ClassCase(msgspec.Struct, frozen=True, kw_only=True):
    """One model at one tensor-parallel size in vLLM's own classes, bytes of one rank."""

    model: str
    tensor_parallel: int
    weights_bytes: int
    after_loading_bytes: int | None = None
    buffers_bytes: int | None = None
    pools: tuple[ClassPool, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What of a repository's config.json decides memory.

    source: where it was read; or, where the file was not at hand, from what its facts were put together.
    format_inferred: the number format is the one that the printed weights require, so these prove nothing by fitting.
    """

    repository: str
    source: str
    config: dict[str, Any]
    hf_quant: dict[str, Any] | None = None
    format_inferred: bool = False


def _rows(name: str, kind: Any) -> list[Any]:
    decoder = msgspec.json.Decoder(kind)
    lines = (CASES / name).read_bytes().splitlines()
    return [decoder.decode(line) for line in lines if line.strip()]


@cache
def logs() -> list[Log]:
    """Every published start-up, in the order of the file."""
    return _rows("logs.jsonl", Log)


@cache
def class_cases() -> list[ClassCase]:
    """What vLLM 0.32.0's own classes computed for an H100 80 GB."""
    return _rows("vllm_classes.jsonl", ClassCase)


@cache
def config_facts() -> dict[str, Facts]:
    """By repository, for those that the catalogue lacks."""
    return {row.repository.lower(): row for row in _rows("configs.jsonl", Facts)}


@cache
def reasons() -> dict[str, str]:
    """By case, why its error is what it is, where that is understood."""
    table = tomllib.loads((CASES / "why.toml").read_text("utf-8"))
    return {str(key): str(value) for key, value in table.items()}


class Models:
    """Repositories as the planner takes them: the catalogue's by name, the others as files in a scratch folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name(self, repository: str) -> str:
        """What to call the model in a request."""
        facts = config_facts().get(repository.lower())
        if facts is None:
            return repository
        return str(self._written(repository, facts.config, facts.hf_quant))

    def folder_of(self, repository: str, model: ResolvedModel) -> Path:
        """A folder with the model's config.json, for estimators that want one."""
        return self._written(repository, model.config or {}, model.hf_quant)

    def _written(self, repository: str, config: dict[str, Any], hf_quant: dict[str, Any] | None) -> Path:
        place = self._folder / repository.replace("/", "--")
        if not place.exists():
            place.mkdir(parents=True)
            (place / "config.json").write_bytes(msgspec.json.encode(config))
            if hf_quant:
                (place / "hf_quant_config.json").write_bytes(msgspec.json.encode(hf_quant))
        return place
