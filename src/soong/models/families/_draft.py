"""Multi-token-prediction layers: in the checkpoint, but no engine loads them without speculative decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.models.architecture import Weight


def draft(weights: Iterable[Weight]) -> list[Weight]:
    """The same weights, marked as part of a draft layer that is not served by default."""
    return [replace(weight, part="mtp", served=False) for weight in weights]
