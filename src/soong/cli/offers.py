"""`soong offers`: machines for rent."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output
from soong.cli.views import offers as view
from soong.errors import NotFoundError, NothingFitsError, RemoteError, SoongError, UsageError
from soong.offers import regions, sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.offers.offer import Offer

EPILOG = """\b
Examples:
  soong offers --max-price 2.50
  soong offers --cloud all --gpu h100-80gb-sxm5
  soong offers --refresh --cloud runpod
  soong offers --live --gpu h100-80gb-sxm5 --json
"""


@click.command("offers", epilog=EPILOG)
@click.option("--gpu", help="Only this GPU, by id or by a cloud's type name.")
@click.option(
    "--cloud", help="This cloud's, of several (lambda,runpod), or `all`; else Lambda's and your own."
)
@click.option("--region", help="Only this region.")
@click.option("--max-price", help="Only up to this many dollars an hour.")
@click.option("--spot/--no-spot", default=None, help="Only spot prices, or none; else both.")
@click.option(
    "--live", is_flag=True, help="Ask the cloud for its prices and what is free now; needs its key."
)
@click.option("--refresh", is_flag=True, help="Fetch other clouds' prices first, through gpuhunt.")
@output.options
def command(
    gpu: str | None,
    cloud: str | None,
    region: str | None,
    max_price: str | None,
    spot: bool | None,
    live: bool,
    refresh: bool,
    out: output.Output,
) -> None:
    """Machines for rent and their prices, cheapest first.

    A dated list that needs no network and no account, unless --live or --refresh ask for newer prices. What is
    fetched is kept, and counts from then on, for plans too.
    """
    if live and refresh:
        raise UsageError("give `--live` or `--refresh`, not both")
    most = units.parse_usd(max_price, what="`--max-price`") if max_price is not None else None
    if cloud is not None:
        words = sources.cloud_words(cloud)
        if not words:
            raise UsageError("`--cloud` names no cloud", hints=("--cloud lambda", "--cloud all"))
        cloud = ",".join(words)
    if refresh:
        _refresh(cloud, out)
    everything = _live_offers(cloud) if live else _known_offers(cloud)
    there = everything if region is None else regions.there(everything, region)
    offers = view.select(
        there, gpu=gpu, region=region, max_usd_per_hour=most, spot=spot, prices_hold_everywhere=not live
    )
    if not offers:
        raise NothingFitsError("no offer matches", hints=_instead(cloud, everything, region, live=live))
    shown = offers if live or region is not None else sources.at_cheapest_region(offers)
    out.answer(
        data=lambda: view.documents(offers),
        ids=dict.fromkeys(offer.instance_type for offer in offers),
        human=lambda: view.live_table(offers, title="Offers now") if live else _page(shown, cloud, region),
    )


def _known_offers(cloud: str | None) -> Sequence[Offer]:
    offers = sources.known_offers(cloud)
    if not offers and cloud is not None:
        clouds = ", ".join(sources.known_clouds())
        raise NotFoundError(
            f"no prices of a cloud `{cloud[:60]}`",
            hints=(f"known clouds: {clouds}, or all of them: all", "soong offers --refresh"),
        )
    return offers


def _page(offers: Sequence[Offer], cloud: str | None, region: str | None) -> str:
    clouds = {offer.cloud for offer in offers}
    lines = [view.table(offers), *view.remarks(offers, sources.unmapped(clouds))]
    nowhere = sorted(
        name for name in clouds if region is not None and not regions.known_regions(name, offers)
    )
    if nowhere:
        lines.append(
            f"Whether {', '.join(nowhere)} has a region {region} is not known: these prices name none"
        )
    others = [name for name in sources.known_clouds() if name not in clouds]
    if cloud is None and others:
        lines.append(f"Prices of {', '.join(others)} too: soong offers --cloud all")
    return "\n".join(lines)


def _refresh(cloud: str | None, out: output.Output) -> None:
    """Fetch; where nothing comes, one line says so and what is kept, or packaged, is shown."""
    from soong.offers.fetching import fetch

    if sys.stderr.isatty():
        out.say("Fetching prices through gpuhunt ...")
    if "," in (cloud or ""):
        for one in (cloud or "").split(","):
            _refresh(one, out)
        return
    try:
        fetched = fetch(cloud)
    except RemoteError as error:
        out.say(f"notice: no newer prices ({error.why or error.message}); these are the ones known before")
        return
    for name, problem in fetched.problems.items():
        out.say(f"notice: no newer prices of {name} ({problem})")
    names = ", ".join(f"{one.cloud} {len(one.offers):,}" for one in fetched.catalogues)
    out.say(f"Fetched offers: {names}")


def _live_offers(cloud: str | None) -> Sequence[Offer]:
    from soong.offers.fetching import remember_live
    from soong.settings import config

    offers = offers_now(cloud)
    told_by_lambda = config.look_up("lambda.api_url").origin == "default"
    if told_by_lambda and all(offer.cloud in sources.USUAL for offer in offers):
        with suppress(SoongError):  # a cache that cannot be written takes nothing from the answer
            remember_live(offers)
    return offers


def offers_now(cloud: str | None) -> tuple[Offer, ...]:
    """What a cloud itself says now.

    Args:
        cloud: where to ask; None for the one that is set.

    Raises:
        UsageError: a cloud of which soong knows prices only, or all of them. NotFoundError: no such cloud.
        CredentialError, RemoteError: as the cloud has it.
    """
    from soong.clouds import CLOUDS, open_provider
    from soong.settings import config

    name = config.value("cloud", flag=cloud)
    several = name == sources.ALL or "," in str(name)
    if several or (name not in CLOUDS and name in sources.known_clouds()):
        raise UsageError(
            "name one cloud to ask" if several else f"soong cannot ask {name} itself",
            why=f"it asks only where it rents: {', '.join(CLOUDS)}",
            hints=(f"soong offers --refresh --cloud {name}", "soong offers --live --cloud lambda"),
        )
    return tuple(open_provider(name).offers())


def _instead(
    cloud: str | None, offers: Sequence[Offer], region: str | None, *, live: bool
) -> tuple[str, ...]:
    if live:
        return ("soong offers",)
    named = sorted({offer.region for offer in offers if offer.region}) if region is not None else []
    where = (f"these prices are of {', '.join(named[:MOST_REGIONS])}",) if named else ()
    if cloud is None:
        return (*where, "soong offers --cloud all")
    return (*where, "soong offers --refresh", "soong offers --live")


MOST_REGIONS = 20
"""How many regions one hint names."""
