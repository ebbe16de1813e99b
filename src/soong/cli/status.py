"""`soong status`: what runs, until when, what it has cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from soong.cli import output, text
from soong.cli.exit_codes import ExitCode
from soong.errors import CredentialError, RemoteError
from soong.lease.ledger import open_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.launch.provider import Instance
    from soong.lease.ledger import Ledger, Rental

REFRESH_SECONDS = 10.0
SOON_SECONDS = 1800.0
VERY_SOON_SECONDS = 600.0
WORDS = {
    "asked": ("asked for", "yellow"),
    "granted": ("booting", "yellow"),
    "ready": ("ready", "green"),
    "ending": ("ending", "yellow"),
    "ended": ("ended", "dim"),
    "refused": ("never launched", "dim"),
}
HEADS = ("Name", "Model", "Machine", "Region", "Status", "Up", "Left", "Ends", "$/hour", "Cost so far")
AT_RIGHT = {"Up", "Left", "$/hour", "Cost so far"}
SPARED = {"Model", "Region", "Up"}
"""What a screen of fewer than `WIDE` columns does without."""
WIDE = 112


class Picked(NamedTuple):
    """What a person wants to see. word: one machine, or None. hours: how far back the history goes."""

    word: str | None
    history: bool
    stopped: bool
    hours: float


class Seen(NamedTuple):
    """What a screen tells of.

    now: the cloud's clock. problem: why the cloud could not be asked; empty if it was. groups: all machines of each
    group of replicas, also those that are gone: they stand on its bill.
    """

    cloud: str
    now: float
    others: tuple[Instance, ...]
    problem: str = ""
    groups: tuple[tuple[Rental, ...], ...] = ()


@click.command(
    "status",
    epilog="\b\nExamples:\n  soong status\n  soong status --history --json\n  soong status --watch\n",
)
@click.option("--instance-id", help="Only this machine, by the cloud's own id.")
@click.option("-h", "--history", is_flag=True, help="Also what has ended.")
@click.option("-s", "--stopped", is_flag=True, help="Only what has ended.")
@click.option("--history-hours", default=168.0, show_default=True, help="How far back the history goes.")
@click.option("--watch", is_flag=True, help="Repeat every ten seconds until Ctrl-C.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@output.options
def command(
    *,
    instance_id: str | None,
    history: bool,
    stopped: bool,
    history_hours: float,
    watch: bool,
    cloud: str | None,
    out: output.Output,
) -> int:
    """What is running, how long it has left, what it costs and has cost, and who will end it.

    Where the cloud cannot be asked it tells what this computer last knew, and ends with the code of that failure.
    """
    picked = Picked(instance_id, history or stopped, stopped, history_hours)
    while True:
        code = _once(cloud, picked, out, clears=watch and not out.as_json)
        if not watch:
            return code
        time.sleep(REFRESH_SECONDS)


def _once(cloud: str | None, picked: Picked, out: output.Output, *, clears: bool) -> int:
    from soong.cli import account as accounts
    from soong.cli.exit_codes import exit_code_of

    try:
        with accounts.opened(cloud, out, wakes=False) as account:
            others = _others(account)
            seen = Seen(account.provider.cloud, account.provider.clock.now(), others)
            rentals = _shown(account.ledger, seen, picked)
            _answer(_with_groups(seen, account.ledger, rentals), rentals, out, clears=clears)
            return ExitCode.DONE
    except (CredentialError, RemoteError) as error:
        problem = error
    with open_ledger() as ledger:
        name = accounts.chosen_cloud(cloud, ledger)
        seen = Seen(name, accounts.clock_of(name).now(), (), str(problem))
        rentals = _shown(ledger, seen, picked)
        if not rentals:
            raise problem
        _answer(_with_groups(seen, ledger, rentals), rentals, out, clears=clears)
    out.say(f"note: {problem}; this is what this computer last knew")
    for hint in problem.hints:
        out.hint(hint)
    return exit_code_of(problem)


def _shown(ledger: Ledger, seen: Seen, picked: Picked) -> list[Rental]:
    since = seen.now - picked.hours * 3600
    return [
        rental
        for rental in ledger.rentals()
        if rental.cloud == seen.cloud
        if picked.word is None
        or picked.word in {rental.instance_id, rental.id, rental.name, rental.group_name}
        if (rental.is_open and not picked.stopped)
        or (picked.history and not rental.is_open and (rental.ended_at or rental.asked_at) >= since)
    ]


def _with_groups(seen: Seen, ledger: Ledger, rentals: list[Rental]) -> Seen:
    names = dict.fromkeys(one.group for one in rentals if one.group)
    return seen._replace(groups=tuple(ledger.of_group(name) for name in names))


def _answer(seen: Seen, rentals: list[Rental], out: output.Output, *, clears: bool) -> None:
    from soong.cli.views.start import document

    if clears:
        click.clear()
    out.answer(
        data=lambda: {
            "rentals": [document(rental, seen.now) for rental in rentals],
            "groups": _group_documents(seen),
            "usd_per_hour": round(sum(one.usd_per_hour for one in rentals if one.is_open), 4),
            "cost_usd": round(sum(one.cost_usd(seen.now) for one in rentals), 4),
            "not_soongs": [
                {"instance_id": one.id, "instance_type": one.instance_type, "usd_per_hour": one.usd_per_hour}
                for one in seen.others
            ],
            "problem": seen.problem or None,
        },
        ids=[rental.id for rental in rentals],
        human=lambda: _page(seen, rentals),
    )


def _others(account: Account) -> tuple[Instance, ...]:
    """Machines of the account that are not in this ledger: told with their price, never touched."""
    from soong.launch.finding import lease_id_of

    known = {rental.id for rental in account.ledger.rentals(refused=True)}
    return tuple(one for one in account.listed if one.is_billing and lease_id_of(one) not in known)


def _page(seen: Seen, rentals: list[Rental]) -> str:
    lines = [_table(seen, rentals) if rentals else "nothing of soong's is running here"]
    lines += [_endpoint(one) for one in rentals if one.is_open and one.serving and not one.group]
    if seen.groups:
        from soong.cli.views import replicas

        lines += [line for members in seen.groups for line in replicas.state_lines(members)]
    lines += _guards(seen, rentals)
    for one in seen.others:
        price = f"${one.usd_per_hour:.2f}/h" if one.usd_per_hour is not None else "price not told"
        lines.append(f"also in the account, not this computer's: {one.id} {one.instance_type} {price}")
    return "\n".join(lines)


def _table(seen: Seen, rentals: list[Rental]) -> str:
    rows = _rows(seen, rentals)
    if len({one.endpoint_id for one in rentals}) > 1:
        rate = sum(rental.usd_per_hour for rental in rentals if rental.is_open)
        cost = sum(rental.cost_usd(seen.now) for rental in rentals)
        rows.append(["total", "", "", "", "", "", "", "", f"{rate:.2f}", f"${cost:.2f}"])
    title = "Machines in the sandbox (nothing costs money)" if seen.cloud == "sandbox" else "Machines"
    shown = [index for index, head in enumerate(HEADS) if text.screen_width() >= WIDE or head not in SPARED]
    return text.table(
        [HEADS[index] for index in shown],
        [[row[index] for index in shown] for row in rows],
        title=title,
        right=[place for place, index in enumerate(shown) if HEADS[index] in AT_RIGHT],
        whole=[place for place, index in enumerate(shown) if HEADS[index] == "Machine"],
    )


def _group_documents(seen: Seen) -> list[dict[str, Any]]:
    if not seen.groups:
        return []
    from soong.cli.views.replicas import document

    return [document(members, seen.now) for members in seen.groups]


def _rows(seen: Seen, rentals: list[Rental]) -> list[list[str]]:
    """A line for each machine; a group has one of its own, and its machines stand below it."""
    rows, done = [], set()
    for rental in rentals:
        if not rental.group:
            rows.append(_row(rental, seen.now))
        elif rental.group not in done:
            done.add(rental.group)
            shown = sorted((one for one in rentals if one.group == rental.group), key=lambda one: one.name)
            members = next(one for one in seen.groups if one[0].group == rental.group)
            rows.append(_group_row(members, seen.now))
            rows += [_member_row(one, seen.now) for one in shown]
    return rows


def _group_row(members: Sequence[Rental], now: float) -> list[str]:
    """All machines of a group as one: the bill is one, those that are gone included."""
    import msgspec

    from soong.cli.views.replicas import how_many_answer

    running = [one for one in members if one.is_open]
    first = min(members, key=lambda one: one.asked_at)
    last = max(running or members, key=lambda one: one.lease.ends_at)
    row = _row(msgspec.structs.replace(last, asked_at=first.asked_at), now)
    kinds = {one.instance_type for one in running or members}
    kind = kinds.pop() if len(kinds) == 1 else "machines"
    if running:
        row[4] = how_many_answer(members)
    cost = sum(one.cost_usd(now) for one in members)
    row[0], row[2], row[3] = first.group_name, f"{len(running)} × {kind}", ""
    row[8], row[9] = f"{sum(one.usd_per_hour for one in running):.2f}", f"${cost:.2f}"
    return row


def _member_row(rental: Rental, now: float) -> list[str]:
    """One machine of a group, whose line above has the end and the money."""
    from soong.cli.views.replicas import state_words

    row = _row(rental, now)
    row[0], row[1], row[4] = f"  {rental.name}", "", state_words(rental) or row[4]
    return [*row[:6], "", "", "", ""]


def _row(rental: Rental, now: float) -> list[str]:
    from soong.cli import times

    words, colour = WORDS[rental.phase]
    left = rental.lease.remaining_seconds(now)
    end = rental.ended_at if rental.ended_at is not None else now
    return [
        rental.name,
        rental.model,
        rental.instance_type,
        rental.region,
        text.style(words, colour),
        times.span(end - rental.asked_at),
        _left(left) if rental.is_open else "",
        times.wall(rental.lease.ends_at if rental.is_open else end, now=now),
        f"{rental.usd_per_hour:.2f}",
        f"${rental.cost_usd(now):.2f}",
    ]


def _left(seconds: float) -> str:
    from soong.cli import times

    words = times.span(seconds)
    if seconds <= VERY_SOON_SECONDS:
        return text.style(words, "red")
    return text.style(words, "yellow") if seconds <= SOON_SECONDS else words


def _endpoint(rental: Rental) -> str:
    """What a machine serves, and where; or why nothing answers, and what to type then."""
    from soong.cli.views.start import endpoint_url

    if rental.serving == "failed":
        words = f"{rental.name} serves nothing and bills on: `soong logs` tells why, `soong stop` ends it"
        return text.style(words, "red")
    if rental.serving != "ready":
        return f"{rental.name} does not answer yet: `soong logs --follow`"
    return f"{rental.name}: `{rental.served_model}` answers at {endpoint_url(rental)}{_broken(rental)}"


def _broken(rental: Rental) -> str:
    """What is wrong with the tunnel of an endpoint, if anything is."""
    from soong.connect import tunnel

    if rental.cloud == "local":
        return ""
    found = tunnel.find(rental.id)
    if found is None:
        return text.style(", but no tunnel leads there: `soong tunnel start`", "yellow")
    if found.state == "up":
        return ""
    return text.style(", but its tunnel is broken and is made again", "yellow")


def _guards(seen: Seen, rentals: list[Rental]) -> list[str]:
    """Who ends what runs, and whether that one is alive."""
    from soong.lease.guardian import heartbeat

    running = [rental for rental in rentals if rental.is_open]
    if not running:
        return []
    words = ", ".join(dict.fromkeys(guard for rental in running for guard in rental.guards)) or "nobody known"
    trouble = heartbeat.trouble(seen.cloud)
    if trouble:
        warning = f"ended by: {words}; but of this computer's guardian: {trouble}"
        return [text.style(warning, "red"), f"hint: soong doctor --fix --cloud {seen.cloud}"]
    beat = heartbeat.last(seen.cloud)
    ago = f"; its last round was {max(0.0, time.time() - beat.at):.0f} s ago" if beat else ""
    return [text.style(f"ended by: {words}{ago}", "dim")]
