"""No road to a machine leads past the person's own caps: start, run, extend, two at once, a price that was not told."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.launch import starting
from soong.launch.budget import Span, cost_usd
from soong.launch.finding import of_rental
from tests.cli.rehearsal import MODEL, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance
    from soong.lease.ledger import Rental
    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

START = ("start", "--model", MODEL, "--cloud", "sandbox", "--no-serve", "--yes")
USD_PER_HOUR = 1.09
FOUR_HOURS = 4 * USD_PER_HOUR


@pytest.fixture(autouse=True)
def mid_month(rehearsal: Rehearsal) -> None:
    """Leases over a month's end are counted in both; these tests are about one."""
    now = datetime.fromtimestamp(rehearsal.client().clock.now()).astimezone()
    if now.day > 20:
        rehearsal.skip((36 - now.day) * 24)


def cap(soong: Soong, usd: float, key: str = "budget.monthly_usd") -> None:
    assert soong("config", "set", key, f"{usd:g}").code == 0


def test_a_second_start_that_would_pass_the_cap_is_refused(soong: Soong, rehearsal: Rehearsal) -> None:
    cap(soong, 6)
    first = soong(*START, "--name", "one")
    assert (first.code, "budget.monthly_usd" in first.err) == (0, False)
    second = soong(*START, "--name", "two")
    assert second.code == 2
    assert "over your cap of $6.00" in second.err
    assert f"${FOUR_HOURS:.2f} for this" in second.err
    assert "hint: `--hours 1h30m` stays under it" in second.err
    assert "hint: soong config set budget.monthly_usd 9" in second.err
    assert len(rehearsal.bill) == 1
    shorter = soong(*START, "--name", "two", "--hours", "1h30m")
    assert shorter.code == 0, shorter.err
    assert "Warning: with $1.64 for this lease" in shorter.err
    assert "of your $6.00 (budget.monthly_usd)" in shorter.err


def test_a_dry_run_refuses_what_the_start_would(soong: Soong, rehearsal: Rehearsal) -> None:
    cap(soong, 3)
    for words in ((), ("--replicas", "2")):
        dry = soong(*START, "--hours", "4", "--dry-run", *words)
        real = soong(*START, "--hours", "4", *words)
        assert (dry.code, real.code) == (2, 2), dry.out
        assert dry.err.splitlines()[-4:] == real.err.splitlines()[-4:]
        assert "over your cap of $3.00" in dry.err
    fits = soong(*START, "--hours", "2", "--dry-run")
    assert (fits.code, "would ask for:" in fits.out) == (0, True), fits.err
    assert rehearsal.bill == []


def test_a_refusal_for_a_script(soong: Soong, rehearsal: Rehearsal) -> None:
    cap(soong, 1)
    ended = soong(*START, "--json")
    assert (ended.code, ended.out) == (2, "")
    told = msgspec.json.decode(ended.err)
    assert (told["code"], told["docs"]) == ("over-budget", "docs/budgets.md")
    assert rehearsal.bill == []


def test_two_starts_at_once_cannot_both_slip_under_the_cap(soong: Soong, rehearsal: Rehearsal) -> None:
    """Both are past the first look before either is in the ledger: the second look, alone, refuses one."""
    cap(soong, 6)
    both = [rehearsal.spawn(*START, "--name", name) for name in ("one", "two", "three")]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert sorted(code for _, code in ended) == [0, 2, 2], ended
    assert len(rehearsal.bill) == 1


def test_run_respects_the_cap(soong: Soong, rehearsal: Rehearsal) -> None:
    cap(soong, 1)
    words = ("run", MODEL, "--cloud", "sandbox", "--engine-env", str(rehearsal.home), "--yes", "--", "true")
    ended = soong(*words)
    assert (ended.code, "over your cap of $1.00" in ended.err) == (2, True), ended.err
    assert rehearsal.bill == []


def test_extend_respects_the_cap(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    cap(soong, 6)
    before = soong("status", "--json").json["rentals"][0]
    ended = soong("extend", "2", "--yes")
    assert ended.code == 2
    assert "hint: `soong extend 1h30m llama-3-1-8b` stays under it" in ended.err
    (rental,) = rehearsal.ledger.open_rentals()
    assert rental.lease.ends_at - rental.lease.launched_at == 4 * 3600, before
    near = soong("extend", "1h30m", "--yes")
    assert near.code == 0, near.err
    assert "Warning: with $1.64 for this lease" in near.err


def test_max_cost_holds_for_extend_until_it_is_said_anew(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START, "--hours", "2", "--max-cost", "3").code == 0
    ended = soong("extend", "1", "--yes")
    assert ended.code == 2
    assert "would cost $3.27, and $3.00 is the most it may cost" in ended.err
    assert "hint: soong extend 45m llama-3-1-8b" in ended.err
    assert soong("extend", "45m", "--yes").code == 0
    more = soong("extend", "1", "--max-cost", "5", "--yes")
    assert more.code == 0, more.err
    (rental,) = rehearsal.ledger.open_rentals()
    assert rental.max_usd == 5.0
    assert rental.lease.ends_at - rental.lease.launched_at == 3.75 * 3600


def test_a_cap_for_each_start(soong: Soong, rehearsal: Rehearsal) -> None:
    cap(soong, 2.18, "budget.per_start_usd")
    assert soong(*START, "--name", "one").code == 0
    assert soong(*START, "--name", "two", "--hours", "1").code == 0
    assert soong(*START, "--name", "three", "--max-cost", "3.27").code == 0
    leases = {one.name: one.lease for one in rehearsal.ledger.open_rentals()}
    hours = {name: (lease.ends_at - lease.launched_at) / 3600 for name, lease in leases.items()}
    assert hours == {"one": 2.0, "two": 1.0, "three": 3.0}


class Dearer:
    """A prober that finds the machine at a price that no list told."""

    def __init__(self, provider: Any, usd_per_hour: float) -> None:
        self.provider = provider
        self.usd_per_hour = usd_per_hour

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        until(lambda: of_rental(rental, self.provider.instances()))
        found: Instance = of_rental(rental, self.provider.instances())[0]
        return msgspec.structs.replace(found, usd_per_hour=self.usd_per_hour)


A6000 = starting.Candidate(
    instance_type="gpu_1x_a6000",
    region="us-south-1",
    gpu="a6000-48gb",
    gpu_count=1,
    usd_per_hour=USD_PER_HOUR,
)


@pytest.mark.parametrize(
    ("limits", "hours"), [({"max_usd": 4.36}, 2.0), ({"monthly_usd": 5.45}, 2.5), ({"max_usd": 99.0}, 4.0)]
)
def test_a_dearer_machine_than_was_listed_gets_a_shorter_lease(
    rehearsal: Rehearsal, limits: dict[str, Any], hours: float
) -> None:
    provider = rehearsal.client()
    key = provider.add_ssh_key(
        "mine", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a"
    )
    terms = starting.Terms(
        name="box", model=MODEL, owner="ada", hours=4, cap_hours=8, ssh_key_name=key.name, **limits
    )
    region = next(
        one.region for one in provider.offers() if one.instance_type == "gpu_1x_a6000" and one.available
    )
    wish = msgspec.structs.replace(A6000, region=region)
    with rehearsal.ledger as ledger:
        rental = starting.start(provider, ledger, lambda: (wish,), terms, Dearer(provider, 2 * USD_PER_HOUR))
        assert rental.usd_per_hour == 2 * USD_PER_HOUR
        length = rental.lease.ends_at - rental.lease.launched_at
        assert length == pytest.approx(hours * 3600, abs=120)
        whole = Span(rental.lease.launched_at, rental.lease.ends_at, rental.usd_per_hour)
        assert cost_usd(whole) <= min(limits.values()) + 0.01
    (machine,) = provider.instances()
    assert machine.name == rental.lease.instance_name, "any computer with the key reads the new end"


def test_an_unfit_machine_is_paid_from_the_same_purse(soong: Soong, rehearsal: Rehearsal) -> None:
    rehearsal.fault("cuda-802")
    begun = soong(*START, "--max-cost", "3.27")
    assert begun.code == 0, begun.err
    first, second = sorted(rehearsal.ledger.rentals(), key=lambda one: one.asked_at)
    spent = first.cost_usd(0.0)
    assert spent > 0
    length = (second.lease.ends_at - second.lease.launched_at) / 3600
    assert spent + length * USD_PER_HOUR == pytest.approx(3.27, abs=0.02)


def test_costs_tells_where_the_month_leads(soong: Soong, rehearsal: Rehearsal) -> None:
    from soong.lease.ledger import open_ledger
    from tests.lease.test_ledger import a_rental

    with open_ledger() as ledger:
        now = time.time()
        made = a_rental(1, asked_at=now - 2 * 3600, usd_per_hour=3.0)
        lease = msgspec.structs.replace(made.lease, ends_at=int(now) + 60)
        ledger.add(msgspec.structs.replace(made, lease=lease))
    free = soong("costs")
    assert "by the end of the month" in free.out
    assert "your cap" not in free.out
    cap(soong, 500)
    told = soong("costs", "--json").json["month"]
    assert told["cap_usd"] == 500
    assert told["left_usd"] == pytest.approx(500 - told["spent_usd"] - told["committed_usd"], abs=0.001)
    assert told["usd_per_day"] == pytest.approx(6.0, abs=0.1)
    assert told["forecast_usd"] >= told["spent_usd"]
    shown = soong("costs").out
    assert "your cap (budget.monthly_usd)  $500.00" in shown
    cap(soong, 0.5)
    assert "passed by $" in soong("costs").out


def test_costs_of_rehearsals_show_the_cap_that_refuses_them(soong: Soong, rehearsal: Rehearsal) -> None:
    """What is over counts no more, as for the start; a rehearsal takes nothing from the purse of real machines."""
    cap(soong, 6)
    assert soong(*START, "--name", "one").code == 0
    refused = soong(*START, "--name", "two")
    assert (refused.code, "hint: soong costs --cloud sandbox" in refused.err) == (2, True)
    month = soong("costs", "--cloud", "sandbox", "--json").json["month"]
    assert (month["cap_usd"], month["left_usd"]) == (6, pytest.approx(6 - FOUR_HOURS, abs=0.01))
    shown = soong("costs", "--cloud", "sandbox").out
    assert re.search(r"your cap \(budget.monthly_usd\) +\$6.00, \$1.64 left", shown)
    assert "`soong stop --cloud sandbox` frees it" in shown
    assert "by the end of the month" not in shown, "no money is spent that a forecast could be made of"
    assert soong("stop", "one", "--yes").code == 0
    over = soong("costs", "--cloud", "sandbox").out
    assert ("$6.00, $6.00 left" in over, "soong stop" in over) == (True, False), over
    after = soong("costs", "--cloud", "sandbox", "--json").json["month"]
    assert after["spent_usd"] > 0
    assert after["left_usd"] == 6
    assert soong("costs", "--json").json["month"]["left_usd"] == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hours", "1"), "Can be extended up to 8 h in all."),
        (
            ("--hours", "1", "--max-cost", "2.18"),
            "Can be extended up to 2 h in all for the $2.18 that it may cost.",
        ),
        (("--max-cost", "2.18"), "Cannot be extended for that money"),
        (("--hours", "8"), "That is the longest that a lease can be (`lease.cap_hours`)."),
    ],
)
def test_what_more_time_the_money_allows(
    soong: Soong, rehearsal: Rehearsal, words: tuple[str, ...], said: str
) -> None:
    shown = soong(*START, "--dry-run", *words).out
    assert said in shown, shown


def test_what_more_time_the_month_allows(soong: Soong, rehearsal: Rehearsal) -> None:
    cap(soong, 5.45)
    shown = soong(*START, "--dry-run").out
    assert "Can be extended up to 5 h in all for this month's cap." in shown
    assert "Cannot be extended under this month's cap" in soong(*START, "--dry-run", "--hours", "5").out
