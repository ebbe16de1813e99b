"""The machines of the sandbox: a process and a folder for each, begun, restarted and ended as the records say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from soong.clouds.sandbox import catalogue
from soong.clouds.sandbox.killing import ROOT_VARIABLE, end_processes
from soong.clouds.sandbox.stand_ins import CUDA_ERROR_FILE, furnish
from soong.clouds.sandbox.state import UserData

if TYPE_CHECKING:
    from pathlib import Path

    from soong.clouds.sandbox.clock import Timekeeper
    from soong.clouds.sandbox.state import InstanceRecord
    from soong.clouds.sandbox.world import World

LOOPBACK = "127.0.0.1"
USER = "ubuntu"
CUDA_NOT_READY = "802"
MOST_STARTS = 3
"""Of one machine's process, before it is left alone: then it has no SSH."""
BUSY_LOOK_SECONDS = 0.03
IDLE_LOOK_SECONDS = 0.5
END_SECONDS = 1.0
LOGIN_SECONDS = 2.0
WITHOUT_SSH = "machines have no SSH: asyncssh is missing; `pip install 'soong[sandbox]'`"


class Machine:
    """One machine's process. The clock slows while it starts, and while somebody logs in.

    Args:
        root: its folder, furnished. boots: which start of the machine this is.
    """

    def __init__(self, root: Path, clock: Timekeeper, boots: int, *, has_ssh: bool) -> None:
        self.root = root
        self.boots = boots
        self.has_ssh = has_ssh
        self.port: int | None = None
        self.is_booted = False
        self._clock = clock
        self._holds = 0
        self._visitor: threading.Timer | None = None
        self._lock = threading.Lock()
        self._hold()
        self._process = _spawn(root)
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def boot(self) -> None:
        """Let it answer SSH, and run its user data if it never did."""
        self.is_booted = True
        self._hold()
        assert self._process.stdin is not None  # noqa: S101 - narrows for the type checker
        try:
            self._process.stdin.write(b"boot\n")
            self._process.stdin.flush()
        except OSError:
            return

    def expect_login(self) -> None:
        """Slow the clock until somebody comes, or for two real seconds: starting a program takes time too."""
        visitor = threading.Timer(LOGIN_SECONDS, self._visitor_came)
        visitor.daemon = True
        with self._lock:
            if self._visitor is not None:
                return
            self._visitor = visitor
        self._hold()
        visitor.start()

    def _visitor_came(self) -> None:
        with self._lock:
            visitor, self._visitor = self._visitor, None
        if visitor is not None:
            visitor.cancel()
            self._release()

    def end(self) -> None:
        """Kill it and everything that was started on it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        end_processes(self.root)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_SECONDS)
        end_processes(self.root)

    def _listen(self) -> None:
        """Hear what the process says until it ends."""
        assert self._process.stdout is not None  # noqa: S101 - narrows for the type checker
        with self._process.stdout:
            for line in self._process.stdout:
                self._hear(json.loads(line))
        self._visitor_came()
        while self._holds:
            self._release()

    def _hear(self, said: dict[str, Any]) -> None:
        if said["event"] == "listening":
            self.port = said["port"]
            (self.root / "etc" / "port").write_text(str(self.port))
        if said["event"] == "busy":
            self._hold()
            self._visitor_came()
        else:
            self._release()

    def _hold(self) -> None:
        with self._lock:
            self._holds += 1
            self._clock.brake()

    def _release(self) -> None:
        with self._lock:
            if self._holds:
                self._holds -= 1
                self._clock.release()


class Machines:
    """All machines of one sandbox.

    Args:
        folder: in which each has its own. clock: of the sandbox.
    """

    def __init__(self, folder: Path, clock: Timekeeper) -> None:
        self.can_run = find_spec("asyncssh") is not None
        self._folder = folder
        self._clock = clock
        self._machines: dict[str, Machine] = {}
        self._starts: dict[str, int] = {}
        self._forgotten: set[str] = set()
        self._lock = threading.RLock()
        end_processes(folder)
        if not self.can_run:
            sys.stderr.write(f"{WITHOUT_SSH}\n")

    def is_up(self, instance_id: str) -> bool:
        """Whether it answers, or never will."""
        machine = self._machines.get(instance_id)
        has_failed = self._starts.get(instance_id, 0) > MOST_STARTS
        return not self.can_run or has_failed or (machine is not None and machine.port is not None)

    def look_after(self, world: World) -> float:
        """Begin, restart and end machines as their records say now; returns the real seconds until the next look."""
        is_busy = False
        for record in world.records():
            if record.id in self._forgotten:
                continue
            is_busy = True
            now = self._clock.now()
            with self._lock:
                if record.ended_at is not None and now >= record.ended_at:
                    self._end(record.id)
                    if record.gone_at is not None and now >= record.gone_at:
                        self._forget(record.id)
                elif self.can_run:
                    self._keep(world, record, now)
        return BUSY_LOOK_SECONDS if is_busy else IDLE_LOOK_SECONDS

    def describe(self, record: InstanceRecord) -> dict[str, Any]:
        """Where a machine answers SSH, and what stands where; `port` is None while it does not."""
        root = self._folder / record.id
        machine = self._machines.get(record.id)
        public = root / "etc" / "ssh_host_ed25519_key.pub"
        return {
            "id": record.id,
            "host": LOOPBACK,
            "port": (machine.port or None) if machine else None,
            "user": USER,
            "host_key": public.read_text().strip() if public.exists() else None,
            "root": str(root),
            "user_data_log": str(root / "var" / "log" / "cloud-init-output.log"),
            "why_no_ssh": "" if self.can_run else WITHOUT_SSH,
        }

    def expect_login(self, instance_id: str) -> None:
        """Somebody has asked for the address, to log in."""
        machine = self._machines.get(instance_id)
        if machine is not None and machine.port:
            machine.expect_login()

    def end_all(self) -> None:
        """End every machine and remove its folder."""
        with self._lock:
            for instance_id in list(self._machines):
                self._end(instance_id)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._forgotten.clear()
            self._starts.clear()

    def close(self) -> None:
        """End every machine's process; folders stay, for the next start."""
        with self._lock:
            for instance_id in list(self._machines):
                self._end(instance_id)
        end_processes(self._folder)

    def _keep(self, world: World, record: InstanceRecord, now: float) -> None:
        """See that the machine of a living record runs, and is what the record says."""
        machine = self._machines.get(record.id)
        has_ssh = "no-ssh" not in record.traits
        if machine is not None and (
            not machine.is_alive or machine.boots != record.boots or machine.has_ssh != has_ssh
        ):
            self._starts[record.id] = 0 if machine.is_alive else self._starts.get(record.id, 0)
            self._end(record.id)
            machine = None
        if machine is None:
            machine = self._begin(world, record, has_ssh=has_ssh)
        if machine is not None:
            self._sync_cuda(machine.root, broken="cuda-802" in record.traits)
            if now >= record.active_at and not machine.is_booted:
                machine.boot()

    def _begin(self, world: World, record: InstanceRecord, *, has_ssh: bool) -> Machine | None:
        starts = self._starts.get(record.id, 0) + 1
        self._starts[record.id] = starts
        if starts > MOST_STARTS:
            return None
        root = self._folder / record.id
        user_data = world.state.get(UserData, record.id)
        self._furnish(root, record, user_data.text if user_data else "", has_ssh=has_ssh)
        machine = Machine(root, self._clock, record.boots, has_ssh=has_ssh)
        self._machines[record.id] = machine
        return machine

    def _furnish(self, root: Path, record: InstanceRecord, user_data: str, *, has_ssh: bool) -> None:
        furnish(root, catalogue.machine_types()[record.instance_type])
        for system, point in record.mounts.items():
            kept, place = self._folder.parent / "filesystems" / system, root / point.lstrip("/")
            kept.mkdir(parents=True, exist_ok=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(kept)
        port = root / "etc" / "port"
        about = {
            "id": record.id,
            "hostname": record.hostname,
            "user_data": user_data,
            "ssh": has_ssh,
            "port": int(port.read_text()) if port.exists() else 0,
        }
        private = root / "etc" / "machine.json"
        private.touch(mode=0o600)
        private.write_text(json.dumps(about))
        (root / "etc" / "hostname").write_text(f"{record.hostname}\n")
        (root / "etc" / "authorized_keys").write_text("\n".join(record.public_keys) + "\n")
        changed = root / "etc" / "host-key-changed"
        if "changed-host-key" in record.traits and not changed.exists():
            (root / "etc" / "ssh_host_ed25519_key").unlink(missing_ok=True)
            if record.boots > 1:
                changed.touch()

    def _sync_cuda(self, root: Path, *, broken: bool) -> None:
        path = root / CUDA_ERROR_FILE
        if broken and not path.exists():
            path.write_text(CUDA_NOT_READY)
        elif not broken:
            path.unlink(missing_ok=True)

    def _end(self, instance_id: str) -> None:
        machine = self._machines.pop(instance_id, None)
        if machine is not None:
            machine.end()

    def _forget(self, instance_id: str) -> None:
        self._forgotten.add(instance_id)
        shutil.rmtree(self._folder / instance_id, ignore_errors=True)


def _spawn(root: Path) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(root / "home" / USER),
        "PYTHONDONTWRITEBYTECODE": "1",
        ROOT_VARIABLE: str(root),
    }
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    with (root / "var" / "log" / "machine.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "soong.clouds.sandbox.machine_host", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=root,
            env=environment,
            start_new_session=True,
        )
