"""What a person sees when a line, an engine, a warden or a laptop fails while a model is served; and what bills."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from soong.connect import supervised, tunnel
from soong.launch.preflight import free_port
from soong.lease.guardian import heartbeat
from soong.lease.ledger import open_ledger
from tests.cli.rehearsal import MODEL, until
from tests.serve.conftest import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal
    from tests.serve.conftest import Rented

    Soong = Callable[..., Ended]

pytestmark = pytest.mark.slow

SPEED = 120.0
"""A lease of seven hours is three and a half minutes, and the guardian looks every few seconds."""


class Served(NamedTuple):
    """An endpoint that answers here, on a machine of the sandbox."""

    rehearsal: Rehearsal
    soong: Soong
    port: int
    key: str

    def status(self, path: str = "/health") -> int:
        """What the endpoint answers; 0 where nobody does."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.key}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)
        except OSError:
            return 0

    def pids(self, *words: str) -> list[int]:
        """Processes of this rehearsal whose command line has one of the words."""
        found = self.rehearsal.processes().items()
        return [pid for pid, line in found if any(word in line for word in words)]

    def serving(self) -> str:
        """What the ledger knows of the endpoint."""
        with self.rehearsal.ledger as ledger:
            return ",".join(rental.serving for rental in ledger.rentals())

    def may_idle(self, seconds: float) -> None:
        """The person asked for an end after so long without a request."""
        with self.rehearsal.ledger as ledger:
            (rental,) = ledger.open_rentals()
            ledger.change(rental.id, "idle", rental.asked_at, idle_seconds_limit=seconds)

    def is_stopped_and_proved(self) -> None:
        """`soong stop` ends it, and nothing is left."""
        ended = self.soong("stop", "--yes", "--json")
        assert [one["confirmed"] for one in ended.json] == [True], ended.err
        assert self.rehearsal.alive == []


def start_words(folder: Path, port: int) -> list[str]:
    common = ["--cloud", "sandbox", "--yes", "--hours", "7", "--engine-env", str(folder)]
    return ["start", "--model", MODEL, *common, "--port", str(port)]


@pytest.fixture
def engine(engine_environment: Path) -> Path:
    (engine_environment / "weights").mkdir()
    return engine_environment


@pytest.fixture
def served(soong: Soong, rehearsal: Rehearsal, engine: Path) -> Served:
    rehearsal.running.ask("POST", "clock", {"speed": SPEED})
    port = free_port()
    begun = soong(*start_words(engine, port))
    assert begun.code == 0, begun.err
    return Served(rehearsal, soong, port, soong("env", "--json").json["OPENAI_API_KEY"])


def test_an_engine_that_crashes_is_told_everywhere_and_bills_until_it_is_stopped(served: Served) -> None:
    said = served.soong("status").out
    assert f"`{MODEL}` answers at http://127.0.0.1:{served.port}/v1" in said
    (engine,) = served.pids("fake_engine.py")
    os.kill(engine, signal.SIGKILL)
    until(lambda: served.status() == 503)
    until(lambda: served.serving() == "failed")
    said = served.soong("status").out
    assert "serves nothing and bills on" in said
    assert "soong stop" in said
    logs = served.soong("logs")
    assert "the engine ended by signal 9" in logs.out
    assert served.soong("env").code == 4
    assert len(served.rehearsal.alive) == 1, "what a person wants to look into is not taken away"
    served.is_stopped_and_proved()


def test_without_a_warden_nothing_is_taken_for_idle_and_the_lease_still_ends(served: Served) -> None:
    for pid in served.pids("warden.py"):
        os.kill(pid, signal.SIGKILL)
    served.may_idle(60.0)
    log = served.rehearsal.home / "state" / "guardian" / "sandbox.log"
    until(lambda: "its warden could not be read" in log.read_text())
    assert served.status() == 200
    assert len(served.rehearsal.alive) == 1
    served.rehearsal.skip(7)
    until(lambda: served.rehearsal.alive == [])
    until(lambda: served.serving() == "ready" and not served.rehearsal.ledger.open_rentals())
    until(lambda: tunnel.running() == ())


def test_a_reaper_ends_what_idles_while_the_guardian_sleeps(served: Served) -> None:
    beat = heartbeat.last("sandbox")
    assert beat is not None
    os.kill(beat.pid, signal.SIGSTOP)
    try:
        served.may_idle(600.0)
        assert "ended" not in [row["outcome"] for row in served.soong("reap", "--dry-run", "--json").json]
        until(lambda: "idle for 10 min; ending it" in served.soong("reap").err)
        assert served.rehearsal.alive == []
    finally:
        os.kill(beat.pid, signal.SIGCONT)
    (rental,) = served.rehearsal.ledger.rentals()
    assert rental.end_reason == "idle for 10 min"


def test_while_the_laptop_sleeps_the_engine_ends_on_time_and_the_meter_when_it_wakes(served: Served) -> None:
    beat = heartbeat.last("sandbox")
    (up,) = tunnel.running()
    assert beat is not None
    asleep = (beat.pid, up.pid, up.ssh_pid)
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        served.rehearsal.skip(7)
        until(lambda: not served.pids("fake_engine.py"))
        assert len(served.rehearsal.alive) == 1, "nobody is awake who has the cloud's key"
    finally:
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
    until(lambda: served.rehearsal.alive == [])
    until(lambda: not served.rehearsal.ledger.open_rentals())
    until(lambda: tunnel.running() == ())
    assert served.status() == 0


def test_an_interrupted_start_goes_on_there_and_is_found_again(
    soong: Soong, rehearsal: Rehearsal, tmp_path: Path
) -> None:
    folder = environment(tmp_path / "slow", FAKE_ENGINE_WAIT=str(tmp_path / "loads"))
    (folder / "weights").mkdir()
    (tmp_path / "loads").touch()
    rehearsal.running.ask("POST", "clock", {"speed": SPEED})
    port = free_port()
    starting = rehearsal.spawn(*start_words(folder, port))
    served = Served(rehearsal, soong, port, "")
    until(lambda: served.pids("fake_engine.py"))
    for follower in served.pids("tail -c"):
        with suppress(ProcessLookupError):  # a line that breaks is made again, and nobody is told twice
            os.kill(follower, signal.SIGKILL)
    time.sleep(0.5)
    assert starting.poll() is None
    starting.send_signal(signal.SIGINT)
    _, err = starting.communicate(timeout=30)
    assert starting.returncode == 130, err
    assert "goes on starting its engine, and bills" in err
    assert "does not answer yet" in soong("status").out
    assert soong("tunnel", "start").code == 4
    (tmp_path / "loads").unlink()
    until(lambda: served.serving() == "ready")
    assert "but no tunnel leads there: `soong tunnel start`" in soong("status").out
    assert soong("tunnel", "start").code == 0
    served = served._replace(key=soong("env", "--json").json["OPENAI_API_KEY"])
    assert served.status() == 200
    served.is_stopped_and_proved()


def test_a_disk_that_is_full_is_said_in_a_sentence(
    soong: Soong, rehearsal: Rehearsal, engine: Path, tmp_path: Path
) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": SPEED})
    (tmp_path / "fails").write_text("OSError: [Errno 28] No space left on device\n")
    failed = soong(*start_words(engine, free_port()))
    assert failed.code == 6
    assert "the machine's disk is full" in failed.err
    assert "is up all the same and bills" in failed.err
    assert "serves nothing and bills on" in soong("status").out
    assert soong("stop", "--yes").code == 0
    assert rehearsal.alive == []


# --- the line between ------------------------------------------------------------------------------------------------


class Line:
    """A line to a port of this computer, that can be cut as networks are: nothing comes through, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._there = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From here on everything is swallowed."""
        self._whole.clear()

    def mend(self) -> None:
        """New connections come through; what was under way is lost."""
        self._whole.set()

    def close(self) -> None:
        self._server.close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here = self._server.accept()[0]
                there = socket.create_connection(("127.0.0.1", self._there))
                self._sockets += [here, there]
                lost = threading.Event()
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=(one, other, lost), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not self._whole.is_set():
                    lost.set()
                if not lost.is_set():
                    other.sendall(data)
            if not lost.is_set():
                other.shutdown(socket.SHUT_WR)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tunnels that notice a dead line in two seconds, not in fifteen."""
    faster = (
        "import sys; from soong.connect import tunnel; "
        "tunnel.OPTIONS.update(ServerAliveInterval='1', ServerAliveCountMax='1', ConnectTimeout='2'); "
        "sys.exit(tunnel.supervise(sys.argv[1]))"
    )

    def spawn(module: str, word: str, log: Path) -> subprocess.Popen[bytes]:
        assert module == "soong.connect.tunnel"
        with log.open("ab") as told:
            process = subprocess.Popen(
                [sys.executable, "-c", faster, word], stdin=subprocess.DEVNULL, stdout=told, stderr=told
            )
        supervised.STARTED.append(process)
        return process

    monkeypatch.setattr(supervised, "spawn", spawn)


@pytest.fixture
def line(rented: Rented) -> Iterator[Line]:
    made = Line(rented.host.endpoint.port)
    yield made
    made.close()


@pytest.mark.usefixtures("impatient")
def test_a_network_that_is_cut_is_noticed_said_and_come_back_from(
    rented: Rented, line: Line, soong: Soong
) -> None:
    with open_ledger() as ledger:
        ledger.add(rented.rental)
    endpoint = msgspec.structs.replace(rented.host.endpoint, port=line.port)
    up = tunnel.start(
        msgspec.structs.replace(rented.host, endpoint=endpoint), local_port=free_port(), remote_port=1
    )
    assert up.state == "up"
    line.cut()
    until(lambda: state_of(up.rental_id) != "up")
    shown = soong("tunnel")
    assert "is up" not in shown.out
    line.mend()
    until(lambda: state_of(up.rental_id) == "up")
    (told,) = soong("tunnel", "status", "--json").json
    assert (told["state"], told["restarts"], told["problem"]) == ("up", 1, None)
    assert tunnel.stop(up.rental_id)


def state_of(rental_id: str) -> Any:
    found = tunnel.find(rental_id)
    return found.state if found else None
