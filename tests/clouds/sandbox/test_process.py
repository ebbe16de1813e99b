"""The sandbox's server as a process: one for each folder, found again, ended with everything it started."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from soong.clouds.sandbox import process
from soong.errors import RemoteError
from tests.clouds.sandbox.conftest import LAUNCH, PUBLIC_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from soong.clouds.sandbox.process import Running

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "sandbox"
    yield found
    process.stop(found)


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    ends_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends_at, "it did not come to pass"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def launched(running: Running) -> str:
    running.ask("POST", "settings", {"rate_limit": False})
    process.ask(running, "POST", "/api/v1/ssh-keys", {"name": "me", "public_key": PUBLIC_KEY})
    answer = process.ask(running, "POST", "/api/v1/instance-operations/launch", LAUNCH)
    return str(answer["instance_ids"][0])


def ids(running: Running) -> list[str]:
    return [one["id"] for one in process.ask(running, "GET", "/api/v1/instances")]


def test_two_that_start_it_at_once_get_one_server(folder: Path) -> None:
    program = (
        "import sys, pathlib; from soong.clouds.sandbox import process; "
        "print(process.start(pathlib.Path(sys.argv[1])).pid)"
    )
    starters = [
        subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    pids = {starter.communicate(timeout=60)[0] for starter in starters}
    assert len(pids) == 1
    running = process.find(folder)
    assert running is not None
    assert f"{running.pid}\n" in pids


def test_start_find_stop(folder: Path) -> None:
    assert process.find(folder) is None
    assert process.stop(folder) is False
    running = process.start(folder, speed=5.0)
    again, faster = process.find(folder), process.start(folder, speed=50.0)
    assert again is not None
    assert {again.pid, faster.pid} == {running.pid}
    assert running.ask("GET", "clock")["speed"] == 50.0
    assert process.stop(folder) is True
    assert process.find(folder) is None
    with pytest.raises(RemoteError, match="does not answer"):
        running.ask("GET", "clock")


def test_what_it_writes_is_for_the_user_alone(folder: Path) -> None:
    running = process.start(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(running.files.key.stat().st_mode) == 0o600


def test_no_key_reaches_its_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", "planted-secret")
    monkeypatch.setenv("HF_TOKEN", "planted-secret")
    running = process.start(folder)
    launched(running)
    until(lambda: len(machine_pids(folder)) > 0)
    for pid in (running.pid, *machine_pids(folder)):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"planted-secret" not in environment
        assert running.key.encode() not in environment


def test_all_is_there_again_after_a_kill(folder: Path) -> None:
    running = process.start(folder)
    instance_id = launched(running)
    running.ask("POST", "faults", {"name": "no-capacity", "count": 3})
    running.ask("POST", "clock", {"skip_seconds": 86400.0})
    before = running.ask("GET", "clock")["now"]
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: not is_alive(running.pid))
    again = process.start(folder)
    assert again.pid != running.pid
    assert again.key == running.key
    assert ids(again) == [instance_id]
    assert [fault["count"] for fault in again.ask("GET", "faults")] == [3]
    assert again.ask("GET", "clock")["now"] >= before


def test_no_machine_outlives_a_killed_server(folder: Path) -> None:
    running = process.start(folder)
    launched(running)
    until(lambda: len(machine_pids(folder)) > 0)
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: not machine_pids(folder))


def test_a_folder_that_goes_takes_the_server_along(folder: Path, tmp_path: Path) -> None:
    running = process.start(folder)
    folder.rename(tmp_path / "elsewhere")
    until(lambda: not is_alive(running.pid))


def test_reset_forgets_all_but_the_time(folder: Path) -> None:
    running = process.start(folder)
    launched(running)
    running.ask("POST", "clock", {"skip_seconds": 1e6})
    before = running.ask("GET", "clock")["now"]
    running.ask("POST", "reset")
    assert ids(running) == []
    until(lambda: not machine_pids(folder))
    assert running.ask("GET", "clock")["now"] >= before
    assert running.ask("GET", "bill")["machines"] == []


def machine_pids(folder: Path) -> list[int]:
    """Every process that was started on a machine of this sandbox, the machine's own included."""
    mark = f"SOONG_ROOT={folder}/".encode()
    found = []
    for process_folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process_folder / "environ").read_bytes():
                found.append(int(process_folder.name))
        except OSError:
            continue
    return found
