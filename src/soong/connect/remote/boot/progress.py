"""What is told while a step is on its way, and why it failed, by the words of whatever failed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from .orders import HERE, StepError

if TYPE_CHECKING:
    from pathlib import Path

LOG_LINES = 50
LINE_SECONDS = 2.0

PATTERNS = (
    ("disk-full", r"No space left on device|Errno 28\b|not enough (free )?disk space|Disk quota exceeded"),
    (
        "no-access",
        r"GatedRepoError|Cannot access gated repo|40[13] Client Error|Invalid username or password"
        r"|Access to model .* is restricted|Invalid user token",
    ),
    (
        "not-found",
        r"RepositoryNotFoundError|RevisionNotFoundError|No matching distribution|No solution found",
    ),
    ("wrong-python", r"requires a different Python|Requires-Python|requires Python|does not satisfy Python"),
    (
        "no-network",
        r"Temporary failure in name resolution|Name or service not known|Network is unreachable|dns error"
        r"|Connection refused|ConnectionError|ConnectTimeout|Failed to establish a new connection|Connection reset"
        r"|ReadTimeout|timed out|Could not connect|LocalEntryNotFoundError|Failed to fetch|IncompleteRead",
    ),
    ("port-taken", r"Address already in use|address already in use"),
)
"""What the words of pip, uv, huggingface_hub and engines mean; the first that is found counts."""

SENTENCES = {
    "disk-full": "the disk is full",
    "no-network": "the network does not answer",
    "no-access": "the Hub refuses access: the token is missing, wrong, or lacks the model's consent",
    "not-found": "what was asked for is not there",
    "wrong-python": "this machine's Python does not suit the packages",
    "port-taken": "the port is taken",
    "killed-oom": "the system ran out of memory and killed it",
}


class Progress:
    """Lines of `progress.jsonl`, for one step after another."""

    def __init__(self) -> None:
        self.step = ""
        self.began = 0.0
        self.told_at = 0.0
        self.told_bytes = -1

    def start(self, step: str, message: str = "") -> None:
        """A step begins."""
        self.step, self.began, self.told_bytes = step, time.monotonic(), -1
        self.line("started", message=message)

    def running(self, message: str = "", *, done: int | None = None, total: int | None = None) -> None:
        """A step goes on; told every two seconds at most."""
        real = time.monotonic()
        if real - self.told_at >= LINE_SECONDS and (done is None or done != self.told_bytes):
            self.told_bytes = -1 if done is None else done
            self.line("running", message=message, bytes_done=done, bytes_total=total)

    def done(self, message: str = "", **more: Any) -> None:
        """A step is done."""
        self.line("done", message=message, **more)

    def failed(self, error: StepError) -> None:
        """A step failed."""
        self.line("failed", message=str(error), reason=error.reason, exit_code=error.exit_code, log=error.log)

    def line(self, state: str, **more: Any) -> None:
        """Append a line; a disk that is full shall not hide what happens from whoever watches the screen."""
        self.told_at = time.monotonic()
        content = {
            "step": self.step,
            "state": state,
            "at": round(time.time(), 3),
            "seconds": round(self.told_at - self.began, 1),
            "bytes_done": None,
            "bytes_total": None,
            **more,
        }
        text = json.dumps(content) + "\n"
        sys.stdout.write(text)
        sys.stdout.flush()
        with contextlib.suppress(OSError), (HERE / "progress.jsonl").open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() and not ends_with_newline(file):
                text = "\n" + text
            file.write(text.encode())
            file.flush()


def ends_with_newline(file: IO[bytes]) -> bool:
    """Whether the last line of a file is whole."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def last_lines(path: Path, count: int = LOG_LINES) -> list[str]:
    """The end of a log."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64_000))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return []
    return [line[:1000] for line in lines if line.strip()][-count:]


class Silent(Progress):
    """For work that nobody waits for."""

    def line(self, state: str, **more: Any) -> None:
        """Say nothing."""


def reason_of(lines: list[str], code: int | None, *, oom_kills: int) -> str:
    """Why something ended, as far as its last words and the system tell."""
    if oom_kills:
        return "killed-oom"
    text = "\n".join(lines)
    return next(
        (reason for reason, pattern in PATTERNS if re.search(pattern, text)), "exited" if code else "other"
    )
