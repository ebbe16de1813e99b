"""No more questions a second than Lambda allows one account, however many soong processes ask.

Lambda allows one request a second and one launch in twelve, counted per account. The moments already taken stand
in a small locked file that is named by the key's fingerprint: a process reserves the next free moment, lets the file
go, and waits for its moment by the provider's clock, so a rehearsal that runs six hundred times as fast waits as much
less. Pacing is a courtesy, so it never stops the work: a file that is broken, that comes from another clock, or that
cannot be written only means that this process paces itself alone.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from soong.errors import SoongError
from soong.settings import paths
from soong.settings.files import locked

if TYPE_CHECKING:
    from pathlib import Path

    from soong.lease.clock import Clock

REQUEST_SECONDS = 1.05
"""Between two requests: Lambda's documented 1 a second, and a twentieth for the unevenness of the network."""

LAUNCH_SECONDS = 12.05
"""Between two launches: Lambda's documented 1 in 12 seconds, and the same twentieth."""

MOST_AHEAD_SECONDS = 600.0
"""A moment reserved further ahead than this was written by another clock (a rehearsal begun anew, a clock set back)."""

_FORM = 64
"""Bytes of the file: two moments in text."""


class Pace:
    """The moments at which one account may be asked.

    Args:
        account: the key's fingerprint: letters and digits. clock: the provider's.
        directory: where the shared file stands; soong's state directory when not given.
        request_seconds, launch_seconds: the least time between two, by that clock.
    """

    def __init__(
        self,
        account: str,
        clock: Clock,
        *,
        directory: Path | None = None,
        request_seconds: float = REQUEST_SECONDS,
        launch_seconds: float = LAUNCH_SECONDS,
    ) -> None:
        self._clock = clock
        self._path = (directory or paths.state_dir()) / f"pace-{account}"
        self._steps = (request_seconds, launch_seconds)
        self._own = (0.0, 0.0)
        self._is_shared = True

    def wait_for_request(self) -> None:
        """Wait until the next request may go."""
        self._sleep_until(self._reserve(0))

    def wait_for_launch(self) -> None:
        """Wait until the next launch may go; a launch is a request as well."""
        self._sleep_until(self._reserve(1))
        self.wait_for_request()

    def hold(self, seconds: float) -> None:
        """Let nobody ask for so long: the service said `Retry-After`."""
        until = self._clock.now() + min(seconds, MOST_AHEAD_SECONDS)
        self._change(lambda taken: (max(taken[0], until), taken[1]))

    def _reserve(self, kind: int) -> float:
        """Take the next free moment of a kind (0 request, 1 launch) and return it."""
        moment = 0.0

        def take(taken: tuple[float, float]) -> tuple[float, float]:
            nonlocal moment
            moment = max(self._clock.now(), taken[kind])
            after = moment + self._steps[kind]
            return (after, taken[1]) if kind == 0 else (taken[0], after)

        self._change(take)
        return moment

    def _change(self, change: _Change) -> None:
        """Apply a change to the moments that are taken: to the shared ones, or, failing that, to our own."""
        if self._is_shared:
            try:
                paths.made(self._path.parent)
                with locked(self._path) as descriptor:
                    taken = change(_believed(_read(descriptor), self._clock.now()))
                    _write(descriptor, taken)
            except (SoongError, OSError):
                self._is_shared = False
            else:
                self._own = taken
                return
        self._own = change(_believed(self._own, self._clock.now()))

    def _sleep_until(self, moment: float) -> None:
        left = moment - self._clock.now()
        if left > 0:
            self._clock.sleep(left)


if TYPE_CHECKING:
    from collections.abc import Callable

    _Change = Callable[[tuple[float, float]], tuple[float, float]]


def _believed(taken: tuple[float, float], now: float) -> tuple[float, float]:
    """The moments, without those that no clock like ours wrote."""
    request, launch = (moment if moment <= now + MOST_AHEAD_SECONDS else 0.0 for moment in taken)
    return request, launch


def _read(descriptor: int) -> tuple[float, float]:
    """The two moments of the file; zero for what is not there or no number."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    words = os.read(descriptor, _FORM).decode("ascii", "replace").split()
    request, launch = [*(_moment(word) for word in words[:2]), 0.0, 0.0][:2]
    return request, launch


def _moment(word: str) -> float:
    try:
        moment = float(word)
    except ValueError:
        return 0.0
    return moment if math.isfinite(moment) else 0.0


def _write(descriptor: int, taken: tuple[float, float]) -> None:
    text = f"{taken[0]:.6f} {taken[1]:.6f}\n".ljust(_FORM)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode("ascii"))
    os.ftruncate(descriptor, _FORM)
