"""What the keeper of a group takes for a dead machine: looks in vain, never time that passed while nobody looked."""

from __future__ import annotations

import pytest

from soong.cli import keeping
from soong.cli.keeping import Keeper
from soong.connect.router import Member, MemberState, Router
from soong.launch import groups
from soong.lease.lease import make_lease
from soong.lease.ledger import Rental, open_ledger

GROUP = "ab" * 5
NOW = 1_800_000_000.0


def seen(first: MemberState, second: MemberState) -> Router:
    members = tuple(
        Member(rental_id=f"{number}", name=f"duo-{number}", local_port=number, state=state)
        for number, state in enumerate((first, second), 1)
    )
    return Router(group=GROUP, name="duo", port=1, is_up=True, members=members)


class Clock:
    """A clock that is moved by hand; stands for the module `time`."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at

    def time(self) -> float:
        return self.at


def test_silence_is_counted_by_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(keeping, "time", clock)
    keeper = Keeper(GROUP)

    def after(seconds: float, now: Router) -> float:
        clock.at += seconds
        keeper._count_silence(now)
        return keeper._silent_seconds.get("1", 0.0)

    assert [after(1.0, seen("silent", "answers")) for _ in range(3)] == [1.0, 2.0, 3.0]
    assert after(8 * 3600.0, seen("silent", "answers")) == 8.0, "this computer slept"
    assert after(60.0, seen("silent", "silent")) == 8.0, "it reaches neither, so it says nothing of one"
    assert after(1.0, seen("answers", "answers")) == 0.0
    assert after(1.0, seen("silent", "answers")) == 1.0


def test_a_silent_machine_is_told_of_once_until_it_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(keeping, "time", clock)
    told: list[str] = []
    monkeypatch.setattr(Keeper, "_tell", lambda _self, words, _now: told.append(words))
    keeper = Keeper(GROUP)
    for state, looks in (("silent", 100), ("answers", 3), ("silent", 100)):
        for _ in range(looks):
            clock.at += 1.0
            now = seen(state, "answers")  # type: ignore[arg-type]
            keeper._count_silence(now)
            keeper._tell_silent(now)
    assert [line.split(";")[0] for line in told] == ["duo-1 does not answer"] * 2


def member(number: int, **fields: object) -> Rental:
    """A machine of the group; by itself it is up."""
    lease = make_lease(owner="ada", now=NOW, hours=4, cap_hours=8, lease_id=f"{number:010x}")
    plain = {
        "lease": lease,
        "cloud": "sandbox",
        "account": "abc",
        "name": f"duo-{number}",
        "model": "llama-3.1-8b",
        "gpu": "a10-24gb",
        "gpu_count": 1,
        "instance_type": "gpu_1x_a10",
        "region": "us-east-1",
        "usd_per_hour": 1.29,
        "asked_at": NOW,
        "ready_at": NOW + 60,
        "phase": "ready",
        "group": GROUP,
        "replica": number,
    }
    return Rental(**{**plain, **fields})  # type: ignore[arg-type]


def ending(number: int) -> Rental:
    """Somebody has just asked for its end."""
    return member(number, phase="ending", ending_at=NOW + 600)


LOST = member(2, phase="ended", ended_at=NOW + 300)


@pytest.mark.parametrize(
    ("others", "answer", "launches"),
    [
        ([member(1)], "answers", True),
        ([member(1), ending(3)], "answers", False),
        ([ending(1)], "answers", False),
        ([ending(1), ending(3)], "answers", False),
        ([member(1)], "silent", False),
        ([member(1), member(3, phase="asked")], "answers", False),
    ],
)
def test_a_lost_machine_is_replaced_unless_somebody_ends_the_group(
    monkeypatch: pytest.MonkeyPatch, others: list[Rental], answer: MemberState, launches: bool
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(Keeper, "_soong", lambda _self, *words: ran.append(words[0]))
    groups.write(
        groups.Group(
            id=GROUP, name="duo", cloud="sandbox", wanted=2, port=1, model="m", replaces=True, told=(LOST.id,)
        )
    )
    with open_ledger() as ledger:
        ledger.add(LOST, *others)
    keeper = Keeper(GROUP)
    for _ in range(3):
        keeper.look_after(seen(answer, "silent"))
    assert ran == (["start"] if launches else [])


def test_one_that_is_ended_since_it_is_dead_does_not_keep_another_from_being_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(Keeper, "_soong", lambda _self, *words: ran.append(words[0]))
    groups.write(
        groups.Group(
            id=GROUP, name="duo", cloud="sandbox", wanted=3, port=1, model="m", replaces=True, told=(LOST.id,),
            dead=(ending(3).id,),
        )
    )  # fmt: skip
    with open_ledger() as ledger:
        ledger.add(member(1), LOST, ending(3))
    Keeper(GROUP).look_after(seen("answers", "silent"))
    assert ran == ["start"]
