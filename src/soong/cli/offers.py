"""`soong offers`: machines for rent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output
from soong.cli.views import offers as view
from soong.errors import NothingFitsError
from soong.offers.snapshot import packaged_offers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.offers.offer import Offer


@click.command(
    "offers",
    epilog="\b\nExamples:\n  soong offers --max-price 2.50\n  soong offers --live --gpu h100-80gb-sxm5 --json\n",
)
@click.option("--gpu", help="Only this GPU, by id or by a cloud's type name.")
@click.option("--cloud", help="Only this cloud.")
@click.option("--region", help="Only this region; with --live.")
@click.option("--max-price", help="Only up to this many dollars an hour.")
@click.option(
    "--live", is_flag=True, help="Ask the cloud for its prices and what is free now; needs its key."
)
@output.options
def command(
    gpu: str | None,
    cloud: str | None,
    region: str | None,
    max_price: str | None,
    live: bool,
    out: output.Output,
) -> None:
    """Machines for rent and their prices, cheapest first.

    Without --live a dated list that needs no network and no account; with it the cloud's own answer.
    """
    most = units.parse_usd(max_price, what="`--max-price`") if max_price is not None else None
    offers = view.select(
        _live_offers(cloud) if live else packaged_offers(),
        gpu=gpu,
        cloud=cloud,
        region=region,
        max_usd_per_hour=most,
    )
    if not offers:
        raise NothingFitsError("no offer matches", hints=("soong offers --live" if live else "soong offers",))
    out.answer(
        data=lambda: offers,
        ids=dict.fromkeys(offer.instance_type for offer in offers),
        human=lambda: view.live_table(offers, title="Offers now") if live else view.packaged_table(offers),
    )


def _live_offers(cloud: str | None) -> Iterable[Offer]:
    from soong.clouds import open_provider
    from soong.settings import config

    return open_provider(config.value("cloud", flag=cloud)).offers()
