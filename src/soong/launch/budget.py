"""The month's cap: what has been spent, what running leases can still cost, and whether one more lease fits under it.

A month is the calendar's, in the person's time zone, as the days of `soong costs` are. A lease over a month's end
counts in each month by the hours that fall in it. A running lease counts to its end, so the cap holds even where
nobody stops anything early. Rehearsals have a purse of their own: only those that run count, and never with money.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong import units
from soong.errors import UsageError
from soong.lease.lease import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from soong.lease.ledger import Ledger, Rental

KEY = "budget.monthly_usd"
WARN_AT = 0.8
"""The share of the cap from which a start says how near it is."""

RATE_DAYS = 7
"""The forecast goes by the last seven days: a whole week, so that a weekend neither hides nor doubles the use."""

SECONDS_PER_DAY = 86400.0
LEAST_HOURS = 0.1
"""A shorter lease is not worth suggesting: booting and loading take minutes."""

FEWER_HOURS = "--hours {}"
CENT = 0.005
REHEARSAL = "sandbox"


class OverBudgetError(UsageError):
    """A lease would take a month over the person's own cap; nothing was launched or extended for it."""

    code = "over-budget"


class Month(NamedTuple):
    """One calendar month in the person's time zone."""

    year: int
    number: int

    @property
    def name(self) -> str:
        """`November 2026`."""
        return datetime(self.year, self.number, 1, tzinfo=UTC).strftime("%B %Y")

    @property
    def begins_at(self) -> float:
        """Its first moment, in seconds since 1970."""
        return datetime(self.year, self.number, 1).astimezone().timestamp()

    @property
    def next(self) -> Month:
        """The month after it."""
        return Month(self.year + self.number // 12, self.number % 12 + 1)


class Span(NamedTuple):
    """A time that is paid for. begin, end: seconds since 1970."""

    begin: float
    end: float
    usd_per_hour: float


class Spending(NamedTuple):
    """What one month costs: spent until now, and committed by leases that run, to their present ends."""

    spent_usd: float = 0.0
    committed_usd: float = 0.0

    @property
    def usd(self) -> float:
        """Both together: what the cap is held against."""
        return self.spent_usd + self.committed_usd


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A month so far, and where it leads.

    Attributes:
        month: `2026-11`. spent_usd: since its first day.
        committed_usd: by leases that run, to their ends in this month.
        usd_per_day: of the last seven days, or of those since the first rental.
        forecast_usd: at the month's end: spent, and the larger of what is committed and that rate until then.
        cap_usd: `budget.monthly_usd`; None where none is set. left_usd: under the cap, after spent and committed.
    """

    month: str
    spent_usd: float
    committed_usd: float
    usd_per_day: float
    forecast_usd: float
    cap_usd: float | None
    left_usd: float | None


def month_of(at: float) -> Month:
    """The month of a moment in seconds since 1970, in the person's time zone."""
    moment = datetime.fromtimestamp(at, UTC).astimezone()
    return Month(moment.year, moment.month)


def by_month(span: Span) -> Iterator[tuple[Month, Span]]:
    """The span cut at each month's end, in order."""
    begin, end, usd_per_hour = span
    while begin < end:
        month = month_of(begin)
        until = min(end, month.next.begins_at)
        yield month, Span(begin, until, usd_per_hour)
        begin = until


def cost_usd(span: Span) -> float:
    """What the span costs."""
    return max(0.0, span.end - span.begin) / SECONDS_PER_HOUR * span.usd_per_hour


def counted(rentals: Iterable[Rental], cloud: str) -> list[Rental]:
    """The rentals that count together with those of `cloud`: all that cost money, or the rehearsals that run."""
    if cloud == REHEARSAL:
        return [one for one in rentals if one.cloud == REHEARSAL and one.is_open]
    return [one for one in rentals if one.cloud != REHEARSAL]


def spending(rentals: Iterable[Rental], now: float) -> dict[Month, Spending]:
    """What each month costs: what is over or running until `now`, and running leases from now to their ends."""
    sums: dict[Month, list[float]] = {}
    for rental in rentals:
        if rental.phase == "refused":
            continue
        over_at = rental.ended_at if rental.ended_at is not None else now
        _add(sums, 0, Span(rental.asked_at, over_at, rental.usd_per_hour))
        if rental.is_open:
            _add(sums, 1, Span(now, rental.lease.ends_at, rental.usd_per_hour))
    return {month: Spending(*pair) for month, pair in sums.items()}


def _add(sums: dict[Month, list[float]], place: int, span: Span) -> None:
    for month, part in by_month(span):
        sums.setdefault(month, [0.0, 0.0])[place] += cost_usd(part)


def check(
    cap_usd: float | None,
    rentals: Iterable[Rental],
    wanted: Sequence[Span],
    now: float,
    *,
    again: str,
    cloud: str = "",
) -> str:
    """Make sure that what is wanted fits under the cap in every month that it falls in.

    Args:
        cap_usd: dollars a month; None for no cap. rentals: those that count (`counted`). wanted: what would be added.
        again: how to ask for fewer hours, `--hours {}`. cloud: where; a rehearsal's figures stand in a list of theirs.

    Returns:
        A warning where a month comes to 80 % of the cap or more; else nothing.

    Raises:
        OverBudgetError: it does not fit; tells the figures and how many hours would.
    """
    if cap_usd is None:
        return ""
    months, warning = spending(rentals, now), ""
    more: dict[Month, float] = {}
    for span in wanted:
        for month, part in by_month(span):
            more[month] = more.get(month, 0.0) + cost_usd(part)
    for month in sorted(month for month, usd in more.items() if usd > 0):
        held = months.get(month, Spending())
        total = held.usd + more[month]
        if total > cap_usd + CENT:
            raise _over(cap_usd, months, month, more[month], wanted, again, cloud)
        if total >= WARN_AT * cap_usd and not warning:
            warning = (
                f"with ${more[month]:.2f} for this lease, {month.name} comes to ${total:.2f} "
                f"of your ${cap_usd:.2f} ({KEY})"
            )
    return warning


def _over(
    cap_usd: float,
    months: dict[Month, Spending],
    month: Month,
    usd: float,
    wanted: Sequence[Span],
    again: str,
    cloud: str,
) -> OverBudgetError:
    held = months.get(month, Spending())
    hours = hours_that_fit(cap_usd, months, wanted)
    hint = (f"`{again.format(units.format_hours(hours))}` stays under it",) if hours >= LEAST_HOURS else ()
    costs = f"soong costs --cloud {REHEARSAL}" if cloud == REHEARSAL else "soong costs"
    return OverBudgetError(
        f"this would take {month.name} over your cap of ${cap_usd:.2f}",
        why=f"${held.spent_usd:.2f} spent, ${held.committed_usd:.2f} for leases that run, to their ends, and "
        f"${usd:.2f} for this",
        hints=(*hint, f"soong config set {KEY} {math.ceil(held.usd + usd)}", costs),
        docs="budgets.md",
    )


def hours_that_fit(cap_usd: float, months: dict[Month, Spending], wanted: Sequence[Span]) -> float:
    """How many hours from the beginning of what is wanted fit under the cap, in whole minutes.

    Several spans (replicas) begin together, and each gets these hours.
    """
    if not wanted:
        return 0.0
    usd_per_hour = sum(span.usd_per_hour for span in wanted)
    longest = max(wanted, key=lambda span: span.end - span.begin)
    hours = 0.0
    for month, part in by_month(longest):
        length = (part.end - part.begin) / SECONDS_PER_HOUR
        room = max(0.0, cap_usd - months.get(month, Spending()).usd)
        fitting = min(length, room / usd_per_hour) if usd_per_hour else length
        hours += fitting
        if fitting < length:
            break
    return math.floor(hours * 60 + 1e-6) / 60


@contextmanager
def alone(cap_usd: float | None, ledger: Ledger) -> Iterator[None]:
    """Hold the cap while the block checks it and writes a lease into the ledger: two at once cannot slip under it.

    The lock is a file beside the ledger, which the system frees when a process dies; without a cap there is none.
    """
    if cap_usd is None:
        yield
        return
    from soong.settings.files import locked
    from soong.settings.paths import made

    with locked(made(ledger.file.parent) / "budget.lock"):
        yield


def check_most(rental: Rental, ends_at: float) -> None:
    """Make sure that the machine costs no more than was agreed at its start (`--max-cost`), if it runs to `ends_at`.

    Raises:
        OverBudgetError: it would; tells how many hours more would not.
    """
    usd = cost_usd(Span(rental.asked_at, ends_at, rental.usd_per_hour))
    if rental.max_usd is None or usd <= rental.max_usd + CENT:
        return
    left = rental.max_usd / rental.usd_per_hour - (rental.lease.ends_at - rental.asked_at) / SECONDS_PER_HOUR
    hours = math.floor(left * 60 + 1e-6) / 60
    hint = (f"soong extend {units.format_hours(hours)} {rental.group_name}",) if hours >= LEAST_HOURS else ()
    raise OverBudgetError(
        f"{rental.name} would cost ${usd:.2f}, and ${rental.max_usd:.2f} is the most it may cost",
        why="as it was started with `--max-cost`",
        hints=(*hint, f"the same with `--max-cost {math.ceil(usd)}`"),
        docs="budgets.md",
    )


def forecast(
    rentals: Sequence[Rental], now: float, cap_usd: float | None, *, against: Sequence[Rental] | None = None
) -> Forecast:
    """This month until now, and its end at the rate of the last days.

    Args:
        rentals: that the sums are of. against: that the cap is held against (`counted`), where those are others.
    """
    month = month_of(now)
    counts = spending(rentals if against is None else against, now).get(month, Spending())
    held = spending(rentals, now).get(month, Spending())
    usd_per_day = _usd_per_day(rentals, now)
    days_left = (month.next.begins_at - now) / SECONDS_PER_DAY
    return Forecast(
        month=f"{month.year}-{month.number:02d}",
        spent_usd=round(held.spent_usd, 4),
        committed_usd=round(held.committed_usd, 4),
        usd_per_day=round(usd_per_day, 4),
        forecast_usd=round(held.spent_usd + max(held.committed_usd, usd_per_day * days_left), 4),
        cap_usd=None if cap_usd is None else float(cap_usd),
        left_usd=None if cap_usd is None else round(cap_usd - counts.usd, 4),
    )


def _usd_per_day(rentals: Sequence[Rental], now: float) -> float:
    """Of the last `RATE_DAYS`, or of the days since the first rental, at least one."""
    first = min((one.asked_at for one in rentals), default=now)
    days = min(float(RATE_DAYS), max(1.0, (now - first) / SECONDS_PER_DAY))
    since = now - days * SECONDS_PER_DAY
    spans = (
        Span(max(one.asked_at, since), one.ended_at if one.ended_at is not None else now, one.usd_per_hour)
        for one in rentals
        if one.phase != "refused"
    )
    return sum(map(cost_usd, spans)) / days
