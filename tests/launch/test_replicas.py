"""Several machines of one start, at a cloud that answers real requests: none is forgotten, and all end together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.errors import NothingFitsError, RemoteError
from soong.launch import extending
from soong.launch.booting import TooShortError
from soong.launch.budget import OverBudgetError
from soong.launch.provider import LaunchRefusedError
from tests.launch.several import GROUP, LARGE, SMALL, TERMS, Prober

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance
    from soong.launch.starting import Candidate
    from soong.lease.ledger import Rental
    from tests.cli.rehearsal import Rehearsal
    from tests.launch.several import Several

pytestmark = pytest.mark.slow


def test_all_are_written_down_before_the_first_is_asked_for(rehearsal: Rehearsal, several: Several) -> None:
    seen: list[list[tuple[str, str]]] = []

    def watched(launch: Any, request: Any) -> str:
        seen.append([(one.name, one.phase) for one in rehearsal.ledger.open_rentals()])
        return str(launch(request))

    several.instead("launch", watched)
    came = several.begun(numbers=(1, 2, 3))
    assert seen[0] == [("duo-1", "asked"), ("duo-2", "asked"), ("duo-3", "asked")]
    assert [(one.name, one.phase, one.group, one.replica) for one in came.rentals] == [
        (f"duo-{number}", "ready", GROUP, number) for number in (1, 2, 3)
    ]
    assert came.lacking == ()
    assert len({one.id for one in came.rentals}) == 3
    assert len({(one.lease.ends_at, one.lease.cap_at) for one in came.rentals}) == 1
    assert len(rehearsal.alive) == 3


def test_where_there_is_room_for_one_it_is_kept_and_the_other_told(
    rehearsal: Rehearsal, several: Several
) -> None:
    several.full_after_one()
    came = several.begun()
    assert [one.name for one in came.rentals] == ["duo-1"]
    assert came.lacking == ("duo-2: there is no room",)
    assert len(rehearsal.alive) == 1
    assert [one.name for one in rehearsal.ledger.open_rentals()] == ["duo-1"]


def test_all_or_nothing_ends_what_came(rehearsal: Rehearsal, several: Several) -> None:
    several.full_after_one()
    with pytest.raises(NothingFitsError, match="only 1 of 2 machines"):
        several.begun(all_or_nothing=True)
    assert rehearsal.alive == []
    assert len(rehearsal.bill) == 1
    assert rehearsal.ledger.open_rentals() == ()


def test_the_next_candidate_and_one_end_for_all_within_the_money(
    rehearsal: Rehearsal, several: Several
) -> None:
    """The second machine is dearer: both end sooner, in the cloud's own words too, for no more money."""
    several.full_after_one()
    came = several.begun(SMALL, LARGE, terms=msgspec.structs.replace(TERMS, max_usd=4.0))
    assert [one.instance_type for one in came.rentals] == ["gpu_1x_a6000", "gpu_1x_a10"]
    ends = {one.lease.ends_at for one in came.rentals}
    assert len(ends) == 1
    assert sum(one.cost_usd(ends.pop()) for one in came.rentals[:1]) < 4.0
    whole = sum(one.cost_usd(one.lease.ends_at) for one in came.rentals)
    assert 3.9 < whole <= 4.0 + 0.01
    assert several.told_ends() == {one.lease.ends_at for one in came.rentals}
    assert sum(one.max_usd or 0.0 for one in came.rentals) == pytest.approx(4.0)


def test_an_unfit_machine_is_replaced_and_its_cost_counts(rehearsal: Rehearsal, several: Several) -> None:
    terms = msgspec.structs.replace(TERMS, max_usd=4.0)
    came = several.begun(terms=terms, prober=Prober(several.provider, unfit=1))
    assert [one.name for one in came.rentals] == ["duo-1", "duo-2"]
    assert len(rehearsal.bill) == 3
    assert len(rehearsal.alive) == 2
    members = rehearsal.ledger.of_group(GROUP)
    assert [one.replica for one in members] == [1, 1, 2]
    assert sum(one.cost_usd(one.lease.ends_at) for one in members) <= 4.0 + 0.01


def test_a_second_unfit_machine_is_told_and_the_other_kept(rehearsal: Rehearsal, several: Several) -> None:
    came = several.begun(prober=Prober(several.provider, unfit=2))
    assert [one.name for one in came.rentals] == ["duo-2"]
    assert came.lacking == ("duo-1: the GPU does not compute",)
    assert len(rehearsal.alive) == 1


def test_an_interrupted_start_ends_all_of_them(rehearsal: Rehearsal, several: Several) -> None:
    with pytest.raises(KeyboardInterrupt):
        several.begun(numbers=(1, 2, 3), prober=Prober(several.provider, then=KeyboardInterrupt()))
    assert len(rehearsal.bill) == 3
    assert rehearsal.alive == []
    assert rehearsal.ledger.open_rentals() == ()


def test_a_refusal_that_holds_everywhere_keeps_what_came_and_asks_no_more(
    rehearsal: Rehearsal, several: Several
) -> None:
    calls = []

    def limited(launch: Any, request: Any) -> str:
        calls.append(request)
        if len(calls) > 1:
            raise LaunchRefusedError("the quota is used up", refusal="quota")
        return str(launch(request))

    several.instead("launch", limited)
    came = several.begun(SMALL, LARGE, numbers=(1, 2, 3))
    assert [one.name for one in came.rentals] == ["duo-1"]
    assert came.lacking == (
        "duo-2: the quota is used up",
        "duo-3: not asked for, since the quota is used up",
    )
    assert len(calls) == 2


def test_none_at_all_is_the_error_of_one(rehearsal: Rehearsal, several: Several) -> None:
    rehearsal.fault("no-capacity", count=None)
    with pytest.raises((NothingFitsError, LaunchRefusedError)):
        several.begun(SMALL, LARGE)
    assert rehearsal.bill == []
    assert rehearsal.ledger.open_rentals() == ()


def test_one_more_gets_the_groups_end(rehearsal: Rehearsal, several: Several) -> None:
    first = several.begun()
    rehearsal.skip(1.0)
    more = several.begun(numbers=(3,), lease=first.rentals[0].lease)
    (third,) = more.rentals
    assert third.lease.ends_at == first.rentals[0].lease.ends_at
    assert third.lease.cap_at == first.rentals[0].lease.cap_at
    assert third.lease.launched_at >= first.rentals[0].lease.launched_at + 3600


def test_an_extension_is_of_all_or_of_none(rehearsal: Rehearsal, several: Several) -> None:
    came = several.begun()
    ends_at = came.rentals[0].lease.ends_at
    is_away = True

    def refused(rename: Any, instance_id: str, name: str) -> None:
        if is_away and instance_id == came.rentals[1].instance_id:
            raise RemoteError("the cloud is away")
        rename(instance_id, name)

    several.instead("rename", refused)
    with rehearsal.ledger as ledger, pytest.raises(RemoteError, match="was not extended"):
        extending.extend_all(several.provider, ledger, came.rentals, hours=1.0)
    assert_one_end(several, ends_at)
    is_away = False
    with rehearsal.ledger as ledger:
        longer = extending.extend_all(several.provider, ledger, ledger.open_rentals(), hours=1.0)
    assert {one.lease.ends_at for one in longer} == {ends_at + 3600}


def test_a_group_that_waits_for_room_is_remembered_and_one_that_is_over_is_not(
    rehearsal: Rehearsal, several: Several
) -> None:
    from soong.launch import groups

    group = groups.Group(id=GROUP, name="duo", cloud="sandbox", wanted=2, port=1, model="m")
    groups.write(group)
    with rehearsal.ledger as ledger:
        groups.forget_over(ledger)
        assert groups.find(GROUP) == group
        came = several.begun()
        groups.forget_over(ledger)
        assert groups.find(GROUP) == group
        for one in came.rentals:
            ledger.change(one.id, "ended", 0.0, phase="ended", ended_at=0.0)
        groups.forget_over(ledger)
        assert groups.find(GROUP) is None


def test_the_time_of_a_wait_for_room_is_nobodys_lease(rehearsal: Rehearsal, several: Several) -> None:
    """Intents of the first round are hours old when there is room: those who come then get their whole time."""
    rounds: list[float] = []

    def candidates() -> tuple[Candidate, ...]:
        if rounds:
            rehearsal.heal()
            rehearsal.skip(3.0)
        else:
            rehearsal.fault("no-capacity", instance_type=SMALL.instance_type, count=None)
        rounds.append(several.provider.clock.now())
        return (SMALL,)

    terms = msgspec.structs.replace(TERMS, wait_seconds=3600.0, max_usd=8.0)
    came = several.begun(terms=terms, now=candidates)
    assert len(rounds) == 2
    hours = [(one.lease.ends_at - one.asked_at) / 3600 for one in came.rentals]
    assert hours == pytest.approx([8.0 / 2 / SMALL.usd_per_hour] * 2, abs=0.1)


def test_a_machine_that_would_be_over_at_once_is_not_asked_for(
    rehearsal: Rehearsal, several: Several
) -> None:
    first = several.begun(numbers=(1,))
    lease = first.rentals[0].lease
    rehearsal.skip((lease.ends_at - 400 - several.provider.clock.now()) / 3600)
    with pytest.raises(TooShortError, match="before it can be used"):
        several.begun(numbers=(2,), lease=lease)
    assert len(rehearsal.bill) == 1
    assert [one.phase for one in rehearsal.ledger.rentals(refused=True) if one.replica == 2] == ["refused"]


def test_an_error_that_nobody_foresaw_leaves_no_machine(rehearsal: Rehearsal, several: Several) -> None:
    with pytest.raises(ValueError, match="odd"):
        several.begun(prober=Prober(several.provider, then=ValueError("odd")))
    assert len(rehearsal.bill) == 2
    assert rehearsal.alive == []
    assert {one.end_reason for one in rehearsal.ledger.rentals()} == {"ValueError: odd"}


def test_an_extension_may_spend_only_what_an_unfit_machine_has_left(
    rehearsal: Rehearsal, several: Several
) -> None:
    terms = msgspec.structs.replace(TERMS, max_usd=8.0)
    came = several.begun(terms=terms, prober=several.slow())
    (gone,) = [one for one in rehearsal.ledger.of_group(GROUP) if one.phase == "ended"]
    spent_usd = gone.cost_usd(several.provider.clock.now())
    assert spent_usd > SMALL.usd_per_hour
    assert sum(one.max_usd or 0.0 for one in came.rentals) == pytest.approx(8.0 - spent_usd, abs=0.01)


def test_each_intent_tells_when_its_own_machine_was_asked_for(rehearsal: Rehearsal, several: Several) -> None:
    """Whoever finds one of a killed start judges by it whether its machine can still appear."""
    seen = []

    def slow(launch: Any, request: Any) -> str:
        seen.append(max(one.asked_at for one in rehearsal.ledger.open_rentals()))
        rehearsal.skip(0.5)
        return str(launch(request))

    several.instead("launch", slow)
    first, second = several.begun().rentals
    assert second.asked_at - first.asked_at >= 1800
    assert seen == [first.asked_at, second.asked_at]


def test_a_replacement_that_somebody_else_ends_leaves_the_others_alone(
    rehearsal: Rehearsal, several: Several
) -> None:
    class Stopped(Prober):
        def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
            found = super().probe(rental, tell)
            if rental.replica == 1:
                with rehearsal.ledger as ledger:
                    ledger.change(rental.id, "stop-asked", 0.0, phase="ending", end_reason="soong stop")
            return found

    came = several.begun(prober=Stopped(several.provider, unfit=1))
    assert [one.name for one in came.rentals] == ["duo-2"]
    assert came.lacking == ("duo-1: duo-1 was ended while it was starting (soong stop)",)


def test_the_one_whose_extension_was_lost_gets_its_old_end_back_too(
    rehearsal: Rehearsal, several: Several
) -> None:
    """The cloud took the second rename, and the answer to the look after it was lost."""
    came = several.begun()
    second = came.rentals[1]
    lost: list[str] = []

    def renamed(rename: Any, instance_id: str, name: str) -> None:
        rename(instance_id, name)
        if instance_id == second.instance_id and not lost:
            lost.extend([name, "the look after it"])

    def away_once(instances: Any) -> Any:
        if len(lost) == 2:
            lost.pop()
            raise RemoteError("the cloud is away")
        return instances()

    several.instead("rename", renamed)
    several.instead("instances", away_once)
    with rehearsal.ledger as ledger, pytest.raises(RemoteError, match="is away"):
        extending.extend_all(several.provider, ledger, came.rentals, hours=1.0)
    assert_one_end(several, second.lease.ends_at)


def test_an_interrupted_extension_is_of_none(rehearsal: Rehearsal, several: Several) -> None:
    came = several.begun()
    told: list[str] = []
    interrupted: list[str] = []

    def renamed(rename: Any, instance_id: str, name: str) -> None:
        rename(instance_id, name)
        if instance_id == came.rentals[1].instance_id and not interrupted:
            interrupted.append(name)
            raise KeyboardInterrupt

    several.instead("rename", renamed)
    with rehearsal.ledger as ledger, pytest.raises(KeyboardInterrupt):
        extending.extend_all(several.provider, ledger, came.rentals, hours=1.0, tell=told.append)
    assert told == ["interrupted: putting the old ends back; Ctrl-C again leaves the new ones"]
    assert_one_end(several, came.rentals[0].lease.ends_at)


def assert_one_end(several: Several, ends_at: int) -> None:
    assert several.known_ends() == {ends_at}
    assert several.told_ends() == {ends_at}


def test_what_gone_machines_have_cost_is_no_longer_there_for_an_extension(
    rehearsal: Rehearsal, several: Several
) -> None:
    came = several.begun(prober=several.slow())
    running_usd = sum(one.cost_usd(one.lease.ends_at + 3600) for one in came.rentals)
    (gone,) = [one for one in rehearsal.ledger.of_group(GROUP) if one.phase == "ended"]
    assert gone.cost_usd(0.0) > 1.0
    with rehearsal.ledger as ledger:
        with pytest.raises(OverBudgetError, match="would cost") as over:
            extending.extend_all(several.provider, ledger, came.rentals, hours=1.0, max_usd=running_usd + 0.5)
        assert all(not hint.startswith("soong extend") or hint.endswith(" duo") for hint in over.value.hints)
        most = running_usd + gone.cost_usd(0.0) + 0.1
        extending.extend_all(several.provider, ledger, came.rentals, hours=1.0, max_usd=most)


def test_while_an_extension_asks_the_cloud_others_may_ask_for_the_budget(
    rehearsal: Rehearsal, several: Several
) -> None:
    """And they count the new end already; where the cloud refuses it, the old one again."""
    import fcntl

    (one,) = several.begun(numbers=(1,)).rentals
    seen: list[int] = []

    def is_free() -> None:
        with (rehearsal.ledger.file.parent / "budget.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(rehearsal.ledger.get(one.id).lease.ends_at)

    def listed(instances: Any) -> Any:
        is_free()
        return instances()

    def renamed(rename: Any, instance_id: str, name: str) -> None:
        is_free()
        if len(seen) > 3:
            raise RemoteError("the cloud is away")
        rename(instance_id, name)

    several.instead("instances", listed)
    several.instead("rename", renamed)
    ends_at = one.lease.ends_at
    with rehearsal.ledger as ledger:
        longer = extending.extend(several.provider, ledger, one, hours=1.0, monthly_usd=1000.0)
        assert seen == [ends_at, ends_at + 3600, ends_at + 3600]
        with pytest.raises(RemoteError, match="was not extended"):
            extending.extend(several.provider, ledger, longer, hours=1.0, monthly_usd=1000.0)
    assert seen[3:] == [ends_at + 3600, ends_at + 7200, ends_at + 7200]
    assert rehearsal.ledger.get(one.id).lease.ends_at == ends_at + 3600
