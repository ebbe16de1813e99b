"""One more machine of a group is bound by the same caps as a start: each start's, the group's own, what is said now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from soong.cli import replicas, serving_all
from soong.cli.account import Account
from soong.launch import groups
from tests.cli.rehearsal import MODEL
from tests.launch.several import GROUP, Several, several

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.lease.ledger import Rental
    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

__all__ = ["several"]
pytestmark = pytest.mark.slow

USD_PER_HOUR = 1.09
START = ("start", "--model", MODEL, "--cloud", "sandbox", "--no-serve", "--name", "duo", "--replicas", "2")
ADD = ("start", "--add-to", "duo", "--cloud", "sandbox", "--yes")


def joined(rehearsal: Rehearsal) -> Rental:
    """The machine that was added."""
    return next(one for one in rehearsal.ledger.open_rentals() if one.replica == 3)


def hours(rental: Rental) -> float:
    return (rental.lease.ends_at - rental.asked_at) / 3600


def group_of(rehearsal: Rehearsal) -> groups.Group:
    found = groups.find(rehearsal.ledger.open_rentals()[0].group)
    assert found is not None
    return found


def test_what_the_group_may_cost_holds_for_those_that_join(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START, "--hours", "4", "--max-cost", "10", "--yes").code == 0
    added = soong(*ADD)
    assert added.code == 0, added.err
    members = rehearsal.ledger.open_rentals()
    assert sum(one.cost_usd(one.lease.ends_at) for one in members) == pytest.approx(10.0, abs=0.02)
    more = soong(*ADD)
    assert more.code == 2, more.out
    assert "nothing is left of the $10.00 that duo may cost" in more.err
    assert "hint: soong start --add-to duo --max-cost 5" in more.err
    assert len(rehearsal.bill) == 3


def test_what_the_person_says_now_counts_instead(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START, "--hours", "4", "--max-cost", "9", "--yes").code == 0
    added = soong(*ADD, "--max-cost", "2.18")
    assert added.code == 0, added.err
    assert hours(joined(rehearsal)) == pytest.approx(2.0, abs=0.02)
    short = soong(*ADD, "--max-cost", "0.05")
    assert (short.code, "would be over before the machine can be used" in short.err) == (2, True), short.err
    whole = sum(one.cost_usd(one.lease.ends_at) for one in rehearsal.ledger.open_rentals())
    assert whole > 9.0
    assert group_of(rehearsal).max_usd == pytest.approx(whole, abs=0.01)


def test_the_cap_of_each_start_holds_for_one_that_joins(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START, "--hours", "4", "--yes").code == 0
    assert soong("config", "set", "budget.per_start_usd", f"{USD_PER_HOUR:g}").code == 0
    added = soong(*ADD)
    assert added.code == 0, added.err
    assert hours(joined(rehearsal)) == pytest.approx(1.0, abs=0.02)
    assert joined(rehearsal).max_usd == pytest.approx(USD_PER_HOUR)


def test_the_bill_is_known_before_the_machines_serve(
    rehearsal: Rehearsal, several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that dies while the engines load has agreed to what its machines cost all the same."""
    came = several.begun()
    groups.write(groups.Group(id=GROUP, name="duo", cloud="sandbox", wanted=2, port=1, model=MODEL))

    def died(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving_all, "serve_all", died)
    wish = SimpleNamespace(idle_hours=0.0, serves=True, within_bill=False, all_or_nothing=False, local_port=1)
    account = Account(provider=several.provider, ledger=rehearsal.ledger, owner="ada")
    with pytest.raises(KeyboardInterrupt):
        replicas.go_on(account, wish, came, object(), None, None)  # type: ignore[arg-type]
    whole = sum(one.cost_usd(one.lease.ends_at) for one in came.rentals)
    assert group_of(rehearsal).usd == pytest.approx(whole, abs=0.01)
