"""What was started on this computer, one file for each machine, so that any soong process can end it."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from soong.clouds.local import processes
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT_SECONDS = 3600.0
"""How long an ended machine stays in the list: `soong stop` reads the proof there."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. cards: its GPUs, as nvidia-smi counts. boot_id: this computer's start that it lives in.

    asked_to_end_at: seconds since 1970; None until somebody asked.
    """

    id: str
    name: str
    tags: dict[str, str]
    instance_type: str
    gpu_count: int
    cards: tuple[int, ...]
    boot_id: str
    launched_at: float
    asked_to_end_at: float | None = None


class Records:
    """The machines of one folder.

    Args:
        folder: of all of them; made at the first launch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def root(self, record: Record) -> Path:
        """The folder of one machine: named by its GPUs, which no other has at the same time.

        So an engine's environment, which cannot be moved, is found again by the next machine there.
        """
        return self.folder / "machines" / ("-".join(map(str, record.cards)) or "cpu")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one process changes the list at a time; let go of when the process ends."""
        import fcntl

        descriptor = os.open(paths.made(self.folder) / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def all(self) -> tuple[Record, ...]:
        """Every machine that is known, the oldest first; half-written files do not exist."""
        found = []
        for file in self.folder.glob("records/*.json"):
            with suppress(FileNotFoundError):
                found.append(msgspec.json.decode(file.read_bytes(), type=Record))
        return tuple(sorted(found, key=lambda record: record.launched_at))

    def find(self, record_id: str) -> Record | None:
        """One machine, or None."""
        return next((record for record in self.all() if record.id == record_id), None)

    def write(self, record: Record) -> None:
        """Put a machine on the disk, or its new state."""
        file = paths.made(self.folder / "records") / f"{record.id}.json"
        half = file.with_name(f".{record.id}.{os.getpid()}")
        try:
            with half.open("wb") as open_file:
                open_file.write(msgspec.json.encode(record))
                os.fsync(open_file.fileno())
            half.replace(file)
        except OSError as error:
            raise paths.cannot_write(file, error) from error

    def is_over(self, record: Record) -> bool:
        """Whether it ended: its end was asked and no process is left, or this computer was started anew since."""
        if record.boot_id != processes.boot_id():
            return True
        return record.asked_to_end_at is not None and not processes.living(record.id)

    def tidy(self, now: float) -> None:
        """Drop the folders of what is over, and after an hour its record. Call it `alone`."""
        records = self.all()
        used = {self.root(record) for record in records if not self.is_over(record)}
        for record in records:
            if not self.is_over(record):
                continue
            if self.root(record) not in used:
                shutil.rmtree(self.root(record), ignore_errors=True)
            ended_at = record.asked_to_end_at if record.asked_to_end_at is not None else record.launched_at
            if now - ended_at > KEPT_SECONDS:
                (self.folder / "records" / f"{record.id}.json").unlink(missing_ok=True)
