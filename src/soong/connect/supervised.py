"""What background processes of this computer share: a lock for as long as they live, and a file that tells of them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from soong import tracing
from soong.errors import SoongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STOP_SECONDS = 10.0
"""Until a supervisor that was asked to end is killed, and as long again until that is called a failure."""
STARTED: list[subprocess.Popen[bytes]] = []
"""Supervisors outlive the process that started them; kept so that the interpreter does not complain about that."""


class EndedError(BaseException):
    """Somebody wants the supervisor gone."""


def obey_signals() -> None:
    """Leave by `EndedError` when asked to; a terminal that closes is no reason to."""

    def leave(*_: object) -> None:
        raise EndedError

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def spawn(module: str, word: str, log: Path) -> subprocess.Popen[bytes]:
    """A process of its own that runs `python -m module word`; what it says goes to `log`."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        supervisor = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            tracing.own([sys.executable, "-P", "-m", module, word]),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    STARTED.append(supervisor)
    return supervisor


def end(lock: Path, pid_of: Callable[[], int | None], what: str) -> bool:
    """End the supervisor that holds `lock`; whether there was one.

    Args:
        pid_of: its process, by the file that tells of it; None where that cannot be read. what: it is, for a person.

    Raises:
        SoongError: it does not end.
    """
    was_there = is_held(lock)
    ends_at = time.monotonic() + STOP_SECONDS
    while is_held(lock):
        pid, now = pid_of(), time.monotonic()
        if pid is None or now > ends_at + STOP_SECONDS:
            raise SoongError(f"{what} does not end", hints=(f"lsof {lock}",))
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL if now > ends_at else signal.SIGTERM)
        time.sleep(0.05)
    return was_there


def end_if_it_says(pid: int, *words: str) -> None:
    """End a process that its dead supervisor left, if its command line has all these words: numbers are used again."""
    if not pid:
        return
    with suppress(OSError):
        said = subprocess.run(  # noqa: S603
            tracing.own(["ps", "-o", "args=", "-p", str(pid)]),
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if all(word in said for word in words):
            os.kill(pid, signal.SIGTERM)


@contextmanager
def held(file: Path) -> Iterator[bool]:
    """Hold a lock for as long as this block, or this process, lives; False when somebody else does."""
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def is_held(file: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
