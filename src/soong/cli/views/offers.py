"""Machines for rent on the screen: which of them are meant, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from soong.cli import text
from soong.cli.views import elsewhere
from soong.gpus.catalogue import find_gpu
from soong.offers import freshness
from soong.offers.price_sources import freshness_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from soong.offers.offer import Offer


def select(
    offers: Iterable[Offer],
    *,
    gpu: str | None = None,
    cloud: str | None = None,
    region: str | None = None,
    max_usd_per_hour: float | None = None,
    spot: bool | None = None,
    prices_hold_everywhere: bool = False,
) -> list[Offer]:
    """Those that a person means, cheapest first.

    Args:
        offers: to choose from. gpu: any name of a GPU, or a cloud's type name. cloud, region: as the offers have it.
        max_usd_per_hour: for the whole machine. spot: only such prices, or none of them; None for both.
        prices_hold_everywhere: an offer without a region is one in every region, and not one that is free in none.

    Raises:
        NotFoundError: there is no such GPU.
    """
    offers = tuple(offers)
    wanted = None if gpu is None else _meant(gpu, offers)
    regions = {None, region} if prices_hold_everywhere else {region}
    found = (
        offer
        for offer in offers
        if (wanted is None or wanted in {offer.instance_type, offer.gpu})
        and (cloud is None or offer.cloud == cloud)
        and (region is None or offer.region in regions)
        and (max_usd_per_hour is None or offer.usd_per_hour <= max_usd_per_hour)
        and (spot is None or offer.spot is spot)
    )
    return sorted(found, key=lambda offer: (offer.usd_per_hour, offer.instance_type, offer.region or ""))


def _meant(word: str, offers: Sequence[Offer]) -> str:
    """A type name or GPU id of the offers; a person's other names for a GPU become its id."""
    if any(word in {offer.instance_type, offer.gpu} for offer in offers):
        return word
    return find_gpu(word).id


WIDE = 100
SPARED = (0, 5)
"""What the table of one cloud does without where the screen has fewer than `WIDE` columns: its name, and a quotient."""


def table(offers: Sequence[Offer]) -> str:
    """Offers of dated lists; of the columns that a narrow screen has no room for, the ones that can be spared go."""
    columns = {
        "Cloud": [offer.cloud for offer in offers],
        "Type": [offer.instance_type for offer in offers],
        "GPUs": [str(offer.gpu_count) for offer in offers],
        "GPU": [_gpu(offer) for offer in offers],
        "$/hour": [f"{offer.usd_per_hour:.2f}" for offer in offers],
        "$/GPU-hour": [f"{offer.usd_per_hour / offer.gpu_count:.2f}" for offer in offers],
        "As of": [age(offer) for offer in offers],
        "Region": [offer.region or "" for offer in offers],
        "Notes": [notes(offer) for offer in offers],
    }
    shown = _with_room({name: cells for name, cells in columns.items() if any(cells)})
    return text.table(
        list(shown),
        list(zip(*shown.values(), strict=True)),
        title="Offers",
        right=[place for place, name in enumerate(shown) if name in {"GPUs", "$/hour", "$/GPU-hour"}],
        whole=[place for place, name in enumerate(shown) if name in {"Type", "As of"}],
    )


def _with_room(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """The columns for this screen: without a quotient, then without the name of an only cloud, where it is narrow."""
    spared = ["Region", "$/GPU-hour"] + ["Cloud"] * (len(set(columns["Cloud"])) == 1)
    shown = dict(columns)
    for name in spared:
        widths = [max(map(text.width, (head, *cells))) for head, cells in shown.items()]
        if sum(widths) + 3 * len(shown) + 1 <= text.screen_width():
            break
        shown.pop(name, None)
    return shown


def notes(offer: Offer) -> str:
    """`spot`, `price only`, both, or nothing."""
    return ", ".join(
        word for word, holds in (("spot", offer.spot), ("price only", not offer.launchable)) if holds
    )


def age(offer: Offer) -> str:
    """`live`, the day of the price, or its age in yellow where it is stale."""
    words = freshness.age_words(offer)
    return text.style(words, "yellow") if freshness.is_stale(offer) else words


def remarks(offers: Sequence[Offer], unmapped: Mapping[str, int]) -> list[str]:
    """What a person must know of these offers: which are old, which are prices only, and what is not listed.

    Args:
        offers: the ones shown. unmapped: offers of their clouds without a GPU of ours, by name and reason.
    """
    lines = []
    stale = [offer for offer in offers if freshness.is_stale(offer)]
    if stale:
        days = freshness_rule()
        lines.append(
            f"Old prices, {len(stale)} of {len(offers)}: a list price lasts about {days.on_demand_days} days, a spot"
            f" price {days.moving_days}. Newer ones: `soong offers --live` (Lambda, with your key) or"
            " `soong offers --refresh`"
        )
    clouds = sorted({offer.cloud for offer in offers if not offer.launchable})
    by_tool: dict[str, list[str]] = {}
    for cloud in clouds:
        by_tool.setdefault(elsewhere.tool_at(cloud), []).append(cloud)
    lines += [
        f"Price only, soong does not rent there; for {', '.join(names)}: soong export {tool} MODEL --cloud {names[0]}"
        for tool, names in by_tool.items()
    ]
    if unmapped:
        lines.append(_not_listed(unmapped))
    return lines


def _not_listed(unmapped: Mapping[str, int]) -> str:
    by_reason: dict[str, list[str]] = {}
    for key, count in unmapped.items():
        name, _, reason = key.partition(": ")
        by_reason.setdefault(reason, []).append(f"{name} ({count:,})")
    parts = [
        f"{reason}: {', '.join(names[:MOST_NAMES])}{', ...' if len(names) > MOST_NAMES else ''}"
        for reason, names in by_reason.items()
    ]
    return f"Offers not listed, {sum(unmapped.values()):,}; " + "; ".join(parts)


MOST_NAMES = 5
"""How many kinds of offers that are not listed are named for each reason."""


def documents(offers: Iterable[Offer]) -> list[dict[str, Any]]:
    """Offers as scripts see them: every field, and the age of the price."""
    day = freshness.today()
    return [
        {**asdict(offer), "age_days": freshness.age_days(offer, day), "stale": freshness.is_stale(offer, day)}
        for offer in offers
    ]


def live_table(offers: Iterable[Offer], *, title: str) -> str:
    """Offers as the cloud tells them now: one row a type, with the regions where one is free."""
    regions: dict[str, list[str]] = {}
    rows: dict[str, Offer] = {}
    for offer in offers:
        rows.setdefault(offer.instance_type, offer)
        regions.setdefault(offer.instance_type, []).extend([offer.region] if offer.region else [])
    heads = ["Cloud", "Type", "GPUs", "GPU", "$/hour", "$/GPU-hour", "Free now in"]
    shown = [place for place in range(len(heads)) if place not in SPARED or text.screen_width() >= WIDE]
    cells = [
        [*_row(offer), ", ".join(regions[name]) or text.style("nowhere", "dim")]
        for name, offer in rows.items()
    ]
    return text.table(
        [heads[place] for place in shown],
        [[row[place] for place in shown] for row in cells],
        title=title,
        right=[index for index, place in enumerate(shown) if place in {2, 4, 5}],
        whole=[shown.index(1)],
    )


def _row(offer: Offer) -> list[str]:
    return [
        offer.cloud,
        offer.instance_type,
        str(offer.gpu_count),
        _gpu(offer),
        f"{offer.usd_per_hour:.2f}",
        f"{offer.usd_per_hour / offer.gpu_count:.2f}",
    ]


def _gpu(offer: Offer) -> str:
    return offer.gpu + (" (arm64 host)" if offer.cpu_architecture == "arm64" else "")
