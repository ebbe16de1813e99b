"""What SGLang's loading leaves reserved beside the weights: holes of tensors that were given back.

SGLang prints by how much free memory fell, and a segment of PyTorch's allocator that still holds one tensor is not
free (`model_executor/model_runner.py load_model`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from soong.memory.allocator import CachingAllocator
from soong.memory.dividing import local_sides, version_tuple, whole_experts
from soong.memory.engines._sglang_experts import in_tensorrt
from soong.memory.kernel_layouts import BLACKWELL, up

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel

PLACEHOLDERS_SINCE, PLACEHOLDERS_FREED_SINCE = (0, 5, 1), (0, 5, 12)
"""Versions: the first known that makes swizzled scales with the layer, and the first that swizzles in place and gives
back the copies, those too that TensorRT-LLM's kernels never read (pull request 25107; 0.5.11 keeps them).
"""

SCALE_ROWS, SCALE_COLUMNS = 128, 4
"""Tiles that swizzled scales are padded to (`layers/quantization/utils.py swizzle_blockscale`)."""


class _Experts(Struct, frozen=True, gc=False):
    """The NVFP4 experts of one layer on one GPU: bytes of both matrices' numbers, and scales as (rows, columns)."""

    layers: int
    number: int
    numbers: tuple[int, int]
    scales: tuple[tuple[int, int], tuple[int, int]]


def placeholder_bytes(model: ServedModel, gpu: Gpu, settings: EngineSettings) -> int:
    """Holes that swizzled scales of NVFP4 experts leave, and the padding of those scales; or copies that nothing reads.

    A layer is made with its scales and with a swizzled copy of them, for the shape alone. CUTLASS fills the copy later
    and frees the scales, and what other layers have put beside them keeps their segments. TensorRT-LLM's kernels had
    copies of their own and kept these too; Marlin, before Blackwell, still does. Source: SGLang 0.5.1 to 0.5.23
    `layers/quantization/modelopt_quant.py ModelOptNvFp4FusedMoEMethod`; issue 38073 for Marlin.
    """
    version, capability = version_tuple(settings.version), gpu.compute_capability or (0, 0)
    experts = _experts(model, settings) if model.quantization.method == "modelopt" else None
    if gpu.vendor != "nvidia" or experts is None or version < PLACEHOLDERS_SINCE:
        return 0
    swizzled = [
        experts.number * up(rows, SCALE_ROWS) * up(columns, SCALE_COLUMNS) for rows, columns in experts.scales
    ]
    in_place = version >= PLACEHOLDERS_FREED_SINCE
    if capability < BLACKWELL:
        return experts.layers * sum(swizzled)
    if in_tensorrt(model, gpu, settings):
        return 0 if in_place else experts.layers * sum(swizzled)
    return _holes_bytes(experts, swizzled, in_place=in_place)


def _holes_bytes(experts: _Experts, swizzled: list[int], *, in_place: bool) -> int:
    """What stays reserved beside numbers and scales; scales that the copy does not fit stay with it, if in place."""
    allocator = CachingAllocator()
    raw = [experts.number * rows * columns for rows, columns in experts.scales]
    passing = []
    for _ in range(experts.layers):
        for size in experts.numbers:
            allocator.take(size)
        for scale, copy in zip(raw, swizzled, strict=True):
            block = allocator.take(scale)
            zeros = allocator.take(copy)
            made = allocator.take(copy)
            allocator.give(zeros)
            if copy == scale or not in_place:
                passing.append((made if in_place else block, copy))
    for freed, copy in passing:
        filled = allocator.take(copy)
        allocator.give(freed)
        allocator.give(filled)
    return allocator.held_bytes() - experts.layers * (sum(experts.numbers) + sum(raw))


def _experts(model: ServedModel, settings: EngineSettings) -> _Experts | None:
    """The experts of a layer, where they are NVFP4."""
    sides: dict[bool, tuple[int, int]] = {}
    layers = count = group = 0
    held = model.architecture.served_weights()
    for weight in whole_experts(held, settings.tensor_parallel) if settings.expert_parallel else held:
        if weight.part != "experts":
            continue
        form = next((form for form, _ in model.quantization.spread(weight) if form is not None), None)
        if form is None or form.kind != "nvfp4":
            return None
        rows, columns = local_sides(weight, settings.tensor_parallel)
        second = weight.shard == "row"
        sides[second] = sides.get(second, (0, 0))[0] + rows, columns
        layers, count, group = len(weight.layers), weight.copies, form.group
    if len(sides) < 2:
        return None
    layers = -(-layers // settings.pipeline_parallel)
    both = (sides[False], sides[True])
    numbers = tuple(count * rows * columns // 2 for rows, columns in both)
    scales = tuple((rows, columns // group) for rows, columns in both)
    return _Experts(layers, count, (numbers[0], numbers[1]), (scales[0], scales[1]))
