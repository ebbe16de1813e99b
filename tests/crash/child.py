"""A soong command that kills itself, as `kill -9` would, at one of its steps.

A step is the moment just before or just after a line is written to the ledger, a request goes to the cloud, the
guardian is armed, or SSH is used. `python -m tests.crash.child AT FILE WORDS...` runs `soong WORDS` until step AT and
writes the name of each step it came to into FILE, a line each; AT 0 never kills.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Steps:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, kill_at: int, descriptor: int) -> None:
        self.kill_at = kill_at
        self.descriptor = descriptor
        self.count = 0

    def step(self, name: str) -> None:
        self.count += 1
        os.write(self.descriptor, f"{name}\n".encode())
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def at_the_end(self) -> None:
        """Be killed here where the step lies beyond: the command polled less often than the one that was counted."""
        if self.count < self.kill_at:
            self.kill_at = self.count + 1
            self.step("at its end")

    def around(self, holder: Any, name: str, label: Callable[..., str]) -> None:
        """Make a step before and after each call of `holder.name`."""
        original = getattr(holder, name)

        @wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            word = label(*args, **kwargs)
            self.step(f"before {word}")
            try:
                return original(*args, **kwargs)
            finally:
                self.step(f"after {word}")

        setattr(holder, name, wrapped)


def main() -> int:
    kill_at, file, *words = sys.argv[1:]
    steps = Steps(int(kill_at), os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    from soong.cli.app import call
    from soong.clouds.lambda_cloud.client import LambdaClient
    from soong.connect import ssh
    from soong.lease import guardian
    from soong.lease.ledger import Ledger

    steps.around(Ledger, "add", lambda *_: "ledger: asked")
    steps.around(Ledger, "change", lambda _self, _id, kind, *_, **__: f"ledger: {kind}")
    steps.around(LambdaClient, "_send", lambda _self, method, path, *_, **__: f"cloud: {method} {path}")
    steps.around(ssh, "run", lambda *_, **__: "ssh")
    steps.around(guardian, "arm", lambda *_, **__: "guardian")
    code = call(words)
    steps.at_the_end()
    return code


if __name__ == "__main__":
    sys.exit(main())
