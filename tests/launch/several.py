"""Several machines of one start, at a rehearsal's cloud that answers real requests."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.launch import finding
from soong.launch.replicas import Started, Wanted, start_all
from soong.launch.starting import Candidate, MachineUnfitError, Terms
from soong.lease.lease import read_lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance
    from soong.lease.ledger import Rental
    from tests.cli.rehearsal import Rehearsal

SMALL = Candidate(
    instance_type="gpu_1x_a6000",
    region="us-east-1",
    gpu="a6000-48gb",
    gpu_count=1,
    usd_per_hour=1.09,
    engine_argv=("serve",),
)
LARGE = Candidate(
    instance_type="gpu_1x_a10", region="us-east-1", gpu="a10-24gb", gpu_count=1, usd_per_hour=1.29
)
TERMS = Terms(name="duo", model="m", owner="ada", hours=4.0, cap_hours=8.0, ssh_key_name="test")
GROUP = "ab" * 5


class Prober:
    """Takes a machine as it is listed. unfit: so many of the first are of no use. then: happens at the first look."""

    def __init__(self, provider: Any, *, unfit: int = 0, then: BaseException | None = None) -> None:
        self.provider = provider
        self.unfit = unfit
        self.then = then

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        if self.then is not None:
            raise self.then
        if self.unfit:
            self.unfit -= 1
            raise MachineUnfitError("the GPU does not compute", stage="cuda")
        return finding.of_rental(rental, self.provider.instances())[0]


class Slow(Prober):
    """What is found to be of no use, the first one, has billed for an hour by then."""

    def __init__(self, provider: Any, rehearsal: Rehearsal) -> None:
        super().__init__(provider, unfit=1)
        self.rehearsal = rehearsal

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        if self.unfit:
            self.rehearsal.skip(1.0)
        return super().probe(rental, tell)


class Several:
    """The cloud of a rehearsal, with a person's key in it, and starts of several machines there."""

    def __init__(self, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
        from soong.connect import keys

        self.rehearsal = rehearsal
        self.provider: Any = rehearsal.client()
        self.provider.add_ssh_key("test", keys.make_own_key().public_line)
        self._monkeypatch = monkeypatch

    def begun(
        self,
        *candidates: Candidate,
        terms: Terms = TERMS,
        prober: Prober | None = None,
        now: Callable[[], tuple[Candidate, ...]] | None = None,
        **wanted: Any,
    ) -> Started:
        """A start of two, unless `numbers` says otherwise; of the small type, unless candidates are named."""
        wish = Wanted(**{"group": GROUP, "numbers": (1, 2), **wanted})
        terms = msgspec.structs.replace(terms, count=len(wish.numbers))
        prober = prober or Prober(self.provider)
        with self.rehearsal.ledger as ledger:
            return start_all(
                self.provider, ledger, now or (lambda: candidates or (SMALL,)), terms, prober, wish
            )

    def slow(self) -> Slow:
        """Finds the first machine of no use, an hour later."""
        return Slow(self.provider, self.rehearsal)

    def instead(self, call: str, does: Callable[..., Any]) -> None:
        """From now on the cloud does this instead; `does` gets what it did before as its first argument."""
        self._monkeypatch.setattr(self.provider, call, partial(does, getattr(self.provider, call)))

    def full_after_one(self) -> None:
        """The first machine of the small type takes the last room there."""

        def taken(launch: Any, request: Any) -> str:
            instance_id = str(launch(request))
            self.rehearsal.fault("no-capacity", instance_type=SMALL.instance_type, count=None)
            return instance_id

        self.instead("launch", taken)

    def told_ends(self) -> set[int]:
        """When the leases end, as the cloud's own names and tags tell it."""
        told = [read_lease(name=one.name, tags=one.tags) for one in self.provider.instances()]
        return {lease.ends_at for lease in told if lease}

    def known_ends(self) -> set[int]:
        """When they end, as the ledger has it."""
        return {one.lease.ends_at for one in self.rehearsal.ledger.open_rentals()}


@pytest.fixture
def several(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> Several:
    """Several machines at a sandbox of their own."""
    return Several(rehearsal, monkeypatch)
