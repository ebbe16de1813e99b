"""Machines for rent on the screen: which of them are meant, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.cli import text
from soong.gpus.catalogue import find_gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.offers.offer import Offer


def select(
    offers: Iterable[Offer],
    *,
    gpu: str | None = None,
    cloud: str | None = None,
    region: str | None = None,
    max_usd_per_hour: float | None = None,
) -> list[Offer]:
    """Those that a person means, cheapest first.

    Args:
        offers: to choose from. gpu: any name of a GPU, or a cloud's type name. cloud, region: as the offers have it.
        max_usd_per_hour: for the whole machine.

    Raises:
        NotFoundError: there is no such GPU.
    """
    offers = tuple(offers)
    wanted = None if gpu is None else _meant(gpu, offers)
    found = (
        offer
        for offer in offers
        if (wanted is None or wanted in {offer.instance_type, offer.gpu})
        and (cloud is None or offer.cloud == cloud)
        and (region is None or offer.region == region)
        and (max_usd_per_hour is None or offer.usd_per_hour <= max_usd_per_hour)
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


def packaged_table(offers: Iterable[Offer]) -> str:
    """Offers of the dated list."""
    return text.table(
        ["Cloud", "Type", "GPUs", "GPU", "$/hour", "$/GPU-hour", "Price as of"],
        [[*_row(offer), "live" if offer.live else offer.as_of] for offer in offers],
        title="Offers",
        right=(2, 4, 5),
        whole=(1,),
    )


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
    arm = " (arm64 host)" if offer.cpu_architecture == "arm64" else ""
    return [
        offer.cloud,
        offer.instance_type,
        str(offer.gpu_count),
        offer.gpu + arm,
        f"{offer.usd_per_hour:.2f}",
        f"{offer.usd_per_hour / offer.gpu_count:.2f}",
    ]
