"""Time as a lease counts it: every wait and deadline asks a clock, so that a rehearsal can run faster than life."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since 1970, and waiting."""

    def now(self) -> float:
        """Seconds since 1970 UTC, as the cloud that is billed counts them."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait until `seconds` of this clock have passed."""
        ...


class WallClock:
    """The computer's own clock: the one that real money follows."""

    def now(self) -> float:
        """Seconds since 1970 UTC."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(max(0.0, seconds))


class ScaledClock:
    """A clock that runs `speed` times as fast as the computer's, from a common start.

    Args:
        start: what this clock shows at `real_start`, seconds since 1970. real_start: the computer's time then.
        speed: seconds of this clock in one real second.
    """

    def __init__(self, *, start: float, real_start: float, speed: float) -> None:
        self.start = start
        self.real_start = real_start
        self.speed = speed

    def now(self) -> float:
        """Seconds since 1970 UTC, as this clock counts them."""
        return self.start + (time.time() - self.real_start) * self.speed

    def sleep(self, seconds: float) -> None:
        """Wait until `seconds` of this clock have passed."""
        time.sleep(max(0.0, seconds) / self.speed)
