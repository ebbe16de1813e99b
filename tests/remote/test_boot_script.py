"""The script that a new machine runs first arms the warden, carries no secret, and may run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from soong.clouds.sandbox.clock import SandboxClock
from soong.launch.boot_script import MOST_BYTES, lease_file, user_data
from soong.lease.clock import WallClock
from soong.lease.lease import Lease, make_lease
from tests.remote.conftest import end_marked, eventually, old_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lease() -> Lease:
    return make_lease(owner="me-0a1b", now=time.time(), hours=2, cap_hours=8)


class Machine:
    """A folder that runs user data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "opt" / "soong"
        (root / "home").mkdir(parents=True)
        (root / "bin").mkdir()
        (root / "bin" / "python3").symlink_to(old_python())
        self.environment = {
            "PATH": f"{root / 'bin'}:/usr/bin:/bin",
            "HOME": str(root / "home"),
            "SOONG_ROOT": str(root),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def boot(self, script: str) -> None:
        ended = subprocess.run(
            ["bash"],
            input=script,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")

    def status(self) -> dict[str, Any]:
        ended = subprocess.run(
            [old_python(), str(self.folder / "warden.py"), "status"],
            env=self.environment, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        said: dict[str, Any] = json.loads(ended.stdout)
        return said if ended.returncode == 0 and said["lease"] else {}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    yield machine
    end_marked(f"SOONG_ROOT={machine.root}".encode())


def test_it_arms_the_warden_with_the_lease(machine: Machine, lease: Lease) -> None:
    machine.boot(user_data(lease))
    said = eventually(machine.status, "the warden answers")
    assert (said["lease"]["id"], said["lease"]["owner"]) == (lease.id, "me-0a1b")
    assert said["lease"]["ends_at"] == lease.ends_at
    assert lease.id in eventually(
        lambda: lease.id in (text := (machine.root / "etc" / "motd").read_text()) and text
    )


def test_running_it_again_keeps_the_lease_that_is_in_force(machine: Machine, lease: Lease) -> None:
    machine.boot(user_data(lease))
    eventually(machine.status)
    pid = json.loads((machine.folder / "warden.json").read_text())["pid"]
    longer = json.dumps({**lease_file(lease), "ends_at": lease.ends_at + 600})
    subprocess.run(
        [old_python(), str(machine.folder / "warden.py"), "lease"],
        input=longer, env=machine.environment, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    machine.boot(user_data(lease))
    eventually(lambda: (said := machine.status()) and said["lease"]["ends_at"] == lease.ends_at + 600)
    assert json.loads((machine.folder / "warden.json").read_text())["pid"] == pid


def test_a_warden_that_was_killed_is_armed_again_by_hand(machine: Machine, lease: Lease) -> None:
    machine.boot(user_data(lease))
    eventually(machine.status)
    pid = json.loads((machine.folder / "warden.json").read_text())["pid"]
    os.kill(pid, 9)
    eventually(lambda: not machine.status())
    subprocess.run([str(machine.folder / "arm.sh")], env=machine.environment, timeout=30, check=True)
    assert eventually(machine.status)["lease"]["id"] == lease.id


def test_no_secret_and_not_too_long(lease: Lease) -> None:
    script = user_data(lease, WallClock())
    assert script.startswith("#!/bin/bash\n")
    assert len(script.encode()) < MOST_BYTES
    assert "clock" not in lease_file(lease, WallClock())
    for word in ("SECRET", "api_key=", "hf_", "PRIVATE KEY", "LAMBDA"):
        assert word not in script


def test_a_rehearsal_names_its_clock(lease: Lease, tmp_path: Path) -> None:
    assert lease_file(lease, SandboxClock(tmp_path / "clock"))["clock"] == {"file": str(tmp_path / "clock")}


def test_the_script_is_sound(lease: Lease) -> None:
    script = user_data(lease)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    if shutil.which("shellcheck"):
        found = subprocess.run(["shellcheck", "-"], input=script, text=True, capture_output=True, check=False)
        assert found.stdout == ""
