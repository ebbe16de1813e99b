"""One start, several candidates: `--max-cost` is the purse of all that it rents, whatever becomes of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.errors import UsageError
from soong.launch import starting
from soong.launch.provider import LaunchRefusedError
from tests.launch.several import LARGE, SMALL, TERMS, Prober

if TYPE_CHECKING:
    from soong.lease.ledger import Rental
    from tests.cli.rehearsal import Rehearsal
    from tests.launch.several import Several

pytestmark = pytest.mark.slow


def begun(several: Several, max_usd: float) -> Rental:
    terms = msgspec.structs.replace(TERMS, max_usd=max_usd)
    with several.rehearsal.ledger as ledger:
        return starting.start(
            several.provider, ledger, lambda: (SMALL, LARGE), terms, several.slow(), tell=lambda _: None
        )


@pytest.fixture
def room_for_one(several: Several) -> None:
    """The small type has room once: who wants another of it must take the large one."""
    taken: list[Any] = []

    def launched(launch: Any, request: Any) -> str:
        if request.instance_type == SMALL.instance_type:
            if taken:
                raise LaunchRefusedError("there is no room", refusal="no-capacity")
            taken.append(request)
        return str(launch(request))

    several.instead("launch", launched)


@pytest.mark.usefixtures("room_for_one")
def test_the_next_candidate_is_paid_from_what_an_unfit_machine_has_left(
    rehearsal: Rehearsal, several: Several
) -> None:
    rental = begun(several, 2.0)
    assert rental.instance_type == LARGE.instance_type
    whole = sum(one.cost_usd(one.lease.ends_at) for one in rehearsal.ledger.rentals())
    assert len(rehearsal.bill) == 2
    assert whole == pytest.approx(2.0, abs=0.02)


def test_a_purse_that_an_unfit_machine_has_emptied_buys_no_other(
    rehearsal: Rehearsal, several: Several
) -> None:
    with pytest.raises(UsageError, match=r"a machine that was of no use has cost \$1\.\d\d of the \$0\.50"):
        begun(several, 0.5)
    assert len(rehearsal.bill) == 1
    assert rehearsal.alive == []


@pytest.mark.parametrize("place", ["probe", "price"])
def test_an_error_that_nobody_foresaw_leaves_no_machine(
    rehearsal: Rehearsal, several: Several, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    odd = ValueError("odd")

    def stumbles(*_: Any) -> Any:
        raise odd

    if place == "price":
        monkeypatch.setattr(starting, "at_true_price", stumbles)
    prober = Prober(several.provider, then=odd if place == "probe" else None)
    with pytest.raises(ValueError, match="odd"), rehearsal.ledger as ledger:
        starting.start(several.provider, ledger, lambda: (SMALL,), TERMS, prober)
    assert len(rehearsal.bill) == 1
    assert rehearsal.alive == []
    assert [one.end_reason for one in rehearsal.ledger.rentals()] == ["ValueError: odd"]
