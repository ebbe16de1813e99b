"""Every process of a local machine, however far it has detached itself, and the end of them all.

What runs there has the machine's id in `SOONG_MACHINE`, which its children inherit; a child that drops it is found
by its parent. What drops it and outlives its parent is not found: nothing that soong starts does so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "SOONG_MACHINE"
TERM_SECONDS = 5.0
"""An engine asked politely frees its shared memory; then it is killed."""
KILL_SECONDS = 5.0
LOOK_SECONDS = 0.05


def living(machine: str) -> frozenset[int]:
    """The processes of a machine, but for the caller. machine: its id."""
    parents, marked = _seen(f"{VARIABLE}={machine}")
    found = set(marked)
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return frozenset(found - {os.getpid()})


def end(machine: str) -> frozenset[int]:
    """Ask every process of the machine to end, then kill what stays.

    Returns:
        What is left: empty when all are gone.
    """
    for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        asked: set[int] = set()
        while left := living(machine):
            for pid in left - asked:
                with suppress(OSError):
                    os.kill(pid, number)
            asked |= left
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
    return living(machine)


def boot_id() -> str:
    """A word that is another one after each start of this computer."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            ["sysctl", "-n", "kern.boottime"],  # noqa: S607
            capture_output=True, check=True, timeout=10, text=True,
        ).stdout.strip()  # fmt: skip
    return ""


def _seen(mark: str) -> tuple[dict[int, int], set[int]]:
    """Each process's parent, and those that carry the mark. A dead one that nobody has waited for counts as gone."""
    return _on_linux(mark.encode()) if sys.platform == "linux" else _elsewhere(mark)


def _on_linux(mark: bytes) -> tuple[dict[int, int], set[int]]:
    parents, marked = {}, set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are enough
        if not name.isdigit():
            continue
        try:
            state, parent = Path(f"/proc/{name}/stat").read_bytes().rpartition(b") ")[2].split()[:2]
            if state in {b"Z", b"X"}:
                continue
            parents[int(name)] = int(parent)
            if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                marked.add(int(name))
        except OSError:
            continue
    return parents, marked


def _elsewhere(mark: str) -> tuple[dict[int, int], set[int]]:
    """By `ps`, which shows the environment of one's own processes after their command on macOS and the BSDs."""
    said = subprocess.run(
        ["ps", "-axwwE", "-o", "pid=,ppid=,stat=,command="],  # noqa: S607
        capture_output=True, check=False, timeout=30, text=True, errors="replace",
    ).stdout  # fmt: skip
    parents, marked = {}, set()
    for line in said.splitlines():
        pid, parent, state, command = [*line.split(None, 3), "", "", "", ""][:4]
        if not pid.isdigit() or not parent.isdigit() or state.startswith("Z"):
            continue
        parents[int(pid)] = int(parent)
        if f" {mark} " in f" {command} ":
            marked.add(int(pid))
    return parents, marked
