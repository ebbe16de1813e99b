"""The sandbox's time: faster than life, never backwards, and the same for everyone who looks.

It stands in one small file that is replaced whole. The server writes it; whoever waits reads it again before each
look, so that a change of speed reaches a wait that has begun. While a machine starts or answers SSH, which takes
real time, the clock slows to `BRAKE_SPEED`: otherwise a second of work would count as ten minutes of rent, and
every deadline of a start would pass on a busy computer. A clean stop of the server stops the clock with it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_SPEED = 600.0
BRAKE_SPEED = 30.0
"""Seconds of the sandbox in a real one while real work is being done: an SSH login of 0.3 s then counts as 9 s."""
SLOWEST, FASTEST = 0.01, 1_000_000.0
LONGEST_NAP_SECONDS = 0.25
SHORTEST_NAP_SECONDS = 0.001


class Reading(NamedTuple):
    """What the file says: the sandbox's `anchor` at the computer's `real` time; `pace` counts, `speed` is wanted."""

    anchor: float
    real: float
    speed: float
    pace: float
    running: bool

    def at(self, real_now: float) -> float:
        """The sandbox's time, seconds since 1970, at the computer's time `real_now`."""
        passed = max(0.0, real_now - self.real) if self.running else 0.0
        return self.anchor + passed * self.pace


class SandboxClock:
    """A `Clock` for clients, read from the file that the server keeps.

    Args:
        path: the clock file. It must exist by the time somebody asks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = (0, 0)
        self._reading: Reading | None = None

    @property
    def file(self) -> Path:
        """The file that this clock is read from; a machine of the sandbox reads it too."""
        return self._path

    @property
    def reading(self) -> Reading:
        """The file's content now."""
        status = os.stat(self._path)  # noqa: PTH116 - asked before each look at the time
        stamp = (status.st_ino, status.st_mtime_ns)
        if self._reading is None or stamp != self._stamp:
            self._reading = _read(self._path)
            self._stamp = stamp
        return self._reading

    @property
    def speed(self) -> float:
        """Seconds of the sandbox in a real one, while nothing brakes it."""
        return self.reading.speed

    def now(self) -> float:
        """Seconds since 1970 UTC, as the sandbox counts them."""
        return self.reading.at(time.time())

    def sleep(self, seconds: float) -> None:
        """Wait until `seconds` of this clock have passed; if it stands still, as long as they would have taken."""
        ends_at = self.now() + max(0.0, seconds)
        stood_still = 0.0
        while (left := ends_at - self.now()) > stood_still * self.speed:
            nap = min(max(left / self.reading.pace, SHORTEST_NAP_SECONDS), LONGEST_NAP_SECONDS)
            time.sleep(nap)
            if not self.reading.running:
                stood_still += nap


class Timekeeper:
    """The server's side of the clock: the only one that writes the file.

    Args:
        path: the clock file; what it says is taken up, so that time goes on where it was.
        speed: wanted from now on; None keeps the one in the file.
    """

    def __init__(self, path: Path, *, speed: float | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._busy = 0
        before = _read(path) if path.exists() else None
        now = time.time()
        anchor = before.at(now) if before else now
        wanted = speed or (before.speed if before else DEFAULT_SPEED)
        self._reading = Reading(anchor, now, wanted, wanted, running=True)
        self._write()

    def now(self) -> float:
        """Seconds since 1970 UTC, as the sandbox counts them."""
        return self._reading.at(time.time())

    @property
    def reading(self) -> Reading:
        """What stands in the file."""
        return self._reading

    def set_speed(self, speed: float) -> None:
        """Run `speed` times as fast as life from now on."""
        with self._lock:
            self._change(speed=speed)

    def skip(self, seconds: float) -> None:
        """Jump ahead at once."""
        with self._lock:
            self._change(ahead=max(0.0, seconds))

    def brake(self) -> None:
        """Real work begins: slow down until as many `release` calls have come."""
        with self._lock:
            self._busy += 1
            self._change()

    def release(self) -> None:
        """Real work is done."""
        with self._lock:
            self._busy = max(0, self._busy - 1)
            self._change()

    def freeze(self) -> None:
        """Stop, for the time that no server runs."""
        with self._lock:
            self._change(running=False)

    def _change(self, *, speed: float | None = None, ahead: float = 0.0, running: bool | None = None) -> None:
        running = self._reading.running if running is None else running
        wanted = min(max(speed or self._reading.speed, SLOWEST), FASTEST)
        pace = min(wanted, BRAKE_SPEED) if self._busy else wanted
        old = self._reading
        if (old.speed, old.pace, old.running) == (wanted, pace, running) and not ahead:
            return
        now = time.time()
        self._reading = Reading(old.at(now) + ahead, max(now, old.real), wanted, pace, running)
        self._write()

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._reading._asdict()))
        new.replace(self._path)


def _read(path: Path) -> Reading:
    return Reading(**json.loads(path.read_bytes()))
