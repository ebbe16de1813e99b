"""The guardian: what ends a lease on this computer when no soong command is running.

It is the reaper, run again and again by whatever this computer has for that: a systemd user timer, launchd, cron, or
a process of its own. It is armed, and proved to work by a real round, before anything is launched. Being on this
computer it sleeps when the computer sleeps; only a reaper elsewhere does not (`soong reap --install`).
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from soong.errors import SoongError
from soong.lease.guardian import heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIRE_SECONDS = 30.0
"""How long a test round may take, in real seconds: one list of the account, and Python's start on a slow disk."""
POLL_SECONDS = 0.05


class GuardianError(SoongError):
    """Nothing on this computer can be made to end the lease, so nothing is launched."""

    code = "no-guardian"


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """An armed guardian.

    Attributes:
        kind: `systemd`, `launchd`, `cron`, `process`. words: for a person. survives_reboot: whether it comes back.
    """

    kind: str
    words: str
    survives_reboot: bool


class Mechanism(Protocol):
    """One way to have a command run again and again on this computer."""

    guard: Guard

    def is_available(self) -> bool:
        """Whether this computer has it."""
        ...

    def install(self, cloud: str) -> None:
        """Put it in place; again does no harm. Raises SoongError or OSError when it cannot."""
        ...

    def fire(self, cloud: str) -> None:
        """Have it run one round now, in the way it will run later."""
        ...

    def remove(self, cloud: str) -> None:
        """Take it away again; silent when it is not there."""
        ...


def arm(
    cloud: str, mechanisms: Sequence[Mechanism], *, tell: Callable[[str], None] = lambda _: None
) -> Guard:
    """Arm the first mechanism that proves itself: a round that really read the account, run as it will be run.

    Args:
        cloud: whose leases it guards. mechanisms: in order of preference. tell: hears why one was passed over.

    Raises:
        GuardianError: none did; says why, for each.
    """
    reasons = []
    for mechanism in mechanisms:
        if not mechanism.is_available():
            continue
        with heartbeat.one_at_a_time(cloud):
            reason = _tried(mechanism, cloud)
        if not reason:
            return mechanism.guard
        reasons.append(f"{mechanism.guard.kind}: {reason}")
        tell(f"the guardian cannot be {mechanism.guard.words}: {reason}")
        mechanism.remove(cloud)
    raise GuardianError(
        "no guardian could be armed, so nothing was launched",
        why="; ".join(reasons) or "this computer has nothing that runs a command later",
        hints=("soong doctor", f"soong reap --cloud {cloud}"),
    )


def disarm(cloud: str, mechanisms: Sequence[Mechanism]) -> None:
    """Take every mechanism away: no lease is left to guard."""
    for mechanism in mechanisms:
        if mechanism.is_available():
            mechanism.remove(cloud)


def _tried(mechanism: Mechanism, cloud: str) -> str:
    """Why the mechanism is no use; empty when it fired and the round was sound."""
    nonce = secrets.token_hex(8)
    heartbeat.ask(cloud, nonce)
    try:
        mechanism.install(cloud)
        mechanism.fire(cloud)
    except (SoongError, OSError) as error:
        return str(error)
    deadline = time.monotonic() + FIRE_SECONDS
    while time.monotonic() < deadline:
        beat = heartbeat.last(cloud)
        if beat is not None and beat.nonce == nonce:
            return beat.problem
        time.sleep(POLL_SECONDS)
    return f"no round within {FIRE_SECONDS:.0f} s"
