"""Several machines of one start, at a cloud that answers real requests: none is forgotten, and all end together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from soong.errors import NothingFitsError, RemoteError
from soong.launch import extending, finding, replicas
from soong.launch.budget import OverBudgetError
from soong.launch.provider import LaunchRefusedError
from soong.launch.replicas import Wanted, start_all
from soong.launch.starting import Candidate, MachineUnfitError, Terms
from soong.lease.lease import read_lease
from tests.cli.conftest import rehearsal  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance
    from soong.lease.ledger import Rental
    from tests.cli.rehearsal import Rehearsal

pytestmark = pytest.mark.slow

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


@pytest.fixture
def provider(rehearsal: Rehearsal) -> Any:  # noqa: F811
    from soong.connect import keys

    found = rehearsal.client()
    found.add_ssh_key("test", keys.make_own_key().public_line)
    return found


def begun(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    *candidates: Candidate,
    terms: Terms = TERMS,
    prober: Prober | None = None,
    **wanted: Any,
) -> replicas.Started:
    import msgspec

    wish = Wanted(**{"group": GROUP, "numbers": (1, 2), **wanted})
    terms = msgspec.structs.replace(terms, count=len(wish.numbers))
    with rehearsal.ledger as ledger:
        return start_all(
            provider, ledger, lambda: candidates or (SMALL,), terms, prober or Prober(provider), wish
        )


def test_all_are_written_down_before_the_first_is_asked_for(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[tuple[str, str]]] = []
    launch = provider.launch

    def watched(request: Any) -> str:
        seen.append([(one.name, one.phase) for one in rehearsal.ledger.open_rentals()])
        return str(launch(request))

    monkeypatch.setattr(provider, "launch", watched)
    came = begun(rehearsal, provider, numbers=(1, 2, 3))
    assert seen[0] == [("duo-1", "asked"), ("duo-2", "asked"), ("duo-3", "asked")]
    assert [(one.name, one.phase, one.group, one.replica) for one in came.rentals] == [
        (f"duo-{number}", "ready", GROUP, number) for number in (1, 2, 3)
    ]
    assert came.lacking == ()
    assert len({one.id for one in came.rentals}) == 3
    assert len({(one.lease.ends_at, one.lease.cap_at) for one in came.rentals}) == 1
    assert len(rehearsal.alive) == 3


def test_where_there_is_room_for_one_it_is_kept_and_the_other_told(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full_after_one(rehearsal, provider, monkeypatch)
    came = begun(rehearsal, provider)
    assert [one.name for one in came.rentals] == ["duo-1"]
    assert came.lacking == ("duo-2: there is no room",)
    assert len(rehearsal.alive) == 1
    assert [one.name for one in rehearsal.ledger.open_rentals()] == ["duo-1"]


def test_all_or_nothing_ends_what_came(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full_after_one(rehearsal, provider, monkeypatch)
    with pytest.raises(NothingFitsError, match="only 1 of 2 machines"):
        begun(rehearsal, provider, all_or_nothing=True)
    assert rehearsal.alive == []
    assert len(rehearsal.bill) == 1
    assert rehearsal.ledger.open_rentals() == ()


def test_the_next_candidate_and_one_end_for_all_within_the_money(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second machine is dearer: both end sooner, in the cloud's own words too, for no more money."""
    import msgspec

    full_after_one(rehearsal, provider, monkeypatch)
    came = begun(rehearsal, provider, SMALL, LARGE, terms=msgspec.structs.replace(TERMS, max_usd=4.0))
    assert [one.instance_type for one in came.rentals] == ["gpu_1x_a6000", "gpu_1x_a10"]
    ends = {one.lease.ends_at for one in came.rentals}
    assert len(ends) == 1
    assert sum(one.cost_usd(ends.pop()) for one in came.rentals[:1]) < 4.0
    whole = sum(one.cost_usd(one.lease.ends_at) for one in came.rentals)
    assert 3.9 < whole <= 4.0 + 0.01
    told = [read_lease(name=one.name, tags=one.tags) for one in provider.instances()]
    assert {lease.ends_at for lease in told if lease} == {one.lease.ends_at for one in came.rentals}
    assert sum(one.max_usd or 0.0 for one in came.rentals) == pytest.approx(4.0)


def test_an_unfit_machine_is_replaced_and_its_cost_counts(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    import msgspec

    terms = msgspec.structs.replace(TERMS, max_usd=4.0)
    came = begun(rehearsal, provider, terms=terms, prober=Prober(provider, unfit=1))
    assert [one.name for one in came.rentals] == ["duo-1", "duo-2"]
    assert len(rehearsal.bill) == 3
    assert len(rehearsal.alive) == 2
    members = rehearsal.ledger.of_group(GROUP)
    assert [one.replica for one in members] == [1, 1, 2]
    assert sum(one.cost_usd(one.lease.ends_at) for one in members) <= 4.0 + 0.01


def test_a_second_unfit_machine_is_told_and_the_other_kept(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    came = begun(rehearsal, provider, prober=Prober(provider, unfit=2))
    assert [one.name for one in came.rentals] == ["duo-2"]
    assert came.lacking == ("duo-1: the GPU does not compute",)
    assert len(rehearsal.alive) == 1


def test_an_interrupted_start_ends_all_of_them(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        begun(rehearsal, provider, numbers=(1, 2, 3), prober=Prober(provider, then=KeyboardInterrupt()))
    assert len(rehearsal.bill) == 3
    assert rehearsal.alive == []
    assert rehearsal.ledger.open_rentals() == ()


def test_a_refusal_that_holds_everywhere_keeps_what_came_and_asks_no_more(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch, calls = provider.launch, []

    def limited(request: Any) -> str:
        calls.append(request)
        if len(calls) > 1:
            raise LaunchRefusedError("the quota is used up", refusal="quota")
        return str(launch(request))

    monkeypatch.setattr(provider, "launch", limited)
    came = begun(rehearsal, provider, SMALL, LARGE, numbers=(1, 2, 3))
    assert [one.name for one in came.rentals] == ["duo-1"]
    assert came.lacking == (
        "duo-2: the quota is used up",
        "duo-3: not asked for, since the quota is used up",
    )
    assert len(calls) == 2


def test_none_at_all_is_the_error_of_one(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    rehearsal.fault("no-capacity", count=None)
    with pytest.raises((NothingFitsError, LaunchRefusedError)):
        begun(rehearsal, provider, SMALL, LARGE)
    assert rehearsal.bill == []
    assert rehearsal.ledger.open_rentals() == ()


def test_one_more_gets_the_groups_end(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    first = begun(rehearsal, provider)
    rehearsal.skip(1.0)
    more = begun(rehearsal, provider, numbers=(3,), lease=first.rentals[0].lease)
    (third,) = more.rentals
    assert third.lease.ends_at == first.rentals[0].lease.ends_at
    assert third.lease.cap_at == first.rentals[0].lease.cap_at
    assert third.lease.launched_at >= first.rentals[0].lease.launched_at + 3600


def test_an_extension_is_of_all_or_of_none(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = begun(rehearsal, provider)
    rename = provider.rename
    ends_at = came.rentals[0].lease.ends_at

    def refused(instance_id: str, name: str) -> None:
        if instance_id == came.rentals[1].instance_id:
            raise RemoteError("the cloud is away")
        rename(instance_id, name)

    monkeypatch.setattr(provider, "rename", refused)
    with rehearsal.ledger as ledger, pytest.raises(RemoteError, match="was not extended"):
        extending.extend_all(provider, ledger, came.rentals, hours=1.0)
    assert {one.lease.ends_at for one in rehearsal.ledger.open_rentals()} == {ends_at}
    told = [read_lease(name=one.name, tags=one.tags) for one in provider.instances()]
    assert {lease.ends_at for lease in told if lease} == {ends_at}
    monkeypatch.setattr(provider, "rename", rename)
    with rehearsal.ledger as ledger:
        longer = extending.extend_all(provider, ledger, ledger.open_rentals(), hours=1.0)
    assert {one.lease.ends_at for one in longer} == {ends_at + 3600}


def full_after_one(rehearsal: Rehearsal, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The first machine of the small type takes the last room there."""
    launch = provider.launch

    def taken(request: Any) -> str:
        instance_id = str(launch(request))
        rehearsal.fault("no-capacity", instance_type="gpu_1x_a6000", count=None)
        return instance_id

    monkeypatch.setattr(provider, "launch", taken)


def test_a_group_that_waits_for_room_is_remembered_and_one_that_is_over_is_not(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    from soong.launch import groups

    group = groups.Group(id=GROUP, name="duo", cloud="sandbox", wanted=2, port=1, model="m")
    groups.write(group)
    with rehearsal.ledger as ledger:
        groups.forget_over(ledger)
        assert groups.find(GROUP) == group
        came = begun(rehearsal, provider)
        groups.forget_over(ledger)
        assert groups.find(GROUP) == group
        for one in came.rentals:
            ledger.change(one.id, "ended", 0.0, phase="ended", ended_at=0.0)
        groups.forget_over(ledger)
        assert groups.find(GROUP) is None


def test_the_time_of_a_wait_for_room_is_nobodys_lease(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    """Intents of the first round are hours old when there is room: those who come then get their whole time."""
    import msgspec

    rounds: list[float] = []

    def candidates() -> tuple[Candidate, ...]:
        if rounds:
            rehearsal.heal()
            rehearsal.skip(3.0)
        else:
            rehearsal.fault("no-capacity", instance_type=SMALL.instance_type, count=None)
        rounds.append(provider.clock.now())
        return (SMALL,)

    terms = msgspec.structs.replace(TERMS, count=2, wait_seconds=3600.0, max_usd=8.0)
    wish = Wanted(group=GROUP, numbers=(1, 2))
    with rehearsal.ledger as ledger:
        came = start_all(provider, ledger, candidates, terms, Prober(provider), wish)
    assert len(rounds) == 2
    hours = [(one.lease.ends_at - one.asked_at) / 3600 for one in came.rentals]
    assert hours == pytest.approx([8.0 / 2 / SMALL.usd_per_hour] * 2, abs=0.1)


def test_a_machine_that_would_be_over_at_once_is_not_asked_for(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    first = begun(rehearsal, provider, numbers=(1,))
    lease = first.rentals[0].lease
    rehearsal.skip((lease.ends_at - 40 - provider.clock.now()) / 3600)
    with pytest.raises(replicas.TooShortError, match="before it is up"):
        begun(rehearsal, provider, numbers=(2,), lease=lease)
    assert len(rehearsal.bill) == 1
    assert [one.phase for one in rehearsal.ledger.rentals(refused=True) if one.replica == 2] == ["refused"]


class Slow(Prober):
    """What is found to be of no use has billed for an hour by then."""

    def __init__(self, provider: Any, rehearsal: Rehearsal) -> None:  # noqa: F811
        super().__init__(provider, unfit=1)
        self.rehearsal = rehearsal

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        if self.unfit:
            self.rehearsal.skip(1.0)
        return super().probe(rental, tell)


def test_an_extension_may_spend_only_what_an_unfit_machine_has_left(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    import msgspec

    terms = msgspec.structs.replace(TERMS, max_usd=8.0)
    came = begun(rehearsal, provider, terms=terms, prober=Slow(provider, rehearsal))
    (gone,) = [one for one in rehearsal.ledger.of_group(GROUP) if one.phase == "ended"]
    spent_usd = gone.cost_usd(provider.clock.now())
    assert spent_usd > SMALL.usd_per_hour
    assert sum(one.max_usd or 0.0 for one in came.rentals) == pytest.approx(8.0 - spent_usd, abs=0.01)


def test_each_intent_tells_when_its_own_machine_was_asked_for(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever finds one of a killed start judges by it whether its machine can still appear."""
    launch, seen = provider.launch, []

    def slow(request: Any) -> str:
        seen.append(max(one.asked_at for one in rehearsal.ledger.open_rentals()))
        rehearsal.skip(0.5)
        return str(launch(request))

    monkeypatch.setattr(provider, "launch", slow)
    first, second = begun(rehearsal, provider).rentals
    assert second.asked_at - first.asked_at >= 1800
    assert seen == [first.asked_at, second.asked_at]


def test_a_replacement_that_somebody_else_ends_leaves_the_others_alone(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    class Stopped(Prober):
        def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
            found = super().probe(rental, tell)
            if rental.replica == 1:
                with rehearsal.ledger as ledger:
                    ledger.change(rental.id, "stop-asked", 0.0, phase="ending", end_reason="soong stop")
            return found

    came = begun(rehearsal, provider, prober=Stopped(provider, unfit=1))
    assert [one.name for one in came.rentals] == ["duo-2"]
    assert came.lacking == ("duo-1: duo-1 was ended while it was starting (soong stop)",)


def test_the_one_whose_extension_was_lost_gets_its_old_end_back_too(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cloud took the second rename, and the answer to the look after it was lost."""
    came = begun(rehearsal, provider)
    second = came.rentals[1]
    instances, rename = provider.instances, provider.rename
    lost: list[str] = []

    def renamed(instance_id: str, name: str) -> None:
        rename(instance_id, name)
        if instance_id == second.instance_id and not lost:
            lost.append(name)
            monkeypatch.setattr(provider, "instances", away)

    def away() -> Any:
        monkeypatch.setattr(provider, "instances", instances)
        raise RemoteError("the cloud is away")

    monkeypatch.setattr(provider, "rename", renamed)
    with rehearsal.ledger as ledger, pytest.raises(RemoteError, match="is away"):
        extending.extend_all(provider, ledger, came.rentals, hours=1.0)
    assert_one_end(rehearsal, provider, second.lease.ends_at)


def test_an_interrupted_extension_is_of_none(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = begun(rehearsal, provider)
    rename = provider.rename
    told: list[str] = []

    def renamed(instance_id: str, name: str) -> None:
        rename(instance_id, name)
        if instance_id == came.rentals[1].instance_id:
            monkeypatch.setattr(provider, "rename", rename)
            raise KeyboardInterrupt

    monkeypatch.setattr(provider, "rename", renamed)
    with rehearsal.ledger as ledger, pytest.raises(KeyboardInterrupt):
        extending.extend_all(provider, ledger, came.rentals, hours=1.0, tell=told.append)
    assert told == ["interrupted: putting the old ends back; Ctrl-C again leaves the new ones"]
    assert_one_end(rehearsal, provider, came.rentals[0].lease.ends_at)


def assert_one_end(rehearsal: Rehearsal, provider: Any, ends_at: int) -> None:  # noqa: F811
    assert {one.lease.ends_at for one in rehearsal.ledger.open_rentals()} == {ends_at}
    told = [read_lease(name=one.name, tags=one.tags) for one in provider.instances()]
    assert {lease.ends_at for lease in told if lease} == {ends_at}


def test_what_gone_machines_have_cost_is_no_longer_there_for_an_extension(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
) -> None:
    came = begun(rehearsal, provider, prober=Slow(provider, rehearsal))
    running_usd = sum(one.cost_usd(one.lease.ends_at + 3600) for one in came.rentals)
    (gone,) = [one for one in rehearsal.ledger.of_group(GROUP) if one.phase == "ended"]
    assert gone.cost_usd(0.0) > 1.0
    with rehearsal.ledger as ledger:
        with pytest.raises(OverBudgetError, match="would cost") as over:
            extending.extend_all(provider, ledger, came.rentals, hours=1.0, max_usd=running_usd + 0.5)
        assert all(not hint.startswith("soong extend") or hint.endswith(" duo") for hint in over.value.hints)
        most = running_usd + gone.cost_usd(0.0) + 0.1
        extending.extend_all(provider, ledger, came.rentals, hours=1.0, max_usd=most)


def test_while_an_extension_asks_the_cloud_others_may_ask_for_the_budget(
    rehearsal: Rehearsal,  # noqa: F811
    provider: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And they count the new end already; where the cloud refuses it, the old one again."""
    import fcntl

    (one,) = begun(rehearsal, provider, numbers=(1,)).rentals
    seen: list[int] = []

    def is_free() -> None:
        with (rehearsal.ledger.file.parent / "budget.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(rehearsal.ledger.get(one.id).lease.ends_at)

    instances, rename = provider.instances, provider.rename

    def listed() -> Any:
        is_free()
        return instances()

    def renamed(instance_id: str, name: str) -> None:
        is_free()
        if len(seen) > 3:
            raise RemoteError("the cloud is away")
        rename(instance_id, name)

    monkeypatch.setattr(provider, "instances", listed)
    monkeypatch.setattr(provider, "rename", renamed)
    ends_at = one.lease.ends_at
    with rehearsal.ledger as ledger:
        longer = extending.extend(provider, ledger, one, hours=1.0, monthly_usd=1000.0)
        assert seen == [ends_at, ends_at + 3600, ends_at + 3600]
        with pytest.raises(RemoteError, match="was not extended"):
            extending.extend(provider, ledger, longer, hours=1.0, monthly_usd=1000.0)
    assert seen[3:] == [ends_at + 3600, ends_at + 7200, ends_at + 7200]
    assert rehearsal.ledger.get(one.id).lease.ends_at == ends_at + 3600
