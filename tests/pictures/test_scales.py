"""Scales that can be read: round figures, never fewer than three, never a crowd."""

from __future__ import annotations

import math

import pytest

from soong.pictures.scales import round_figures, tick_words


def test_round_figures_of_an_axis() -> None:
    assert round_figures(0.8, 30) == [1, 2, 5, 10, 20]
    assert round_figures(0.8, 3000) == [1, 10, 100, 1000]
    assert round_figures(39.6, 91) == [40, 60, 80]
    assert round_figures(95, 155) == [100, 120, 140]


@pytest.mark.parametrize("ratio", [1.2, 1.5, 1.75, 2.3, 3, 5, 9, 12, 60, 400, 900, 20_000, 3e6])
def test_there_are_always_three_and_never_too_many(ratio: float) -> None:
    for place in range(200):
        low = 0.013 * 1.09**place
        ticks = round_figures(low, low * ratio)
        assert 3 <= len(ticks) <= 9, (low, low * ratio, ticks)
        assert all(low <= tick <= low * ratio for tick in ticks)
        assert ticks == sorted(set(ticks))
        assert all(len(f"{tick / 10 ** math.floor(math.log10(tick)):.6g}") <= 4 for tick in ticks), ticks
        words = tick_words(ticks)
        assert len(set(words)) == len(words)


def test_dollars_have_cents_where_they_are_close() -> None:
    assert tick_words([1.0, 1.2, 1.4], cents=True) == ["1.00", "1.20", "1.40"]
    assert tick_words([0.5, 1, 2], cents=True) == ["0.50", "1.00", "2.00"]
    assert tick_words([1, 10, 1000], cents=True) == ["1", "10", "1,000"]
    assert tick_words([1.5, 2, 2.5]) == ["1.5", "2", "2.5"]
