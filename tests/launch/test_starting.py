"""One start, several candidates: `--max-cost` is the purse of all that it rents, whatever becomes of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.errors import UsageError
from soong.launch import starting
from soong.launch.provider import LaunchRefusedError
from tests.cli.conftest import rehearsal  # noqa: F401 - a fixture
from tests.launch.test_replicas import LARGE, SMALL, TERMS, Prober, provider  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance
    from soong.lease.ledger import Rental
    from tests.cli.rehearsal import Rehearsal

pytestmark = pytest.mark.slow


class Unfit(Prober):
    """The first machine is found to be of no use after an hour."""

    def __init__(self, provider: Any, rehearsal: Rehearsal) -> None:  # noqa: F811
        super().__init__(provider, unfit=1)
        self.rehearsal = rehearsal

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        if self.unfit:
            self.rehearsal.skip(1.0)
        return super().probe(rental, tell)


def begun(rehearsal: Rehearsal, provider: Any, max_usd: float) -> Rental:  # noqa: F811
    terms = msgspec.structs.replace(TERMS, max_usd=max_usd)
    with rehearsal.ledger as ledger:
        return starting.start(
            provider, ledger, lambda: (SMALL, LARGE), terms, Unfit(provider, rehearsal), tell=lambda _: None
        )


@pytest.fixture
def room_for_one(provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The small type has room once: who wants another of it must take the large one."""
    launch = provider.launch
    taken: list[Any] = []

    def launched(request: Any) -> str:
        if request.instance_type == SMALL.instance_type:
            if taken:
                raise LaunchRefusedError("there is no room", refusal="no-capacity")
            taken.append(request)
        return str(launch(request))

    monkeypatch.setattr(provider, "launch", launched)


@pytest.mark.usefixtures("room_for_one")
def test_the_next_candidate_is_paid_from_what_an_unfit_machine_has_left(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,  # noqa: F811
) -> None:
    rental = begun(rehearsal, provider, 2.0)
    assert rental.instance_type == LARGE.instance_type
    whole = sum(one.cost_usd(one.lease.ends_at) for one in rehearsal.ledger.rentals())
    assert len(rehearsal.bill) == 2
    assert whole == pytest.approx(2.0, abs=0.02)


def test_a_purse_that_an_unfit_machine_has_emptied_buys_no_other(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,  # noqa: F811
) -> None:
    with pytest.raises(UsageError, match=r"the \$0.50 that this may cost are spent"):
        begun(rehearsal, provider, 0.5)
    assert len(rehearsal.bill) == 1
    assert rehearsal.alive == []
