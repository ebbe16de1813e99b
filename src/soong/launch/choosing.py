"""From a plan and the cloud's live list to the machines to ask for, in order of price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.launch.starting import Candidate
from soong.memory import engines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan


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
    """The plan's machines worth paying for, cheapest first.

    Args:
        named: the person named the machine: then one that the engine merely starts on, or that is too small, is theirs
            to take, after a warning. Otherwise only what `fits` counts.
    """
    wanted = [one for one in plan.candidates if one.offer is not None and (named or one.verdict == "fits")]
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
    """What to ask for now: each usable type in each region that has room, in order of price.

    Args:
        planned: as `usable` gives them. offers: the cloud's list of this moment. region: only there.
    """
    found = (
        _candidate(one, offer)
        for one in planned
        for offer in offers
        if one.offer is not None and offer.instance_type == one.offer.instance_type
        if offer.available and offer.region and region in {None, offer.region}
    )
    return tuple(sorted(found, key=lambda candidate: candidate.usd_per_hour))


def _candidate(one: Planned, offer: Offer) -> Candidate:
    return Candidate(
        instance_type=offer.instance_type,
        region=offer.region or "",
        gpu=offer.gpu,
        gpu_count=offer.gpu_count,
        usd_per_hour=offer.usd_per_hour,
        engine_argv=one.engine_argv,
    )
