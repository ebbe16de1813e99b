"""`soong costs`: what it has cost, by day, model or GPU."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from soong.cli import output, text
from soong.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from soong.lease.ledger import Ledger, Rental

DAYS = 30


@click.command(
    "costs", epilog="\b\nExamples:\n  soong costs --by model\n  soong costs --since 2026-11-01 --json\n"
)
@click.option(
    "--since", help=f"A day (2026-11-01) or a number of days back (7d); {DAYS}d where none is given."
)
@click.option("--by", type=click.Choice(["day", "model", "gpu", "cloud"]), default="day", show_default=True)
@click.option("--cloud", help="Only this cloud; a rehearsal's machines count only when `sandbox` is named.")
@output.options
def command(*, since: str | None, by: str, cloud: str | None, out: output.Output) -> None:
    """What soong has rented on this computer, and what it cost by the prices shown at launch.

    Counted from the launch call, so never less than the bill; the network is not asked.
    """
    from soong.cli.account import clock_of
    from soong.clouds import check_name
    from soong.lease.ledger import open_ledger

    if cloud is not None:
        check_name(cloud)
    now = clock_of(cloud or "").now()
    start = _moment(since, now)
    with open_ledger() as ledger:
        rentals = [
            one for one in ledger.rentals() if (one.cloud == cloud if cloud else one.cloud != "sandbox")
        ]
        rehearsed = cloud is None and any(one.cloud == "sandbox" for one in ledger.rentals())
    sums: dict[str, list[float]] = {}
    for key, hours, usd in _parts(rentals, by, start, now):
        total = sums.setdefault(key, [0.0, 0.0])
        total[0] += hours
        total[1] += usd
    rows = sorted(sums.items(), key=lambda item: item[0] if by == "day" else -item[1][1])
    out.answer(
        data=lambda: {
            "since": datetime.fromtimestamp(start, UTC).date().isoformat(),
            "by": by,
            "rows": [{by: key, "hours": round(hours, 4), "usd": round(usd, 4)} for key, (hours, usd) in rows],
            "usd": round(sum(usd for _, (_, usd) in rows), 4),
        },
        ids=[key for key, _ in rows],
        human=lambda: _page(by, rows),
    )
    if rehearsed:
        out.hint("`soong costs --cloud sandbox` tells what the rehearsals would have cost")


def month_usd(ledger: Ledger, now: float) -> float:
    """What this computer has rented since the first of the month, in dollars, running leases up to their present end.

    Args:
        now: seconds since 1970.
    """
    today = datetime.fromtimestamp(now, UTC).astimezone()
    first = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    rentals = [one for one in ledger.rentals() if one.cloud != "sandbox"]
    to_come = sum(
        one.lease.remaining_seconds(now) / 3600 * one.usd_per_hour for one in rentals if one.is_open
    )
    return max(0.0, to_come) + sum(usd for _, _, usd in _parts(rentals, "day", first.timestamp(), now))


def _parts(rentals: list[Rental], by: str, start: float, now: float) -> Iterator[tuple[str, float, float]]:
    """(group, hours, dollars) of each rental after `start`; by day, a rental over midnight counts in both days."""
    word: dict[str, Callable[[Rental], str]] = {
        "model": lambda rental: rental.model,
        "gpu": lambda rental: f"{rental.gpu_count} × {rental.gpu}",
        "cloud": lambda rental: rental.cloud,
    }
    for rental in rentals:
        begin, end = max(rental.asked_at, start), rental.ended_at if rental.ended_at is not None else now
        for day, seconds in _days(begin, end):
            hours = seconds / 3600
            yield (day if by == "day" else word[by](rental)), hours, hours * rental.usd_per_hour


def _days(begin: float, end: float) -> Iterator[tuple[str, float]]:
    """The days that a span touches, in the person's time zone, and the seconds in each."""
    while begin < end:
        moment = datetime.fromtimestamp(begin, UTC).astimezone()
        midnight = (moment + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        until = min(end, midnight.timestamp())
        yield moment.date().isoformat(), until - begin
        begin = until


def _moment(since: str | None, now: float) -> float:
    if since is None:
        return now - DAYS * 86400
    if since.endswith("d") and since[:-1].isdecimal():
        return now - int(since[:-1]) * 86400
    try:
        return datetime.fromisoformat(since).astimezone().timestamp()
    except ValueError:
        raise UsageError(
            f"`--since` cannot be `{since[:40]}`", hints=("write a day, 2026-11-01, or 7d",)
        ) from None


def _page(by: str, rows: list[tuple[str, list[float]]]) -> str:
    if not rows:
        return "nothing was rented in this time"
    cells = [[key, f"{hours:.2f}", f"${usd:.2f}"] for key, (hours, usd) in rows]
    total = ["total", f"{sum(one[1][0] for one in rows):.2f}", f"${sum(one[1][1] for one in rows):.2f}"]
    return text.table([by.capitalize(), "Hours", "Cost"], [*cells, total], right=(1, 2))
