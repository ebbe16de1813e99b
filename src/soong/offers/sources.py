"""Every price that is known, by the rule of which one counts.

Of each cloud the newest whole list counts: what was fetched or asked and kept (`price_cache`), else the packaged rows.
The user's own rows of prices.toml lie over both. Which clouds: those that are asked for, else those of the setting
`prices.clouds`, else Lambda, where soong rents itself; and always every cloud that the user's own rows name. So a plan
costs the same before and after the prices of other clouds were fetched, unless it is asked about them.

Nothing here touches the network. The same tuple comes back until a file changes, since the planner remembers by it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import msgspec

from soong import tables
from soong.errors import ConfigError, NotFoundError
from soong.offers import price_cache
from soong.offers.offer import Offer
from soong.offers.price_sources import LAUNCHABLE, price_sources
from soong.offers.snapshot import own_offers
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from soong.offers.price_cache import State

ALL = "all"
USUAL = ("lambda",)
SETTING = "prices.clouds"
VARIABLE = "SOONG_PRICES_CLOUDS"


def offers_to_plan(
    cloud: str | None = None, *, region: str | None = None, spot: bool = False, every_type: bool = False
) -> tuple[Offer, ...]:
    """The machines that a plan chooses among.

    Args:
        cloud: one cloud or several, `all`, or None for the usual ones.
        region: with one, the offers there and those whose price holds everywhere; without one, each machine once, at
            its cheapest region.
        spot: also those that may be taken away at any moment.
        every_type: also a price-only type that has the same GPUs as a cheaper one of its cloud, and more host beside
            them: a plan is about GPUs, and AWS alone sells one A10G in five sizes. For plans that name a type.

    Raises:
        ConfigError: the user's prices.toml or settings cannot be read. NotFoundError: there is no such region.
    """
    known = known_offers(cloud)
    key = ("plan", region, spot, every_type)
    return _remembered(key, known, lambda: _to_plan(known, region, spot=spot, every_type=every_type))


def known_offers(cloud: str | None = None) -> tuple[Offer, ...]:
    """Every offer of one cloud, of several (`lambda,runpod`), of `all`, or of the usual ones, in every region.

    Raises:
        ConfigError: as `offers_to_plan`. NotFoundError: of one of several no price is known.
    """
    own = own_offers()
    wanted = usual_clouds() if cloud is None else cloud_words(cloud)
    if cloud is not None and len(wanted) > 1:
        check_clouds(wanted)
    states = tables.looked_up(f"prices of {' '.join(wanted)}", lambda: _states(wanted))
    everywhere = cloud is None or ALL in wanted
    return _remembered(
        ("known", wanted, states, everywhere),
        own,
        lambda: _gathered(own, wanted, states, everywhere=everywhere),
    )


def cloud_words(text: str) -> tuple[str, ...]:
    """The clouds that `lambda,runpod` names, in any case.

    >>> cloud_words("Lambda, runpod")
    ('lambda', 'runpod')
    """
    words = text.replace(",", " ").split()
    return tuple(dict.fromkeys(word if word.islower() else _as_written(word) for word in words))


def _as_written(word: str) -> str:
    """The cloud as the user's own rows write it, else in small letters, as all others are."""
    return word if any(offer.cloud == word for offer in own_offers()) else word.lower()


def means(asked: str | None, cloud: str) -> bool:
    """Whether a request means this cloud: it names it, among others perhaps, or all of them, or none at all.

    Args:
        asked: as a request has it: one word, or several with commas alone between them.

    >>> means("lambda,runpod", "runpod"), means(None, "aws"), means("lambda", "aws")
    (True, True, False)
    """
    return asked in {None, ALL, cloud} or ("," in (asked or "") and cloud in (asked or "").split(","))


def check_clouds(clouds: Iterable[str]) -> None:
    """Make sure that a price of each is known.

    Raises:
        NotFoundError: of one of them none is.
    """
    known = {ALL, *USUAL, *known_clouds(), *(offer.cloud for offer in own_offers())}
    unknown = next((cloud for cloud in clouds if cloud not in known), None)
    if unknown is not None:
        raise NotFoundError(
            f"no prices of a cloud `{unknown[:60]}`",
            hints=(
                f"known clouds: {', '.join(known_clouds())}, or all of them: all",
                "soong offers --refresh",
            ),
        )


def usual_clouds() -> tuple[str, ...]:
    """The clouds that count when none is asked for: the setting `prices.clouds`, else Lambda.

    Raises:
        ConfigError: the setting cannot be read.
    """
    return tables.looked_up(SETTING, _usual_clouds)


def only_packaged() -> bool:
    """Whether plans that name no cloud count the packaged prices of Lambda alone."""
    usual = usual_clouds()
    kept = (price_cache.read(cloud) for cloud in usual if price_cache.state_of(cloud) is not None)
    return usual == USUAL and not own_offers() and not any(kept)


def known_clouds() -> tuple[str, ...]:
    """Every cloud of which a price is known, in order of name."""
    listed = (offer.cloud for offer in tables.rows("prices", Offer))
    return tuple(sorted({*price_cache.cached_clouds(), *listed}))


def unmapped(clouds: Iterable[str]) -> dict[str, int]:
    """How many kept offers of these clouds have no GPU of ours, by name and reason, most first."""
    counts: dict[str, int] = {}
    for cloud in clouds:
        catalogue = price_cache.read(cloud)
        for name, count in (catalogue.unmapped if catalogue else {}).items():
            counts[name] = counts.get(name, 0) + count
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _usual_clouds() -> tuple[str, ...]:
    # The registry of settings is imported only where something may be set: it costs as much as a table.
    set_somewhere = os.environ.get(VARIABLE, "").strip() or os.path.exists(paths.config_file("config.toml"))  # noqa: PTH110
    if not set_somewhere:
        return USUAL
    from soong.settings import config

    found = config.look_up(SETTING)
    clouds = cloud_words(str(found.value or "")) or USUAL
    unknown = {*clouds} - {ALL, *USUAL, *known_clouds()}
    if unknown:
        _refuse_setting(min(unknown), found.where)
    return clouds


def _refuse_setting(cloud: str, where: str) -> NoReturn:
    raise ConfigError(
        f"{where}: `{SETTING}` names `{cloud[:60]}`, of which no price is known",
        hints=(
            f"known clouds: {', '.join(known_clouds())}, or all of them: all",
            f"soong offers --refresh --cloud {cloud[:60]}",
            f"soong config set {SETTING} lambda",
        ),
    )


States = tuple[tuple[str, "State | None"], ...]


def _states(wanted: tuple[str, ...]) -> States:
    clouds = price_cache.cached_clouds() if ALL in wanted else wanted
    return tuple((cloud, price_cache.state_of(cloud)) for cloud in clouds)


def _gathered(
    own: Sequence[Offer], wanted: tuple[str, ...], states: States, *, everywhere: bool
) -> Iterator[Offer]:
    packaged = [offer for offer in tables.packaged("prices", Offer) if ALL in wanted or offer.cloud in wanted]
    laid = _Laid(own)
    fetched = {cloud: found for cloud, state in states if state and (found := price_cache.read(cloud))}
    newest = _newest_days(packaged)
    for cloud, catalogue in fetched.items():
        if catalogue.offers and catalogue.as_of >= newest.get(cloud, ""):
            packaged = [offer for offer in packaged if offer.cloud != cloud]
            yield from laid.without_replaced(catalogue.offers)
    yield from map(_marked, laid.without_replaced(packaged))
    # A cloud that only the user's rows name is a machine they have: it may be recommended, unless it says
    # `launchable = false`. Their price of a cloud that everybody knows is a price.
    public = {provider.cloud for provider in price_sources().provider} if own else ()
    for offer in own:
        if everywhere or offer.cloud in wanted:
            yield _marked(offer) if offer.cloud in public else offer


class _Laid:
    """The user's own rows, as what they replace: a row without a region stands for its type everywhere."""

    def __init__(self, own: Sequence[Offer]) -> None:
        self._keys = {(offer.cloud, offer.instance_type, offer.region, offer.spot) for offer in own}

    def without_replaced(self, offers: Sequence[Offer]) -> Iterable[Offer]:
        """The offers that no row of the user's stands for."""
        return [offer for offer in offers if not self._is_replaced(offer)] if self._keys else offers

    def _is_replaced(self, offer: Offer) -> bool:
        return any(
            (offer.cloud, offer.instance_type, region, offer.spot) in self._keys
            for region in (None, offer.region)
        )


def _newest_days(offers: Iterable[Offer]) -> dict[str, str]:
    days: dict[str, str] = {}
    for offer in offers:
        days[offer.cloud] = max(days.get(offer.cloud, ""), offer.as_of)
    return days


def _marked(offer: Offer) -> Offer:
    """The offer, with the mark of a price only where soong does not rent."""
    if offer.cloud in LAUNCHABLE or not offer.launchable:
        return offer
    return msgspec.structs.replace(offer, launchable=False)


def _to_plan(offers: Iterable[Offer], region: str | None, *, spot: bool, every_type: bool) -> Iterable[Offer]:
    meant = (offer for offer in offers if spot or not offer.spot)
    if region is not None:
        from soong.offers.regions import there  # few name a region

        meant = (offer for offer in there(list(meant), region) if offer.region in {None, region})
    placed = at_cheapest_region(meant)
    return placed if every_type else _cheapest_hosts(placed)


def _cheapest_hosts(offers: Iterable[Offer]) -> list[Offer]:
    """Of the types of a cloud that have the same GPUs the cheapest; all of those that soong can rent."""
    cheapest: dict[object, Offer] = {}
    for offer in offers:
        same = (offer.cloud, offer.gpu, offer.gpu_count, offer.spot, offer.cpu_architecture)
        key = (*same, offer.instance_type) if offer.launchable else same
        found = cheapest.setdefault(key, offer)
        if offer.usd_per_hour < found.usd_per_hour:
            cheapest[key] = offer
    return list(cheapest.values())


def at_cheapest_region(offers: Iterable[Offer]) -> list[Offer]:
    """Each machine once, where it is cheapest; without a region where it costs the same in every one it is in."""
    best: dict[tuple[str, str, int, bool], Offer] = {}
    in_several: set[tuple[str, str, int, bool]] = set()
    differing: set[tuple[str, str, int, bool]] = set()
    for offer in offers:
        key = (offer.cloud, offer.instance_type, offer.gpu_count, offer.spot)
        found = best.setdefault(key, offer)
        if found is offer:
            continue
        in_several.add(key)
        if offer.usd_per_hour != found.usd_per_hour:
            differing.add(key)
            if offer.usd_per_hour < found.usd_per_hour:
                best[key] = offer
    for key in in_several - differing:
        best[key] = msgspec.structs.replace(best[key], region=None)
    return list(best.values())


_made: dict[object, tuple[tuple[Offer, ...], tuple[Offer, ...]]] = {}
MOST_REMEMBERED = 16


def _remembered(
    key: object, source: tuple[Offer, ...], make: Callable[[], Iterable[Offer]]
) -> tuple[Offer, ...]:
    """What was made of this very tuple before, else made now."""
    found = _made.get(key)
    if found is not None and found[0] is source:
        return found[1]
    while len(_made) >= MOST_REMEMBERED:
        del _made[next(iter(_made))]  # the oldest, so that what this plan has just been made of stays
    _made[key] = (source, tuple(make()))
    return _made[key][1]
