"""Writes safetensors headers, and files whose tensors are holes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from soong.models.safetensors import DTYPE_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def header_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], *, padding: int = 0
) -> tuple[bytes, int]:
    """The start of a file with these tensors, and the bytes of tensors that follow it."""
    rows: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, (dtype, shape) in tensors.items():
        elements = 1
        for size in shape:
            elements *= size
        end = place + elements * DTYPE_BITS[dtype] // 8
        rows[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, end]}
        place = end
    header = json.dumps(rows).encode() + b" " * padding
    return len(header).to_bytes(8, "little") + header, place


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> Path:
    start, data_bytes = header_bytes(tensors)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + data_bytes)
    return path
