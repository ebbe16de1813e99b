"""Starting, finding and ending the sandbox's server: one for each folder, whoever asks first, and never two.

The server holds a lock on a file in the folder for as long as it lives, so a process that was killed is known to
be gone, and two that start at the same moment cannot both serve. Its address stands in `server.json`, its key in
`key`, which only the user can read.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from soong import tracing
from soong.connect.supervised import is_held
from soong.errors import RemoteError
from soong.settings import paths

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

START_SECONDS = 20.0
STOP_SECONDS = 10.0
LOCK_SECONDS = 0.2
POLL_SECONDS = 0.02
_STARTED: list[subprocess.Popen[bytes]] = []
"""Servers outlive the process that started them; kept so that the interpreter does not complain about that."""
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SOONG_HOME",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "COVERAGE_PROCESS_START",
    "VIRTUAL_ENV",
)
"""What the server gets of the environment: no key and no token among them."""


class Files:
    """Where everything of one sandbox stands.

    Args:
        folder: made, for the user only, when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "lock"
        self.key = folder / "key"
        self.clock = folder / "clock.json"
        self.state = folder / "state.sqlite"
        self.server = folder / "server.json"
        self.requests = folder / "requests.jsonl"
        self.log = folder / "server.log"
        self.machines = folder / "machines"

    def made(self) -> Files:
        """The same, with the folder made."""
        paths.made(self.folder)
        self.folder.chmod(0o700)
        return self

    def key_made(self) -> str:
        """The API key of this sandbox; made now if there is none. It opens nothing else."""
        if not self.key.exists():
            new = self.key.with_suffix(".new")
            descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"sandbox_{secrets.token_hex(16)}")
            new.replace(self.key)
        return self.key.read_text()

    def announce(self, *, port: int, pid: int) -> None:
        """Tell where the server answers."""
        new = self.server.with_suffix(".new")
        new.write_text(json.dumps({"port": port, "pid": pid}))
        new.replace(self.server)


class Running(NamedTuple):
    """A server that answers."""

    files: Files
    port: int
    pid: int
    key: str

    @property
    def url(self) -> str:
        """Its address, without `/api/v1`."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """`data` of its answer on a path under `/sandbox`.

        Raises:
            RemoteError: it does not answer, or refuses.
        """
        return ask(self, method, f"/sandbox/{path}", body)


def sandbox_folder() -> Path:
    """Where this computer's sandbox is kept."""
    return paths.state_dir() / "sandbox"


def find(folder: Path | None = None) -> Running | None:
    """The server that runs now, or None."""
    files = Files(folder or sandbox_folder())
    if not is_held(files.lock):
        return None
    try:
        found = json.loads(files.server.read_bytes())
        running = Running(files, found["port"], found["pid"], files.key.read_text())
        running.ask("GET", "clock")
    except (OSError, ValueError, KeyError, RemoteError):
        return None
    return running


def start(folder: Path | None = None, *, speed: float | None = None) -> Running:
    """The server, started now if none runs. speed: of its clock, for one that runs too.

    Raises:
        RemoteError: it did not come up in time; its log says why.
    """
    files = Files(folder or sandbox_folder()).made()
    running = find(files.folder)
    if running is not None:
        if speed is not None:
            running.ask("POST", "clock", {"speed": speed})
        return running
    server = _spawn(files, speed)
    ends_at = time.monotonic() + START_SECONDS
    while time.monotonic() < ends_at:
        running = find(files.folder)
        if running is not None:
            return running
        if server.poll() is not None and not is_held(files.lock):
            break
        time.sleep(POLL_SECONDS)
    raise RemoteError(
        "the sandbox did not start",
        why=_last_line(files.log),
        hints=("soong sandbox start", f"cat {files.log}"),
    )


def stop(folder: Path | None = None) -> bool:
    """End the server and its machines; the clock stands still until it starts again. False when none ran.

    Raises:
        RemoteError: it does not end.
    """
    files = Files(folder or sandbox_folder())
    running = find(files.folder)
    if running is None:
        return False
    ends_at = time.monotonic() + STOP_SECONDS
    last = running
    while time.monotonic() < ends_at:
        if running is not None:
            _tell_to_stop(running)
            last = running
        if not is_held(files.lock):
            return True
        time.sleep(POLL_SECONDS)
        running = find(files.folder)
    raise RemoteError("the sandbox does not stop", hints=(f"kill {last.pid}",))


def hold_lock(path: Path) -> int | None:
    """The lock on a sandbox for this process, as a descriptor; None when another holds it for longer than a look."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    ends_at = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > ends_at:
                os.close(descriptor)
                return None
            time.sleep(POLL_SECONDS)
        else:
            return descriptor


def ask(running: Running, method: str, path: str, body: Any = None) -> Any:
    """`data` of the answer to one request, by the standard library alone.

    Raises:
        RemoteError: no answer, or a refusal.
    """
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        raise RemoteError(
            "the sandbox does not answer", why=str(error), hints=("soong sandbox start",)
        ) from error
    finally:
        connection.close()
    if "error" in found:
        raise RemoteError(f"the sandbox refuses: {found['error']['message']}", hints=("soong sandbox",))
    return found.get("data")


def _tell_to_stop(running: Running) -> None:
    """Ask; one that is gone before it answers has stopped. Another may have been started at the same moment."""
    try:
        running.ask("POST", "stop")
    except RemoteError:
        return


def _spawn(files: Files, speed: float | None) -> subprocess.Popen[bytes]:
    import subprocess

    command = [sys.executable, "-P", "-m", "soong.clouds.sandbox.server", str(files.folder)]
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    with files.log.open("ab") as log:
        server = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            tracing.own([*command, *([str(speed)] if speed is not None else [])]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=files.folder,
            env=environment,
            start_new_session=True,
        )
    _STARTED.append(server)
    return server


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
