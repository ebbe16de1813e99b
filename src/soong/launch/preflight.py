"""What can be found out before anything is paid for."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from soong.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.launch.provider import Filesystem
    from soong.offers.offer import Offer

DISK_MARGIN = 1.3
"""Free disk against the weights: the download's own copy is kept once, the engine's environment and its compiled
kernels take 20 to 30 GB beside it (sizes of the vLLM 0.33 and SGLang 0.5 CUDA images), and a full disk stops both."""
ENVIRONMENT_BYTES = 30 * 10**9
GIB = 1 << 30
MOST_SKEW_SECONDS = 60.0
"""A clock that is off by more makes two computers disagree on a lease's end by as much; rounds are a minute apart."""


def disk_problem(weights_bytes: int | None, offer: Offer) -> str:
    """Why the model's files would not go on the machine's disk; empty when they do, or when either is unknown."""
    if not weights_bytes or not offer.storage_gib:
        return ""
    needed = weights_bytes * DISK_MARGIN + ENVIRONMENT_BYTES
    if needed <= offer.storage_gib * GIB:
        return ""
    return (
        f"its disk has {offer.storage_gib:,} GiB, the files and the engine need about {needed / GIB:,.0f} GiB"
    )


def check_port(port: int) -> None:
    """Make sure that the tunnel's end on this computer is free.

    Raises:
        UsageError: something listens there; names another free port.
    """
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((address, port)) == 0:
                raise UsageError(
                    f"port {port} of this computer is taken",
                    why="the endpoint would be reached there",
                    hints=(f"the same with `--port {free_port()}`", f"lsof -i :{port}"),
                )


def free_port() -> int:
    """A port of this computer that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_filesystem(name: str, filesystems: Sequence[Filesystem], region: str | None) -> Filesystem:
    """The filesystem of that name, in that region if one is asked for: filesystems cannot leave theirs.

    Raises:
        NotFoundError: no such filesystem. UsageError: it is in another region.
    """
    found = next((one for one in filesystems if one.name == name), None)
    if found is None:
        raise NotFoundError(
            f"there is no filesystem `{name}` in the account",
            hints=tuple(f"there is `{one.name}` in {one.region}" for one in filesystems[:5])
            or ("leave it out",),
        )
    if region is not None and found.region != region:
        raise UsageError(
            f"filesystem `{name}` is in {found.region}, not in {region}",
            why="a filesystem can only be mounted in its own region",
            hints=(f"`--region {found.region}`",),
        )
    return found


def clock_problem(skew_seconds: float | None) -> str:
    """What a computer whose clock is wrong means for a lease; empty when it is right, or not known.

    Args:
        skew_seconds: how far the cloud's clock is ahead.
    """
    if skew_seconds is None or abs(skew_seconds) <= MOST_SKEW_SECONDS:
        return ""
    word = "behind" if skew_seconds > 0 else "ahead of"
    return (
        f"this computer's clock is {abs(skew_seconds):.0f} s {word} the cloud's: a reaper on another computer would "
        "end the lease that much too early or too late"
    )
