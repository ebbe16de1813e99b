"""`soong run` whatever goes wrong in between, and `soong logs` while it happens."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from soong.launch.preflight import free_port
from tests.cli.rehearsal import MODEL, Terminal, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

pytestmark = pytest.mark.slow

SPEED = 240.0


@pytest.fixture
def run(rehearsal: Rehearsal, engine_environment: Path) -> tuple[str, ...]:
    """The words of a run, up to its command."""
    (engine_environment / "weights").mkdir()
    rehearsal.running.ask("POST", "clock", {"speed": SPEED})
    return ("run", MODEL, "--cloud", "sandbox", "--yes", "--engine-env", str(engine_environment), "--")


def test_a_run_whose_engine_fails_leaves_nothing(
    rehearsal: Rehearsal, run: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "fails").write_text("ValueError: No available memory for the cache blocks.\n")
    ran = rehearsal.spawn(*run, "touch", str(tmp_path / "it-ran"))
    _, err = ran.communicate(timeout=90)
    assert ran.returncode == 6
    assert "too little, was left for the KV cache" in err
    assert "is gone. It cost $" in err
    assert not (tmp_path / "it-ran").exists()
    assert rehearsal.alive == []


def test_ctrl_c_is_the_commands_own_to_answer(rehearsal: Rehearsal, run: tuple[str, ...]) -> None:
    patient = "import sys, time\ntry:\n    print('it runs', flush=True); time.sleep(600)\nexcept KeyboardInterrupt:\n"
    terminal = Terminal(*run, sys.executable, "-c", f"{patient}    sys.exit(42)")
    terminal.read_until("it runs", 90)
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.end(60) == 42
    assert "is gone. It cost $" in terminal.seen
    assert rehearsal.alive == []


def test_ctrl_c_before_the_command_ends_what_was_rented(rehearsal: Rehearsal, run: tuple[str, ...]) -> None:
    rehearsal.fault("slow-boot", seconds=90000)
    ran = rehearsal.spawn(*run, "true")
    until(lambda: rehearsal.bill)
    until(lambda: any(one.phase == "granted" for one in rehearsal.ledger.open_rentals()))
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=60)
    assert ran.returncode == 130, err
    assert rehearsal.alive == []


def test_an_end_that_is_not_proved_is_said_and_left_to_the_guardian(
    rehearsal: Rehearsal, run: tuple[str, ...]
) -> None:
    rehearsal.fault("terminate-ignored", count=None)
    ran = rehearsal.spawn(*run, "true")
    _, err = ran.communicate(timeout=120)
    assert ran.returncode == 6, err
    assert "STOP NOT CONFIRMED" in err
    assert len(rehearsal.alive) == 1
    rehearsal.heal()
    until(lambda: rehearsal.ledger.open_rentals() == ())
    assert rehearsal.alive == []


def test_logs_are_followed_over_a_broken_line_and_cut_by_time(
    soong: Soong, rehearsal: Rehearsal, run: tuple[str, ...]
) -> None:
    start = ("start", "--model", *run[1:-1], "--hours", "7", "--engine", "vllm", "--port", str(free_port()))
    assert soong(*start).code == 0
    rehearsal.running.ask(
        "POST", "clock", {"speed": 30}
    )  # the lease outlasts the test; no request waits for long
    whole = soong("logs", "--json").json
    assert [step["step"] for step in whole["steps"] if step["state"] == "done"][-1] == "ready"
    log = next(rehearsal.home.rglob("engine.log"))
    for pid in (pid for pid, line in rehearsal.processes().items() if "fake_engine.py" in line):
        os.kill(pid, signal.SIGSTOP)  # from here on the test writes its log
    old, young = time.gmtime(time.time() - 7200), time.gmtime()
    with log.open("a") as file:
        file.write(time.strftime("INFO %m-%d %H:%M:%S [core.py:1] long ago\n  and what belongs to it\n", old))
        file.write(time.strftime("INFO %m-%d %H:%M:%S [core.py:1] just now\n  and more of it\n", young))
    recent = soong("logs", "--since", "10m", "--json").json["engine"]
    assert [line.rpartition("] ")[2] for line in recent[-2:]] == ["just now", "  and more of it"]
    assert not any("long ago" in line or "belongs" in line for line in recent)
    assert soong("logs", "--lines", "1").out.splitlines()[-1] == "  and more of it"
    assert soong("logs", "--since", "soon").code == 2
    assert soong("logs", "--follow", "--json").code == 2

    following = Terminal("logs", "--follow", "--lines", "1")
    following.read_until("and more of it")
    until(lambda: len(followers(rehearsal)) == 2)
    append(log, "first")
    following.read_until("first")
    for pid in followers(rehearsal):
        os.kill(pid, signal.SIGKILL)
    append(log, "while the line was broken")
    following.read_until("while the line was broken")
    until(lambda: followers(rehearsal))
    append(log, "after it")
    following.read_until("after it")
    assert following.seen.count("first") == 1, "what was read is not read twice"
    assert following.interrupted() == 130
    assert len(rehearsal.alive) == 1
    until(lambda: followers(rehearsal) == [])


def append(log: Path, words: str) -> None:
    with log.open("a") as file:
        file.write(words + "\n")


def followers(rehearsal: Rehearsal) -> list[int]:
    """The connections of `logs --follow` on this computer."""
    return [pid for pid, line in rehearsal.processes().items() if "tail -c" in line and "ssh " in line]
