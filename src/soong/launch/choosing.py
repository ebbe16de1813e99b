"""From a plan and the cloud's live list to the machines to ask for, in order of price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import NothingFitsError
from soong.launch.starting import Candidate
from soong.memory import engines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan


MOST_TYPES = 8
"""As many types as one screen shows, and no more, are asked for: nobody agrees to a price that was not shown."""


class PriceRoseError(NothingFitsError):
    """What is free costs more than was shown when the person agreed.

    Args:
        dearer: those that became dearer, cheapest first. shown: the price of each type that was agreed to, in dollars
            an hour.
    """

    code = "price-rose"

    def __init__(self, dearer: Sequence[Candidate], shown: Mapping[str, float]) -> None:
        first = dearer[0]
        super().__init__(
            f"{first.instance_type} now costs ${first.usd_per_hour:.2f}/h, and "
            f"${shown[first.instance_type]:.2f}/h was shown",
            hints=("the same command again shows the new price", "soong available"),
        )
        self.prices = {one.instance_type: one.usd_per_hour for one in dearer}


def types_of(offers: Sequence[Offer], *, region: str | None = None) -> tuple[Offer, ...]:
    """One offer for each instance type, without a region, as the planner judges them.

    Args:
        offers: live: a row for each type and region. region: only types with room there count as free.
    """
    found: dict[str, Offer] = {}
    for offer in offers:
        free = bool(offer.available) and region in {None, offer.region}
        known = found.get(offer.instance_type)
        if known is None or (free and not known.available):
            found[offer.instance_type] = msgspec.structs.replace(offer, region=None, available=free)
    return tuple(found.values())


def usable(plan: Plan, *, named: bool = False) -> tuple[Planned, ...]:
    """The plan's machines worth paying for, best first by the plan's rank: the price, where nothing else is asked.

    Args:
        named: the person named the machine: then one that the engine merely starts on, or that is too small, is theirs
            to take, after a warning. Otherwise only what `fits` counts.
    """
    wanted = [one for one in plan.candidates if one.offer is not None and (named or one.will_do)]
    engine = plan.settings
    return tuple(
        one
        for one in wanted
        if one.offer is not None
        and (one.offer.cpu_architecture != "arm64" or engines.runs_on_arm64(engine.name, engine.version))
    )


def candidates_now(
    planned: Sequence[Planned], offers: Sequence[Offer], *, region: str | None = None
) -> tuple[Candidate, ...]:
    """What to ask for now: each usable type in each region that has room, in the plan's order, then by price.

    Args:
        planned: as `usable` gives them. offers: the cloud's list of this moment. region: only there.
    """
    found = (
        (place, _candidate(one, offer))
        for place, one in enumerate(planned)
        for offer in offers
        if one.offer is not None and offer.instance_type == one.offer.instance_type
        if offer.available and offer.region and region in {None, offer.region}
    )
    in_order = sorted(found, key=lambda pair: (pair[0], pair[1].usd_per_hour))
    return tuple(candidate for _, candidate in in_order)


def worth_showing(
    planned: Sequence[Planned], now: Sequence[Candidate], *, most: int = MOST_TYPES
) -> tuple[Planned, ...]:
    """The machines to show and to ask for, in order: the first few, or the first few with room if those have none.

    Args:
        planned: as `usable` gives them. now: what has room.
    """
    free = {one.instance_type for one in now}
    with_room = tuple(one for one in planned if one.offer and one.offer.instance_type in free)
    first = tuple(planned[:most])
    return first if not with_room or any(one in first for one in with_room) else with_room[:most]


def at_shown_prices(
    candidates: Sequence[Candidate], shown: Mapping[str, float]
) -> tuple[tuple[Candidate, ...], tuple[Candidate, ...]]:
    """Those that cost no more than was shown for their type, and those that have become dearer since.

    Args:
        shown: dollars an hour by instance type.
    """
    known = [one for one in candidates if one.instance_type in shown]
    dearer = tuple(one for one in known if one.usd_per_hour > shown[one.instance_type])
    return tuple(one for one in known if one not in dearer), dearer


def _candidate(one: Planned, offer: Offer) -> Candidate:
    return Candidate(
        instance_type=offer.instance_type,
        region=offer.region or "",
        gpu=offer.gpu,
        gpu_count=offer.gpu_count,
        usd_per_hour=offer.usd_per_hour,
        engine_argv=one.engine_argv,
    )
