"""How one matrix is stored: the number format, its scales, and the bytes both take in a checkpoint."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "fp8_tensor", "fp8_channel", "fp8_block", "mxfp8", "int8_channel", "packed", "gptq", "awq",
    "nvfp4", "mxfp4", "bnb_4bit", "bnb_8bit", "mlx", "torchao", "bits",
]  # fmt: skip
"""The layouts that repositories use.

fp8_tensor, fp8_channel, fp8_block: 8-bit floats, one scale a matrix, an output row, or a block of both sides.
mxfp8, mxfp4: OCP microscaling, one 8-bit exponent for 32 numbers.
nvfp4: one 8-bit float for 16 numbers, and one more a matrix.
int8_channel: integers with one scale an output row. packed: compressed-tensors' integers in 32-bit words.
gptq, awq: integers in 32-bit words with zero points. bnb_4bit, bnb_8bit: bitsandbytes. mlx: Apple's.
torchao: two integers a byte, with a 16-bit scale and zero point a group.
bits: only the mean bits of a number are known (EXL2, BitNet, HQQ and others).
"""

Compute = Literal["bf16", "fp8", "fp4", "int8", "int4"]
"""The numbers a GPU must multiply, or an engine unpack for it."""

WORD_BYTES = 4
"""Packed integers stand in 32-bit words."""

MX_GROUP = 32
"""Numbers that share an exponent in the OCP Microscaling Formats specification 1.0."""

BNB_BLOCK, BNB_NESTED_BLOCK = 64, 256
"""Numbers that share an absolute maximum, and maxima that share theirs: bitsandbytes `functional.py`."""

BNB_MAP_BYTES = 16 * 4
"""The sixteen float32 values that 4-bit codes stand for; one such table a matrix."""

BNB_NESTED_MAP_BYTES = 256 * 4
"""The 256 float32 values that 8-bit nested maxima stand for."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """The storage of one matrix.

    bits: of one number, without its scales.
    group: numbers along the input side that share a scale; 0: a whole row.
    block: rows and columns of a scaled block. zero_points, act_order: kept beside the scales.
    symmetric: zero points, where there are any, all say the same, and some kernels drop them.
    unaligned: the engine keeps experts in the sizes the checkpoint has, where it aligns others of this kind.
    static_input: the checkpoint holds a scale for activations. double: bitsandbytes quantises the maxima too.
    scale_bytes: of one scale in the checkpoint; engines may widen it. label: for people.
    """

    kind: Kind
    bits: float
    label: str
    group: int = 0
    block: tuple[int, int] = (0, 0)
    zero_points: bool = False
    act_order: bool = False
    symmetric: bool = True
    unaligned: bool = False
    static_input: bool = False
    double: bool = False
    scale_bytes: int = 2

    @property
    def compute(self) -> Compute:
        """The numbers a GPU works with, or must unpack."""
        if self.kind in {"fp8_tensor", "fp8_channel", "fp8_block", "mxfp8"}:
            return "fp8"
        if self.kind in {"nvfp4", "mxfp4"}:
            return "fp4"
        return "int8" if self.bits >= 8 else "int4"


def ceil_div(number: int, divisor: int) -> int:
    """The smallest whole number of `divisor`s that hold `number`."""
    return -(-number // divisor)


def numbers_bytes(form: Format, rows: int, columns: int) -> int:
    """Bytes of the packed numbers of a matrix alone."""
    elements = rows * columns
    if form.kind in {"gptq", "awq", "packed"}:
        per_word = max(1, int(32 // form.bits))
        if form.kind == "awq":
            return columns * ceil_div(rows, per_word) * WORD_BYTES
        return rows * ceil_div(columns, per_word) * WORD_BYTES
    return ceil_div(int(elements * form.bits), 8)


def groups(form: Format, columns: int) -> int:
    """Scales along the input side of one row."""
    return ceil_div(columns, form.group) if form.group > 0 else 1


def checkpoint_matrix_bytes(form: Format, rows: int, columns: int) -> int:
    """Bytes of one matrix in a checkpoint: numbers, scales and all that stands beside them."""
    return numbers_bytes(form, rows, columns) + _beside_bytes(form, rows, columns)


def _beside_bytes(form: Format, rows: int, columns: int) -> int:
    kind = form.kind
    if kind.startswith("fp8") or kind == "int8_channel":
        extra = _eight_bit_scales(form, rows, columns) + 4 * form.static_input
    elif kind in {"mxfp4", "mxfp8"}:
        extra = rows * ceil_div(columns, MX_GROUP)
    elif kind == "nvfp4":
        extra = rows * groups(form, columns) + 4 + 4 * form.static_input
    elif kind in {"gptq", "awq", "packed"}:
        extra = _integer_extras(form, rows, columns)
    elif kind.startswith("bnb"):
        extra = _bitsandbytes_extras(form, rows, columns)
    elif kind in {"mlx", "torchao"}:
        extra = rows * groups(form, columns) * 2 * form.scale_bytes  # a scale and a bias
    else:
        extra = 0
    return extra


def _eight_bit_scales(form: Format, rows: int, columns: int) -> int:
    if form.kind == "fp8_tensor":
        return form.scale_bytes
    if form.kind == "fp8_block":
        return ceil_div(rows, form.block[0]) * ceil_div(columns, form.block[1]) * form.scale_bytes
    return rows * form.scale_bytes


def _integer_extras(form: Format, rows: int, columns: int) -> int:
    """Scales, zero points in words, the group of each input, compressed-tensors' note of the shape."""
    count = groups(form, columns)
    per_word = max(1, int(32 // form.bits))
    zeros = count * ceil_div(rows, per_word) * WORD_BYTES if form.zero_points else 0
    order = columns * WORD_BYTES if form.act_order or form.kind == "gptq" else 0
    shape = 2 * 8 if form.kind == "packed" else 0
    return rows * count * form.scale_bytes + zeros + order + shape


def _bitsandbytes_extras(form: Format, rows: int, columns: int) -> int:
    """Absolute maxima and code tables. Source: bitsandbytes `QuantState.as_dict`, `Linear8bitLt`."""
    if form.kind == "bnb_8bit":
        return rows * 4 + 1  # SCB, and one byte that names the layout
    blocks = ceil_div(rows * columns, BNB_BLOCK)
    if not form.double:
        return blocks * 4 + BNB_MAP_BYTES
    return blocks + ceil_div(blocks, BNB_NESTED_BLOCK) * 4 + BNB_NESTED_MAP_BYTES + BNB_MAP_BYTES
