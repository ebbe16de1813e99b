"""`soong offers`: machines for rent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output, text
from soong.errors import NothingFitsError
from soong.gpus.catalogue import find_gpu
from soong.offers.snapshot import packaged_offers

if TYPE_CHECKING:
    from soong.offers.offer import Offer


@click.command(
    "offers",
    epilog="\b\nExamples:\n  soong offers --max-price 2.50\n  soong offers --gpu h100-80gb-sxm5 --json\n",
)
@click.option("--gpu", help="Only this GPU, by id or by a cloud's type name.")
@click.option("--cloud", help="Only this cloud.")
@click.option("--max-price", help="Only up to this many dollars an hour.")
@output.options
def command(gpu: str | None, cloud: str | None, max_price: str | None, out: output.Output) -> None:
    """Machines for rent and their prices, cheapest first; a dated list that needs no network."""
    most = units.parse_usd(max_price, what="`--max-price`") if max_price is not None else None
    offers = sorted(
        (offer for offer in packaged_offers() if _matches(offer, gpu, cloud, most)),
        key=lambda offer: (offer.usd_per_hour, offer.instance_type),
    )
    if not offers:
        raise NothingFitsError("no offer matches", hints=("soong offers",))
    out.answer(
        data=lambda: offers,
        ids=[offer.instance_type for offer in offers],
        human=lambda: text.table(
            ["Cloud", "Type", "GPUs", "GPU", "$/hour", "$/GPU-hour", "Price as of"],
            [_row(offer) for offer in offers],
            title="Offers",
            right=(2, 4, 5),
        ),
    )


def _matches(offer: Offer, gpu: str | None, cloud: str | None, most: float | None) -> bool:
    return (
        (gpu is None or offer.instance_type == gpu or offer.gpu == _gpu_id(gpu))
        and (cloud is None or offer.cloud == cloud)
        and (most is None or offer.usd_per_hour <= most)
    )


def _gpu_id(word: str) -> str | None:
    if any(offer.instance_type == word for offer in packaged_offers()):
        return None
    return find_gpu(word).id


def _row(offer: Offer) -> list[str]:
    arm = " (arm64 host)" if offer.cpu_architecture == "arm64" else ""
    return [
        offer.cloud,
        offer.instance_type,
        str(offer.gpu_count),
        offer.gpu + arm,
        f"{offer.usd_per_hour:.2f}",
        f"{offer.usd_per_hour / offer.gpu_count:.2f}",
        "live" if offer.live else offer.as_of,
    ]
