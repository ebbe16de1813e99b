"""A lease: who rents a machine, from when, until when, and the moment that no command can pass.

It is written where any computer with the cloud's key can read it: what never changes stands in the instance's
tags, the current end in its name (the only field that Lambda's API lets anybody change). So extending is one
rename, and a reaper needs no memory of its own.
"""

from __future__ import annotations

import re
import secrets

import msgspec

from soong.errors import UsageError

ID_TAG = "soong-id"
OWNER_TAG = "soong-owner"
LAUNCHED_TAG = "soong-launched"
LEASE_TAG = "soong-lease"
CAP_TAG = "soong-cap"

NAME_PATTERN = re.compile(r"soong-([0-9a-f]{10})-u([0-9]{9,11})", re.ASCII)
SECONDS_PER_HOUR = 3600.0


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Times are whole seconds since 1970 UTC, by the cloud's clock.

    Attributes:
        id: ten hex digits, ours, unique; made before anything is asked of the cloud.
        owner: who may end it without asking: one word per person or team.
        launched_at: the moment of the launch call: billing cannot have begun earlier.
        first_ends_at: the end that was agreed at launch. ends_at: the end now.
        cap_at: the hard end; `ends_at` is never later.
    """

    id: str
    owner: str
    launched_at: int
    first_ends_at: int
    ends_at: int
    cap_at: int

    @property
    def instance_name(self) -> str:
        """The instance's name in the cloud: carries the id and the current end."""
        return f"soong-{self.id}-u{self.ends_at}"

    @property
    def tags(self) -> dict[str, str]:
        """What is written at launch and can never be changed."""
        return {
            ID_TAG: self.id,
            OWNER_TAG: self.owner,
            LAUNCHED_TAG: str(self.launched_at),
            LEASE_TAG: str(self.first_ends_at),
            CAP_TAG: str(self.cap_at),
        }

    def remaining_seconds(self, now: float) -> float:
        """Seconds until the end; negative after it."""
        return self.ends_at - now

    def is_over(self, now: float) -> bool:
        """Whether the machine must be gone."""
        return now >= self.ends_at


def new_id() -> str:
    """An id that no other start has: forty random bits."""
    return secrets.token_hex(5)


def make_lease(*, owner: str, now: float, hours: float, cap_hours: float, lease_id: str = "") -> Lease:
    """A lease that starts now.

    Args:
        owner: the owner's word. now: the cloud's clock. hours: how long. cap_hours: the longest it may ever become.
        lease_id: given to repeat one; a new one otherwise.

    Raises:
        UsageError: no time at all, or more than the cap.
    """
    if hours <= 0:
        raise UsageError(
            f"a lease of {hours:g} hours ends before it begins", hints=("soong start --hours 4",)
        )
    if hours > cap_hours:
        raise UsageError(
            f"a lease of {hours:g} h is over the cap of {cap_hours:g} h",
            why="the cap is what protects you from a forgotten machine",
            hints=(f"`--hours {cap_hours:g}`", f"soong config set lease.cap_hours {hours:g}"),
        )
    start = int(now)
    end = start + round(hours * SECONDS_PER_HOUR)
    return Lease(
        id=lease_id or new_id(),
        owner=owner,
        launched_at=start,
        first_ends_at=end,
        ends_at=end,
        cap_at=start + round(cap_hours * SECONDS_PER_HOUR),
    )


def read_lease(*, name: str, tags: dict[str, str]) -> Lease | None:
    """The lease of an instance, from what the cloud tells about it; None when the instance is not soong's.

    A name that soong did not write (somebody renamed it) counts as the first end; an end past the cap counts as
    the cap. So a rename can shorten a lease, never lengthen it past the cap. Without readable tags but with a
    name of ours (tags can lag behind the launch), the name's end is both the end and the cap. With no end anywhere
    it is not ours: what soong launches carries one.
    """
    found = NAME_PATTERN.fullmatch(name)
    lease_id = tags.get(ID_TAG) or (found[1] if found else "")
    if not lease_id:
        return None
    named_end = int(found[2]) if found and found[1] == lease_id else None
    first = _seconds(tags.get(LEASE_TAG))
    cap = _seconds(tags.get(CAP_TAG))
    end = next((end for end in (named_end, first, cap) if end is not None), None)
    if end is None:
        return None
    limit = cap if cap is not None else end
    return Lease(
        id=lease_id,
        owner=tags.get(OWNER_TAG, ""),
        launched_at=_seconds(tags.get(LAUNCHED_TAG)) or 0,
        first_ends_at=first if first is not None else end,
        ends_at=min(end, limit),
        cap_at=limit,
    )


def extended(lease: Lease, *, hours: float, now: float) -> Lease:
    """The same lease with `hours` more.

    Raises:
        UsageError: no time, the lease is over already, or the new end would pass the cap; says how much is left.
    """
    if hours <= 0:
        raise UsageError(f"cannot extend by {hours:g} hours", hints=("soong extend 1",))
    if lease.is_over(now):
        raise UsageError(
            "this lease is over; its machine is being ended", hints=("soong status", "soong start")
        )
    ends_at = lease.ends_at + round(hours * SECONDS_PER_HOUR)
    if ends_at > lease.cap_at:
        left = max(0, lease.cap_at - lease.ends_at) / SECONDS_PER_HOUR
        hints = (f"soong extend {left:.2g}",) if left >= 1 / 60 else ("soong stop",)
        raise UsageError(
            f"{hours:g} h more would pass the cap of this lease",
            why=f"at most {left:.2g} h can be added; the cap was fixed at launch and cannot be moved",
            hints=hints,
        )
    return msgspec.structs.replace(lease, ends_at=ends_at)


def _seconds(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 11 else None
