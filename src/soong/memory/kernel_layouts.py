"""One quantised matrix as the kernels of an engine keep it: numbers, widened scales, aligned sizes.

Sources, unless a line says otherwise: vLLM 0.33 `layers/quantization/` and `layers/fused_moe/oracle/`, whose
`create_weights` were compared with these rules parameter by parameter; SGLang 0.5 has the same rules.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import msgspec

from soong.models.quantization.formats import (
    BNB_BLOCK,
    BNB_NESTED_BLOCK,
    MX_GROUP,
    ceil_div,
    groups,
    numbers_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.models.architecture import Weight
    from soong.models.quantization import Format
    from soong.models.quantization.formats import Kind

ADA, HOPPER, BLACKWELL = (8, 9), (9, 0), (10, 0)
"""Compute capabilities: the first with FP8 tensor cores, the next, the first with FP4 ones."""

UNALIGNED_MXFP4_SINCE = (0, 32)
"""From this version Hopper aligns no MXFP4 experts to more than 64: `fused_moe/oracle/mxfp4.py`."""

TRITON_KERNELS_SINCE = (0, 12)
"""The first version that brings OpenAI's Triton kernels along (pull request 28788): Hopper runs gpt-oss in them, and no
longer in Marlin."""

FILLED_TILES_SINCE, FILLED_TILES_UNTIL = (0, 17), (0, 22)
"""Versions that bring Triton 3.6's kernels, which fill numbers up to tiles of 64 by 64 bytes."""

LOADED_SCALES_UNTIL = (0, 25)
"""Before it, the scales as they were loaded stay beside those in the kernels' order."""

TRITON_TILE, TRITON_SCALE_ROWS, TRITON_SCALE_GROUPS = 64, 256, 2

NARROW_TENSORRT_SINCE = (0, 27)
"""From this version TensorRT-LLM's MXFP4 experts are filled up to 128, not 256."""

SMALL_BLACKWELL = (12, 0)
"""The first Blackwell outside data centres."""

NARROW_MXFP4_SINCE, SMALL_BLACKWELL_ALIGNED_SINCE = (0, 5, 17), (0, 5, 14)
"""SGLang versions: the first whose TensorRT-LLM experts are filled up to 128, not 256 (`layers/quantization/mxfp4.py`);
the first that runs gpt-oss in Marlin on small Blackwell cards, where 0.5.13 takes Triton (`server_args.py`).
"""

REFINED_BLOCKS_SINCE = (0, 29)
"""The first version to refine the scale blocks of experts that a GPU's share cuts: `fused_moe/oracle/fp8.py`
refine_fp8_moe_block_shape, which 0.28 has not.
"""

EXPERT_BIASES_SINCE = (0, 27)
"""The first version to make room for expert biases before a GPTQ checkpoint shows whether it has them:
`quantization/auto_gptq.py`, 0.26 registers none.
"""

PLAIN_MAXIMA_SINCE = (0, 9, 2)
"""vLLM pull request 19742 (June 2025): bitsandbytes' nested maxima are unpacked while loading."""

LEAST_REFINED_BLOCK = 32
"""`refine_fp8_moe_block_shape`, and the least group of `moe_wna16.py`."""

MARLIN_HIDDEN_STEP = 128
"""Marlin's expert kernel takes no other hidden size: `check_moe_marlin_supports_config`."""


class Rank(msgspec.Struct, frozen=True):
    """One GPU of a tensor-parallel group and what its kernels need.

    plain_towers: the engine's class for this model quantises no tower, whatever the repository says.
    packed_towers: it quantises towers with the rest, on loading.
    by_free_memory: the engine prints by how much the driver's free memory fell.
    triton_experts: MXFP4 experts run in OpenAI's Triton kernels.
    """

    size: int
    engine: str
    version: tuple[int, ...]
    capability: tuple[int, int]
    plain_towers: bool = False
    packed_towers: bool = False
    by_free_memory: bool = False
    triton_experts: bool = False

    def has(self, since: tuple[int, ...]) -> bool:
        """Whether this is vLLM of that version or later."""
        return self.engine == "vllm" and self.version >= since


def up(number: int, step: int) -> int:
    """The next multiple of `step`."""
    return ceil_div(number, step) * step


def kernel_form(form: Format, rows: int, columns: int, weight: Weight, rank: Rank) -> Format:
    """The format with the groups or blocks that the kernel gives this share of an expert.

    Where tensor parallelism cuts a group of integers, the experts go to a kernel that repeats the scales of
    smaller groups (`moe_wna16.py`); blocks of FP8 scales are refined likewise.
    """
    if weight.part != "experts" or form.kind not in {"awq", "gptq", "fp8_block"}:
        return form
    hidden, width = _expert_sizes(rows, columns, weight)
    if form.kind == "fp8_block":
        block = refined_block(form, hidden, width, rank)
        return msgspec.structs.replace(form, block=(block, block)) if block else form
    if marlin_takes_experts(form, hidden, width):
        return form
    group = form.group
    while group >= 2 * LEAST_REFINED_BLOCK and (width % group or hidden % group):
        group //= 2
    zero_points = form.zero_points and (form.kind == "awq" or not form.symmetric)
    return msgspec.structs.replace(form, group=group, zero_points=zero_points, act_order=False)


def _expert_sizes(rows: int, columns: int, weight: Weight) -> tuple[int, int]:
    """Hidden size, and this GPU's part of the intermediate size; some families stack gate and up."""
    if weight.shard == "row":
        return rows, columns
    return columns, rows // 2 if weight.path.endswith("gate_up_proj") else rows


def marlin_takes_experts(form: Format, hidden: int, width: int) -> bool:
    """Whether Marlin's expert kernel takes these sizes; it pads tiles but cuts no group."""
    return hidden % MARLIN_HIDDEN_STEP == 0 and (form.group <= 0 or width % form.group == 0)


def refined_block(form: Format, hidden: int, width: int, rank: Rank) -> int:
    """The side of the blocks to which an expert's scales are refined; 0 where they are left as they are."""
    cut = width % form.block[0] or (rank.size > 1 and width % form.block[1])
    if not cut or not rank.has(REFINED_BLOCKS_SINCE):
        return 0
    side = gcd(*form.block, width, hidden)
    return side if side >= LEAST_REFINED_BLOCK else 0


def kernel_sides(form: Format | None, rows: int, columns: int, weight: Weight, rank: Rank) -> tuple[int, int]:
    """Output and input size on one GPU, as aligned as the kernel wants them.

    Of the formats only MXFP4 experts are allocated larger than they are; tensor parallelism divides their
    intermediate side.
    """
    if form is None or form.kind != "mxfp4" or weight.part != "experts" or form.unaligned:
        return rows, columns
    hidden_to, middle_to = _mxfp4_alignment(rank)
    if weight.shard == "row":
        return up(rows, hidden_to), up(columns, middle_to)
    return up(rows, middle_to), up(columns, hidden_to)


def _mxfp4_alignment(rank: Rank) -> tuple[int, int]:
    """Alignment of the hidden and of the intermediate size: vLLM `fused_moe/oracle/mxfp4.py`."""
    if rank.engine == "sglang":
        return _sglang_mxfp4_alignment(rank)
    hopper = HOPPER <= rank.capability < BLACKWELL
    if rank.triton_experts or (hopper and rank.has(UNALIGNED_MXFP4_SINCE)):
        return 1, 64
    tensorrt = BLACKWELL <= rank.capability < SMALL_BLACKWELL
    return 256, 256 if tensorrt and not rank.has(NARROW_TENSORRT_SINCE) else 128  # else Marlin


def _sglang_mxfp4_alignment(rank: Rank) -> tuple[int, int]:
    """The same in SGLang: TensorRT-LLM's kernels on Blackwell, on its small cards Marlin or CUTLASS, else Triton.

    Source: SGLang 0.5.3 to 0.5.23 `layers/quantization/mxfp4.py Mxfp4MoEMethod.create_weights`,
    `layers/moe/fused_moe_triton/layer.py`, and what `server_args.py`, later `arg_groups/`, picks for gpt-oss.
    """
    if BLACKWELL <= rank.capability < SMALL_BLACKWELL:
        return 256, 128 if rank.version >= NARROW_MXFP4_SINCE else 256
    if rank.capability >= SMALL_BLACKWELL and rank.version >= SMALL_BLACKWELL_ALIGNED_SINCE:
        return 256, 128
    return 1, 64


def packed_bytes(form: Format, rows: int, columns: int, rank: Rank) -> int:
    """One quantised matrix of these sizes with all that stands beside its numbers."""
    numbers = numbers_bytes(form, rows, columns)
    if form.kind == "bnb_4bit" and form.double and rank.engine == "vllm" and not rank.has(PLAIN_MAXIMA_SINCE):
        return numbers + _nested_maxima(rows, columns)
    scales = _SCALES.get(form.kind)
    return numbers + (scales(form, rows, columns) if scales else 0)


def released_bytes(form: Format, rows: int, columns: int, weight: Weight, rank: Rank) -> int:
    """What is allocated beside a matrix and given back once the checkpoint is read: room for 16-bit biases.

    Source: vLLM 0.33 `quantization/auto_gptq.py` AutoGPTQMoEMethod.
    """
    if form.kind != "gptq" or weight.part != "experts" or not rank.has(EXPERT_BIASES_SINCE):
        return 0
    return 2 * rows if marlin_takes_experts(form, *_expert_sizes(rows, columns, weight)) else 0


def repacking_bytes(form: Format, rows: int, columns: int, weight: Weight, rank: Rank) -> int:
    """What Marlin adds where the GPU's tensor cores do not take the format, and Triton to experts.

    NVFP4 experts get 64-aligned intermediate sizes: vLLM 0.33 `quantization/utils/marlin_utils_fp4.py`
    prepare_nvfp4_moe_layer_for_marlin.
    """
    if form.kind == "mxfp4" and weight.part == "experts" and rank.triton_experts:
        return _triton_bytes(rows, columns, weight, rank)
    if form.kind == "fp8_block" and rank.engine == "vllm" and rank.capability < ADA:
        return _row_wise_scales(form, rows, columns) - _block_scales(form, rows, columns)
    if rank.capability >= BLACKWELL or form.kind != "nvfp4" or weight.part != "experts":
        return 0
    wide = (rows, up(columns, 64)) if weight.shard == "row" else (up(rows, 64), columns)
    return packed_bytes(form, *wide, rank) - packed_bytes(form, rows, columns, rank)


def _triton_bytes(rows: int, columns: int, weight: Weight, rank: Rank) -> int:
    """What OpenAI's Triton kernels on Hopper add to an expert's matrix: fuller scales and tiles, and float32 biases.

    Gate and up stand in one matrix. Source: vLLM 0.19 and 0.25.1 `fused_moe/oracle/mxfp4.py`
    convert_to_mxfp4_moe_kernel_format and `third_party/triton_kernels/tensor_details/layout_details/hopper_*.py`.
    Logs print 13.64 GiB for gpt-oss-20b with 0.19 and 61.29 for gpt-oss-120b with 0.25.1.
    """
    halves = 1 if weight.shard == "row" else 2
    groups_, loaded = ceil_div(columns, MX_GROUP), rows * ceil_div(columns, MX_GROUP)
    extra = up(halves * rows, TRITON_SCALE_ROWS) // halves * up(groups_, TRITON_SCALE_GROUPS) - loaded
    if not rank.has(LOADED_SCALES_UNTIL):
        extra += loaded
    if rank.has(FILLED_TILES_SINCE) and not rank.has(FILLED_TILES_UNTIL):
        tiles = up(halves * rows, TRITON_TILE) // halves * up(columns // 2, TRITON_TILE)
        extra += tiles - rows * columns // 2
    return extra + 2 * rows  # biases: 32 bits instead of 16


def tile_bytes(form: Format | None, rows: int, columns: int, rank: Rank) -> int:
    """What FP4 tensor cores add to the scales of one fused matrix: they read tiles of 128 rows by 4 scales.

    Source: vLLM 0.33 `quantization/utils/nvfp4_utils.py` swizzle_blockscale.
    """
    if form is None or form.kind != "nvfp4" or rank.capability < BLACKWELL:
        return 0
    count = columns // form.group
    return up(rows, 128) * up(count, 4) - rows * count


def _nvfp4_scales(form: Format, rows: int, columns: int) -> int:
    """8-bit scales and two float32 numbers; a group that tensor parallelism cuts has no scale of its own."""
    return rows * (columns // form.group) + 4 + 4 * form.static_input


def _tensor_scales(form: Format, _rows: int, _columns: int) -> int:
    return 4 + 4 * form.static_input


def _row_scales(_form: Format, rows: int, _columns: int) -> int:
    return 4 * rows  # float32, whatever the checkpoint has


def _block_scales(form: Format, rows: int, columns: int) -> int:
    return 4 * ceil_div(rows, form.block[0]) * ceil_div(columns, form.block[1])


def _row_wise_scales(form: Format, rows: int, columns: int) -> int:
    """A block's scale for each of its output rows, in 16 bits: Marlin knows groups along the input side alone.

    Source: vLLM 0.33 `quantization/utils/marlin_utils_fp8.py`; a log of 0.19 prints 29.54 GiB for Qwen3-Coder-30B in
    FP8, where its tensors are 29.10.
    """
    return 2 * rows * ceil_div(columns, form.block[1])


def _exponents(form: Format, rows: int, columns: int) -> int:
    count = columns // MX_GROUP if form.unaligned else ceil_div(columns, MX_GROUP)
    return rows * count


def _maxima(_form: Format, rows: int, columns: int) -> int:
    return 4 * ceil_div(rows * columns, BNB_BLOCK)


def _nested_maxima(rows: int, columns: int) -> int:
    """A byte a block of numbers, and float32 maxima of those bytes."""
    blocks = ceil_div(rows * columns, BNB_BLOCK)
    return blocks + 4 * ceil_div(blocks, BNB_NESTED_BLOCK)


def _integer_scales(form: Format, rows: int, columns: int) -> int:
    """16-bit scales, zero points packed like the numbers, and with act-order the groups and their sorting."""
    count = groups(form, columns)
    zeros = count * ceil_div(int(rows * form.bits), 8) if form.zero_points else 0
    order = 2 * 4 * columns if form.act_order else 0
    return 2 * rows * count + zeros + order


def _scales_and_biases(form: Format, rows: int, columns: int) -> int:
    return 2 * 2 * rows * groups(form, columns)


_SCALES: dict[Kind, Callable[[Format, int, int], int]] = {
    "fp8_tensor": _tensor_scales,
    "fp8_channel": _row_scales,
    "int8_channel": _row_scales,
    "bnb_8bit": _row_scales,
    "fp8_block": _block_scales,
    "nvfp4": _nvfp4_scales,
    "mxfp8": _exponents,
    "mxfp4": _exponents,
    "bnb_4bit": _maxima,
    "awq": _integer_scales,
    "gptq": _integer_scales,
    "packed": _integer_scales,
    "mlx": _scales_and_biases,
    "torchao": _scales_and_biases,
}
"""What stands beside the numbers of one matrix after loading, in bytes."""
