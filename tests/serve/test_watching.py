"""What the laptop hears of a real warden, and tells it: through the same commands as over SSH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import resources
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.errors import RemoteError
from soong.launch.boot_script import lease_file
from soong.lease.clock import WallClock
from soong.lease.lease import make_lease
from soong.serve import watching
from soong.serve.machine import Ran
from tests.cli.rehearsal import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class Folder:
    """A machine that is a folder. root: its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0) -> Ran:
        ended = subprocess.run(
            command, input=stdin, capture_output=True, timeout=seconds, env=self.environment, check=False
        )
        return Ran(code=ended.returncode, out=ended.stdout.decode(), err=ended.stderr.decode())

    def put(
        self,
        content: bytes | Path,
        remote: str,
        *,
        mode: int = 0o600,
        tell: Callable[[int, int], None] = print,
    ) -> None:
        raise NotImplementedError

    def follow(self, remote: str, *, offset: int = 0, seconds: float = 1.0) -> Iterator[bytes]:
        raise NotImplementedError

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SOONG_ROOT": str(self.root), "HOME": str(self.root)}


def warden_runs(machine: Folder) -> bool:
    try:
        watching.look(machine)
    except RemoteError:
        return False
    return True


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Folder]:
    """With a warden that keeps a lease of an hour."""
    machine = Folder(tmp_path / "root")
    folder = machine.root / "opt" / "soong"
    folder.mkdir(parents=True)
    warden = folder / "warden.py"
    warden.write_bytes(resources.files("soong.connect.remote").joinpath("warden.py").read_bytes())
    lease = make_lease(owner="me", now=time.time(), hours=1, cap_hours=8)
    (folder / "lease.json").write_text(json.dumps(lease_file(lease)))
    running = subprocess.Popen(
        [sys.executable, warden, "run"], env=machine.environment, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: warden_runs(machine))
        yield machine
    finally:
        running.kill()
        running.wait()


def test_a_new_end_is_in_force_on_the_machine(machine: Folder) -> None:
    until(lambda: watching.look(machine).lease is not None)
    told = watching.look(machine).lease
    assert told is not None
    lease = make_lease(owner="me", now=time.time(), hours=1, cap_hours=8)
    longer = msgspec.structs.replace(lease, id=told.id, ends_at=told.ends_at + 3600)
    watching.tell_lease(machine, longer, WallClock())

    def end_there() -> float:
        found = watching.look(machine).lease
        return found.ends_at if found else 0.0

    until(lambda: end_there() == told.ends_at + 3600)


def test_another_machines_lease_is_not_taken(machine: Folder) -> None:
    until(lambda: watching.look(machine).lease is not None)
    with pytest.raises(RemoteError, match="did not take the new end") as refused:
        watching.tell_lease(
            machine, make_lease(owner="me", now=time.time(), hours=2, cap_hours=8), WallClock()
        )
    assert "this machine has the lease" in refused.value.why


def test_without_an_engine_idleness_is_unknown_and_unknown_is_not_idle(machine: Folder) -> None:
    seen = watching.look(machine)
    assert seen.idle_seconds is None
    assert seen.idle_unknown_because
    assert not seen.is_idle(0.0)


@pytest.mark.parametrize(
    ("idle_seconds", "sessions", "idle"),
    [(600.0, 0, True), (599.0, 0, False), (900.0, None, True), (900.0, 1, False), (None, 0, False)],
)
def test_somebody_at_a_terminal_keeps_a_machine(
    idle_seconds: float | None, sessions: int | None, idle: bool
) -> None:
    seen = watching.Watched(idle_seconds=idle_seconds, ssh_sessions=sessions)
    assert seen.is_idle(600.0) is idle


def test_a_machine_without_a_warden_says_so(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="warden of the machine does not answer"):
        watching.look(Folder(tmp_path))
