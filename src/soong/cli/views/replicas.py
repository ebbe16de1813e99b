"""The screens of a group of replicas, and what scripts see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong.cli import text, times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.output import Output
    from soong.connect.router import Router
    from soong.launch.provider import Provider
    from soong.lease.guardian import Guard
    from soong.lease.ledger import Rental


def ready(members: Sequence[Rental], guard: Guard, provider: Provider, out: Output) -> None:
    """The last words of a start of several: what runs, one bill, who ends it, what to type next."""
    now = provider.clock.now()
    out.answer(
        data=lambda: document(members, now),
        ids=[one.id for one in members],
        human=lambda: "\n".join(_lines(members, guard, now)),
    )


def _lines(members: Sequence[Rental], guard: Guard, now: float) -> list[str]:
    from soong.cli.views.start import endpoint_lines

    first = members[0]
    ends_at = max(one.lease.ends_at for one in members)
    rate = sum(one.usd_per_hour for one in members)
    served = next((one for one in members if one.serving == "ready"), first)
    return [
        f"{text.style(first.group_name, 'bold')} is ready: {len(members)} machines",
        *(
            f"  {one.name}: {one.instance_type} in {one.region}, ${one.usd_per_hour:.2f}/h"
            + (f", {words}" if (words := state_words(one)) else "")
            for one in members
        ),
        f"all end at {times.wall(ends_at, now=now)} ({times.span(ends_at - now)} left), ${rate:.2f}/h in all",
        f"ended by: {', '.join(first.guards) or guard.words}",
        *endpoint_lines(served),
        f"next: soong status · soong logs {first.name} · soong extend 1 {first.group_name} · "
        f"soong stop {first.group_name}",
    ]


def state_words(rental: Rental) -> str:
    """How one machine of a group is, by the router's own looks; empty where those say nothing."""
    if rental.is_open and rental.serving == "failed":
        return text.style("serves nothing", "red")
    words, colour = {
        "answers": ("answers", "green"),
        "silent": ("does not answer", "red"),
        "joining": ("joining", "yellow"),
        "": ("", ""),
    }[state_of(rental) if rental.is_open else ""]
    return text.style(words, colour) if words else ""


def how_many_answer(members: Sequence[Rental]) -> str:
    """`2 of 2 answer`, of those that were wanted; of machines without an endpoint how many are ready."""
    from soong.connect import router
    from soong.launch import groups

    running = [one for one in members if one.is_open]
    group, found = groups.find(members[0].group), router.find(members[0].group)
    wanted = max(group.wanted if group is not None else 0, len(running))
    serves = any(one.serving for one in running)
    ready = sum(one.phase == "ready" for one in running)
    count = (found.answering if found is not None else 0) if serves else ready
    words = f"{count} of {wanted} {'answer' if serves else 'ready'}"
    return text.style(words, "green" if count == wanted else "yellow" if count else "red")


def state_lines(members: Sequence[Rental]) -> list[str]:
    """Where a group answers, and what is wrong with it, with what to type then."""
    from soong.cli.views.start import endpoint_url
    from soong.connect import router
    from soong.launch import groups

    running = [one for one in members if one.is_open]
    if not running:
        return []
    name, found = members[0].group_name, router.find(members[0].group)
    lines = []
    served = next((one for one in running if one.serving == "ready"), None)
    if served is not None:
        broken = found is None or not found.is_up
        but = text.style(f", but its router is down: `soong tunnel start {name}`", "yellow") if broken else ""
        lines.append(f"{name}: `{served.served_model}` answers at {endpoint_url(served)}{but}")
    for one in running:
        if one.serving == "failed":
            words = (
                f"{one.name} serves nothing and bills on: `soong logs {one.name}`, `soong stop {one.name}`"
            )
            lines.append(text.style(words, "red"))
        elif one.serving == "starting":
            lines.append(f"{one.name} does not answer yet: `soong logs {one.name} --follow`")
    lines += [text.style(f"{one.name} {words}", "red") for one, words in _gone(members, found)]
    group = groups.find(members[0].group)
    if group is not None and len(running) < group.wanted:
        lines.append(f"{name} has {len(running)} of {group.wanted} machines: `soong start --add-to {name}`")
    return lines


def _gone(members: Sequence[Rental], found: Router | None) -> list[tuple[Rental, str]]:
    """Machines that are lost and have no other in their place, and those that do not answer."""
    import time

    from soong.launch import groups

    replaced = {one.replica for one in members if one.is_open}
    lost = [
        (one, f"is lost since {times.wall(one.ended_at or 0.0, now=one.ended_at or 0.0)}")
        for one in groups.lost(members)
        if one.replica not in replaced
    ]
    silent = {one.rental_id: one for one in found.members if one.state == "silent"} if found else {}
    return lost + [
        (one, f"does not answer since {times.span(time.time() - silent[one.id].since)}; it bills on")
        for one in members
        if one.id in silent
    ]


def document(members: Sequence[Rental], now: float) -> dict[str, Any]:
    """A group as scripts see it. members: its rentals, also those that ended; the newest of each number counts."""
    from soong.connect import router
    from soong.launch import groups

    first = members[0]
    group = groups.find(first.group)
    running = [one for one in members if one.is_open]
    found = router.find(first.group)
    return {
        "id": first.group,
        "name": first.group_name,
        "model": first.model,
        "cloud": first.cloud,
        "wanted": group.wanted if group else len(running),
        "running": len(running),
        "answering": found.answering if found is not None else 0,
        "usd_per_hour": round(sum(one.usd_per_hour for one in running), 4),
        "cost_usd": round(sum(one.cost_usd(now) for one in members), 4),
        "ends_at": times.iso(max((one.lease.ends_at for one in running), default=first.lease.ends_at)),
        "endpoint_url": f"http://127.0.0.1:{first.router_port}/v1" if first.router_port and running else None,
        "router": "up" if found is not None and found.is_up else "down" if first.router_port else None,
        "replicas": [
            {"name": one.name, "id": one.id, "phase": one.phase, "state": state_of(one)} for one in running
        ],
        "lost": [one.name for one in groups.lost(members)],
    }


def state_of(rental: Rental) -> str:
    """What the router sees of a machine: `answers`, `silent`, `joining`; empty where it does not look."""
    from soong.connect import router

    found = router.find(rental.group) if rental.group else None
    member = next((one for one in found.members if one.rental_id == rental.id), None) if found else None
    return member.state if member is not None else ""
