"""How old a price is, and whether that is too old to be taken for today's.

The rule stands in `data/price_sources.toml`: list prices last about a month, spot prices and those of marketplaces a
day. A stale price is still shown and still counted with, since it is the best that is known; it is marked everywhere.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from soong.offers.price_sources import freshness_rule

if TYPE_CHECKING:
    from soong.offers.offer import Offer


def today() -> date:
    """This computer's day."""
    return date.today()  # noqa: DTZ011 - the person's own calendar


def age_days(offer: Offer, on: date | None = None) -> int | None:
    """Whole days since the price was read, 0 for a live one or one of tomorrow; None where its day is no date."""
    if offer.live:
        return 0
    try:
        read_on = date.fromisoformat(offer.as_of)
    except ValueError:
        return None
    return max(0, ((on or today()) - read_on).days)


def fresh_days(offer: Offer) -> int:
    """For how many days such a price counts as current."""
    rule = freshness_rule()
    moving = offer.spot or offer.cloud in rule.moving_clouds
    return rule.moving_days if moving else rule.on_demand_days


def is_stale(offer: Offer, on: date | None = None) -> bool:
    """Whether the price is older than such prices last, or of a day that cannot be read."""
    age = age_days(offer, on)
    return age is None or age > fresh_days(offer)


def age_words(offer: Offer, on: date | None = None) -> str:
    """`live`, the day `2026-11-09`, or `79 days old` where the price is stale."""
    if offer.live:
        return "live"
    age = age_days(offer, on)
    if age is None or age <= fresh_days(offer):
        return offer.as_of
    return "1 day old" if age == 1 else f"{age} days old"
