"""The tunnel: a port of this computer that leads to the endpoint, kept by a background process of its own.

The supervisor holds a lock as long as it lives, so that nobody takes a dead one for alive. OpenSSH carries the data
and has the supervisor's pipe as its standard input: when the supervisor dies, however it dies, the pipe closes, the
command on the other side ends, and so does ssh. It ends by itself when the rental is over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from soong.connect import ssh, supervised
from soong.errors import RemoteError, SoongError
from soong.settings import paths, records

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

State = Literal["connecting", "up", "waiting"]

AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Between two connections; from the first again once one has held for `STEADY_SECONDS`."""
STEADY_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""Between two looks at the ledger."""
START_SECONDS = 30.0
UP = "tunnel-is-up"
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(ssh.CONNECT_SECONDS),
    "ExitOnForwardFailure": "yes",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
"""A line that was cut, or a laptop that slept, is noticed within twenty seconds; a person waits for the answer."""
_STARTED = supervised.STARTED
"""Supervisors that this process has started."""


class Tunnel(msgspec.Struct, frozen=True, kw_only=True):
    """One tunnel, as its supervisor writes it down. Times are this computer's.

    Attributes:
        host: the machine. local_port: on this computer. remote_port: of the gate, on the machine's loopback.
        pid: of the supervisor. ssh_pid: of the connection, 0 without one. state: see `State`.
        started_at: the supervisor. up_at: the connection that holds now; 0 without one.
        restarts: connections after the first that held. problem: what the last one died of.
    """

    host: ssh.Host
    local_port: int
    remote_port: int
    pid: int = 0
    ssh_pid: int = 0
    state: State = "connecting"
    started_at: float = 0.0
    up_at: float = 0.0
    restarts: int = 0
    problem: str = ""

    @property
    def rental_id(self) -> str:
        """Whose it is."""
        return self.host.rental_id


def folder() -> Path:
    """Where tunnels are written down."""
    return paths.state_dir() / "tunnels"


def running() -> tuple[Tunnel, ...]:
    """Every tunnel whose supervisor lives."""
    names = sorted(file.stem for file in folder().glob("[!.]*.json"))
    return tuple(found for name in names if (found := find(name)) is not None)


def find(rental_id: str) -> Tunnel | None:
    """The tunnel of a rental, if its supervisor lives."""
    if not supervised.is_held(folder() / f"{rental_id}.lock"):
        return None
    return _read(rental_id)


def start(host: ssh.Host, *, local_port: int, remote_port: int) -> Tunnel:
    """A tunnel that is up; the one that runs, where it leads from and to the same ports.

    Raises:
        UsageError: the port of this computer is taken. RemoteError: no connection in time; the supervisor is ended.
    """
    from soong.launch.preflight import check_port

    found = find(host.rental_id)
    if found is not None and (found.local_port, found.remote_port, found.state) == (
        local_port,
        remote_port,
        "up",
    ):
        return found
    stop(host.rental_id)
    check_port(local_port)
    wish = Tunnel(host=host, local_port=local_port, remote_port=remote_port, started_at=time.time())
    _write(wish)
    log = folder() / f"{host.rental_id}.log"
    supervisor = supervised.spawn("soong.connect.tunnel", host.rental_id, log)
    ends_at = time.monotonic() + START_SECONDS
    last = wish
    while time.monotonic() < ends_at:
        last = _read(host.rental_id) or last
        if last.pid == supervisor.pid and last.state == "up":
            return last
        if supervisor.poll() is not None:
            break
        time.sleep(0.05)
    stop(host.rental_id)
    raise RemoteError(
        f"no tunnel to {host.alias}",
        why=last.problem or "no answer in time",
        hints=("soong tunnel start", f"cat {folder() / host.rental_id}.log", "soong doctor"),
    )


def stop(rental_id: str) -> bool:
    """End the tunnel of a rental; whether there was one.

    Raises:
        SoongError: it does not end.
    """

    def pid_of() -> int | None:
        found = _read(rental_id)
        return found.pid if found is not None else None

    was_there = supervised.end(folder() / f"{rental_id}.lock", pid_of, "the tunnel")
    _end_left_over(rental_id)
    for name in (f"{rental_id}.json", f"{rental_id}.log"):
        (folder() / name).unlink(missing_ok=True)
    return was_there


def keep_only(rental_ids: Collection[str]) -> None:
    """End every other tunnel, and forget it."""
    for file in folder().glob("[!.]*.lock"):
        if file.stem not in rental_ids:
            with suppress(SoongError):
                stop(file.stem)
                file.unlink(missing_ok=True)


# --- the supervisor --------------------------------------------------------------------------------------------------


def supervise(rental_id: str) -> int:
    """Keep the tunnel until the rental is over, or somebody ends this process. Returns the exit code."""
    supervised.obey_signals()
    with supervised.held(paths.made(folder()) / f"{rental_id}.lock") as alone:
        tunnel = _read(rental_id)
        if not alone or tunnel is None:
            return 1
        try:
            _end_left_over(rental_id)
            _keep(msgspec.structs.replace(tunnel, pid=os.getpid(), ssh_pid=0))
        except supervised.EndedError:
            pass
        finally:
            (folder() / f"{rental_id}.json").unlink(missing_ok=True)
    return 0


def _keep(tunnel: Tunnel) -> None:
    """Connection after connection, until the rental is over."""
    failures = 0
    while _is_wanted(tunnel.rental_id):
        tunnel = _write(msgspec.structs.replace(tunnel, state="connecting", up_at=0.0))
        tunnel = _connected(tunnel)
        steady = tunnel.up_at and time.time() - tunnel.up_at > STEADY_SECONDS
        failures = 1 if steady else failures + 1
        tunnel = _write(msgspec.structs.replace(tunnel, state="waiting", ssh_pid=0, up_at=0.0))
        _pause(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS)) - 1], tunnel.rental_id)


def _connected(tunnel: Tunnel) -> Tunnel:
    """One connection, from its start to its end; returns what is known then."""
    forward = ["-L", f"127.0.0.1:{tunnel.local_port}:127.0.0.1:{tunnel.remote_port}"]
    program, *words = ssh.argv(tunnel.host, [f"echo {UP}; cat > /dev/null"], options=OPTIONS)
    process = subprocess.Popen(  # noqa: S603
        [program, *forward, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        tunnel = _write(msgspec.structs.replace(tunnel, ssh_pid=process.pid))
        assert process.stdout is not None  # noqa: S101 - narrows for the type checker
        if process.stdout.readline().decode(errors="replace").strip() == UP:
            again = tunnel.restarts + 1 if tunnel.problem else tunnel.restarts
            tunnel = _write(
                msgspec.structs.replace(tunnel, state="up", up_at=time.time(), restarts=again, problem="")
            )
            while process.poll() is None and _is_wanted(tunnel.rental_id):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
    finally:
        process.kill()
        said = process.communicate()[1].decode(errors="replace").strip()
    last = said.splitlines()[-1] if said else f"ssh ended with {process.returncode}"
    return msgspec.structs.replace(tunnel, problem=last)


def _is_wanted(rental_id: str) -> bool:
    """Whether the rental is open; a ledger that cannot be read just now is no reason to hang up."""
    from soong.lease.ledger import open_ledger

    try:
        with open_ledger() as ledger:
            rental = ledger.find(rental_id)
    except SoongError:
        return True
    return rental is not None and rental.is_open


def _pause(seconds: float, rental_id: str) -> None:
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0 and _is_wanted(rental_id):
        time.sleep(min(left, LOOK_SECONDS))


# --- files and processes ---------------------------------------------------------------------------------------------


def _read(rental_id: str) -> Tunnel | None:
    return records.read(folder() / f"{rental_id}.json", Tunnel)


def _write(tunnel: Tunnel) -> Tunnel:
    return records.write(folder() / f"{tunnel.rental_id}.json", tunnel)


def _end_left_over(rental_id: str) -> None:
    """End an ssh whose supervisor is dead and that still carries an answer to its end."""
    found = _read(rental_id)
    if found is not None:
        supervised.end_if_it_says(found.ssh_pid, f"soong-{rental_id}", UP)


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1]))
