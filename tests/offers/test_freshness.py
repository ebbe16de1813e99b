"""A price says how old it is, and an old one is marked."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from soong.offers.freshness import age_days, age_words, fresh_days, is_stale
from soong.offers.offer import Offer

TODAY = date(2026, 11, 23)


def offer(as_of: str, **more: Any) -> Offer:
    fields: dict[str, Any] = {
        "cloud": "aws",
        "instance_type": "p5.48xlarge",
        "gpu": "h100-80gb-sxm5",
        "gpu_count": 8,
        "usd_per_hour": 55.04,
        "as_of": as_of,
        "source": "a test",
    }
    return Offer(**(fields | more))


@pytest.mark.parametrize(
    ("made", "words", "stale"),
    [
        (offer("2026-11-23"), "2026-11-23", False),
        (offer("2026-10-24"), "2026-10-24", False),
        (offer("2026-10-23"), "31 days old", True),
        (offer("2026-09-05"), "79 days old", True),
        (offer("2026-11-22", spot=True), "2026-11-22", False),
        (offer("2026-11-21", spot=True), "2 days old", True),
        (offer("2026-11-21", cloud="vastai"), "2 days old", True),
        (offer("2026-11-24"), "2026-11-24", False),
        (offer("2020-01-01", live=True), "live", False),
        (offer("yesterday?"), "yesterday?", True),
    ],
    ids=lambda value: value.as_of if isinstance(value, Offer) else None,
)
def test_the_words_and_the_mark(made: Offer, words: str, stale: bool) -> None:
    assert age_words(made, TODAY) == words
    assert is_stale(made, TODAY) is stale


def test_a_day_past_the_limit_is_the_first_stale_one() -> None:
    for spot in (False, True):
        limit = fresh_days(offer("2026-11-23", spot=spot))
        for days in (limit, limit + 1):
            made = offer((TODAY - timedelta(days=days)).isoformat(), spot=spot)
            assert age_days(made, TODAY) == days
            assert is_stale(made, TODAY) is (days > limit)
