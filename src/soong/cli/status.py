"""`soong status`: what runs, until when, what it has cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from soong.cli import output, text
from soong.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from soong.cli.account import Account
    from soong.launch.provider import Instance
    from soong.lease.ledger import Rental

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


@click.command(
    "status",
    epilog="\b\nExamples:\n  soong status\n  soong status --history --json\n  soong status --watch\n",
)
@click.option("--instance-id", help="Only this machine, by the cloud's own id.")
@click.option("-h", "--history", is_flag=True, help="Also what has ended.")
@click.option("-s", "--stopped", is_flag=True, help="Only what has ended.")
@click.option("--history-hours", default=168.0, show_default=True, help="How far back the history goes.")
@click.option("--watch", is_flag=True, help="Repeat every ten seconds until Ctrl-C.")
@click.option("--cloud", help="lambda, or sandbox.")
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
    """What is running, how long it has left, what it costs and has cost, and who will end it."""
    from soong.cli import account as accounts

    while True:
        with accounts.opened(cloud, out) as account:
            rentals = _shown(
                account, instance_id, history=history or stopped, stopped=stopped, hours=history_hours
            )
            if watch and not out.as_json:
                click.clear()
            _answer(account, rentals, out)
        if not watch:
            return ExitCode.DONE
        time.sleep(REFRESH_SECONDS)


def _shown(
    account: Account, instance_id: str | None, *, history: bool, stopped: bool, hours: float
) -> list[Rental]:
    since = account.provider.clock.now() - hours * 3600
    known = account.ledger.rentals()
    return [
        rental
        for rental in known
        if rental.cloud == account.provider.cloud
        if instance_id is None or instance_id in {rental.instance_id, rental.id, rental.name}
        if (rental.is_open and not stopped)
        or (history and not rental.is_open and (rental.ended_at or rental.asked_at) >= since)
    ]


def _answer(account: Account, rentals: list[Rental], out: output.Output) -> None:
    from soong.cli.views.start import document

    now = account.provider.clock.now()
    out.answer(
        data=lambda: {
            "rentals": [document(rental, now) for rental in rentals],
            "usd_per_hour": round(sum(one.usd_per_hour for one in rentals if one.is_open), 4),
            "cost_usd": round(sum(one.cost_usd(now) for one in rentals), 4),
            "not_soongs": [
                {"instance_id": one.id, "instance_type": one.instance_type, "usd_per_hour": one.usd_per_hour}
                for one in _others(account)
            ],
        },
        ids=[rental.id for rental in rentals],
        human=lambda: _page(account, rentals, now),
    )


def _others(account: Account) -> list[Instance]:
    """Machines of the account that are not in this ledger: told with their price, never touched."""
    from soong.launch.finding import lease_id_of

    known = {rental.id for rental in account.ledger.rentals(refused=True)}
    return [one for one in account.provider.instances() if one.is_billing and lease_id_of(one) not in known]


def _page(account: Account, rentals: list[Rental], now: float) -> str:
    lines = []
    if rentals:
        heads = [
            "Name",
            "Model",
            "Machine",
            "Region",
            "Status",
            "Up",
            "Left",
            "Ends",
            "$/hour",
            "Cost so far",
        ]
        rows = [_row(rental, now) for rental in rentals]
        if len(rentals) > 1:
            rate = sum(rental.usd_per_hour for rental in rentals if rental.is_open)
            cost = sum(rental.cost_usd(now) for rental in rentals)
            rows.append(["total", "", "", "", "", "", "", "", f"{rate:.2f}", f"${cost:.2f}"])
        title = (
            "Machines" if account.provider.costs_money else "Machines in the sandbox (nothing costs money)"
        )
        lines.append(text.table(heads, rows, title=title, right=(5, 6, 8, 9)))
    else:
        lines.append("nothing of soong's is running here")
    lines += _guards(account, rentals)
    for one in _others(account):
        price = f"${one.usd_per_hour:.2f}/h" if one.usd_per_hour is not None else "price not told"
        lines.append(f"also in the account, not this computer's: {one.id} {one.instance_type} {price}")
    return "\n".join(lines)


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


def _guards(account: Account, rentals: list[Rental]) -> list[str]:
    """Who ends what runs, and whether that one is alive."""
    from soong.lease.guardian import heartbeat

    running = [rental for rental in rentals if rental.is_open]
    if not running:
        return []
    beat = heartbeat.last(account.provider.cloud)
    words = ", ".join(dict.fromkeys(guard for rental in running for guard in rental.guards)) or "nobody known"
    if beat is None or not beat.is_fresh(time.time()):
        warning = f"ended by: {words}, but the guardian of this computer has not run lately"
        return [text.style(warning, "red"), "hint: soong doctor --fix"]
    if beat.problem:
        return [text.style(f"ended by: {words}, but its last round failed: {beat.problem}", "red")]
    return [text.style(f"ended by: {words}; its last round was {time.time() - beat.at:.0f} s ago", "dim")]
