"""Writes small GGUF files whose tensors are holes: sizes are real, the disk stays empty."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from soong.models.gguf import GGML_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TYPE_NUMBERS = {name: number for number, (name, _, _) in GGML_TYPES.items()}
ALIGNMENT = 32


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value_bytes(value: Any) -> bytes:
    """A metadata value with its type in front."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<IQ", 10, value) if value >= 1 << 31 else struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(item) for item in value)
    kind, form = (7, "<?") if isinstance(value[0], bool) else (5, "<i")
    return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(struct.pack(form, item) for item in value)


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[tuple[str, tuple[int, ...], str]],
    *,
    version: int = 3,
) -> Path:
    """Tensors are (name, shape as (out, in), ggml type)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(text(key) + value_bytes(value) for key, value in metadata.items())
    offset = 0
    for name, shape, kind in tensors:
        number = TYPE_NUMBERS[kind]
        _, block, block_bytes = GGML_TYPES[number]
        elements = 1
        for size in shape:
            elements *= size
        head += text(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        head += struct.pack("<IQ", number, offset)
        offset += -(-(elements // block * block_bytes) // ALIGNMENT) * ALIGNMENT
    start = -(-len(head) // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as file:
        file.write(head)
        file.truncate(start + offset)
    return path
