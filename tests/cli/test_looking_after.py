"""What the guardian does with a group that idles: it ends all of them, waits for none, and forgets what is old."""

from __future__ import annotations

from typing import Any

import pytest

from soong.cli import looking_after, serving
from soong.cli.account import Account
from soong.cli.looking_after import Looker
from soong.errors import RemoteError
from soong.serve import watching
from soong.serve.watching import Watched
from tests.launch.several import GROUP, Several, several

__all__ = ["several"]
pytestmark = pytest.mark.slow

IDLE = Watched(idle_seconds=7200.0)
BUSY = Watched(idle_seconds=0.0)


class Group:
    """Machines of a group that may idle for an hour, what their wardens say, and which were asked to end."""

    def __init__(self, several: Several, count: int) -> None:
        several.begun(numbers=tuple(range(1, count + 1)))
        self.ledger = several.rehearsal.ledger
        self.account = Account(provider=several.provider, ledger=self.ledger, owner="ada")
        for one in self.ledger.of_group(GROUP):
            self.ledger.change(one.id, "idle-limit", 0.0, idle_seconds_limit=3600.0, serving="ready")
        self.said: dict[str, Watched] = {}
        self.asked_to_end: list[str] = []
        self.slept: list[float] = []

    def look(self, name: Any) -> Watched:
        if name not in self.said:
            raise RemoteError("no warden answers")
        return self.said[name]

    def phases(self) -> dict[str, str]:
        return {one.name: one.phase for one in self.ledger.of_group(GROUP)}


@pytest.fixture
def group(request: pytest.FixtureRequest, several: Several, monkeypatch: Any) -> Group:
    """The cloud takes each call to end a machine, and shows all of them for ever."""
    made = Group(several, getattr(request, "param", 2))
    names = {one.instance_id: one.name for one in made.ledger.of_group(GROUP)}
    monkeypatch.setattr(looking_after, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(serving, "machine_of", lambda _account, rental: rental.name)
    monkeypatch.setattr(watching, "look", made.look)
    monkeypatch.setattr(
        several.provider, "terminate", lambda instance: made.asked_to_end.append(names[instance])
    )
    monkeypatch.setattr(
        type(several.provider.clock), "sleep", lambda _clock, seconds: made.slept.append(seconds)
    )
    return made


def test_all_are_asked_to_end_at_once_and_nobody_waits(group: Group) -> None:
    group.said = {"duo-1": IDLE, "duo-2": IDLE}
    looker = Looker(lambda _: None)
    looker.look(group.account)
    assert group.asked_to_end == ["duo-1", "duo-2"]
    assert group.slept == [], "leases of others end in the meantime"
    assert group.phases() == {"duo-1": "ending", "duo-2": "ending"}
    looker.look(group.account)
    assert group.asked_to_end == ["duo-1", "duo-2"], "what is being ended is the next round's"


def test_one_that_is_in_use_keeps_all(group: Group) -> None:
    group.said = {"duo-1": IDLE, "duo-2": BUSY}
    looker = Looker(lambda _: None)
    for _ in range(5):
        looker.look(group.account)
    assert group.asked_to_end == []


@pytest.mark.parametrize("group", [3], indirect=True)
def test_what_was_seen_long_ago_does_not_count(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look has time for one machine only: by the third, nobody knows what the first does now."""
    monkeypatch.setattr(looking_after, "MOST_SECONDS", -1.0)
    group.said = {f"duo-{number}": IDLE for number in (1, 2, 3)}
    looker = Looker(lambda _: None)
    for _ in range(3):
        looker.look(group.account)
    assert group.asked_to_end == []
    monkeypatch.setattr(looking_after, "MOST_SECONDS", 30.0)
    looker.look(group.account)
    assert len(group.asked_to_end) == 3


def test_a_pause_between_two_looks_begins_anew(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking_after, "MOST_SECONDS", -1.0)
    group.said = {"duo-1": IDLE, "duo-2": IDLE}
    looker = Looker(lambda _: None)
    looker.look(group.account)
    looker._looked_at -= 2 * looking_after.MOST_BETWEEN_SECONDS
    looker.look(group.account)
    assert group.asked_to_end == []
    looker.look(group.account)
    assert len(group.asked_to_end) == 2


def test_one_that_cannot_be_read_does_not_keep_the_others_for_ever(group: Group) -> None:
    group.said = {"duo-1": IDLE}
    looker = Looker(lambda _: None)
    for _ in range(looking_after.UNREAD_LOOKS - 1):
        looker.look(group.account)
    assert group.asked_to_end == []
    looker.look(group.account)
    assert group.phases() == {"duo-1": "ending", "duo-2": "ready"}
