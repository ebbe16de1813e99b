"""A lock among machines that share a filesystem, so that one of them downloads for all."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING

from .orders import HERE
from .progress import LINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEARTBEAT_SECONDS = 10.0
STALE_LOCK_SECONDS = 120.0


@contextlib.contextmanager
def shared_lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that other machines see: a file on the shared filesystem whose holder touches it.

    A lock that nobody has touched for two minutes, by the filesystem's own time, is taken over.
    """
    name = f"{socket.gethostname()}:{HERE}:{uuid.uuid4().hex}"
    while not lock_taken(path, name):
        waiting()
        time.sleep(min(LINE_SECONDS, HEARTBEAT_SECONDS))
    over = threading.Event()
    heart = threading.Thread(target=beat, args=(path, over), daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
        with contextlib.suppress(OSError):
            if path.read_text() == name:
                path.unlink()


def lock_taken(path: Path, name: str) -> bool:
    """Whether the lock is ours now."""
    try:
        with path.open("x") as file:
            file.write(name)
    except FileExistsError:
        pass
    else:
        return True
    with contextlib.suppress(OSError):
        holder = path.read_text()
        probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        probe.touch()
        age = probe.stat().st_mtime - path.stat().st_mtime
        probe.unlink()
        is_ours = holder.startswith(f"{socket.gethostname()}:{HERE}:")
        if (age > STALE_LOCK_SECONDS or is_ours) and path.read_text() == holder:
            path.unlink()
    return False


def beat(path: Path, over: threading.Event) -> None:
    """Touch the lock until it is given back."""
    while not over.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
