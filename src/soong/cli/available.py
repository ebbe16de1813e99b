"""`soong available`: what is free now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output
from soong.cli.views import offers as view
from soong.errors import NothingFitsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.offers.offer import Offer


@click.command(
    "available",
    epilog="\b\nExamples:\n  soong available --max-price 3\n  soong available --gpu h100 --region us-west-1 --json\n",
)
@click.option("--gpu", help="Only this GPU, by id or by a cloud's type name.")
@click.option("--cloud", help="Ask this cloud.")
@click.option("--region", help="Only in this region.")
@click.option("--max-price", help="Only up to this many dollars an hour.")
@output.options
def command(
    gpu: str | None,
    cloud: str | None,
    region: str | None,
    max_price: str | None,
    out: output.Output,
) -> None:
    """What is free now, cheapest first.

    The list is a hint: between looking and asking somebody else may take the machine.
    """
    from soong.cli.offers import offers_now

    most = units.parse_usd(max_price, what="`--max-price`") if max_price is not None else None
    everything = offers_now(cloud)
    meant = view.select(everything, gpu=gpu, max_usd_per_hour=most)
    free = [offer for offer in meant if offer.available and region in {None, offer.region}]
    if not free:
        raise _nothing_free(meant, everything)
    out.answer(
        data=lambda: free,
        ids=dict.fromkeys(offer.instance_type for offer in free),
        human=lambda: view.live_table(free, title="Free now"),
    )


def _nothing_free(meant: Sequence[Offer], everything: Sequence[Offer]) -> NothingFitsError:
    """What to do: take the same elsewhere, take something else, or wait."""
    elsewhere = [offer for offer in meant if offer.available]
    anything = view.select(offer for offer in everything if offer.available)
    if not meant:
        message, nearest = "no machine for rent matches", anything
    elif elsewhere:
        message, nearest = "none of these is free in that region now", elsewhere
    elif anything:
        message, nearest = "none of these is free now", anything
    else:
        message, nearest = "nothing is free now, in any region", []
    hints = tuple(
        f"free now: `{offer.instance_type}` ({offer.gpu}) in {offer.region}, {units.format_usd(offer.usd_per_hour)}/h"
        for offer in nearest[:2]
    )
    return NothingFitsError(message, hints=(*hints, "wait for one: `soong start --wait 2h`"))
