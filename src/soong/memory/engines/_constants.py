"""Measured constants and moved defaults of engines, picked by version; the table is data/engines.toml."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from soong.errors import UsageError
from soong.tables import packaged_document


@lru_cache(maxsize=512)
def version_tuple(text: str) -> tuple[int, ...]:
    """A version as numbers for comparison: "0.19.2rc1.dev134" is (0, 19, 2), "0.20" is (0, 20, 0), "b7100" is (7100,).

    Raises:
        UsageError: no number stands in it.
    """
    numbers: list[int] = []
    for part in text.lstrip("vb").split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    if not numbers:
        raise UsageError(
            f"`{text}` is not an engine version", hints=("write it as `--engine-version 0.33.0`",)
        )
    missing = 3 - len(numbers) if len(numbers) > 1 else 0  # a build of llama.cpp is one number
    return (*numbers, *[0] * missing)


@lru_cache(maxsize=1)
def engine_tables() -> dict[str, Any]:
    """The whole table, by engine."""
    document: dict[str, Any] = packaged_document("engines", dict)
    return document


@lru_cache(maxsize=256)
def rules(engine: str, version: str) -> dict[str, Any]:
    """The values in force for one version: every dated table up to it, later ones over earlier."""
    asked = version_tuple(version)
    merged: dict[str, Any] = {}
    for table in engine_tables()[engine]["since"]:
        if version_tuple(table["version"]) <= asked:
            merged.update(table)
    return merged


def by_group_size(pairs: list[list[int]], gpus: int) -> int:
    """The value of a `[[gpus, bytes], ...]` list for a tensor-parallel size: the last entry not above it."""
    value = 0
    for least, entry in pairs:
        if gpus >= least:
            value = entry
    return value
