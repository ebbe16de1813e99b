"""`soong status`: what runs, until when, what it has cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import click

from soong.cli import output, text
from soong.cli.exit_codes import ExitCode
from soong.errors import CredentialError, RemoteError
from soong.lease.ledger import open_ledger

if TYPE_CHECKING:
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
    """What a screen tells of. now: the cloud's clock. problem: why the cloud could not be asked; empty if it was."""

    cloud: str
    now: float
    others: tuple[Instance, ...]
    problem: str = ""


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
            _answer(seen, _shown(account.ledger, seen, picked), out, clears=clears)
            return ExitCode.DONE
    except (CredentialError, RemoteError) as error:
        problem = error
    with open_ledger() as ledger:
        name = accounts.chosen_cloud(cloud, ledger)
        seen = Seen(name, accounts.clock_of(name).now(), (), str(problem))
        rentals = _shown(ledger, seen, picked)
        if not rentals:
            raise problem
        _answer(seen, rentals, out, clears=clears)
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
        if picked.word is None or picked.word in {rental.instance_id, rental.id, rental.name}
        if (rental.is_open and not picked.stopped)
        or (picked.history and not rental.is_open and (rental.ended_at or rental.asked_at) >= since)
    ]


def _answer(seen: Seen, rentals: list[Rental], out: output.Output, *, clears: bool) -> None:
    from soong.cli.views.start import document

    if clears:
        click.clear()
    out.answer(
        data=lambda: {
            "rentals": [document(rental, seen.now) for rental in rentals],
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
    lines += _guards(seen, rentals)
    for one in seen.others:
        price = f"${one.usd_per_hour:.2f}/h" if one.usd_per_hour is not None else "price not told"
        lines.append(f"also in the account, not this computer's: {one.id} {one.instance_type} {price}")
    return "\n".join(lines)


def _table(seen: Seen, rentals: list[Rental]) -> str:
    rows = [_row(rental, seen.now) for rental in rentals]
    if len(rentals) > 1:
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
