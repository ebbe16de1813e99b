"""A `.gguf` file: its metadata and its table of tensors.

The tensors themselves are never read. Every count and length in the file is checked against limits and
against the file's own size before anything is made of it. Sources: llama.cpp `ggml/include/gguf.h` (layout),
`ggml/src/ggml.c` (type_traits: block sizes), `gguf-py/gguf/constants.py` (keys), `src/llama-hparams.cpp`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from struct import Struct, error
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from soong.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""Version 1 had 32-bit counts; no file of it is left on the Hub, and llama.cpp refuses it."""

MOST_TENSORS = 1 << 17
MOST_KEYS = 1 << 14
MOST_KEY_BYTES = 1 << 16
"""llama.cpp's own limit on key names: `gguf.cpp`, 65535."""

MOST_ARRAY_ITEMS = 1 << 22
"""Vocabularies have up to 300 thousand tokens and half a million merges."""

MOST_HEAD_BYTES = 1 << 28
"""Metadata and table together; the largest real ones, with a vocabulary inside, are about 20 MB."""

MOST_KEPT_ITEMS = 4096
"""Longer arrays hold vocabularies, not sizes of layers: they are walked over."""

MOST_DIMENSIONS = 4
"""GGML_MAX_DIMS."""

MOST_FILES = 1000
DEFAULT_ALIGNMENT = 32
"""GGUF_DEFAULT_ALIGNMENT."""

GGML_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
"""Number of a type to its name, the numbers in a block and the bytes of a block: `ggml.c` type_traits,
`ggml-common.h` block_*."""

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""`general.file_type` to the word in file names: llama.cpp `include/llama.h` llama_ftype."""

_U32, _U64 = Struct("<I"), Struct("<Q")
_SCALARS = {
    0: Struct("<B"), 1: Struct("<b"), 2: Struct("<H"), 3: Struct("<h"), 4: _U32, 5: Struct("<i"),
    6: Struct("<f"), 7: Struct("<?"), 10: _U64, 11: Struct("<q"), 12: Struct("<d"),
}  # fmt: skip
_STRING, _ARRAY = 8, 9
"""gguf_type numbers: `gguf.h`."""


class GgufTensor(msgspec.Struct, frozen=True):
    """One tensor: `shape` is (out, in) as elsewhere in soong, the reverse of the file's order."""

    name: str
    type: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


class GgufFile(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a model's file, or all files of a split model, say.

    metadata: keys with their values; of long arrays (vocabularies) only the number of items, under `KEY#`.
    tensors: of all files.
    """

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture_name(self) -> str:
        """The value of `general.architecture`."""
        name = self.metadata.get("general.architecture")
        return name if isinstance(name, str) else ""

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors, without padding between them."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bytes_by_type(self) -> dict[str, int]:
        """Bytes of tensors by ggml type."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            found[tensor.type] = found.get(tensor.type, 0) + tensor.size_bytes
        return found

    @property
    def label(self) -> str:
        """The word for the mix of types that stands in file names: Q4_K_M; else the type of most bytes."""
        stated = self.metadata.get("general.file_type")
        if isinstance(stated, int) and stated in FILE_TYPES:
            return FILE_TYPES[stated]
        by_type = self.bytes_by_type
        return max(by_type, key=lambda name: by_type[name]) if by_type else "GGUF"


def read_gguf(path: Path) -> GgufFile:
    """The metadata and tensor table of a model; of all its files where it is split (`-00001-of-00003.gguf`).

    The answer is kept until a file changes its time or size.

    Raises:
        ConfigError: a file cannot be read, is missing, cut off, of an unknown version, or contradicts itself.
    """
    files = split_files(path)
    states = []
    for file in files:
        try:
            stat = file.stat()
        except OSError as problem:
            raise ConfigError(f"cannot read {file}", why=problem.strerror or str(problem)) from None
        states.append((file, stat.st_mtime_ns, stat.st_size))
    return _read_all(tuple(states))


_SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def split_files(path: Path) -> tuple[Path, ...]:
    """All files of the model that `path` belongs to, in order; just `path` where it is not split."""
    found = _SPLIT_NAME.fullmatch(path.name)
    if found is None or not 1 < int(found[3]) <= MOST_FILES:
        return (path,)
    stem, count = found[1], int(found[3])
    return tuple(path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1))


@lru_cache(maxsize=256)
def _read_all(states: tuple[tuple[Path, int, int], ...]) -> GgufFile:
    files = [_read_one(path, size) for path, _, size in states]
    tensors = tuple(tensor for file in files for tensor in file.tensors)
    if not tensors:
        raise ConfigError(f"{states[0][0]} holds no tensors", why="it may be a vocabulary alone")
    return GgufFile(metadata=files[0].metadata, tensors=tensors)


def _read_one(path: Path, file_bytes: int) -> GgufFile:
    try:
        with path.open("rb") as file:
            return _parse(_Cursor(file, file_bytes, str(path)))
    except OSError as problem:
        raise ConfigError(f"cannot read {path}", why=problem.strerror or str(problem)) from None
    except (error, UnicodeDecodeError, OverflowError) as problem:
        raise ConfigError(f"{path} is not a sound GGUF file", why=str(problem)) from None


class _Cursor:
    """Reads forward through the start of a file and refuses to leave it."""

    __slots__ = ("_buffer", "_file", "_position", "file_bytes", "items_left", "name")

    def __init__(self, file: BinaryIO, file_bytes: int, name: str) -> None:
        self._file = file
        self._buffer = b""
        self._position = 0
        self.file_bytes = file_bytes
        self.name = name
        self.items_left = MOST_ARRAY_ITEMS

    @property
    def position(self) -> int:
        return self._position

    def fail(self, why: str) -> ConfigError:
        return ConfigError(f"{self.name} is not a sound GGUF file", why=why)

    def _have(self, count: int) -> None:
        """Make sure that `count` more bytes are in the buffer."""
        end = self._position + count
        if end <= len(self._buffer):
            return
        if end > self.file_bytes:
            raise ConfigError(f"{self.name} is cut off", why="it ends inside its own description")
        if end > MOST_HEAD_BYTES:
            raise self.fail(f"its description is longer than {MOST_HEAD_BYTES:,} bytes")
        self._buffer += self._file.read(max(end - len(self._buffer), len(self._buffer), 1 << 20))
        if end > len(self._buffer):
            raise ConfigError(f"{self.name} is cut off", why="it ends inside its own description")

    def take(self, count: int) -> bytes:
        self._have(count)
        self._position += count
        return self._buffer[self._position - count : self._position]

    def number(self, form: Struct) -> Any:
        self._have(form.size)
        (value,) = form.unpack_from(self._buffer, self._position)
        self._position += form.size
        return value

    def skip(self, count: int) -> None:
        self._have(count)
        self._position += count

    def text(self, most: int = 1 << 24) -> str:
        length = self.number(_U64)
        if length > most:
            raise self.fail("a text in it is absurdly long")
        return self.take(length).decode("utf-8", "replace")

    def skip_texts(self, count: int) -> None:
        unpack = _U64.unpack_from  # the loop below runs over whole vocabularies
        for _ in range(count):
            if self._position + 8 > len(self._buffer):
                self._have(8)
            self._position += 8 + unpack(self._buffer, self._position)[0]
        self._have(0)


def _parse(cursor: _Cursor) -> GgufFile:
    if cursor.file_bytes < len(MAGIC) or cursor.take(len(MAGIC)) != MAGIC:
        raise ConfigError(f"{cursor.name} is not a GGUF file", why="it does not begin with the letters GGUF")
    version = cursor.number(_U32)
    if version not in VERSIONS:
        byte_order = " (big-endian files are not read)" if version >> 16 else ""
        raise cursor.fail(f"its version is {version}, soong reads 2 and 3{byte_order}")
    tensor_count, key_count = cursor.number(_U64), cursor.number(_U64)
    if tensor_count > MOST_TENSORS or key_count > MOST_KEYS:
        raise cursor.fail("it claims more tensors or keys than any model has")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.text(MOST_KEY_BYTES)
        _read_value(cursor, key, metadata)
    tensors, data_end = _read_table(cursor, tensor_count)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20:
        raise cursor.fail("its alignment makes no sense")
    start = -(-cursor.position // alignment) * alignment
    if tensors and start + data_end > cursor.file_bytes:
        why = f"its tensors end at byte {start + data_end:,}, the file has {cursor.file_bytes:,}"
        raise ConfigError(f"{cursor.name} is cut off", why=why)
    return GgufFile(metadata=metadata, tensors=tensors)


def _read_value(cursor: _Cursor, key: str, metadata: dict[str, Any]) -> None:
    kind = cursor.number(_U32)
    if kind == _STRING:
        metadata[key] = cursor.text()
    elif kind == _ARRAY:
        _read_array(cursor, key, metadata)
    elif kind in _SCALARS:
        metadata[key] = cursor.number(_SCALARS[kind])
    else:
        raise cursor.fail(f"the value of `{key[:80]}` has an unknown type")


def _read_array(cursor: _Cursor, key: str, metadata: dict[str, Any]) -> None:
    kind, count = cursor.number(_U32), cursor.number(_U64)
    cursor.items_left -= count
    if cursor.items_left < 0:
        raise cursor.fail(f"the list `{key[:80]}` is absurdly long")
    if kind == _STRING:
        cursor.skip_texts(count)
        metadata[f"{key}#"] = count
    elif kind not in _SCALARS:
        raise cursor.fail(f"`{key[:80]}` is a list of lists or of an unknown type")
    elif count > MOST_KEPT_ITEMS:
        cursor.skip(count * _SCALARS[kind].size)
        metadata[f"{key}#"] = count
    else:
        metadata[key] = tuple(cursor.number(_SCALARS[kind]) for _ in range(count))


def _read_table(cursor: _Cursor, count: int) -> tuple[tuple[GgufTensor, ...], int]:
    """The tensors, and where the last of them ends, counted from the first."""
    tensors = []
    data_end = 0
    names = set()
    for _ in range(count):
        tensor, offset = _read_tensor(cursor)
        if tensor.name in names:
            raise cursor.fail(f"tensor `{tensor.name}` stands in it twice")
        names.add(tensor.name)
        tensors.append(tensor)
        data_end = max(data_end, offset + tensor.size_bytes)
    return tuple(tensors), data_end


def _read_tensor(cursor: _Cursor) -> tuple[GgufTensor, int]:
    name = cursor.text(MOST_KEY_BYTES)
    dimensions = cursor.number(_U32)
    if dimensions > MOST_DIMENSIONS:
        raise cursor.fail(f"tensor `{name[:80]}` has {dimensions} dimensions")
    sizes = tuple(cursor.number(_U64) for _ in range(dimensions))
    kind, offset = cursor.number(_U32), cursor.number(_U64)
    if kind not in GGML_TYPES:
        raise cursor.fail(f"tensor `{name[:80]}` has type {kind}, which soong does not know")
    type_name, block, block_bytes = GGML_TYPES[kind]
    elements = 1
    for size in sizes:
        elements *= size
        if size == 0 or elements > 1 << 50:
            raise cursor.fail(f"the shape of tensor `{name[:80]}` makes no sense")
    if sizes and sizes[0] % block:
        raise cursor.fail(f"rows of tensor `{name[:80]}` do not divide into blocks of {block}")
    tensor = GgufTensor(name, type_name, tuple(reversed(sizes)), elements // block * block_bytes)
    return tensor, offset
