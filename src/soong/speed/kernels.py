"""Seconds of single kernels on a GPU: of matrices, of starting them, and of what GPUs add up among themselves.

The rates are the datasheet's, each times the share that was measured for such kernels (`data/speed.toml`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.speed.efficiency import kernel_of

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.speed.efficiency import Rates, Starts
    from soong.speed.work import Matrices, Work

GPUS_OF_A_NODE = 8
"""HGX boards, and PCIe servers; only the racks of GB200 and GB300 have more GPUs on one NVLink."""

NETWORK_BYTES_PER_SECOND = 50e9
"""InfiniBand NDR, 400 Gbit/s for each GPU, between nodes: NVIDIA DGX H100 and B200 system guides."""

RACK = ("gb200", "gb300")


def seconds_of(
    matrices: tuple[Matrices, ...], part: str, rates: Rates, gpu: Gpu
) -> tuple[float, float, float]:
    """Reading all weights once, multiplying one token with them, and moving its numbers."""
    memory = compute = moved = 0.0
    for one in matrices:
        kernel = kernel_of(rates, part, one.storage, gpu.native_formats)
        if kernel is None:
            continue
        bandwidth = gpu.bandwidth_bytes_per_second * kernel.memory
        memory += one.weights_bytes / bandwidth
        moved += one.moved_bytes_per_token / bandwidth
        compute += one.flops_per_token / (flops_per_second(gpu, kernel.rate) * kernel.compute)
    return memory, compute, moved


def launches_us(work: Work, rates: Rates, gpu: Gpu) -> float:
    """Least microseconds of all kernels of a pass."""
    generation, starts = rates.generation, rates.engine.starts
    if starts is not None:
        return generation.start_us * counted_starts(work, starts)
    product = _launch_us(work.dense, "dense", rates, gpu)
    expert = _launch_us(work.experts, "experts", rates, gpu)
    return (
        work.products * product
        + work.expert_layers * (expert + generation.mixture_us)
        + work.attention_layers * generation.attention_us
        + work.state_layers * generation.state_us
        + work.layers * generation.layer_us
    )


def counted_starts(work: Work, starts: Starts) -> float:
    """The kernels of a pass, each kind weighted by how long it takes to start: of engines that are asked so."""
    return (
        starts.product * work.products_apart
        + starts.norm * work.norms
        + starts.attention * work.attention_layers
        + starts.expert * work.expert_layers
        + starts.state * work.state_layers
    )


def _launch_us(matrices: tuple[Matrices, ...], part: str, rates: Rates, gpu: Gpu) -> float:
    """Of the storage that most of these matrices have."""
    if not matrices:
        return 0.0
    kernel = kernel_of(
        rates, part, max(matrices, key=lambda one: one.flops_per_token).storage, gpu.native_formats
    )
    return kernel.launch_us if kernel else 0.0


def flops_per_second(gpu: Gpu, rate: str) -> float:
    """A GPU's peak for a number format; halved or doubled from the nearest one where the datasheet prints none."""
    flops = gpu.dense_flops
    if rate == "16-bit":
        found = flops.get("bf16") or flops.get("fp16")
        if found is None and "fp8" in flops:
            found = flops["fp8"] / 2
        if found is None and "fp4" in flops:
            found = flops["fp4"] / 4
        return found or flops.get("fp32") or max(flops.values())
    if rate in flops:
        return flops[rate]
    return flops_per_second(gpu, "16-bit") * {"fp8": 2, "int8": 2, "fp4": 4}.get(rate, 1)


def reducing(rates: Rates, gpu: Gpu, parallel: int) -> tuple[float, float]:
    """Seconds to begin adding up hidden states among GPUs, and seconds for each byte of them."""
    link = rates.link
    if parallel < 2 or link is None:
        return 0.0, 0.0
    one_way = (gpu.interconnect_bytes_per_second or NETWORK_BYTES_PER_SECOND) / 2
    if parallel > GPUS_OF_A_NODE and not gpu.id.startswith(RACK):
        one_way = min(one_way, NETWORK_BYTES_PER_SECOND)
    steps = max((int(count) for count in link.start_us if int(count) <= parallel), default=2)
    share = link.share[str(steps)]
    return link.start_us[str(steps)] * 1e-6, 2 * (parallel - 1) / parallel / (one_way * share)
