"""`soong costs`: what it has cost, by day, model or GPU, and where this month leads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from soong.cli import output, text
from soong.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from soong.launch.budget import Forecast
    from soong.lease.ledger import Rental

DAYS = 30
CAP = "budget.monthly_usd"


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
    """What soong has rented on this computer, what it cost by the prices shown at launch, and where this month leads.

    Counted from the launch call, so never less than the bill; the network is not asked. The forecast is what is spent
    and the larger of two: running leases to their ends, or the last seven days' rate to the month's end.
    """
    from soong.cli.account import clock_of
    from soong.clouds import check_name
    from soong.launch.budget import REHEARSAL, counted, forecast
    from soong.lease.ledger import open_ledger
    from soong.settings import config

    if cloud is not None:
        cloud = cloud.lower()
        check_name(cloud)
    now = clock_of(cloud or "").now()
    start = _moment(since, now)
    with open_ledger() as ledger:
        everything = ledger.rentals()
    rentals = [one for one in everything if (one.cloud == cloud if cloud else one.cloud != REHEARSAL)]
    rehearsed = cloud is None and any(one.cloud == REHEARSAL for one in everything)
    sums: dict[str, list[float]] = {}
    for key, hours, usd in _parts(rentals, by, start, now):
        total = sums.setdefault(key, [0.0, 0.0])
        total[0] += hours
        total[1] += usd
    rows = sorted(sums.items(), key=lambda item: item[0] if by == "day" else -item[1][1])
    month = forecast(rentals, now, config.value(CAP), against=counted(everything, cloud or ""))
    out.answer(
        data=lambda: {
            "since": datetime.fromtimestamp(start, UTC).date().isoformat(),
            "by": by,
            "rows": [{by: key, "hours": round(hours, 4), "usd": round(usd, 4)} for key, (hours, usd) in rows],
            "usd": round(sum(usd for _, (_, usd) in rows), 4),
            "month": month,
        },
        ids=[key for key, _ in rows],
        human=lambda: "\n".join([_page(by, rows), *_month(month, rehearsal=cloud == REHEARSAL)]),
    )
    if rehearsed:
        out.hint("`soong costs --cloud sandbox` tells what the rehearsals would have cost")


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


def _month(month: Forecast, *, rehearsal: bool) -> list[str]:
    """This month in up to five lines; none where it has cost nothing and no cap is set.

    Args:
        rehearsal: the cap counts only what runs, and no money is spent that a forecast could be made of.
    """
    if not (month.spent_usd or month.committed_usd or month.usd_per_day or month.cap_usd):
        return []
    lines = [
        ("spent", f"${month.spent_usd:.2f}"),
        ("running leases, to their ends", f"${month.committed_usd:.2f}"),
    ]
    if not rehearsal:
        lines.append(("by the end of the month", f"about ${month.forecast_usd:.2f}{_at_which_rate(month)}"))
    if month.cap_usd is not None and month.left_usd is not None:
        left = f"${month.left_usd:.2f} left" if month.left_usd >= 0 else f"passed by ${-month.left_usd:.2f}"
        lines.append((f"your cap ({CAP})", f"${month.cap_usd:.2f}, {left}"))
        if rehearsal:
            frees = "; `soong stop --cloud sandbox` frees it" if month.committed_usd > 0 else ""
            lines.append(("", f"of rehearsals those that run count{frees}"))
        elif month.forecast_usd > month.cap_usd:
            lines.append(
                ("", text.style("at this rate the month passes it; starts beyond it are refused", "yellow"))
            )
    wide = max(len(label) for label, _ in lines)
    return [
        "",
        text.style(_month_name(month.month), "bold"),
        *(f"  {label:<{wide}}  {said}" for label, said in lines),
    ]


def _at_which_rate(month: Forecast) -> str:
    """What the forecast goes by: the rate where that comes to more than the leases that run."""
    by_rate = month.forecast_usd > month.spent_usd + month.committed_usd + 0.005
    return f", at the last week's ${month.usd_per_day:.2f} a day" if by_rate else ""


def _month_name(month: str) -> str:
    return datetime.fromisoformat(f"{month}-01").strftime("%B %Y")


def _page(by: str, rows: list[tuple[str, list[float]]]) -> str:
    if not rows:
        return "nothing was rented in this time"
    cells = [[key, f"{hours:.2f}", f"${usd:.2f}"] for key, (hours, usd) in rows]
    total = ["total", f"{sum(one[1][0] for one in rows):.2f}", f"${sum(one[1][1] for one in rows):.2f}"]
    return text.table([by.capitalize(), "Hours", "Cost"], [*cells, total], right=(1, 2))
