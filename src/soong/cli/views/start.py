"""The screens of `soong start`: what will be rented, what was, and what a dry run would have asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from soong.cli import text, times
from soong.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.output import Output
    from soong.cli.wish import Wish
    from soong.launch.provider import Provider
    from soong.launch.starting import Candidate, Terms
    from soong.lease.guardian import Guard
    from soong.lease.ledger import Rental
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan


MINUTE_HOURS = 1 / 60


def screen(
    plan: Plan,
    picks: Sequence[Planned],
    now: Sequence[Candidate],
    terms: Terms,
    provider: Provider,
    *,
    most_hours: float,
) -> str:
    """The machines in the order they will be asked for, the price, the end and the total.

    Args:
        most_hours: how long such machines can ever run, by every cap.
    """
    from soong.cli.views.plan import headline
    from soong.launch.starting import hours_of

    first = now[0] if now else None
    offer = picks[0].offer
    usd_per_hour = first.usd_per_hour if first else offer.usd_per_hour if offer else 0.0
    hours = hours_of(terms, usd_per_hour)
    begin = provider.clock.now()
    lines = [headline(plan), "", _table(picks, now)]
    if not provider.costs_money:
        place = "this computer" if provider.cloud == "local" else "a rehearsal in the sandbox"
        lines.append(text.style(f"{place}: nothing here costs money", "green"))
    lines.append(
        f"{_rate(usd_per_hour, terms.count)} per hour; ends at {times.wall(begin + hours * 3600, now=begin)} "
        f"({times.span(hours * 3600)}); at most ${usd_per_hour * hours * terms.count:.2f}"
        f"{' for all' if terms.count > 1 else ''}. {_longest(hours, most_hours, terms, usd_per_hour)}"
    )
    if dearest := _dearest(picks, now, terms, usd_per_hour):
        lines.append(dearest)
    return "\n".join(lines)


def _longest(hours: float, most_hours: float, terms: Terms, usd_per_hour: float) -> str:
    """How much longer it can become, and what forbids more."""
    paid = terms.max_usd is not None and usd_per_hour > 0
    by_money = paid and (terms.max_usd or 0.0) / (usd_per_hour * terms.count) < most_hours + MINUTE_HOURS
    if most_hours - hours < MINUTE_HOURS:
        if most_hours >= terms.cap_hours:
            return "That is the longest that a lease can be (`lease.cap_hours`)."
        return (
            "Cannot be extended for that money: `soong extend --max-cost` says a new amount."
            if by_money
            else "Cannot be extended under this month's cap (`budget.monthly_usd`)."
        )
    if most_hours >= terms.cap_hours:
        return f"Can be extended up to {terms.cap_hours:g} h in all."
    limit = f"the ${terms.max_usd:.2f} that it may cost" if by_money else "this month's cap"
    return f"Can be extended up to {times.span(most_hours * 3600)} in all for {limit}."


def _dearest(picks: Sequence[Planned], now: Sequence[Candidate], terms: Terms, usd_per_hour: float) -> str:
    """What it costs where the cheapest are gone when they are asked for; empty where there is nothing dearer."""
    from soong.launch.starting import hours_of

    prices = [one.usd_per_hour for one in now] or [one.offer.usd_per_hour for one in picks if one.offer]
    most = max(prices, default=usd_per_hour)
    if most <= usd_per_hour:
        return ""
    return (
        f"Where it is gone by then the next in the list is asked for: up to {_rate(most, terms.count)} "
        f"per hour, ${most * hours_of(terms, most) * terms.count:.2f}. "
        "Nothing dearer than shown is taken; `--max-price` sets less."
    )


def _rate(usd_per_hour: float, count: int) -> str:
    """Dollars, of one machine or of several.

    >>> _rate(1.09, 1), _rate(1.09, 2)
    ('$1.09', '2 × $1.09 = $2.18')
    """
    if count == 1:
        return f"${usd_per_hour:.2f}"
    return f"{count} × ${usd_per_hour:.2f} = ${usd_per_hour * count:.2f}"


def enders(guard: Guard, provider: Provider) -> str:
    """Who ends it, and who does if this computer dies: said before money moves."""
    from soong.settings import config

    elsewhere = config.value("lease.reaper")
    lines = [f"it will be ended by {guard.words}, armed and tried just now"]
    if elsewhere:
        lines.append(f"if this computer dies, by the reaper on {elsewhere}")
    elif provider.costs_money:
        lines.append(
            text.style(
                "if this computer is off or asleep then, nobody ends it: `soong reap --install`", "yellow"
            )
        )
    return "\n".join(lines)


def _table(picks: Sequence[Planned], now: Sequence[Candidate], *, none: str = "no room now") -> str:
    """The machines in order. none: what is said of a type that has no region in `now`."""
    rows = []
    for pick in picks:
        offer = pick.offer
        if offer is None:
            continue
        regions = [one.region for one in now if one.instance_type == offer.instance_type]
        is_first = bool(now) and now[0].instance_type == offer.instance_type
        free = pick.footprint.free_bytes / 2**30 if pick.footprint else None
        rows.append(
            [
                f"{'✔' if is_first else ' '} {offer.instance_type}",
                f"{pick.gpu_count} × {pick.gpu.name}",
                f"{offer.usd_per_hour:.2f}",
                f"{free:.1f} GiB" if free is not None else "?",
                ", ".join(regions[:3]) + (" …" if len(regions) > 3 else "") if regions else none,
            ]
        )
    return text.table(["Type", "GPU", "$/hour", "Spare per GPU", "Free in"], rows, right=(2, 3), whole=(0,))


def dry_run(plan: Plan, now: Sequence[Candidate], terms: Terms, shown: str, out: Output) -> int:
    """The request that would be made first; nothing in it is secret."""
    request = request_of(now[0], terms) if now else None
    out.answer(
        data=lambda: {"model": plan.model.id, "request": request, "candidates": list(now)},
        ids=[one.instance_type for one in now],
        human=lambda: "\n".join(
            [
                text.prose(shown),
                "",
                "would ask for:" if request else "nothing is free just now",
                *_pairs(request),
            ]
        ),
    )
    return ExitCode.DONE if now else ExitCode.NOTHING_FITS


def request_of(candidate: Candidate, terms: Terms) -> dict[str, Any]:
    """The launch as it would be sent; the id and the times are made at the moment of the call."""
    from soong.launch.starting import lease_of

    script = terms.user_data(lease_of(terms, candidate, time.time()))
    return {
        "instance_type_name": candidate.instance_type,
        "region_name": candidate.region,
        "ssh_key_names": [terms.ssh_key_name or "<the key of yours that the account has>"],
        "name": "soong-<id>-u<end>",
        "tags": ["soong-id", "soong-owner", "soong-launched", "soong-lease", "soong-cap"],
        "file_system_names": list(terms.filesystem_names),
        "user_data": f"<{len(script.encode())} bytes, no secret>",
    }


def _pairs(request: dict[str, Any] | None) -> list[str]:
    return [f"  {key}: {value}" for key, value in (request or {}).items()]


def offline_page(wish: Wish, out: Output) -> int:
    """A dry run without a key: the plan over the packaged prices."""
    from soong.cli.wish import chosen, planned
    from soong.offers.snapshot import packaged_offers

    offers = tuple(offer for offer in packaged_offers() if offer.cloud == "lambda")
    plan = planned(wish, offers)
    picks = chosen(plan, wish, out)
    rows = [one.offer for one in picks if one.offer is not None]
    out.answer(
        data=lambda: {"model": plan.model.id, "request": None, "candidates": rows},
        ids=[offer.instance_type for offer in rows],
        human=lambda: (
            _table(picks, (), none="not known")
            + f"\nprices of {rows[0].as_of}; what is free is not known without a key"
        ),
    )
    return ExitCode.DONE


def ready(rental: Rental, guard: Guard, provider: Provider, out: Output) -> None:
    """The last words of a start: it runs, until when, who ends it, what to type next."""
    now = provider.clock.now()
    out.answer(
        data=lambda: document(rental, now),
        ids=[rental.id],
        human=lambda: "\n".join(
            [
                f"{text.style(rental.name, 'bold')} is ready: {rental.instance_type} in {rental.region}",
                f"ends at {times.wall(rental.lease.ends_at, now=now)} ({times.span(rental.lease.ends_at - now)} left), "
                f"${rental.usd_per_hour:.2f}/h",
                f"ended by: {', '.join(rental.guards) or guard.words}",
                *endpoint_lines(rental),
                "next: soong ssh · soong status · soong extend 1 · soong stop",
            ]
        ),
    )


def endpoint_url(rental: Rental) -> str:
    """Where the model answers on this computer, as OpenAI's clients want it; empty where nothing is served."""
    port = rental.router_port or rental.local_port
    return f"http://127.0.0.1:{port}/v1" if rental.serving == "ready" else ""


def endpoint_lines(rental: Rental) -> list[str]:
    """What a person types to use the endpoint; nothing where nothing is served."""
    url = endpoint_url(rental)
    return [f'`{rental.served_model}` answers at {url}; in this shell: eval "$(soong env)"'] if url else []


def document(rental: Rental, now: float) -> dict[str, Any]:
    """A rental as scripts see it; money and times carry their units."""
    return {
        "id": rental.id,
        "name": rental.name,
        "model": rental.model,
        "cloud": rental.cloud,
        "instance_id": rental.instance_id,
        "instance_type": rental.instance_type,
        "region": rental.region,
        "gpu": rental.gpu,
        "gpu_count": rental.gpu_count,
        "phase": rental.phase,
        "address": rental.address or None,
        "usd_per_hour": rental.usd_per_hour,
        "cost_usd": round(rental.cost_usd(now), 4),
        "launched_at": times.iso(rental.asked_at),
        "ends_at": times.iso(rental.lease.ends_at),
        "cap_at": times.iso(rental.lease.cap_at),
        "remaining_seconds": round(rental.lease.remaining_seconds(now)) if rental.is_open else None,
        "ended_at": times.iso(rental.ended_at),
        "end_reason": rental.end_reason or None,
        "owner": rental.lease.owner,
        "guards": list(rental.guards),
        "serving": rental.serving or None,
        "group": rental.group_name if rental.group else None,
        "replica": rental.replica or None,
        "endpoint_url": endpoint_url(rental) or None,
        "served_model": rental.served_model or None,
    }
