"""Repositories that bring code of their own, which the engine runs: `data/remote_code.toml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong import tables

if TYPE_CHECKING:
    from soong.models.resolved import ResolvedModel


class Repository(msgspec.Struct, frozen=True):
    """Models that vLLM and SGLang read with `--trust-remote-code` alone. why: what of it is code, for a person."""

    model_types: tuple[str, ...]
    why: str


class Table(msgspec.Struct, frozen=True):
    """`data/remote_code.toml`."""

    repository: tuple[Repository, ...]


def why_trusted(model: ResolvedModel) -> str:
    """What of the model's repository is code that must run; empty where nothing is."""
    model_type = (model.config or {}).get("model_type", "")
    rows = tables.packaged_document("remote_code", Table).repository
    return next((row.why for row in rows if model_type in row.model_types), "")
