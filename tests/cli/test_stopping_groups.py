"""`soong stop` of a whole group: all are to end before the first call is made, and nothing joins them meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.clouds.sandbox.provider import SandboxProvider
from soong.errors import CredentialError
from soong.launch import asking, groups, replicas, stopping
from soong.launch.starting import StoppedElsewhereError, Terms
from soong.lease.lease import new_id
from tests.cli.rehearsal import MODEL, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.lease.ledger import Rental
    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

pytestmark = pytest.mark.slow


@pytest.fixture
def trio(soong: Soong, rehearsal: Rehearsal) -> tuple[Rental, ...]:
    """Three machines of one group, which replaces a lost one."""
    words = (
        "--model",
        MODEL,
        "--cloud",
        "sandbox",
        "--yes",
        "--no-serve",
        "--name",
        "trio",
        "--replicas",
        "3",
    )
    begun = soong("start", *words, "--replace")
    assert begun.code == 0, begun.err
    members = rehearsal.ledger.open_rentals()
    assert [one.phase for one in members] == ["ready"] * 3
    return members


class Calls:
    """What stood in the ledger at each terminate call; `then` happens at the first."""

    def __init__(
        self, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None] = lambda: None
    ) -> None:
        self.phases: list[list[str]] = []
        self.replaces: list[bool | None] = []
        terminate = SandboxProvider.terminate

        def watched(provider: Any, instance_id: str) -> None:
            members = rehearsal.ledger.open_rentals()
            group = groups.find(members[0].group)
            self.phases.append([one.phase for one in members])
            self.replaces.append(group.replaces if group is not None else None)
            if len(self.phases) == 1:
                then()
            terminate(provider, instance_id)

        monkeypatch.setattr(SandboxProvider, "terminate", watched)


def leave() -> None:
    raise KeyboardInterrupt


def refuse() -> None:
    raise CredentialError("the key was refused")


def test_that_all_are_to_end_is_written_down_before_the_first_call(
    soong: Soong, rehearsal: Rehearsal, trio: tuple[Rental, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(rehearsal, monkeypatch, then=leave)
    assert soong("stop", "trio", "--yes").code == 130
    assert calls.phases == [["ending"] * 3]
    assert calls.replaces == [False], "nothing is launched in the place of what is being ended"
    until(lambda: rehearsal.alive == [], 60)


def test_a_failure_of_one_lets_none_bill_on(
    soong: Soong, rehearsal: Rehearsal, trio: tuple[Rental, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal.kill_guardian()
    Calls(rehearsal, monkeypatch, then=refuse)
    ended = soong("stop", "trio", "--yes")
    assert rehearsal.alive == [], ended.err
    assert rehearsal.ledger.open_rentals() == ()


def test_a_machine_that_joins_while_the_group_is_ended_is_ended_too(
    soong: Soong, rehearsal: Rehearsal, trio: tuple[Rental, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replacement whose intent was written down a moment before is past every check."""
    rehearsal.kill_guardian()

    def join() -> None:
        lease = msgspec.structs.replace(trio[0].lease, id=new_id())
        more = msgspec.structs.replace(
            trio[0], lease=lease, name="trio-4", replica=4, phase="asked", instance_id=""
        )
        with rehearsal.ledger as ledger:
            asking.ask(
                rehearsal.client(), ledger, more, ssh_key_name=keys()[0], user_data="", monthly_usd=None
            )

    def keys() -> list[str]:
        return [one.name for one in rehearsal.client().ssh_keys()]

    Calls(rehearsal, monkeypatch, then=join)
    ended = soong("stop", "trio", "--yes")
    assert ended.code == 0, ended.err
    assert "trio-4 is gone" in ended.out
    assert len(rehearsal.bill) == 4
    assert rehearsal.alive == []


def test_nothing_joins_a_group_that_was_ended(
    soong: Soong, rehearsal: Rehearsal, trio: tuple[Rental, ...]
) -> None:
    """Its start was begun before, and comes to the launch only now: after a wait for room, say."""
    rehearsal.kill_guardian()
    provider = rehearsal.client()
    with rehearsal.ledger as ledger:
        stopping.mean_all(provider, ledger, trio, why="soong stop")
        wanted = replicas.Wanted(group=trio[0].group, numbers=(4,), lease=trio[0].lease)
        terms = Terms(
            name="trio",
            model=MODEL,
            owner="ada",
            hours=4.0,
            cap_hours=8.0,
            ssh_key_name=provider.ssh_keys()[0].name,
        )
        found = [candidate(trio[0])]
        with pytest.raises(StoppedElsewhereError, match="trio was ended"):
            replicas.start_all(provider, ledger, lambda: found, terms, None, wanted)  # type: ignore[arg-type]
    assert len(rehearsal.bill) == 3


def candidate(like: Rental) -> Any:
    from soong.launch.starting import Candidate

    return Candidate(
        instance_type=like.instance_type,
        region=like.region,
        gpu=like.gpu,
        gpu_count=like.gpu_count,
        usd_per_hour=like.usd_per_hour,
    )


def test_a_replacement_looks_anew_whether_it_is_still_wanted(
    soong: Soong, rehearsal: Rehearsal, trio: tuple[Rental, ...]
) -> None:
    rehearsal.client().terminate(trio[2].instance_id)
    until(lambda: len(rehearsal.ledger.open_rentals()) == 2)
    groups.change(trio[0].group, replaces=False)
    words = ("start", "--add-to", "trio", "--within-bill", "--yes", "--no-input", "--cloud", "sandbox")
    refused = soong(*words)
    assert refused.code == 2, refused.err
    assert "nothing is replaced in trio" in refused.err
    groups.change(trio[0].group, replaces=True)
    assert soong(*words).code == 0
    assert len(rehearsal.bill) == 4


def test_the_end_of_one_machine_leaves_the_others_replaced(
    soong: Soong, rehearsal: Rehearsal, trio: tuple[Rental, ...]
) -> None:
    assert soong("stop", "trio-2", "--yes").code == 0
    group = groups.find(trio[0].group)
    assert group is not None
    assert group.replaces
    assert len(rehearsal.alive) == 2


def test_whoever_leaves_a_run_leaves_all_of_it_to_the_guardian(
    rehearsal: Rehearsal, trio: tuple[Rental, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `soong run`, and a start that is interrupted, end what they have."""
    calls = Calls(rehearsal, monkeypatch, then=leave)
    with rehearsal.ledger as ledger, pytest.raises(KeyboardInterrupt):
        stopping.stop_all(rehearsal.client(), ledger, trio, why="soong run is over")
    assert calls.phases == [["ending"] * 3]
    assert calls.replaces == [False]
    until(lambda: rehearsal.alive == [], 60)
