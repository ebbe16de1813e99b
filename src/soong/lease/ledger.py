"""The ledger: soong's local memory of what it rents. Every intent is on disk before the call that acts on it.

One SQLite file in the state directory, readable by its owner only. Each change is one transaction that alters
the rental and appends an event, synced to the disk before the function returns; several soong processes may
work in it at once. A rental is never deleted: when its machine is proved gone it is `ended`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from soong.errors import LedgerError, NotFoundError
from soong.lease.lease import SECONDS_PER_HOUR, Lease
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

Phase = Literal["asked", "granted", "ready", "ending", "ended", "refused"]
"""asked: the launch call may be on its way. granted: the cloud named a machine. ready: it answered and its GPU
works. ending: somebody wants it gone. ended: proved gone. refused: certainly never launched."""

ORDER: tuple[Phase, ...] = ("asked", "granted", "ready", "ending", "ended", "refused")
"""A rental only ever moves on: a start that finishes must not undo the stop that another command asked for."""

OPEN_PHASES: tuple[Phase, ...] = ("asked", "granted", "ready", "ending")
"""Phases in which a machine may exist and bill."""

Serving = Literal["", "starting", "ready", "failed"]
"""Empty where nothing was to be served."""

BUSY_SECONDS = 15.0
"""How long one soong waits for another that is writing."""


class Rental(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to rent one machine, and all that became of it. Times are seconds by the cloud's clock.

    Attributes:
        lease: until when. cloud, account: where; `account` tells two keys apart without telling the key.
        name: the person's word for it. model: what it is for. gpu, gpu_count, instance_type, region: what it is.
        usd_per_hour: the price that was shown before the launch.
        phase: see `Phase`. instance_id: the cloud's, once known. address: where it answers.
        asked_at: the launch call. ready_at, ending_at, ended_at: those moments, None before them.
        end_reason: why it ended or was refused. missing_since: first time it was absent from the cloud's list.
        guards: who ends it if this computer does not. engine_argv: how the plan would serve the model.
        idle_seconds_limit: without a request for so long, by the cloud's clock, it is ended; 0 for no such limit.
        max_usd: the most that it may cost, as agreed at its start; None where nothing was said.
        serving: how far the endpoint is. served_model: what its clients call the model. endpoint_port: on the machine's
            loopback, behind the gate. local_port: of this computer, which leads there.
        group: the id that all replicas of one start share, empty for a machine of its own. replica: its number in the
            group, from 1. router_port: of this computer, which leads to the whole group.
    """

    lease: Lease
    cloud: str
    account: str
    name: str
    model: str
    gpu: str
    gpu_count: int
    instance_type: str
    region: str
    usd_per_hour: float
    asked_at: float
    phase: Phase = "asked"
    instance_id: str = ""
    address: str = ""
    ready_at: float | None = None
    ending_at: float | None = None
    ended_at: float | None = None
    end_reason: str = ""
    missing_since: float | None = None
    guards: tuple[str, ...] = ()
    engine_argv: tuple[str, ...] = ()
    serving: Serving = ""
    served_model: str = ""
    endpoint_port: int = 0
    local_port: int = 0
    idle_seconds_limit: float = 0.0
    max_usd: float | None = None
    group: str = ""
    replica: int = 0
    router_port: int = 0

    @property
    def id(self) -> str:
        """The lease's id: the rental's too."""
        return self.lease.id

    @property
    def group_name(self) -> str:
        """The person's word for the group; a machine of its own has its own."""
        return self.name.removesuffix(f"-{self.replica}") if self.group else self.name

    @property
    def endpoint_id(self) -> str:
        """Whose key opens the endpoint: the group's, which is one for all, or the machine's own."""
        return self.group or self.id

    @property
    def is_open(self) -> bool:
        """Whether a machine may exist and bill."""
        return self.phase in OPEN_PHASES

    def cost_usd(self, now: float) -> float:
        """What it has cost until `now`, counted from the launch call: never less than the bill."""
        if self.phase == "refused":
            return 0.0
        end = self.ended_at if self.ended_at is not None else now
        return max(0.0, end - self.asked_at) / SECONDS_PER_HOUR * self.usd_per_hour


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a rental's story. `at` is the cloud's clock, `noted_at` this computer's, both seconds."""

    at: float
    noted_at: float
    rental_id: str
    kind: str
    detail: dict[str, Any]


MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "0001-rentals-and-events",
        """
        CREATE TABLE rentals (
            id TEXT PRIMARY KEY, cloud TEXT NOT NULL, account TEXT NOT NULL, phase TEXT NOT NULL,
            asked_at REAL NOT NULL, document TEXT NOT NULL) STRICT;
        CREATE INDEX rentals_by_phase ON rentals (phase, cloud, account);
        CREATE TABLE events (
            seq INTEGER PRIMARY KEY, at REAL NOT NULL, noted_at REAL NOT NULL, rental_id TEXT NOT NULL,
            kind TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
        CREATE INDEX events_of_rental ON events (rental_id, seq);
        """,
    ),
)


class Ledger:
    """The open ledger file.

    Args:
        file: where it lies; made, with its folder, when it is not there.

    Raises:
        LedgerError: it cannot be made or read; nothing may be launched without it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        paths.made(file.parent)
        with _explained(file):
            self._connection = _connected(file)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, *rentals: Rental) -> None:
        """Write down the intent to launch, of all or of none; on disk when this returns."""
        with self._transaction():
            for rental in rentals:
                self._connection.execute(
                    "INSERT INTO rentals (id, cloud, account, phase, asked_at, document) VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        rental.id,
                        rental.cloud,
                        rental.account,
                        rental.phase,
                        rental.asked_at,
                        _encoded(rental),
                    ),
                )
                self._append(
                    rental.id,
                    "asked",
                    rental.asked_at,
                    {"instance_type": rental.instance_type, "region": rental.region},
                )

    def change(
        self, rental_id: str, kind: str, at: float, *, detail: dict[str, Any] | None = None, **fields: Any
    ) -> Rental:
        """Alter fields of a rental and append the event `kind`, in one transaction.

        Args:
            at: the cloud's clock. detail: what the event tells. fields: new values of the rental's fields.

        Returns:
            The rental as it now stands; its phase only moves on, so another process may have set a later one.

        Raises:
            NotFoundError: no such rental.
        """
        with self._transaction():
            rental = self.get(rental_id)
            if not rental.is_open or ORDER.index(fields.get("phase", rental.phase)) < ORDER.index(
                rental.phase
            ):
                fields.pop("phase", None)
            rental = msgspec.structs.replace(rental, **fields)
            self._connection.execute(
                "UPDATE rentals SET phase = ?, document = ? WHERE id = ?",
                (rental.phase, _encoded(rental), rental_id),
            )
            self._append(rental_id, kind, at, detail or {})
        return rental

    def get(self, rental_id: str) -> Rental:
        """One rental.

        Raises:
            NotFoundError: the ledger has none of that id.
        """
        found = self._read("SELECT document FROM rentals WHERE id = ?", (rental_id,))
        if not found:
            raise NotFoundError(
                f"the ledger knows no rental `{rental_id}`", hints=("soong status --history",)
            )
        return found[0]

    def find(self, rental_id: str) -> Rental | None:
        """One rental, or None."""
        found = self._read("SELECT document FROM rentals WHERE id = ?", (rental_id,))
        return found[0] if found else None

    def open_rentals(self, *, cloud: str | None = None, account: str | None = None) -> tuple[Rental, ...]:
        """Rentals whose machine may exist, oldest first."""
        marks = ", ".join("?" for _ in OPEN_PHASES)
        rentals = self._read(
            f"SELECT document FROM rentals WHERE phase IN ({marks}) ORDER BY asked_at",  # noqa: S608 - marks only
            OPEN_PHASES,
        )
        return tuple(
            rental
            for rental in rentals
            if (cloud is None or rental.cloud == cloud) and (account is None or rental.account == account)
        )

    def of_group(self, group: str) -> tuple[Rental, ...]:
        """Every rental of a group that was ever launched, by its number, the older first."""
        found = [one for one in self.rentals() if group and one.group == group]
        return tuple(sorted(found, key=lambda one: (one.replica, one.asked_at)))

    def rentals(self, *, since: float = 0.0, refused: bool = False) -> tuple[Rental, ...]:
        """Every rental asked at or after `since`, newest first; those that were never launched only on request."""
        rentals = self._read(
            "SELECT document FROM rentals WHERE asked_at >= ? ORDER BY asked_at DESC", (since,)
        )
        return tuple(rental for rental in rentals if refused or rental.phase != "refused")

    def events(self, rental_id: str) -> tuple[Event, ...]:
        """A rental's story, in order."""
        rows = self._connection.execute(
            "SELECT at, noted_at, rental_id, kind, detail FROM events WHERE rental_id = ? ORDER BY seq",
            (rental_id,),
        ).fetchall()
        return tuple(
            Event(at=at, noted_at=noted, rental_id=rental, kind=kind, detail=msgspec.json.decode(detail))
            for at, noted, rental, kind, detail in rows
        )

    def _read(self, query: str, values: tuple[Any, ...]) -> list[Rental]:
        with _explained(self.file):
            rows = self._connection.execute(query, values).fetchall()
        return [msgspec.json.decode(row[0], type=Rental) for row in rows]

    def _append(self, rental_id: str, kind: str, at: float, detail: dict[str, Any]) -> None:
        self._connection.execute(
            "INSERT INTO events (at, noted_at, rental_id, kind, detail) VALUES (?, ?, ?, ?, ?)",
            (at, time.time(), rental_id, kind, msgspec.json.encode(detail).decode()),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def open_ledger() -> Ledger:
    """The user's own ledger, in the state directory."""
    return Ledger(paths.state_dir() / "ledger.sqlite")


@contextmanager
def held(rental_id: str) -> Iterator[bool]:
    """Whether this process alone works on the rental; the system lets go of it when the process dies, however it dies.

    A start holds its rental until the machine is ready. Whoever finds it not held may finish or undo the work.
    """
    descriptor = _locked(_held_folder() / f"{rental_id}.lock")
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        (_held_folder() / f"{rental_id}.lock").unlink(missing_ok=True)
        os.close(descriptor)


def clear_held(open_ids: Collection[str]) -> None:
    """Remove the locks that killed processes left of rentals that are over; one that is held stays."""
    for file in _held_folder().glob("*.lock"):
        if file.stem not in open_ids:
            with held(file.stem):
                pass


def _held_folder() -> Path:
    return paths.state_dir() / "held"


def _locked(file: Path) -> int | None:
    """The lock as a descriptor; None when another process holds it.

    Whoever lets go deletes the file under its lock, so a lock on a file that is gone from the folder is none, and is
    tried again.
    """
    import fcntl

    paths.made(file.parent)
    while True:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _connected(file: Path) -> sqlite3.Connection:
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    _migrate(connection)
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY) STRICT")
    done = {name for (name,) in connection.execute("SELECT name FROM migrations")}
    unknown = done - {name for name, _ in MIGRATIONS}
    if unknown:
        connection.execute("ROLLBACK")
        raise LedgerError(
            f"the ledger was written by a newer soong ({', '.join(sorted(unknown))})",
            hints=("pip install --upgrade soong",),
        )
    for name, script in MIGRATIONS:
        if name not in done:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations (name) VALUES (?)", (name,))
    connection.execute("COMMIT")


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(
            f"the ledger cannot be used: {error}",
            why=f"{file}; without it soong launches nothing, since a crash could lose a machine",
            hints=(f"df -h {file.parent}", "choose another place: `export SOONG_HOME=/path/you/can/write`"),
        ) from error


def _encoded(rental: Rental) -> str:
    return msgspec.json.encode(rental).decode()
