"""What the sandbox remembers: documents in one SQLite file, so that nothing is lost when its process is killed."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS thing (
  number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
  UNIQUE (kind, id))
"""

T = TypeVar("T")


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that shall go wrong. See `soong.clouds.sandbox.faults` for the names.

    Attributes:
        count: how often; None for ever. probability: of each chance to happen.
        path: only requests whose `METHOD /path` contains this. instance_type, region: only launches of these.
        instance: only this one, and at once, although it runs already; `*` is every one.
        seconds, status, word: how long, which HTTP status, which word; the fault's own default where left out.
    """

    id: str = ""
    name: str
    count: int | None = 1
    probability: float = 1.0
    path: str = ""
    instance_type: str = ""
    region: str = ""
    instance: str = ""
    seconds: float | None = None
    status: int | None = None
    word: str = ""


class InstanceRecord(msgspec.Struct, kw_only=True):
    """A machine. Every time is the sandbox's own, seconds since 1970.

    Attributes:
        active_at: when it passes its health check. ended_at: when a terminate call was taken, or it was preempted.
        gone_at: when it is no longer listed. file_systems: id to name. mounts: id to path.
        traits: the faults that this machine was born with, or got later. cents_per_hour: the price at launch.
    """

    id: str
    name: str
    instance_type: str
    region: str
    cents_per_hour: int
    ssh_key_names: list[str]
    public_keys: list[str]
    file_systems: dict[str, str]
    mounts: dict[str, str]
    hostname: str
    tags: dict[str, str]
    ruleset_ids: list[str]
    launched_at: float
    active_at: float
    billed_from: float
    ended_at: float | None = None
    terminated_at: float | None = None
    gone_at: float | None = None
    preempted: bool = False
    boots: int = 1
    jupyter_token: str = ""
    traits: dict[str, Fault] = {}


class UserData(msgspec.Struct, kw_only=True):
    """What a machine runs at its first boot; apart from its record, which is read all the time."""

    id: str
    text: str


class KeyRecord(msgspec.Struct, kw_only=True):
    """A public key of the account."""

    id: str
    name: str
    public_key: str


class FilesystemRecord(msgspec.Struct, kw_only=True):
    """Storage that outlives every machine."""

    id: str
    name: str
    region: str
    created_at: float


class RulesetRecord(msgspec.Struct, kw_only=True):
    """Firewall rules of a region; the id `global` is every region's."""

    id: str
    name: str
    region: str
    rules: list[dict[str, object]]
    created_at: float


class EventRecord(msgspec.Struct, kw_only=True):
    """One line of the audit log."""

    id: str
    resource: str
    action: str
    resource_id: str
    at: float
    details: dict[str, str] = {}


class Settings(msgspec.Struct, kw_only=True):
    """What can be turned.

    Attributes:
        rate_limit: whether requests in quick succession are answered with 429.
        wave_seed: None: every type is free in its regions, at the packaged price. Else capacity and prices move.
        capacity: `type` or `type/region` to whether it is free, over everything else. cents: prices set by hand.
    """

    rate_limit: bool = True
    wave_seed: int | None = None
    capacity: dict[str, bool] = {}
    cents: dict[str, int] = {}


KINDS: dict[type, str] = {
    InstanceRecord: "instance",
    UserData: "user-data",
    KeyRecord: "ssh-key",
    FilesystemRecord: "filesystem",
    RulesetRecord: "ruleset",
    EventRecord: "event",
    Fault: "fault",
    Settings: "settings",
}


class State:
    """The documents, by type and id; in the order they were first put.

    Args:
        path: the SQLite file, made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(SCHEMA)

    def put(self, thing: msgspec.Struct) -> None:
        """Remember `thing` under its id, in place of the one before."""
        key = (KINDS[type(thing)], getattr(thing, "id", "only"), msgspec.json.encode(thing))
        with self._lock:
            self._db.execute(
                "INSERT INTO thing (kind, id, body) VALUES (?, ?, ?) "
                "ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                key,
            )

    def get(self, kind: type[T], thing_id: str = "only") -> T | None:
        """The document with this id, or None."""
        with self._lock:
            row = self._db.execute(
                "SELECT body FROM thing WHERE kind = ? AND id = ?", (KINDS[kind], thing_id)
            ).fetchone()
        return msgspec.json.decode(row[0], type=kind) if row else None

    def all(self, kind: type[T]) -> list[T]:
        """Every document of one type, oldest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT body FROM thing WHERE kind = ? ORDER BY number", (KINDS[kind],)
            ).fetchall()
        return [msgspec.json.decode(row[0], type=kind) for row in rows]

    def delete(self, kind: type, thing_id: str) -> None:
        """Forget one document."""
        with self._lock:
            self._db.execute("DELETE FROM thing WHERE kind = ? AND id = ?", (KINDS[kind], thing_id))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._db.execute("DELETE FROM thing")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
