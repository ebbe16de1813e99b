"""The tunnel over a machine of the sandbox: up, made again, ended with its rental, and never an orphan."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from soong.connect import tunnel
from soong.errors import RemoteError, UsageError
from soong.launch.preflight import free_port
from soong.lease.ledger import open_ledger
from tests.cli.rehearsal import until

if TYPE_CHECKING:
    from tests.serve.conftest import Rented

pytestmark = pytest.mark.slow

SERVER = """
import http.server
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
open("port", "w").write(str(server.server_address[1]))
server.serve_forever()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def up(rented: Rented) -> tunnel.Tunnel:
    """A tunnel to a little server on the machine, whose rental the ledger knows."""
    with open_ledger() as ledger:
        ledger.add(rented.rental)
    rented.machine.put(SERVER.encode(), "server.py")
    rented.machine.run(["sh", "-c", "nohup python3 server.py > log 2>&1 < /dev/null &"])
    until(lambda: (rented.home / "port").exists() and (rented.home / "port").read_text())
    port = int((rented.home / "port").read_text())
    return tunnel.start(rented.host, local_port=free_port(), remote_port=port)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_it_leads_there_and_is_made_again_and_ends(up: tunnel.Tunnel, rented: Rented) -> None:
    assert answers(up.local_port)
    again = tunnel.start(rented.host, local_port=up.local_port, remote_port=up.remote_port)
    assert again.pid == up.pid, "the one that runs is good enough"
    os.kill(up.ssh_pid, signal.SIGKILL)
    until(lambda: (now := tunnel.find(up.rental_id)) is not None and now.restarts == 1 and now.state == "up")
    assert answers(up.local_port)
    with open_ledger() as ledger:
        ledger.change(up.rental_id, "ended", 0.0, phase="ended", ended_at=0.0)
    until(lambda: tunnel.find(up.rental_id) is None)
    assert not answers(up.local_port)


def test_a_supervisor_that_is_killed_takes_ssh_along(up: tunnel.Tunnel) -> None:
    os.kill(up.pid, signal.SIGKILL)
    until(lambda: not is_alive(up.ssh_pid))
    assert tunnel.running() == ()
    assert not answers(up.local_port)


def test_a_port_that_is_taken_is_said_before_anything_else(up: tunnel.Tunnel, rented: Rented) -> None:
    assert tunnel.stop(up.rental_id)
    assert not tunnel.stop(up.rental_id)
    import socket

    with socket.create_server(("127.0.0.1", up.local_port)), pytest.raises(UsageError, match="is taken"):
        tunnel.start(rented.host, local_port=up.local_port, remote_port=up.remote_port)
    assert tunnel.running() == ()


def test_no_machine_is_an_error_and_leaves_nothing(rented: Rented) -> None:
    import msgspec

    with open_ledger() as ledger:
        ledger.add(rented.rental)
    nowhere = msgspec.structs.replace(
        rented.host, endpoint=msgspec.structs.replace(rented.host.endpoint, port=free_port())
    )
    tunnel_start = tunnel.START_SECONDS
    tunnel.START_SECONDS = 2.0
    try:
        with pytest.raises(RemoteError, match="no tunnel"):
            tunnel.start(nowhere, local_port=free_port(), remote_port=1)
    finally:
        tunnel.START_SECONDS = tunnel_start
    assert tunnel.running() == ()
