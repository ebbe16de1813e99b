"""The month's cap, by hand-counted cases: what is spent, what is committed, and what one more lease may be."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.launch import asking, budget
from soong.launch.budget import Month, OverBudgetError, Span, Spending
from soong.lease.lease import make_lease
from soong.lease.ledger import Ledger
from tests.lease.test_ledger import a_rental

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.clouds.lambda_cloud.provider import LambdaProvider
    from soong.lease.ledger import Rental
    from tests.clouds.conftest import HandClock
    from tests.clouds.server import FakeLambda

HOUR, DAY = 3600.0, 86400.0
NOVEMBER, DECEMBER = Month(2026, 11), Month(2026, 12)


@pytest.fixture(autouse=True, params=["UTC", "America/Los_Angeles", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Months are the person's own, wherever they are."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def at(day: int, hour: float = 0.0, month: int = 11) -> float:
    return datetime(2026, month, day).astimezone().timestamp() + hour * HOUR


def rented(
    number: int,
    begin: float,
    hours: float,
    usd_per_hour: float = 1.0,
    *,
    ended: float | None = None,
    **more: object,
) -> Rental:
    """A rental of `hours`; over after `ended` of them, else open."""
    lease = make_lease(owner="ada", now=begin, hours=hours, cap_hours=1000, lease_id=f"{number:010x}")
    over = {} if ended is None else {"phase": "ended", "ended_at": begin + ended * HOUR}
    fields = {"lease": lease, "asked_at": begin, "usd_per_hour": usd_per_hour, **over, **more}
    return a_rental(number, **fields)


def test_what_is_over_is_spent_and_what_runs_is_committed_to_its_end() -> None:
    now = at(10, 12)
    rentals = [
        rented(1, at(3), 8, 2.0, ended=5),  # 10 spent, though its lease was 16
        rented(2, at(10, 9), 10, 3.0),  # 9 spent in three hours, 21 to come
        rented(3, at(4), 8, 99.0, phase="refused"),
        rented(4, at(28, month=10), 8, 7.0, ended=8),
    ]
    months = budget.spending(rentals, now)
    assert months[NOVEMBER] == pytest.approx(Spending(19.0, 21.0))
    assert months[Month(2026, 10)] == pytest.approx(Spending(56.0, 0.0))


def test_a_machine_that_outlives_its_lease_goes_on_costing() -> None:
    now = at(10, 12)
    assert budget.spending([rented(1, at(10), 2, 1.5)], now)[NOVEMBER] == pytest.approx(Spending(18.0, 0.0))


def test_a_lease_over_the_months_end_counts_in_both() -> None:
    night = Span(at(30, 22), at(30, 22) + 6 * HOUR, 2.0)
    parts = dict(budget.by_month(night))
    assert {month: budget.cost_usd(part) for month, part in parts.items()} == {NOVEMBER: 4.0, DECEMBER: 8.0}
    # Each month has room for its own part alone.
    held = [rented(1, at(2), 8, 1.0, ended=6)]
    assert budget.check(11.0, held, [night], at(30, 22), again="{}") == (
        "with $4.00 for this lease, November 2026 comes to $10.00 of your $11.00 (budget.monthly_usd)"
    )
    with pytest.raises(OverBudgetError, match=r"take November 2026 over your cap of \$9\.00"):
        budget.check(9.0, held, [night], at(30, 22), again="{}")
    with pytest.raises(OverBudgetError, match=r"take December 2026 over your cap of \$7\.00") as over:
        budget.check(7.0, [], [night], at(30, 22), again="--hours {}")
    assert over.value.hints[0] == "`--hours 5h30m` stays under it", "two hours in November, 3.5 in December"


def test_the_last_second_of_a_year() -> None:
    eve = Span(at(31, 23, 12), at(31, 23, 12) + 2 * HOUR, 1.0)
    assert [month for month, _ in budget.by_month(eve)] == [DECEMBER, Month(2027, 1)]


def test_exactly_the_cap_is_allowed_and_a_cent_more_is_not() -> None:
    now = at(5)
    held = [rented(1, at(1), 8, 1.0, ended=6)]
    assert "$10.00 of your $10.00" in budget.check(
        10.0, held, [Span(now, now + 4 * HOUR, 1.0)], now, again="{}"
    )
    with pytest.raises(OverBudgetError):
        budget.check(10.0, held, [Span(now, now + 4 * HOUR, 1.005)], now, again="{}")


@pytest.mark.parametrize(("hours", "warned"), [(1.99, False), (2.0, True)])
def test_a_warning_from_four_fifths_on(hours: float, warned: bool) -> None:
    now = at(5)
    held = [rented(1, at(1), 8, 1.0, ended=6)]
    assert bool(budget.check(10.0, held, [Span(now, now + hours * HOUR, 1.0)], now, again="{}")) == warned


def test_the_refusal_tells_the_figures_and_what_to_do() -> None:
    now = at(10, 12)
    held = [rented(1, at(3), 8, 1.0, ended=5), rented(2, at(10, 10), 4, 1.0)]
    with pytest.raises(OverBudgetError) as over:
        budget.check(12.0, held, [Span(now, now + 4 * HOUR, 2.0)], now, again="--hours {}")
    assert over.value.why == "$7.00 spent, $2.00 for leases that run, to their ends, and $8.00 for this"
    assert over.value.hints == (
        "`--hours 1h30m` stays under it",
        "soong config set budget.monthly_usd 17",
        "soong costs",
    )


def test_no_hours_are_suggested_where_none_fit() -> None:
    now = at(10, 12)
    held = [rented(1, at(3), 20, 1.0, ended=12)]
    with pytest.raises(OverBudgetError) as over:
        budget.check(12.0, held, [Span(now, now + HOUR, 2.0)], now, again="--hours {}")
    assert over.value.hints == ("soong config set budget.monthly_usd 14", "soong costs")


def test_several_machines_share_what_is_left() -> None:
    now = at(10)
    two = [Span(now, now + 4 * HOUR, 2.0)] * 2
    assert budget.hours_that_fit(6.0, {}, two) == 1.5
    with pytest.raises(OverBudgetError, match="over your cap"):
        budget.check(15.0, [], two, now, again="{}")


def test_without_a_cap_or_a_price_nothing_is_refused() -> None:
    now = at(10)
    full = [rented(1, at(3), 20, 9.0, ended=12)]
    assert budget.check(None, full, [Span(now, now + HOUR, 99.0)], now, again="{}") == ""
    assert budget.check(1.0, full, [Span(now, now + HOUR, 0.0)], now, again="{}") == "", (
        "this computer is free"
    )


def test_rehearsals_have_a_purse_of_their_own() -> None:
    real = rented(1, at(3), 8, ended=5)
    over = rented(2, at(3), 8, ended=5, cloud="sandbox")
    runs = rented(3, at(3), 8, cloud="sandbox")
    assert budget.counted([real, over, runs], "lambda") == [real]
    assert budget.counted([real, over, runs], "sandbox") == [runs]


def test_the_forecast_goes_by_the_last_week() -> None:
    now = at(21)
    rentals = [
        rented(1, at(2), 10, 5.0, ended=10),  # 50, long ago
        rented(2, at(16), 8, 3.5, ended=4),  # 14 in the last week
        rented(3, at(20, 20), 7, 7.0),  # 28 until now, 21 to come: 42 dollars in the last week
    ]
    found = budget.forecast(rentals, now, 200.0)
    assert (found.month, found.spent_usd, found.committed_usd) == ("2026-11", 92.0, 21.0)
    assert found.usd_per_day == 6.0
    assert found.forecast_usd == 92.0 + 6.0 * 10
    assert found.left_usd == 200.0 - 92.0 - 21.0
    # What is committed alone may be more than the rate.
    long = [rented(3, at(20, 20), 100, 7.0)]
    assert budget.forecast(long, now, None).forecast_usd == pytest.approx(28 + 7.0 * 96)
    assert budget.forecast(long, now, None).left_usd is None


def test_the_forecast_of_a_first_day_and_of_nothing() -> None:
    now = at(20, 12)
    first = budget.forecast([rented(1, at(20, 9), 2, 3.0, ended=2)], now, None)
    assert first.usd_per_day == 6.0, "a day is the least that a rate is of"
    nothing = budget.forecast([], now, 10.0)
    assert (nothing.forecast_usd, nothing.left_usd) == (0.0, 10.0)


def test_max_cost_holds_for_an_extension() -> None:
    running = rented(1, at(10), 2, 2.0, max_usd=7.0)
    budget.check_most(running, at(10, 3.5))
    with pytest.raises(OverBudgetError, match=r"would cost \$8\.00, and \$7\.00 is the most") as over:
        budget.check_most(running, at(10, 4))
    assert over.value.hints == ("soong extend 1h30m box-1", "the same with `--max-cost 8`")
    budget.check_most(msgspec.structs.replace(running, max_usd=None), at(20))


def test_a_launch_waits_for_another_that_is_being_counted(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, clock: HandClock
) -> None:
    """Two starts at once: the second is counted after the first stands in the ledger, and is refused."""
    asked, refused = threading.Event(), []

    def second() -> None:
        with Ledger(ledger.file) as own:
            asked.set()
            try:
                asking.ask(
                    provider, own, rented(2, clock.now(), 4), ssh_key_name="", user_data="", monthly_usd=6.0
                )
            except OverBudgetError as error:
                refused.append(error)

    other = threading.Thread(target=second, daemon=True)
    with budget.alone(6.0, ledger):
        other.start()
        assert asked.wait(10)
        other.join(0.5)
        assert ledger.rentals() == (), "it went past somebody who holds the cap"
        ledger.add(rented(1, clock.now(), 4))
    other.join(10)
    assert [error.code for error in refused] == ["over-budget"]
    assert server.requests == [], "nothing was asked of the cloud"
    assert [one.id for one in ledger.rentals()] == [rented(1, 0, 4).id]
