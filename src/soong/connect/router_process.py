"""sglang-router in a process of its own, told how by one line of JSON on its input.

While it runs no Python runs in its process (sglang-router 0.3.2 keeps the interpreter's lock), so it cannot watch for
its parent's end: on Linux the system ends it with its parent, elsewhere the parent and the supervisor above it do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module

PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def end_with_parent() -> None:
    """Ask the system to end this process when its parent dies, where the system can."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def main() -> None:
    """Route until killed."""
    end_with_parent()
    orders = json.loads(sys.stdin.readline())
    arguments = import_module("sglang_router.router_args").RouterArgs(**orders)
    import_module("sglang_router.launch_router").launch_router(arguments)


if __name__ == "__main__":
    main()
