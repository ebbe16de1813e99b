"""Tell a person who is looking elsewhere: their own command (`notify.command`), else the terminal's bell."""

from __future__ import annotations

import sys

NOTIFY_SECONDS = 20.0


def notify(message: str) -> None:
    """Say `message` outside the terminal; a notification that fails is no failure of the command."""
    from soong.settings import config

    words = config.value("notify.command")
    if words:
        _run(str(words), message)
    elif sys.stderr.isatty():
        sys.stderr.write("\a")
        sys.stderr.flush()


def _run(words: str, message: str) -> None:
    import contextlib
    import shlex
    import subprocess

    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603 - the person's own command
            [*shlex.split(words), message],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=NOTIFY_SECONDS,
            check=False,
        )
