"""The guardian's pulse: each round leaves a line that says when it ran, and whether it could read the account."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRESH_SECONDS = 300.0
"""A guardian runs each minute and backs off to five; older than that it is not running."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """One round. at: this computer's time. nonce: what `ask` wrote. problem: empty when the account was read."""

    at: float
    nonce: str
    problem: str = ""
    pid: int = 0

    def is_fresh(self, now: float) -> bool:
        """Whether the guardian is alive."""
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


def beat(cloud: str, *, nonce: str, problem: str = "") -> None:
    """Leave the pulse of a round that began after `nonce` was read."""
    found = Beat(at=time.time(), nonce=nonce, problem=problem, pid=os.getpid())
    _write(folder() / f"{cloud}.json", msgspec.json.encode(found))


def last(cloud: str) -> Beat | None:
    """The last round, or None."""
    try:
        return msgspec.json.decode((folder() / f"{cloud}.json").read_bytes(), type=Beat)
    except (OSError, msgspec.DecodeError):
        return None


@contextmanager
def alone(cloud: str) -> Iterator[bool]:
    """Whether this is the only watch of the cloud on this computer; held until the process ends, however it ends."""
    import fcntl

    file = paths.made(folder()) / f"{cloud}.lock"
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


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
