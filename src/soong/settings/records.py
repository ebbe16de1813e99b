"""Values that commands leave for one another, each in a file of its own, which only its owner reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from soong.settings import files, paths

if TYPE_CHECKING:
    from pathlib import Path

Record = TypeVar("Record", bound=msgspec.Struct)


def read(file: Path, kind: type[Record]) -> Record | None:
    """The value of a file; None where there is none, or none that can be understood."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def write(file: Path, record: Record) -> Record:
    """Leave a value in a file, whose folder is made; on disk when this returns, and given back.

    Raises:
        SoongError: it cannot be written; says what to do.
    """
    paths.made(file.parent)
    files.replace_text(file, msgspec.json.encode(record).decode(), new_mode=0o600)
    return record
