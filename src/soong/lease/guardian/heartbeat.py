"""The guardian's pulse: each round leaves a line that says when it ran, and whether it could read the account."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from soong.settings import paths, records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRESH_SECONDS = 300.0
"""A guardian runs each minute and backs off to five; older than that it is not running."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """One round.

    Attributes:
        at: this computer's time. nonce: what `ask` wrote. problem: empty when the account was read.
        pid: of the process. is_watch: whether that process stays, and must live on for another round to come.
    """

    at: float
    nonce: str
    problem: str = ""
    pid: int = 0
    is_watch: bool = False

    def is_fresh(self, now: float) -> bool:
        """Whether it was a moment ago; one from the future, before the clock was set back, counts as well."""
        return now - self.at <= FRESH_SECONDS


def folder() -> Path:
    """Where the guardian keeps its files; its owner's alone."""
    return paths.state_dir() / "guardian"


def ask(cloud: str, nonce: str) -> None:
    """Ask for a round: the next one repeats `nonce`."""
    _write(folder() / f"{cloud}.nonce", nonce.encode())


def asked(cloud: str) -> str:
    """The nonce that was asked for last; empty when there is none."""
    try:
        return (folder() / f"{cloud}.nonce").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def asked_at(cloud: str) -> float:
    """When a round was asked for last, by this computer's clock; 0 when never."""
    try:
        return (folder() / f"{cloud}.nonce").stat().st_mtime
    except OSError:
        return 0.0


def forget(cloud: str) -> None:
    """No round is asked for any more: what was about to begin does not."""
    with suppress(OSError):
        (folder() / f"{cloud}.nonce").unlink(missing_ok=True)


def beat(cloud: str, *, nonce: str, problem: str = "", is_watch: bool = False) -> None:
    """Leave the pulse of a round that began after `nonce` was read."""
    found = Beat(at=time.time(), nonce=nonce, problem=problem, pid=os.getpid(), is_watch=is_watch)
    _write(folder() / f"{cloud}.json", msgspec.json.encode(found))


def last(cloud: str) -> Beat | None:
    """The last round, or None."""
    return records.read(folder() / f"{cloud}.json", Beat)


def trouble(cloud: str) -> str:
    """What is wrong with the guardian on this computer, in words; empty when it does its rounds."""
    found = last(cloud)
    if found is None:
        return "it has never run"
    if found.is_watch and not is_watching(cloud):
        return "its process is gone"
    if not found.is_fresh(time.time()):
        return f"its last round was {(time.time() - found.at) / 60:.0f} minutes ago"
    return f"its last round failed: {found.problem}" if found.problem else ""


@contextmanager
def alone(cloud: str) -> Iterator[bool]:
    """Whether this is the only watch of the cloud on this computer; held until the process ends, however it ends."""
    import fcntl

    with _locked(f"{cloud}.lock", fcntl.LOCK_EX) as free:
        yield free


@contextmanager
def needed(cloud: str) -> Iterator[None]:
    """Keep the guardian on duty although there is no lease yet: a start is on its way, and may wait for room for hours.

    Let go of when the process ends, however it ends.
    """
    import fcntl

    with _locked(f"{cloud}.needed", fcntl.LOCK_SH):
        yield


def is_needed(cloud: str) -> bool:
    """Whether a start is on its way."""
    import fcntl

    with _locked(f"{cloud}.needed", fcntl.LOCK_EX) as free:
        return not free


@contextmanager
def one_at_a_time(cloud: str) -> Iterator[None]:
    """Two that arm at once would each wait for an answer to a question that the other has overwritten."""
    import fcntl

    with _opened(f"{cloud}.arming") as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(name: str) -> Iterator[int]:
    descriptor = os.open(paths.made(folder()) / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _locked(name: str, kind: int) -> Iterator[bool]:
    """Hold a file of the guardian's; False when somebody else's hold does not go with it."""
    import fcntl

    with _opened(name) as descriptor:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_watching(cloud: str) -> bool:
    """Whether a watch of the cloud runs on this computer."""
    with alone(cloud) as free:
        return not free


def _write(file: Path, content: bytes) -> None:
    paths.made(file.parent).chmod(0o700)
    half = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        half.write_bytes(content)
        half.replace(file)
    except OSError as error:
        raise paths.cannot_write(file, error) from error
