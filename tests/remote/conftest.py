"""Programs of the machine run as they run there: as processes of their own, by the oldest Python that is here."""

from __future__ import annotations

import functools
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.remote import fake_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "sk-test-4711"
PATIENCE_SECONDS = 30.0


def program(name: str) -> Path:
    """One of the programs for the machine."""
    return Path(str(resources.files("soong").joinpath(f"connect/remote/{name}")))


@functools.cache
def old_python() -> str:
    """Python 3.10, the oldest that a machine may have; else the one that runs the tests."""
    known = Path(pwd.getpwuid(os.getuid()).pw_dir, ".pyenv", "versions").glob("3.10*/bin/python3")
    for found in (shutil.which("python3.10"), *(str(path) for path in known)):
        if (
            found
            and "3.10" in subprocess.run([found, "-V"], capture_output=True, text=True, check=False).stdout
        ):
            return found
    return sys.executable


def eventually(look: Callable[[], Any], what: str = "it", seconds: float = PATIENCE_SECONDS) -> Any:
    """What `look` gives once it gives something; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    pytest.fail(f"{what} did not happen within {seconds:g} s")


def get(port: int, path: str) -> Any:
    """JSON from a server on the loopback."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


def post(port: int, path: str, content: Any) -> Any:
    """The same, after sending some."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=json.dumps(content).encode())
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


def end_marked(mark: bytes) -> None:
    """Kill every process whose environment carries a mark."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture
def engine() -> Iterator[int]:
    """A fake engine; its port."""
    server = fake_engine.serve(0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()
