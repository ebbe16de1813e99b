"""What soong does not do, with the exit code that tells a script why; nothing is launched on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from soong.lease.guardian import heartbeat, mechanisms
from tests.cli.rehearsal import MODEL, Rehearsal, Terminal, kill_guardian, until
from tests.clouds import samples
from tests.clouds.server import FakeLambda, data, error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

WISH = ("start", "--model", MODEL, "--cloud", "sandbox")


def test_without_a_terminal_nothing_is_launched_and_nothing_is_left_armed(
    soong: Soong, rehearsal: Rehearsal
) -> None:
    ended = soong(*WISH)
    assert ended.code == 2
    assert "give `--yes`" in ended.err
    assert rehearsal.bill == []
    posts = [one["path"] for one in rehearsal.running.ask("GET", "requests") if one["method"] == "POST"]
    assert posts == [], "not even a key was added"
    assert not (rehearsal.home / "state" / "guardian" / "sandbox.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--region", "us-west-9"), 4, "there is no region `us-west-9`"),
        (("--gpu", "gpu_9x_nothing"), 4, "gpu_9x_nothing"),
        (("--filesystem", "nowhere"), 4, "no filesystem `nowhere`"),
        (("--cloud", "sandbx"), 4, "did you mean `sandbox`?"),
        (("--max-price", "0.10"), 5, "no machine for rent holds"),
        (("--hours", "9"), 2, "over the cap of 8 h"),
        (("--hours", "0"), 2, "hours"),
        (("--hours", "-1"), 2, "hours"),
        (("--max-cost", "0"), 2, "max-cost"),
        (("--max-cost", "0.001"), 2, "a lease of 3 s would be over before the machine can be used"),
        (("--hours", "5m"), 2, "the least that makes sense is `--hours 13m` (`--max-cost 0.24`)"),
        (("--gpu", "gpu_8x_h100_sxm5", "--hours", "20m"), 2, "`--hours 33m` (`--max-cost 17.56`)"),
        (("--name", "Große Kiste"), 2, "small letters"),
        (("--wait", "soon"), 2, "--wait"),
    ],
)
def test_what_cannot_be_had(
    soong: Soong, rehearsal: Rehearsal, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = soong(*WISH, "--yes", *words)
    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert rehearsal.bill == []


def test_a_lease_that_is_over_soon_after_the_boot_is_warned_of(soong: Soong, rehearsal: Rehearsal) -> None:
    ended = soong(*WISH, "--no-serve", "--hours", "8m", "--dry-run")
    assert ended.code == 0
    assert "Warning: of 8 min, 7 pass before the machine can be used; the least" in ended.err
    assert "Warning: of" not in soong(*WISH, "--no-serve", "--hours", "13m", "--dry-run").err


@pytest.mark.slow
def test_the_least_that_is_advised_is_enough_for_a_machine_that_works(sealed: Path) -> None:
    """The words of the hint, pasted; at a pace at which this computer's own work counts as a minute, not as ten."""
    pytest.importorskip("asyncssh")
    with Rehearsal(sealed, speed=60.0) as slower:
        wish = (*WISH, "--yes", "--no-serve", "--hours")
        _, refused = slower.spawn(*wish, "5m").communicate(timeout=60)
        advised = refused.partition("`--hours ")[2].partition("`")[0]
        process = slower.spawn(*wish, advised)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        (rental,) = slower.ledger.rentals()
        assert rental.ready_at is not None
        assert rental.lease.ends_at - rental.ready_at > 180


def test_commands_on_nothing(soong: Soong, rehearsal: Rehearsal) -> None:
    for words in (("stop", "--yes"), ("extend", "1", "--yes"), ("ssh",)):
        assert soong(*words, "--cloud", "sandbox").code == 4


def test_without_a_key(soong: Soong) -> None:
    for words in (
        ("start", "--model", MODEL, "--yes"),
        ("status",),
        ("stop", "--yes"),
        ("doctor",),
        ("reap",),
    ):
        ended = soong(*words)
        assert ended.code == (1 if words == ("doctor",) else 3), words
        assert "SOONG_LAMBDA_API_KEY" in ended.err + ended.out


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLambda]:
    """A Lambda with one A10 free, no machine, and a key of ours that works."""
    with FakeLambda() as server:
        monkeypatch.setenv("SOONG_LAMBDA_API_URL", server.url)
        monkeypatch.setenv("SOONG_LAMBDA_API_KEY", "secret_planted_0123456789abcdef0123456789abcdef.Planted")
        server.on("GET", "/instances", data([]))
        server.on("GET", "/instance-types", data(samples.types((samples.A10, [samples.REGION]))))
        server.on("GET", "/ssh-keys", data([]))
        server.on("GET", "/file-systems", data([]))
        yield server
        assert server.faults == []
    for started in mechanisms._STARTED:
        started.kill()
        started.wait(timeout=10)


def asked_to_change(server: FakeLambda) -> list[str]:
    return [request.path for request in server.requests if request.method != "GET"]


def test_yes_is_no_consent_to_a_long_lease_that_only_this_computer_guards(
    soong: Soong, cloud: FakeLambda
) -> None:
    ended = soong("start", "--model", MODEL, "--hours", "5", "--yes")
    assert ended.code == 2
    assert "a lease of 5 h that only this computer guards needs your consent" in ended.err
    assert "--laptop-only" in ended.err
    assert asked_to_change(cloud) == []


def test_a_lease_that_passes_the_months_budget_is_refused(soong: Soong, cloud: FakeLambda) -> None:
    assert soong("config", "set", "budget.monthly_usd", "1").code == 0
    ended = soong("start", "--model", MODEL)
    assert ended.code == 2
    assert "over your cap of $1.00" in ended.err
    assert asked_to_change(cloud) == []


def test_money_that_ends_it_within_four_hours_needs_no_consent(soong: Soong, cloud: FakeLambda) -> None:
    short = soong("start", "--model", MODEL, "--max-cost", "2")
    assert "consent" not in short.err
    assert "without a terminal" in short.err
    long = soong("start", "--model", MODEL, "--max-cost", "9")
    assert "consent" in long.err
    assert asked_to_change(cloud) == []


def test_a_lease_that_may_be_over_before_the_model_answers_is_warned_of(
    soong: Soong, cloud: FakeLambda
) -> None:
    short = soong("start", "--model", MODEL, "--hours", "30m", "--dry-run").err
    assert "Warning: it may end before the model answers: after 5 min to boot" in short
    assert "15.0 GiB of weights" in short
    assert "on a slow line (200 Mbit/s)" in short
    enough = short.partition("`--hours ")[2].partition("`")[0]
    for words in (("--hours", enough), ("--hours", "30m", "--no-serve")):
        assert "may end before" not in soong("start", "--model", MODEL, "--dry-run", *words).err
    assert asked_to_change(cloud) == []


def test_a_guardian_that_cannot_see_the_key_launches_nothing(
    soong: Soong, cloud: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soong.lease import guardian

    monkeypatch.setattr(guardian, "FIRE_SECONDS", 20.0)
    monkeypatch.setattr(mechanisms, "of_this_computer", lambda **_: (mechanisms.Process(),))
    cloud.on("POST", "/ssh-keys", data({"id": "k", "name": "soong", "public_key": "ssh-ed25519 AAAA me"}))
    cloud.on("GET", "/instances", data([]), error("global/invalid-api-key", 401))
    ended = soong("start", "--model", MODEL, "--yes")
    assert ended.code == 1
    assert "no guardian could be armed, so nothing was launched" in ended.err
    assert "/api/v1/instance-operations/launch" not in asked_to_change(cloud)
    kill_guardian("lambda")


def nothing_is_left(rehearsal: Rehearsal) -> bool:
    """No machine, no key in the account, and no guardian that goes on with nothing to guard."""
    until(lambda: not heartbeat.is_watching("sandbox"))
    posts = [one["path"] for one in rehearsal.running.ask("GET", "requests") if one["method"] == "POST"]
    return (rehearsal.bill, posts, rehearsal.client().ssh_keys()) == ([], [], ())


def test_a_declined_question_is_no_failure_and_changes_nothing(rehearsal: Rehearsal) -> None:
    terminal = Terminal(*WISH)
    terminal.read_until("Proceed?")
    assert "will be added to the account as `soong-" in terminal.seen
    terminal.type("n\r")
    assert terminal.end() == 0
    assert "nothing was launched" in terminal.seen
    assert nothing_is_left(rehearsal)


def test_the_key_is_added_once_the_person_agrees(rehearsal: Rehearsal) -> None:
    terminal = Terminal(*WISH, "--no-serve")
    terminal.read_until("Proceed?")
    assert rehearsal.client().ssh_keys() == ()
    terminal.type("y")
    assert terminal.end(60) == 0, terminal.seen
    (key,) = rehearsal.client().ssh_keys()
    assert f"as `{key.name}`" in terminal.seen
    assert len(rehearsal.alive) == 1


def test_a_price_that_rises_after_the_question_is_asked_again(rehearsal: Rehearsal) -> None:
    terminal = Terminal(*WISH, "--gpu", "gpu_1x_a10")
    terminal.read_until("Proceed?")
    rehearsal.set(cents={"gpu_1x_a10": 145})
    terminal.type("y")
    terminal.read_on_until("gpu_1x_a10 now costs $1.45/h, and $1.29/h was shown")
    terminal.read_until("(y/N)")
    terminal.type("n")
    assert terminal.end() == 0
    assert rehearsal.bill == []


def test_ctrl_c_at_the_question(rehearsal: Rehearsal) -> None:
    terminal = Terminal(*WISH)
    terminal.read_until("Proceed?")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert nothing_is_left(rehearsal)


def test_a_watch_ends_by_ctrl_c_and_leaves_the_terminal_as_it_was(soong: Soong, rehearsal: Rehearsal) -> None:
    import termios

    assert soong(*WISH, "--yes").code == 0
    terminal = Terminal("status", "--watch")
    before = termios.tcgetattr(terminal.master)
    terminal.read_until("its last round")
    terminal._read(1.0)
    until(lambda: terminal.interrupted() is not None)
    after = termios.tcgetattr(terminal.master)
    assert terminal.end() == 130
    assert before == after
    assert "\x1b[?25l" not in terminal.seen.rpartition("\x1b[?25h")[2]


def test_a_stop_that_is_not_shown_is_not_confirmed(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*WISH, "--yes").code == 0
    rehearsal.fault("terminate-ignored", count=None)
    ended = soong("stop", "--yes")
    assert ended.code == 6
    assert "STOP NOT CONFIRMED" in ended.err
    assert "$1.09/h" in ended.err
    assert "end it by hand at http" in ended.err
    assert "ending" in soong("status").out
    extended = soong("extend", "1", "--yes")
    assert (extended.code, "is being ended" in extended.err) == (2, True)
    rehearsal.heal()
    until(lambda: rehearsal.ledger.open_rentals() == ())
    assert rehearsal.alive == []


def test_one_machine_that_does_not_end_lets_no_other_bill_on(soong: Soong, rehearsal: Rehearsal) -> None:
    rehearsal.fault("slow-terminate", seconds=90000)
    for name in ("stuck", "other"):
        assert soong(*WISH, "--yes", "--name", name).code == 0
    ended = soong("stop", "--all", "--yes", "--json")
    assert ended.code == 6
    assert [one["name"] for one in ended.json] == ["other"]
    assert "STOP NOT CONFIRMED" in ended.err


def test_a_port_that_is_taken(soong: Soong, rehearsal: Rehearsal, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = soong(*WISH, "--yes", "--port", str(port))
    assert (ended.code, f"port {port} of this computer is taken" in ended.err) == (2, True)


def test_json_errors_are_one_object(soong: Soong, rehearsal: Rehearsal) -> None:
    import msgspec

    ended = soong(*WISH, "--yes", "--json", "--region", "mars-1")
    found: Any = msgspec.json.decode(ended.err)
    assert ended.out == ""
    assert found["code"] == "not-found"
