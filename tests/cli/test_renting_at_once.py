"""Interruptions, two commands at once, two computers on one account, and the guardian on its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from soong.lease.guardian import heartbeat
from tests.cli.rehearsal import MODEL, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

START = ("start", "--model", MODEL, "--cloud", "sandbox", "--yes")


def launched(rehearsal: Rehearsal) -> bool:
    return bool(rehearsal.bill)


def booting(rehearsal: Rehearsal) -> bool:
    with rehearsal.ledger as ledger:
        return any(rental.phase == "granted" for rental in ledger.open_rentals())


def test_ctrl_c_during_a_launch_says_what_was_made_and_ends_it(rehearsal: Rehearsal) -> None:
    rehearsal.fault("slow-boot", seconds=90000)
    starting = rehearsal.spawn(*START)
    until(lambda: booting(rehearsal))
    starting.send_signal(signal.SIGINT)
    _, err = starting.communicate(timeout=30)
    (machine,) = rehearsal.bill
    assert starting.returncode == 130, err
    assert f"interrupted: ending {machine['id']}" in err
    assert f"{machine['id']} is gone" in err
    assert rehearsal.alive == []
    assert list((rehearsal.home / "state" / "held").iterdir()) == []


def test_a_start_that_is_killed_is_told_by_the_next_command(soong: Soong, rehearsal: Rehearsal) -> None:
    rehearsal.fault("slow-boot", seconds=3600)
    starting = rehearsal.spawn(*START)
    until(lambda: booting(rehearsal))
    starting.kill()
    starting.communicate(timeout=30)
    assert "booting" in soong("status").out
    assert heartbeat.is_watching("sandbox"), "the guardian outlives the start"
    assert soong("stop", "--yes").code == 0
    assert rehearsal.alive == []


def test_a_stop_while_a_start_boots_ends_the_start_too(soong: Soong, rehearsal: Rehearsal) -> None:
    rehearsal.fault("slow-boot", seconds=7200)
    starting = rehearsal.spawn(*START)
    until(lambda: booting(rehearsal))
    stopped = soong("stop", "--yes")
    assert stopped.code == 0, stopped.err
    _, err = starting.communicate(timeout=60)
    assert starting.returncode == 1
    assert "was ended while it was starting" in err
    assert len(rehearsal.bill) == 1, "no other machine was taken in its place"


def test_two_starts_at_once(rehearsal: Rehearsal) -> None:
    both = [rehearsal.spawn(*START, "--name", name, "--json") for name in ("one", "two")]
    for starting in both:
        _, err = starting.communicate(timeout=60)
        assert starting.returncode == 0, err
    with rehearsal.ledger as ledger:
        assert sorted(rental.name for rental in ledger.open_rentals()) == ["one", "two"]
    assert len(rehearsal.alive) == 2


def test_two_stops_at_once(soong: Soong, rehearsal: Rehearsal) -> None:
    rehearsal.fault("slow-terminate", seconds=120)
    assert soong(*START).code == 0
    both = [rehearsal.spawn("stop", "--yes", "--json") for _ in range(2)]
    ends = [(one.communicate(timeout=60), one.returncode) for one in both]
    assert {code for _, code in ends} <= {0, 4}, ends
    assert 0 in {code for _, code in ends}
    assert rehearsal.alive == []
    assert len(rehearsal.bill) == 1


def test_an_extend_while_a_reaper_runs(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START, "--hours", "7").code == 0
    (before,) = rehearsal.ledger.open_rentals()
    reapers = [rehearsal.spawn("reap", "--cloud", "sandbox") for _ in range(2)]
    assert soong("extend", "1", "--yes").code == 0
    for reaper in reapers:
        assert reaper.wait(timeout=30) == 0
        reaper.communicate()
    (after,) = rehearsal.ledger.open_rentals()
    assert after.lease.ends_at == before.lease.ends_at + 3600
    assert len(rehearsal.alive) == 1


def test_the_guardian_alone_ends_a_lease_and_tidies_up(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    state = rehearsal.home / "state"
    assert list((state / "ssh" / "hosts").iterdir())
    rehearsal.skip(4)
    until(lambda: rehearsal.alive == [])
    until(lambda: rehearsal.ledger.open_rentals() == ())
    until(lambda: not list((state / "ssh" / "hosts").iterdir()))
    assert list((state / "ssh" / "known_hosts").iterdir()) == []
    assert list((state / "held").iterdir()) == []
    (rental,) = rehearsal.ledger.rentals()
    assert rental.end_reason == "lease over"


def test_a_dead_guardian_is_seen_at_once_and_armed_again(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START, "--hours", "8").code == 0
    assert soong("doctor", "--cloud", "sandbox").code == 0
    assert rehearsal.kill_guardian()
    seen = soong("doctor", "--cloud", "sandbox")
    assert seen.code == 1
    assert "1 lease runs, and its process is gone" in seen.out
    assert "soong doctor --fix --cloud sandbox" in soong("status").out
    assert "armed again" in soong("doctor", "--fix", "--cloud", "sandbox").out
    assert heartbeat.is_watching("sandbox")
    rehearsal.skip(8)
    until(lambda: rehearsal.alive == [])


def test_a_guardian_waits_for_a_sandbox_that_stands_still_and_goes_on(
    soong: Soong, rehearsal: Rehearsal
) -> None:
    from soong.clouds.sandbox import process

    assert soong(*START, "--hours", "8").code == 0
    assert soong("sandbox", "stop").code == 0
    still = soong("status")
    assert still.code == 6
    assert "llama-3-1-8b" in still.out
    assert "this is what this computer last knew" in still.err
    assert process.find(rehearsal.running.files.folder) is None, "asking does not start it"
    rehearsal.running = process.start(rehearsal.running.files.folder)
    rehearsal.skip(8)
    until(lambda: rehearsal.alive == [])


def test_others_in_the_account_are_told_and_not_touched(soong: Soong, rehearsal: Rehearsal) -> None:
    from soong.launch.provider import LaunchRequest
    from soong.lease.lease import make_lease

    assert soong(*START, "--hours", "8").code == 0
    account = rehearsal.client()
    (key,) = account.ssh_keys()
    lease = make_lease(owner="bob", now=account.clock.now(), hours=1, cap_hours=1)
    ids = [
        account.launch(
            LaunchRequest(
                instance_type="gpu_1x_a10", region="us-east-1", name=name, tags=tags, ssh_key_name=key.name
            )
        )
        for name, tags in (("training", {}), (lease.instance_name, lease.tags))
    ]
    rehearsal.skip(2)
    shown = soong("reap", "--dry-run")
    assert "not-ours" in shown.out
    assert "belongs to bob" in " ".join(shown.out.split())
    assert soong("reap").code == 0
    assert {line["id"] for line in rehearsal.alive} >= set(ids)
    for one in ids:
        assert one in soong("status").out
    assert soong("reap", "--owner", "bob", "--json").code == 0
    assert ids[0] in {line["id"] for line in rehearsal.alive}
    assert ids[1] not in {line["id"] for line in rehearsal.alive}


def test_a_machine_that_was_renamed_in_the_console_ends_at_its_first_end(
    soong: Soong, rehearsal: Rehearsal
) -> None:
    assert soong(*START).code == 0
    (line,) = rehearsal.alive
    rehearsal.client().rename(line["id"], "my pretty box")
    assert "llama-3-1-8b" in soong("status").out
    rehearsal.skip(4)
    until(lambda: rehearsal.alive == [])


def test_an_owner_who_changes_the_word_still_ends_what_this_computer_launched(
    soong: Soong, rehearsal: Rehearsal
) -> None:
    assert soong(*START).code == 0
    rehearsal.kill_guardian()
    assert soong("config", "set", "lease.owner", "team").code == 0
    rehearsal.skip(4)
    assert soong("reap", "--cloud", "sandbox").code == 0
    assert rehearsal.alive == []


def test_two_computers_on_one_account(
    soong: Soong, rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has a home of its own and sees the same sandbox; it leaves the first's machine alone until both say
    the same owner's word."""
    other = tmp_path / "second"
    (other / "state").mkdir(parents=True)
    (other / "state" / "sandbox").symlink_to(rehearsal.running.files.folder)
    assert soong(*START).code == 0
    rehearsal.kill_guardian()
    monkeypatch.setenv("SOONG_HOME", str(other))
    assert "not this computer's" in soong("status", "--cloud", "sandbox").out
    assert soong("stop", "--yes", "--cloud", "sandbox").code == 4
    rehearsal.skip(4)
    assert soong("reap", "--cloud", "sandbox").code == 0
    assert len(rehearsal.alive) == 1, "another owner's"
    word = (rehearsal.home / "state" / "owner").read_text().strip()
    (instance,) = [line["id"] for line in rehearsal.alive]
    assert soong("stop", "--yes", "--cloud", "sandbox", "--instance-id", instance).code == 4
    assert soong("config", "set", "lease.owner", word).code == 0
    assert soong("stop", "--yes", "--cloud", "sandbox", "--instance-id", instance, "--json").json == [
        {
            "id": rehearsal.ledger.rentals()[0].id,
            "name": None,
            "instance_id": instance,
            "confirmed": True,
            "evidence": "the cloud lists it as terminated",
            "cost_usd": None,
        }
    ]
    assert rehearsal.alive == []
    monkeypatch.setenv("SOONG_HOME", str(rehearsal.home))
    assert "by somebody else" in soong("status", "--cloud", "sandbox").err
    assert rehearsal.ledger.open_rentals() == ()


def test_a_key_that_was_replaced_does_not_lose_the_machine(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    (rental,) = rehearsal.ledger.open_rentals()
    with rehearsal.ledger as ledger:
        ledger.change(rental.id, "test", 0.0, account="the account by its old key")
    assert soong("stop", "--yes").code == 0
    assert rehearsal.alive == []


def test_a_machine_that_appears_after_all_is_ended(soong: Soong, rehearsal: Rehearsal) -> None:
    """Whatever the ledger took for the end of a rental: what bills under its id is ended."""
    assert soong(*START).code == 0
    rehearsal.kill_guardian()
    (rental,) = rehearsal.ledger.open_rentals()
    with rehearsal.ledger as ledger:
        ledger.change(rental.id, "test", 0.0, phase="ended", ended_at=0.0)
    assert "appeared late" in soong("status", "--cloud", "sandbox").err
    until(lambda: rehearsal.alive == [])
