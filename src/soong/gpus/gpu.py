"""A GPU as a planner sees it: what the driver reports, what it computes, how it talks to its neighbours."""

# No annotations as text here: msgspec compiles each of them when it first reads the table, a fortieth of `soong plan`.

from typing import Annotated, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Day = Annotated[str, msgspec.Meta(min_length=10, max_length=10)]
Positive = Annotated[int, msgspec.Meta(gt=0, lt=1 << 60)]
Flops = Annotated[float, msgspec.Meta(gt=0, lt=1e30)]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One graphics card, or one GPU of a board.

    Attributes:
        id: our own name, lower case: `h100-80gb-sxm5`.
        name: as people say it: `H100 SXM5`.
        vendor: nvidia or amd; `cpu` for a processor that serves from its own memory.
        label_gb: the gigabytes in the shop's name, for people only.
        memory_bytes: what the driver reports as total, which is what an engine may use.
        bandwidth_bytes_per_second: peak memory bandwidth.
        dense_flops: peak FLOP/s without sparsity, by number format (`bf16`, `fp8`, ...).
        compute_capability: CUDA's, as (9, 0); None for AMD.
        native_formats: number formats its tensor cores multiply: of fp32 fp16 bf16 int8 fp8 fp4.
        interconnect: between GPUs of one machine: `NVLink 4`, `PCIe 4.0 x16`, ...
        interconnect_bytes_per_second: per GPU, both directions together as vendors print it.
        cpu_architecture: `arm64` where the GPU only comes with an Arm host; else `x86_64`.
        unified_memory: the GPU shares the host's memory (GB10), so the system takes its part.
        source: where the figures stand. as_of: the day they were read, ISO.
    """

    id: Name
    name: Name
    vendor: Literal["nvidia", "amd", "cpu", "unknown"]
    label_gb: Positive
    memory_bytes: Positive
    bandwidth_bytes_per_second: Positive
    dense_flops: dict[str, Flops]
    compute_capability: tuple[int, int] | None = None
    native_formats: tuple[str, ...]
    interconnect: str
    interconnect_bytes_per_second: Positive | None = None
    cpu_architecture: Literal["x86_64", "arm64"] = "x86_64"
    unified_memory: bool = False
    aliases: tuple[str, ...] = ()
    source: str
    as_of: Day
