"""Where clouds have machines, as far as anybody knows: prices that hold everywhere do not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.offers.offer import Offer

REGIONS = {
    "lambda": (
        "us-east-1",
        "us-west-1",
        "us-west-2",
        "us-west-3",
        "us-south-2",
        "us-south-3",
        "us-midwest-1",
        "europe-central-1",
        "asia-south-1",
        "asia-northeast-1",
        "asia-northeast-2",
        "me-west-1",
        "australia-east-1",
    )
}
"""Of clouds whose prices hold everywhere. Lambda's as its instance-types answer of 2025-11-22 names them: its API names
a region only where something is free, so a full one is not listed. One that is listed live counts as well."""


def known_regions(cloud: str, offers: Iterable[Offer]) -> set[str]:
    """Where a cloud is known to have machines; none where its prices name no region."""
    named = {offer.region for offer in offers if offer.cloud == cloud and offer.region}
    return {*named, *REGIONS.get(cloud, ())}


def there(offers: Sequence[Offer], region: str) -> list[Offer]:
    """Those of clouds that have a region, or whose regions nobody knows.

    Raises:
        NotFoundError: there is no such region; of clouds whose regions are all known.
    """
    known = {cloud: known_regions(cloud, offers) for cloud in {offer.cloud for offer in offers}}
    if known and {*known} <= {*REGIONS}:
        check_region(region, set().union(*known.values()))
    return [offer for offer in offers if not known[offer.cloud] or region in known[offer.cloud]]


def check_region(name: str, names: Iterable[str]) -> None:
    """Make sure that there is a region of that name: a wait for room in one that does not exist would never end.

    Raises:
        NotFoundError: no such region; names the nearest.
    """
    ordered = sorted(set(names))
    if name in ordered:
        return
    from difflib import get_close_matches

    near = get_close_matches(name, ordered, n=1)
    hints = (f"did you mean `--region {near[0]}`?",) if near else ()
    raise NotFoundError(f"there is no region `{name}`", hints=(*hints, "regions: " + ", ".join(ordered)))
