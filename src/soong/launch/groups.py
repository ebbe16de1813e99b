"""What this computer remembers of a group of replicas: the wish that one more is started by, and what was agreed to.

The ledger knows the machines; a group that this computer has forgotten is stopped and extended all the same.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from soong.errors import SoongError
from soong.settings import paths, records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from soong.lease.ledger import Ledger, Rental

EARLY_SECONDS = 120.0
"""A machine that somebody ended so shortly before its lease's end was ended for that: a reaper's clock and ours."""
WAITING_SECONDS = 7 * 86400.0
"""A group that has had no machine for so long was given up."""
DEAD_SECONDS = 600.0
"""A machine that has not answered for so long, while another of its group does, counts as lost: as long as a new one
may take from its address to its first answer by SSH."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group.

    Attributes:
        name: the person's word. wanted: how many machines. port: of this computer, where the router answers.
        model, gpu, region, filesystem, plan_options, engine_env, idle_hours: the wish.
        usd_per_hour: the dearest price of one machine that was agreed to. usd: what all come to together.
        max_usd: the most that all may ever cost, as the person said (`--max-cost`); None where nothing was said.
        replaces: whether one that is lost may be replaced. replaced: how often that was tried.
        told: ids of rentals whose loss the person has been told of. dead: of those that were ended since they did not
            answer. dead_seconds: see `DEAD_SECONDS`.
    """

    id: str
    name: str
    cloud: str
    wanted: int
    port: int
    model: str
    gpu: str | None = None
    region: str | None = None
    filesystem: str | None = None
    plan_options: dict[str, Any] = {}
    engine_env: str = ""
    idle_hours: float = 0.0
    serves: bool = True
    usd_per_hour: float = 0.0
    usd: float = 0.0
    max_usd: float | None = None
    replaces: bool = False
    replaced: int = 0
    told: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    dead_seconds: float = DEAD_SECONDS


def folder() -> Path:
    """Where groups are written down."""
    return paths.state_dir() / "groups"


def write(group: Group) -> Group:
    """Remember it; on disk when this returns."""
    return records.write(folder() / f"{group.id}.json", group)


def change(group_id: str, **fields: Any) -> Group | None:
    """Alter what is remembered of a group, whoever else does so at the same time; None where it is forgotten."""
    from soong.settings.files import locked

    with locked(paths.made(folder()) / ".lock"):
        found = find(group_id)
        return write(msgspec.structs.replace(found, **fields)) if found is not None else None


def find(group_id: str) -> Group | None:
    """A group that this computer remembers."""
    return records.read(folder() / f"{group_id}.json", Group)


def forget_over(ledger: Ledger) -> None:
    """Forget the groups that are over; one that has no machine yet may be waiting for room."""
    for file in folder().glob("[!.]*.json"):
        members = ledger.of_group(file.stem)
        waits = not members and time.time() - file.stat().st_mtime < WAITING_SECONDS
        if not waits and not any(one.is_open for one in members):
            file.unlink(missing_ok=True)


def lost(rentals: Sequence[Rental]) -> tuple[Rental, ...]:
    """Those machines of a group that ended although nobody here asked for it and their lease was not over."""
    return tuple(
        one
        for one in rentals
        if one.phase == "ended" and one.ending_at is None and one.ready_at is not None
        if one.ended_at is not None and one.ended_at < one.lease.ends_at - EARLY_SECONDS
    )


def going_on(rentals: Sequence[Rental]) -> tuple[Rental, ...]:
    """Those machines of a group that may run and that nobody has asked to end."""
    return tuple(one for one in rentals if one.is_open and one.phase != "ending")


def replace_no_more(ledger: Ledger, rentals: Sequence[Rental]) -> None:
    """Nothing is replaced any more in a group all of whose machines are among these, which are about to be ended.

    A disk that refuses does not keep them alive: then what reads the ledger sees them end.
    """
    meant = {one.id for one in rentals}
    for group in {one.group for one in rentals if one.group}:
        if all(one.id in meant for one in going_on(ledger.of_group(group))):
            with suppress(SoongError, OSError):
                change(group, replaces=False)


def usd_gone(rentals: Sequence[Rental], running: Sequence[Rental], now: float) -> float:
    """What those machines of a group cost until now that are not among the running ones: no extension gets it back."""
    ids = {one.id for one in running}
    return sum(one.cost_usd(now) for one in rentals if one.id not in ids)


def usd_to_end(rentals: Sequence[Rental], now: float) -> float:
    """What all machines of a group will have cost at their end, those that are gone included."""
    return sum(
        one.cost_usd(max(now, one.lease.ends_at) if one.is_open else now)
        for one in rentals
        if one.phase != "refused"
    )
