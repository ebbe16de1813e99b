"""Which of our GPUs a cloud's offer has, by gpuhunt's name of the chip, the memory, and the cloud's name of the type.

An A100 of 80 GB may sit on PCIe or on NVLink, and costs and does different things there. gpuhunt names only the chip
and the gigabytes, so the rest comes from the type's own name; where that does not tell either, the offer is left out
and counted, never guessed.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from soong.offers.price_sources import price_sources

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from soong.offers.price_sources import VariantRule


class Known(NamedTuple):
    """What our tables say: the ids there are, and the GPUs of the types that prices.toml names by (cloud, type)."""

    gpus: Collection[str]
    types: Mapping[tuple[str, str], str]


class Unmapped(NamedTuple):
    """Why an offer has no GPU of ours: `A16 16 GB` and the reason."""

    name: str
    reason: str


NO_ROW = "no such GPU in soong's table"
NOT_TOLD = "the cloud does not tell which variant"
A_SLICE = "a slice of the card, or a size that is not known"


def gpu_of(cloud: str, instance_type: str, chip: str, memory_gb: float, known: Known) -> str | Unmapped:
    """Our id of the GPU of an offer, or why there is none.

    Args:
        cloud: ours. instance_type: the cloud's own name. chip: gpuhunt's `gpu_name`. memory_gb: of one GPU, as stated.
        known: our tables.
    """
    name = f"{chip or 'nameless'} {memory_gb:g} GB"
    variants = price_sources().chips.get(chip, ())
    if not variants:
        return Unmapped(name, NO_ROW)
    sized = [gpu for gpu in variants if _is_size(gpu, memory_gb)]
    if not sized:
        return Unmapped(name, A_SLICE)
    meant = _variants_of_type(cloud, instance_type, sized, known)
    if len(meant) != 1:
        return Unmapped(name, NOT_TOLD)
    return meant[0] if meant[0] in known.gpus else Unmapped(name, NO_ROW)


def _variants_of_type(cloud: str, instance_type: str, sized: Sequence[str], known: Known) -> Sequence[str]:
    if len(sized) == 1:
        return sized
    listed = known.types.get((cloud, instance_type))
    if listed is not None and listed in sized:
        return [listed]
    sources = price_sources()
    for rule in (*sources.type, *sources.word):
        if rule.cloud in {"", cloud} and _pattern(rule).match(instance_type):
            return [gpu for gpu in sized if gpu.endswith(rule.suffix)]
    return sized


@cache
def _pattern(rule: VariantRule) -> re.Pattern[str]:
    """Rules of a cloud fit the beginning of a type's name; words of any cloud fit anywhere, in any case."""
    return re.compile(rule.match) if rule.cloud else re.compile(f".*(?:{rule.match})", re.IGNORECASE)


def _is_size(gpu: str, memory_gb: float) -> bool:
    found = _SIZE.search(gpu)
    bounds = price_sources().memory
    label = float(found[1]) if found else 0.0
    return bounds.least * label <= memory_gb <= bounds.most * label


_SIZE = re.compile(r"-(\d+)gb")
