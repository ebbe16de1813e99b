"""A machine that is a folder: commands, files and logs, as serving needs them."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from soong.clouds.local.machine import LocalMachine
from soong.errors import RemoteError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from soong.serve.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    (tmp_path / "root" / "home").mkdir(parents=True)
    return LocalMachine("here-1", tmp_path / "root", (1, 3))


def test_it_is_what_serving_asks_for(machine: LocalMachine) -> None:
    asked: Machine = machine
    ran = asked.run(["sh", "-c", 'cat; echo "$1" >&2; exit 7', "sh", "a b"], stdin=b"in")
    assert (ran.code, ran.out, ran.err) == (7, "in", "a b\n")


def test_commands_see_the_machine_and_none_of_the_persons_secrets(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SOONG_LAMBDA_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOONG_HOME"):
        monkeypatch.setenv(name, "tell-nobody")
    shown = LocalMachine("here-1", machine.root, (1, 3)).run(["env"]).out
    assert "tell-nobody" not in shown
    lines = shown.splitlines()
    for line in (f"HOME={machine.home}", f"SOONG_ROOT={machine.root}", "CUDA_VISIBLE_DEVICES=1,3"):
        assert line in lines
    assert machine.run(["pwd", "-P"]).out.strip() == str(machine.home.resolve())


def test_a_command_that_does_not_end_is_ended_with_all_it_started(machine: LocalMachine) -> None:
    with pytest.raises(TimedOutError):
        machine.run(["sh", "-c", "sleep 300 & echo $! > child; wait"], seconds=0.5)
    child = int((machine.home / "child").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def test_an_unknown_program_is_127_as_in_a_shell(machine: LocalMachine) -> None:
    assert machine.run(["no-such-program-here"]).code == 127
    machine.home.rmdir()
    with pytest.raises(RemoteError, match="gone"):
        machine.run(["true"])


def test_files_are_written_whole_with_their_mode(machine: LocalMachine) -> None:
    told: list[tuple[int, int]] = []
    for content in (b"one", b"secret"):
        machine.put(content, ".soong/api_key", tell=lambda done, total: told.append((done, total)))
    file = machine.home / ".soong" / "api_key"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"secret", 0o600)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert told == [(3, 3), (6, 6)]
    assert [one.name for one in file.parent.iterdir()] == ["api_key"]


def test_a_large_file_is_not_copied_and_outlives_the_machine(machine: LocalMachine, tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF" * 1000)
    machine.put(weights, ".soong/model.gguf")
    assert machine.run(["wc", "-c", ".soong/model.gguf"]).out.split()[0] == "4000"
    machine.run(["rm", "-rf", ".soong"])
    assert weights.stat().st_size == 4000


def test_a_file_that_cannot_be_written_says_so(machine: LocalMachine) -> None:
    (machine.home / "taken").write_bytes(b"")
    with pytest.raises(RemoteError, match="could not be written"):
        machine.put(b"x", "taken/file")


def test_a_log_is_followed_from_before_it_exists(machine: LocalMachine) -> None:
    following = machine.follow("engine.log", seconds=0.05)
    assert next(following) == b""
    log = machine.home / "engine.log"
    log.write_bytes(b"one\n")
    assert _next_piece(following) == b"one\n"
    with log.open("ab") as file:
        file.write(b"two\n")
    assert _next_piece(following) == b"two\n"
    log.rename(log.with_suffix(".old"))
    log.write_bytes(b"anew\n")
    assert _next_piece(following) == b"anew\n"
    assert _next_piece(machine.follow("engine.log", offset=2, seconds=0.05)) == b"ew\n"


def _next_piece(following: Iterator[bytes]) -> bytes:
    deadline = time.monotonic() + 5
    for piece in following:
        if piece or time.monotonic() > deadline:
            return bytes(piece)
    return b""


def _runs(pid: int) -> bool:
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False, text=True)
    return bool(said.stdout.strip()) and not said.stdout.startswith("Z")
