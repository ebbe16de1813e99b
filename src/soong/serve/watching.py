"""What the warden on a machine says, and what it is told: idleness from the engine's counters, and the lease."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from soong.errors import RemoteError
from soong.launch.boot_script import lease_file

if TYPE_CHECKING:
    from soong.lease.clock import Clock
    from soong.lease.lease import Lease
    from soong.serve.machine import Machine

WARDEN = 'python3 "${SOONG_ROOT:-}/opt/soong/warden.py"'
ANSWER_SECONDS = 20.0


class WardenLease(msgspec.Struct, frozen=True):
    """The lease that the warden keeps. ends_at: by the cloud's clock."""

    id: str
    ends_at: float


class BootLine(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of the machine's progress. gate_port: of its loopback, once the endpoint answers there."""

    step: str = ""
    state: str = ""
    message: str = ""
    gate_port: int = 0


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What the warden sees.

    Attributes:
        idle_seconds: since when no request runs or waits and no token was made, by the cloud's clock; None where that
            is not known, and then `idle_unknown_because` says why. ssh_sessions: people with a terminal; None where
            that cannot be seen. phase: waiting, booting, serving, failed, stopped or ended. boot: the last that the
            machine told of its serving.
    """

    phase: str = ""
    boot: BootLine | None = None
    lease: WardenLease | None = None
    idle_seconds: float | None = None
    idle_unknown_because: str = ""
    ssh_sessions: int | None = None

    def is_idle(self, limit_seconds: float) -> bool:
        """Whether nobody has used it for so long; what is not known is not idle.

        >>> Watched(idle_seconds=601.0).is_idle(600), Watched(idle_seconds=None).is_idle(600)
        (True, False)
        """
        return self.idle_seconds is not None and self.idle_seconds >= limit_seconds and not self.ssh_sessions


def look(machine: Machine) -> Watched:
    """Ask the warden.

    Raises:
        RemoteError: no connection, or no warden answers.
    """
    ran = machine.run(["sh", "-c", f"{WARDEN} status"], seconds=ANSWER_SECONDS)
    try:
        if ran.code == 0:
            return msgspec.json.decode(ran.out, type=Watched)
    except msgspec.DecodeError:
        pass
    said = (ran.out or ran.err).strip()[-300:]
    raise RemoteError(
        "the warden of the machine does not answer", why=said, hints=("soong ssh", "soong logs")
    )


def tell_lease(machine: Machine, lease: Lease, clock: Clock) -> None:
    """Put a lease in force on the machine, so that its warden does not stop the engine at the end that was before.

    Raises:
        RemoteError: no connection, or the warden did not take it.
    """
    told = json.dumps(lease_file(lease, clock)).encode()
    ran = machine.run(["sh", "-c", f"{WARDEN} lease"], stdin=told, seconds=ANSWER_SECONDS)
    if ran.code:
        raise RemoteError(
            "the machine did not take the new end of its lease",
            why=(ran.out or ran.err).strip()[-300:],
            hints=("soong ssh",),
        )
