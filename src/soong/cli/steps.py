"""Steps of something slow: on a terminal one live line with the time it takes, elsewhere one plain line each."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from soong.cli import text, times

if TYPE_CHECKING:
    from soong.cli.output import Output
    from soong.lease.clock import Clock

REFRESH_SECONDS = 1.0
UPDATE_SECONDS = 30.0
"""Between two lines about one step, where there is no live line."""


class Steps:
    """Told each step by `say`; writes to stderr, and nothing in quiet and JSON mode.

    Args:
        out: how the command speaks. clock: the cloud's: a rehearsal counts its own minutes.
    """

    def __init__(self, out: Output, clock: Clock) -> None:
        self._out = out
        self._clock = clock
        self._begun = clock.now()
        self._step = ""
        self._live = sys.stderr.isatty() and not (out.quiet or out.as_json)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._updated_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            threading.Thread(target=self._keep_fresh, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with self._lock:
            if self._live and self._step:
                sys.stderr.write(f"\r\x1b[2K{self._line()}\n")

    def say(self, step: str) -> None:
        """The next step has begun; the one before it stays as a line."""
        if not self._live:
            self._out.say(f"[{times.span(self._clock.now() - self._begun):>9}] {step}")
            return
        with self._lock:
            if self._step:
                sys.stderr.write(f"\r\x1b[2K{self._line()}\n")
            self._step = step
            self._draw()

    def update(self, step: str) -> None:
        """How the step goes on: rewrites the live line; elsewhere a line now and then."""
        if self._live:
            with self._lock:
                self._step = step
                self._draw()
        elif time.monotonic() - self._updated_at >= UPDATE_SECONDS:
            self._updated_at = time.monotonic()
            self._out.say(f"[{times.span(self._clock.now() - self._begun):>9}] {step}")

    def _keep_fresh(self) -> None:
        while not self._over.wait(REFRESH_SECONDS):
            with self._lock:
                if not self._over.is_set():
                    self._draw()

    def _draw(self) -> None:
        room = text.screen_width() - 1
        sys.stderr.write(f"\r\x1b[2K{self._line()[:room]}")
        sys.stderr.flush()

    def _line(self) -> str:
        return f"[{times.span(self._clock.now() - self._begun):>9}] {self._step}"
