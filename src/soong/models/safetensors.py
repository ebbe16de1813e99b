"""What a safetensors file holds, read from its header alone: names, types, shapes and sizes of its tensors.

A file begins with eight bytes, the length of the header, then the header in JSON, then the tensors. It comes
from strangers: nothing in it is believed before it is checked. Format: safetensors' README, "Format".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from soong.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from soong.models.quantization import Quantization

LENGTH_BYTES = 8
"""The little-endian length in front of the header."""

MOST_HEADER_BYTES = 100_000_000
"""The format's own limit: safetensors `tensor.rs`, MAX_HEADER_SIZE."""

MOST_DIMENSIONS = 32
MOST_TENSOR_ELEMENTS = 1 << 50

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of one number. Source: safetensors 0.7 `tensor.rs`, Dtype::bitsize."""

_decoder = msgspec.json.Decoder()


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor: its type as the file writes it, its shape, and where its bytes stand after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start_byte: int
    end_byte: int

    @property
    def elements(self) -> int:
        """Numbers in it; packed words count as one."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes it takes in the file."""
        return self.end_byte - self.start_byte


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What the tensors of a checkpoint come to.

    elements counts numbers as stored, packed words as one; `parameter_count` unpacks them.
    """

    tensors: int
    size_bytes: int
    elements: int
    bytes_by_dtype: dict[str, int]


def header_length(data: bytes, name: str) -> int:
    """The length of the header in bytes, from the first eight bytes of the file `name`.

    Raises:
        ConfigError: there are fewer than eight bytes, or no real header is that long.
    """
    if len(data) < LENGTH_BYTES:
        raise ConfigError(f"{name} is not a safetensors file", why=f"it is only {len(data)} bytes long")
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    if not 2 <= length <= MOST_HEADER_BYTES:
        raise ConfigError(f"{name} is not a safetensors file", why="the length of its header makes no sense")
    return length


def parse_header(data: bytes, name: str, *, file_bytes: int | None = None) -> tuple[TensorInfo, ...]:
    """The tensors of a file in the order of their bytes.

    Args:
        data: the start of the file, at least as far as the header goes.
        name: of the file, for messages.
        file_bytes: the size of the whole file, where it is known, to find out files that were cut off.

    Raises:
        ConfigError: the header is cut off, is not JSON, or contradicts itself or the file.
    """
    length = header_length(data, name)
    header = data[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(header) < length:
        raise ConfigError(f"{name} is cut off inside its header")
    try:
        rows = _decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{name} is not a safetensors file", why="its header is not JSON") from None
    if not isinstance(rows, dict):
        raise ConfigError(f"{name} is not a safetensors file", why="its header is not an object")
    tensors = [_tensor(key, row, name) for key, row in rows.items() if key != "__metadata__"]
    tensors.sort(key=lambda tensor: (tensor.start_byte, tensor.end_byte))
    _check_places(tensors, name, None if file_bytes is None else file_bytes - LENGTH_BYTES - length)
    return tuple(tensors)


def read_header(path: Path) -> tuple[TensorInfo, ...]:
    """The tensors of a file on disk; reads its header alone.

    Raises:
        ConfigError: it cannot be read, or `parse_header` refuses it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(LENGTH_BYTES)
            header = file.read(header_length(start, str(path)))
            file_bytes = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"cannot read {path}", why=error.strerror or str(error)) from None
    return parse_header(start + header, str(path), file_bytes=file_bytes)


def totals(tensors: Iterable[TensorInfo]) -> Totals:
    """The sums over all tensors of a checkpoint."""
    count = size_bytes = elements = 0
    by_dtype: dict[str, int] = {}
    for tensor in tensors:
        count += 1
        size_bytes += tensor.size_bytes
        elements += tensor.elements
        by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + tensor.size_bytes
    return Totals(tensors=count, size_bytes=size_bytes, elements=elements, bytes_by_dtype=by_dtype)


_BESIDE_WEIGHTS = (
    ".qzeros", ".scales", ".g_idx", ".perm",
    ".weight_scale", ".weight_scale_inv", ".weight_scale_2", ".weight_zero_point", ".weight_shape",
    ".weight_g_idx", ".weight_global_scale", ".input_global_scale", ".input_scale", ".input_zero_point",
    ".output_scale", ".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".activation_scale",
    ".SCB", ".weight_format", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", "_scale_inv",
)  # fmt: skip
"""Endings of tensors that describe how others are packed. Sources: vLLM 0.33 `layers/quantization/*.py`,
bitsandbytes `QuantState.as_dict`."""

_PACKED_ENDINGS = (".qweight", ".weight_packed", "_packed", "_blocks")
_WORD_BITS = {"I32": 32, "U32": 32, "U8": 8, "I8": 8}


def parameter_count(tensors: Iterable[TensorInfo], quantization: Quantization) -> int:
    """Numbers of the model itself: packed words are unpacked, scales and zero points left out.

    Args:
        tensors: of all files of the checkpoint.
        quantization: as the repository's config declares it; says how many bits a packed number has.
    """
    packed_bits = _packed_bits(quantization)
    method = quantization.method
    own = (tensor for tensor in tensors if not _is_beside(tensor.name, method))
    return sum(_numbers(tensor, packed_bits, method) for tensor in own)


def _packed_bits(quantization: Quantization) -> float:
    forms = (quantization.default, *quantization.formats)
    return min((form.bits for form in forms if form is not None and form.bits <= 8), default=0.0)


def _is_beside(name: str, method: str) -> bool:
    if name.endswith(_BESIDE_WEIGHTS) or ".quant_state." in name:
        return True
    return (method == "mxfp4" and name.endswith("_scales")) or (method == "mlx" and name.endswith(".biases"))


def _numbers(tensor: TensorInfo, packed_bits: float, method: str) -> int:
    word_bits = _WORD_BITS.get(tensor.dtype)
    if word_bits is None or not packed_bits:
        return tensor.elements
    is_packed = tensor.name.endswith(_PACKED_ENDINGS)
    if is_packed or (tensor.name.endswith(".weight") and tensor.dtype != "I8"):
        per_word = word_bits / packed_bits if method == "mlx" else float(int(word_bits // packed_bits))
        return int(tensor.elements * per_word)
    return tensor.elements


def _tensor(key: str, row: Any, name: str) -> TensorInfo:
    if not isinstance(row, dict):
        raise _bad(name, key, "it is not an object")
    dtype, shape, offsets = row.get("dtype"), row.get("shape"), row.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _bad(name, key, "its type is not known")
    sizes = _sizes(shape)
    if sizes is None or len(sizes) > MOST_DIMENSIONS:
        raise _bad(name, key, "its shape is not a list of sizes")
    place = _sizes(offsets)
    if place is None or len(place) != 2 or place[0] > place[1]:
        raise _bad(name, key, "its place in the file makes no sense")
    tensor = TensorInfo(key, dtype, sizes, *place)
    if tensor.elements > MOST_TENSOR_ELEMENTS or tensor.elements * DTYPE_BITS[dtype] != tensor.size_bytes * 8:
        raise _bad(name, key, "its shape and its size in the file do not agree")
    return tensor


def _sizes(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 1 << 63 for item in value):
        return None
    return tuple(value)


def _check_places(tensors: list[TensorInfo], name: str, data_bytes: int | None) -> None:
    """The format allows neither overlaps nor holes: safetensors `tensor.rs`, Metadata::validate."""
    end = 0
    for tensor in tensors:
        if tensor.start_byte != end:
            problem = "overlaps another" if tensor.start_byte < end else "leaves a hole before it"
            raise _bad(name, tensor.name, f"it {problem}")
        end = tensor.end_byte
    if data_bytes is not None and end > data_bytes:
        why = f"its header promises {end:,} bytes of tensors, the file holds {max(0, data_bytes):,}"
        raise ConfigError(f"{name} is cut off", why=why)


def _bad(name: str, key: str, why: str) -> ConfigError:
    shown = key if len(key) <= 80 else f"{key[:77]}..."
    return ConfigError(f"{name} is not a sound safetensors file", why=f"tensor `{shown}`: {why}")
