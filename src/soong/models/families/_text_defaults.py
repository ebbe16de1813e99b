"""What each configuration class assumes of a text section that leaves a size out: `data/text_defaults.toml`."""

from __future__ import annotations

from typing import Any

from soong import tables


def text_defaults() -> dict[str, dict[str, Any]]:
    """The values that a section was saved without, by its `model_type`; read once in a process."""
    found: dict[str, dict[str, Any]] = tables.packaged_document("text_defaults", dict[str, dict[str, Any]])
    return found
