"""Round figures on a logarithmic axis, and how they are written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = (1, 2, 5)
"""Of each power of ten: round figures that stand evenly on a logarithmic axis."""

LEAST_TICKS, MOST_TICKS = 3, 8
"""Fewer are no scale that could be read; more do not stand apart."""

DOLLARS_WITH_CENTS = 10


def tick_words(ticks: Sequence[float], *, cents: bool = False) -> list[str]:
    """`1,000`, `50`, `2.5`; dollars that stand closer than one to the next with their cents, `2.00`, `2.50`."""
    parts = cents and any(value != int(value) for value in ticks) and max(ticks) < DOLLARS_WITH_CENTS
    return [f"{value:,.2f}" if parts or (cents and value < 1) else f"{value:,.10g}" for value in ticks]


def round_figures(low: float, high: float, *, most: int = MOST_TICKS) -> list[float]:
    """Round figures between two limits of a logarithmic axis, at least three: a scale of one or two cannot be read.

    1, 2, 5, 10, ...; powers of ten alone where those are too many; even steps where they are too few.
    """
    found = one_two_five(low, high)
    if len(found) > most:
        tens = [value for value in found if math.log10(value).is_integer()]
        return tens if len(tens) >= LEAST_TICKS else found
    return found if len(found) >= LEAST_TICKS else _even_steps(low, high)


def one_two_five(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two limits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = (float(f"{step}e{power}") for power in powers for step in STEPS)
    return [value for value in every if low <= value <= high]


def _even_steps(low: float, high: float) -> list[float]:
    """Multiples of the largest round step of which at least three lie between the limits."""
    power = math.ceil(math.log10(high - low))
    while True:
        for step in (float(f"{first}e{power}") for first in reversed(STEPS)):
            multiples = range(math.ceil(low / step), math.floor(high / step) + 1)
            if len(multiples) >= LEAST_TICKS:
                return [float(f"{number * step:.12g}") for number in multiples]
        power -= 1
