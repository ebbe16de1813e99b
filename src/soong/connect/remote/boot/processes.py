"""Processes that are started here: found again by a mark in their environment, followed, and ended as groups."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .orders import HERE, StepError
from .progress import LINE_SECONDS, SENTENCES, last_lines, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .progress import Progress

MARK = "SOONG_SERVING"
"""Everything started here carries this in its environment, so that it can be found however far it detaches."""
ROLE = "SOONG_ROLE"
"""Carried too: `engine`, `gate`, or `helper` for what must not outlive this program: installers and downloads."""


POLL_SECONDS = 0.2
TERM_SECONDS = 15.0
STALL_SECONDS = 240.0


def oom_count() -> int:
    """How many processes the system has killed for want of memory since it started (Linux 4.13 and later)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def marked(**more: str) -> dict[str, str]:
    """The environment of whatever is started here."""
    return {**os.environ, MARK: str(HERE), **more}


def start_time(pid: int) -> str:
    """When a process began, as the kernel counts; empty when it has ended: so a number that is used again is seen."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else alive_elsewhere(pid)
    return "" if words[0] in {"Z", "X"} else words[19]


def alive_elsewhere(pid: int) -> str:
    """The same where there is no /proc: only whether it lives."""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def end_group(pid: int) -> None:
    """End a process group: asked first, killed later."""
    for sign, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(OSError):
            os.killpg(pid, sign)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and group_lives(pid):
            time.sleep(0.05)


def group_lives(pid: int) -> bool:
    """Whether any process of a group is left, other than ended children of ours."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.killpg(pid, 0)
    except OSError:
        return False
    return True


def end_marked(role: str = "") -> None:
    """End what this program has started, in an earlier life too; only one role of it, if one is named."""
    wanted = {f"{MARK}={HERE}".encode()} | ({f"{ROLE}={role}".encode()} if role else set())
    for sign in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        left = [pid for pid in process_ids() if wanted <= environment_of(pid) and start_time(pid)]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, sign)
        deadline = time.monotonic() + (TERM_SECONDS if sign == signal.SIGTERM else 1.0)
        while any(start_time(pid) for pid in left) and time.monotonic() < deadline:
            time.sleep(0.05)


def process_ids() -> list[int]:
    """Every process that can be seen, but for this one; none where there is no /proc."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]  # noqa: PTH208
    except OSError:
        return []


def environment_of(pid: int) -> set[bytes]:
    """The environment that a process began with."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


class Watch(NamedTuple):
    """What is told while a helper works. size: bytes so far, for a helper that downloads."""

    progress: Progress
    size: Callable[[], int] | None = None
    total: int | None = None


def helper(
    argv: list[str], log: Path, seconds: float, watch: Watch, env: dict[str, str] | None = None
) -> None:
    """Run a helper to its end.

    Raises:
        StepError: it failed, took longer than `seconds`, or downloaded nothing for four minutes.
    """
    oom_before = oom_count()
    with log.open("ab") as out:
        out.write(f"$ {' '.join(argv)}\n".encode())
        out.flush()
        try:
            process = subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=HERE,
                env={**marked(**{ROLE: "helper"}), **(env or {})},
            )
        except OSError as error:
            raise StepError(f"{argv[0]} cannot be started: {error}", reason="exited") from None
    try:
        _follow(process, log, seconds, watch)
    finally:
        end_group(process.pid)
    if process.returncode:
        lines = last_lines(log)
        reason = reason_of(lines, process.returncode, oom_kills=oom_count() - oom_before)
        raise StepError(
            failure_words(argv, reason, lines), reason=reason, exit_code=process.returncode, log=lines
        )


def _follow(process: subprocess.Popen[bytes], log: Path, seconds: float, watch: Watch) -> None:
    """Wait for a helper, and tell how far it is."""
    began = grew_at = time.monotonic()
    size = -1
    while process.poll() is None:
        real = time.monotonic()
        if watch.size is not None and real - watch.progress.told_at >= LINE_SECONDS:
            if (now := watch.size()) != size:
                size, grew_at = now, real
            watch.progress.running(done=size, total=watch.total)
        elif watch.size is None:
            watch.progress.running("".join(last_lines(log, 1))[:200])
        stalled = watch.size is not None and size != watch.total and real - grew_at > STALL_SECONDS
        if stalled or real - began > seconds:
            words = (
                f"nothing came for {STALL_SECONDS:.0f} s" if stalled else f"not done within {seconds:.0f} s"
            )
            raise StepError(words, reason="timeout", log=last_lines(log))
        time.sleep(POLL_SECONDS)


def failure_words(argv: list[str], reason: str, lines: list[str]) -> str:
    """One sentence for a helper that failed."""
    name = Path(argv[0]).name
    last = lines[-1].strip()[:300] if lines else "it said nothing"
    return f"{SENTENCES[reason]}: {last}" if reason in SENTENCES else f"{name} failed: {last}"
