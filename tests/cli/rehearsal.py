"""A person with a sandbox: soong in this process, or in one of its own that can be interrupted and killed."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from soong.clouds.sandbox import process
from soong.lease.guardian import heartbeat, mechanisms
from soong.lease.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

SPEED = 600.0
"""A lease of four hours is 24 seconds: long enough for a few commands on a busy computer, short enough to wait for."""
MODEL = "llama-3.1-8b"


class Rehearsal:
    """A sandbox in a home of soong's, and what a person does there. A context manager.

    Args:
        home: soong's folder; `SOONG_HOME` must say the same.
    """

    def __init__(self, home: Path, *, speed: float = SPEED) -> None:
        self.home = home
        self.speed = speed

    def __enter__(self) -> Self:
        self.running = process.start(self.home / "state" / "sandbox", speed=self.speed)
        self.set(rate_limit=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_guardian()
        process.stop(self.running.files.folder)
        for started in (*mechanisms._STARTED, *process._STARTED):
            started.kill()
            started.wait(timeout=10)

    def set(self, **change: Any) -> None:
        self.running.ask("POST", "settings", change)

    def fault(self, name: str, **about: Any) -> None:
        self.running.ask("POST", "faults", {"count": 1, "name": name, **about})

    def heal(self) -> None:
        self.running.ask("DELETE", "faults")

    def skip(self, hours: float) -> None:
        self.running.ask("POST", "clock", {"skip_seconds": hours * 3600})

    @property
    def bill(self) -> list[dict[str, Any]]:
        return list(self.running.ask("GET", "bill")["machines"])

    @property
    def alive(self) -> list[dict[str, Any]]:
        """Machines that bill."""
        return [line for line in self.bill if line["billed_until"] is None]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.home / "state" / "ledger.sqlite")

    def client(self) -> Any:
        """Somebody else with the account's key: what they do, they do by Lambda's API."""
        from soong.clouds.sandbox.provider import SandboxProvider

        return SandboxProvider(self.running)

    def spawn(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """A soong of its own, as a terminal would start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "soong.cli", *words],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=listens_to_ctrl_c,  # noqa: PLW1509 - no thread runs here
        )

    def processes(self) -> dict[int, str]:
        """Everything that was started by soong or runs on its machines, but for the sandbox itself."""
        marks = (f"SOONG_HOME={self.home}\0".encode(), f"SOONG_ROOT={self.home}/".encode())
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if not any(mark in (entry / "environ").read_bytes() + b"\0" for mark in marks):
                    continue
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if words and "soong.clouds.sandbox.server" not in words:
                found[int(entry.name)] = words
        return found

    def kill_guardian(self) -> bool:
        """`kill -9` of the guardian; whether there was one."""
        return kill_guardian("sandbox")


def kill_guardian(cloud: str) -> bool:
    """`kill -9` of the guardian of a cloud; whether there was one."""
    beat = heartbeat.last(cloud)
    if beat is None or not heartbeat.is_watching(cloud):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(beat.pid, signal.SIGKILL)
    until(lambda: not heartbeat.is_watching(cloud))
    return True


WHERE_IS_THE_CURSOR, CURSOR_IS_AT = "\x1b[6n", "\x1b[1;1R"
"""A question of programs and the answer that every terminal gives; without it each prompt waits a second for one."""


class Terminal:
    """soong on a terminal of its own, as a person sees it."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        line = [sys.executable, "-m", "soong.cli", *words]
        self.process = subprocess.Popen(
            line,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=listens_to_ctrl_c,  # noqa: PLW1509 - no thread runs here
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, word: str, seconds: float = 30.0) -> str:
        ends_at = time.monotonic() + seconds
        while word not in self.seen:
            assert time.monotonic() < ends_at, self.seen
            self._read(0.1)
        return self.seen

    def read_on_until(self, word: str, seconds: float = 30.0) -> str:
        """What comes up to `word`; the next reading begins after it."""
        before, _, self.seen = self.read_until(word, seconds).partition(word)
        return before

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def interrupted(self) -> int | None:
        """Ctrl-C once more: one that arrives while Python cleans up is lost, and a person presses it again."""
        os.killpg(self.process.pid, 2)
        ends_at = time.monotonic() + 5.0
        while self.process.poll() is None and time.monotonic() < ends_at:
            self._read(0.05)
        return self.process.poll()

    def end(self, seconds: float = 30.0) -> int:
        ends_at = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < ends_at, self.seen
            self._read(0.05)
        self._read(0.05)
        os.close(self.master)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            try:
                read = os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                time.sleep(seconds)
            else:
                self.seen += read
                self.type(CURSOR_IS_AT * read.count(WHERE_IS_THE_CURSOR))


def listens_to_ctrl_c() -> None:
    """A shell's background job, as these tests may be, ignores it, and so would every process below."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it is so; fail when it never is."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "it never came to be so"
        time.sleep(0.02)
