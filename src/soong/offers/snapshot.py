"""Machines for rent as the packaged, dated price list and the user's own rows know them: no account, no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError, NotFoundError
from soong.gpus.catalogue import all_gpus
from soong.offers.offer import Offer
from soong.offers.price_sources import LAUNCHABLE
from soong.settings import paths
from soong.tables import packaged, rows, user_rows

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu

_LONGEST_WORD = 60


def packaged_offers() -> tuple[Offer, ...]:
    """The packaged prices of Lambda with the user's own rows laid over them; `sources` knows those of other clouds.

    Raises:
        ConfigError: the user's prices.toml cannot be read, or names a GPU that is in no table.
    """
    offers = rows("prices", Offer)
    if offers is not packaged("prices", Offer):
        _check_gpus(offers, all_gpus())
    if _kept.of is not offers:
        own = own_offers()
        _kept.of = offers
        _kept.offers = tuple(offer for offer in offers if offer.cloud in LAUNCHABLE or offer in own)
    return _kept.offers


class _Kept:
    """What was kept of the rows last seen: they are the same ones until the user's file changes."""

    of: tuple[Offer, ...] = ()
    offers: tuple[Offer, ...] = ()


_kept = _Kept()


def own_offers() -> tuple[Offer, ...]:
    """The user's own rows alone.

    Raises:
        ConfigError: as `packaged_offers`.
    """
    own = user_rows("prices", Offer)
    if own:
        _check_gpus(own, all_gpus())
    return own


def offers_for(gpu: str, *, gpu_count: int | None = None) -> tuple[Offer, ...]:
    """The offers of one GPU id, with this many of it where that is said, cheapest machine first."""
    found = (o for o in packaged_offers() if o.gpu == gpu and gpu_count in {None, o.gpu_count})
    return tuple(sorted(found, key=lambda offer: (offer.usd_per_hour, offer.instance_type)))


def find_offer(instance_type: str) -> Offer:
    """The offer of a cloud's own type name, `gpu_1x_a6000`.

    Raises:
        NotFoundError: there is none; the nearest names are suggested.
    """
    from difflib import get_close_matches

    offers = {offer.instance_type: offer for offer in packaged_offers()}
    found = offers.get(instance_type)
    if found is None:
        shown = instance_type[:_LONGEST_WORD]
        near = tuple(f"did you mean `{name}`?" for name in get_close_matches(shown, list(offers), n=2))
        raise NotFoundError(
            f"there is no instance type `{shown}`", hints=(*near, "`soong offers` lists them")
        )
    return found


def _check_gpus(offers: tuple[Offer, ...], gpus: tuple[Gpu, ...]) -> None:
    known = {gpu.id for gpu in gpus}
    for offer in offers:
        if offer.gpu not in known:
            where = f"{paths.config_file('prices.toml')}, [[price]] `{offer.cloud} {offer.instance_type}`"
            raise ConfigError(
                f"{where}: `gpu` is `{offer.gpu}`, which is in no table of GPUs",
                hints=("`soong gpus` lists the ids", f"or describe it in {paths.config_file('gpus.toml')}"),
            )
