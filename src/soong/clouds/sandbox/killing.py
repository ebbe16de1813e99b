"""Ending every process of a machine, however far it has detached itself.

What runs on a machine has the machine's folder in `SOONG_ROOT`, and its children inherit that. Linux shows the
environment of each process of ours; on other systems a machine's own process ends the groups it knows of.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

ROOT_VARIABLE = "SOONG_ROOT"
ROUNDS = 20
"""Looks before giving up: a process may start another between being seen and being killed."""


def end_processes(root: Path) -> int:
    """Kill every process of the machine in `root`, or of every machine below it, but for the caller.

    Returns:
        How many the last look found: 0 when all are gone.
    """
    marks = f"{ROOT_VARIABLE}={root}".encode(), f"{ROOT_VARIABLE}={root}/".encode()
    left = 0
    for _ in range(ROUNDS):
        left = sum(_kill(pid) for pid in _processes() if pid != os.getpid() and _has_mark(pid, *marks))
        if not left:
            break
    return left


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are enough
    except OSError:
        return []


def _has_mark(pid: int, exact: bytes, below: bytes) -> bool:
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return any(word == exact or word.startswith(below) for word in words)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True
