"""What can go wrong at a cloud, by name: put in by hand or by a test, taken out one by one as they happen."""

from __future__ import annotations

import random
import secrets
import threading
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from soong.clouds.sandbox.state import Fault

if TYPE_CHECKING:
    from soong.clouds.sandbox.state import State


class Kind(NamedTuple):
    """A fault that exists. when: it strikes `request`s, `launch`es, or stays with a `machine` from its launch on."""

    when: Literal["request", "launch", "machine"]
    words: str


KINDS = {
    "no-capacity": Kind("launch", "the launch is refused for want of capacity, although the type is listed"),
    "quota": Kind("launch", "the launch is refused: quota exceeded"),
    "unknown-error": Kind("launch", "the launch fails with `global/unknown`, and made nothing"),
    "provider-error": Kind("launch", "`provider/internal-unavailable`, and there is no machine"),
    "provider-error-launched": Kind("launch", "`provider/internal-unavailable`, but the machine exists"),
    "rate-limited": Kind("request", "429; --seconds adds a Retry-After"),
    "server-error": Kind("request", "500 `global/internal-error`, or the --status of 5xx that is given"),
    "lost-answer": Kind(
        "request", "the request is carried out, then the connection drops (launches unless --path)"
    ),
    "lost-request": Kind("request", "the connection drops before anything is done (launches unless --path)"),
    "latency": Kind("request", "the answer comes --seconds (2) real seconds late"),
    "revoked-key": Kind("request", "401: the API key was revoked"),
    "account-inactive": Kind("request", "403: the account is inactive"),
    "vanishing": Kind(
        "request", "one list of instances comes without its machines (--instance: without that one)"
    ),
    "terminate-unavailable": Kind("request", "the terminate call is refused: another action is in progress"),
    "terminate-ignored": Kind("request", "the terminate call is answered as if it worked, and nothing ends"),
    "slow-boot": Kind("machine", "boots --seconds (1800) later than it should"),
    "unhealthy": Kind("machine", "comes up `unhealthy` in place of `active`"),
    "preempted": Kind("machine", "is taken away by the cloud, --seconds (60) after it came up"),
    "unknown-status": Kind("machine", "has a status --word (`rebuilding`) that no specification knows"),
    "empty-ip": Kind("machine", "is active with an empty `ip`, for --seconds or for ever"),
    "late-tags": Kind("machine", "shows no tags before --seconds (60) after its launch"),
    "slow-terminate": Kind("machine", "stays `terminating` for --seconds (600)"),
    "no-ssh": Kind("machine", "is active, but nothing answers SSH"),
    "changed-host-key": Kind("machine", "has another host key after its next restart (--instance: now)"),
    "cuda-802": Kind("machine", "CUDA fails with error 802, while nvidia-smi looks fine"),
    "duplicate-key-names": Kind(
        "request", "the account has a second SSH key of the same name, so a launch fails"
    ),
}

LAUNCH_PATH = "POST /instance-operations/launch"
USUAL_PATHS = {
    "lost-answer": LAUNCH_PATH,
    "lost-request": LAUNCH_PATH,
    "vanishing": "GET /instances",
    "terminate-unavailable": "POST /instance-operations/terminate",
    "terminate-ignored": "POST /instance-operations/terminate",
}
USUAL_SECONDS = {
    "latency": 2.0,
    "slow-boot": 1800.0,
    "preempted": 60.0,
    "late-tags": 60.0,
    "slow-terminate": 600.0,
}


class Faults:
    """The faults that are waiting to happen; kept in the state, so that they survive a restart."""

    def __init__(self, state: State, *, seed: int = 0) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 - repeatable by design

    def waiting(self) -> list[Fault]:
        """All of them, oldest first."""
        return self._state.all(Fault)

    def add(self, fault: Fault) -> Fault:
        """Let it happen from now on; returns it with its id."""
        fault = msgspec.structs.replace(fault, id=secrets.token_hex(4))
        self._state.put(fault)
        return fault

    def clear(self, name: str = "") -> int:
        """Take out all faults, or those of one name; returns how many."""
        found = [fault for fault in self.waiting() if name in {"", fault.name}]
        for fault in found:
            self._state.delete(Fault, fault.id)
        return len(found)

    def strike(
        self, name: str, *, request: str = "", instance_type: str = "", region: str = ""
    ) -> Fault | None:
        """The fault of this name that happens now, if one does; it is counted.

        Args:
            request: `METHOD /path` without the API's prefix. instance_type, region: of a launch.
        """
        with self._lock:
            for fault in self.waiting():
                if fault.name == name and self._hits(fault, request, instance_type, region):
                    self._count(fault)
                    return fault
        return None

    def _hits(self, fault: Fault, request: str, instance_type: str, region: str) -> bool:
        path = fault.path or USUAL_PATHS.get(fault.name, "")
        return (
            (path in request if fault.path else request.startswith(path))
            and fault.instance_type in {"", instance_type}
            and fault.region in {"", region}
            and self._random.random() < fault.probability
        )

    def _count(self, fault: Fault) -> None:
        if fault.count is None:
            return
        if fault.count <= 1:
            self._state.delete(Fault, fault.id)
        else:
            self._state.put(msgspec.structs.replace(fault, count=fault.count - 1))


def seconds_of(fault: Fault) -> float:
    """How long it lasts: as said, else as usual."""
    return fault.seconds if fault.seconds is not None else USUAL_SECONDS.get(fault.name, float("inf"))
