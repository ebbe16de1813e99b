"""The sandbox's HTTP server: who may ask, how often, what goes wrong on the way; loopback only.

Run as `python -m soong.clouds.sandbox.server FOLDER`; see `soong.clouds.sandbox.process` for starting it. One
process serves one folder, held by a lock; it ends on SIGTERM, on `POST /sandbox/stop`, or when the folder goes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from soong.clouds.sandbox import admin, api
from soong.clouds.sandbox.answers import DroppedError, RefusedError
from soong.clouds.sandbox.clock import Timekeeper
from soong.clouds.sandbox.faults import LAUNCH_PATH, seconds_of
from soong.clouds.sandbox.machine import Machines
from soong.clouds.sandbox.process import Files, hold_lock
from soong.clouds.sandbox.state import State
from soong.clouds.sandbox.world import World

LOOPBACK = "127.0.0.1"
MOST_BODY_BYTES = 4 << 20
MOST_LOG_BYTES = 8 << 20
SECONDS_BETWEEN_REQUESTS = 1.0
SECONDS_BETWEEN_LAUNCHES = 12.0
"""Lambda's published limits, counted by the sandbox's clock."""
GRACE = 0.9
"""A request may come a tenth early, since clocks and networks are not exact."""
JITTER_REAL_SECONDS = 0.05
"""Two processes of one computer may see a moment this far apart; a fast clock makes much of it, so a client that
paces itself well would be refused. At the usual speed nothing is left of the limit; tests of it run slower."""
FRONT_PAGE = """soong sandbox: Lambda's API on this computer. Nothing here costs money.

soong sandbox          what runs here, and what it would have cost
soong sandbox faults   what can go wrong on demand
soong sandbox url      the address and the key, for any client of Lambda's API
"""


class RequestLog:
    """The last requests: in memory, and one JSON line each in a file. No key and no user data gets in."""

    def __init__(self, path: Path) -> None:
        self._lines: deque[dict[str, Any]] = deque(maxlen=5000)
        self._path = path
        self._bytes = path.stat().st_size if path.exists() else 0
        self._lock = threading.Lock()

    def add(self, line: dict[str, Any]) -> None:
        """Note one request."""
        with self._lock:
            self._lines.append(line)
            text = json.dumps(line) + "\n"
            if self._bytes > MOST_LOG_BYTES:
                self._path.replace(self._path.with_suffix(".old"))
                self._bytes = 0
            self._bytes += len(text)
            with self._path.open("a") as file:
                file.write(text)

    def last(self, count: int) -> list[dict[str, Any]]:
        """The newest `count`, oldest first."""
        with self._lock:
            return list(self._lines)[-count:]


class RateLimit:
    """One request a second, one launch in twelve, by the sandbox's clock."""

    def __init__(self, clock: Timekeeper) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(self, request: str) -> None:
        """Count one request.

        Raises:
            RefusedError: 429, too early.
        """
        limits = {"any": SECONDS_BETWEEN_REQUESTS}
        if request == LAUNCH_PATH:
            limits["launch"] = SECONDS_BETWEEN_LAUNCHES
        with self._lock:
            now = self._clock.now()
            jitter_seconds = JITTER_REAL_SECONDS * self._clock.reading.speed
            for what, seconds in limits.items():
                if now - self._last.get(what, 0.0) < seconds * GRACE - jitter_seconds:
                    raise RefusedError("global/too-many-requests")
            self._last |= dict.fromkeys(limits, now)


class Sandbox:
    """One sandbox in its folder: the account, its machines, and the key that opens it.

    Args:
        folder: where everything of it is kept. speed: of the clock; None keeps the one it had.
    """

    def __init__(self, folder: Path, *, speed: float | None = None) -> None:
        self.folder = folder
        self.files = Files(folder)
        self.key = self.files.key_made()
        self.clock = Timekeeper(self.files.clock, speed=speed)
        self.state = State(self.files.state)
        self.machines = Machines(self.files.machines, self.clock)
        self.world = World(self.state, self.clock, self.machines.is_up)
        self.rate = RateLimit(self.clock)
        self.log = RequestLog(self.files.requests)
        self.over = threading.Event()

    def watch(self) -> None:
        """Give machines to records, and take them away, until the end; run in a thread of its own."""
        while not self.over.is_set():
            self.world.changed.clear()
            try:
                wait_seconds = self.machines.look_after(self.world)
            except Exception as error:  # noqa: BLE001 - one odd machine must not stop the watch over the others
                sys.stderr.write(f"watch: {type(error).__name__}: {error}\n")
                wait_seconds = 1.0
            if not self.files.key.exists():
                self.stop_soon()
            self.world.changed.wait(wait_seconds)

    def reset(self) -> None:
        """Forget everything but the key and the time."""
        with self.world.lock:
            self.state.clear()
            self.machines.end_all()

    def stop_soon(self) -> None:
        """End the server once the current answer is sent."""
        self.over.set()
        self.world.changed.set()

    def close(self) -> None:
        """Stop the clock and every machine."""
        self.machines.close()
        if self.folder.exists():
            self.clock.freeze()
        self.state.close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "soong-sandbox"
    sys_version = ""
    disable_nagle_algorithm = True  # else a small answer waits for the reader's acknowledgement
    sandbox: Sandbox

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` header: the sandbox's time."""
        return formatdate(self.sandbox.clock.now() if timestamp is None else timestamp, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: requests have a log of their own."""

    def do_GET(self) -> None:
        """Every method comes here."""
        began = self.sandbox.clock.now()
        status = 0
        try:
            status, answer, headers = self._answer()
            self._send(status, answer, headers)
        except (DroppedError, OSError):
            self._drop()
        finally:
            self._note(began, status)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def _answer(self) -> tuple[int, bytes, dict[str, str]]:
        self._body = b""
        try:
            self._body = self._read_body()
            if self.path == "/":
                return 200, FRONT_PAGE.encode(), {"Content-Type": "text/plain; charset=utf-8"}
            return 200, msgspec.json.encode(self._result()), {"Content-Type": "application/json"}
        except RefusedError as error:
            headers = {"Content-Type": "application/json", **error.headers}
            return error.status, msgspec.json.encode(error.body), headers
        except DroppedError:
            raise
        except Exception as error:  # noqa: BLE001 - a real server answers 500 and stays up
            sys.stderr.write(f"{self.command} {self.path}: {type(error).__name__}: {error}\n")
            body = RefusedError("global/internal-error", f"sandbox: {type(error).__name__}: {error}").body
            return 500, msgspec.json.encode(body), {"Content-Type": "application/json"}

    def _read_body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BODY_BYTES:
            self.close_connection = True
            raise RefusedError("global/invalid-parameters", "Invalid request data: too long.", status=413)
        return self.rfile.read(length)

    def _result(self) -> Any:
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query))
        if address.path.startswith(admin.PREFIX + "/"):
            self._check_key()
            path = address.path.removeprefix(admin.PREFIX + "/")
            return admin.answer(self.sandbox, self.command, path, self._body, query)
        if not address.path.startswith(api.PREFIX + "/"):
            raise RefusedError("global/not-found")
        return self._lambda_result(address.path.removeprefix(api.PREFIX), query)

    def _lambda_result(self, path: str, query: dict[str, str]) -> Any:
        request = f"{self.command} {path}"
        strike = self.sandbox.world.faults.strike
        if late := strike("latency", request=request):
            time.sleep(seconds_of(late))
        if strike("lost-request", request=request):
            raise DroppedError
        self._check_key()
        self._strike_account(request)
        if self.sandbox.world.settings.rate_limit:
            self.sandbox.rate.check(request)
        self._strike_service(request)
        loses_answer = strike("lost-answer", request=request)
        result = api.answer(self.sandbox.world, self.command, path, self._body, query)
        if loses_answer:
            raise DroppedError
        return result

    def _strike_account(self, request: str) -> None:
        if self.sandbox.world.faults.strike("revoked-key", request=request):
            raise RefusedError("global/invalid-api-key")
        if self.sandbox.world.faults.strike("account-inactive", request=request):
            raise RefusedError("global/account-inactive")

    def _strike_service(self, request: str) -> None:
        if busy := self.sandbox.world.faults.strike("rate-limited", request=request):
            headers = {} if busy.seconds is None else {"Retry-After": str(round(busy.seconds))}
            raise RefusedError("global/too-many-requests", headers=headers)
        if broken := self.sandbox.world.faults.strike("server-error", request=request):
            raise RefusedError("global/internal-error", status=broken.status or 500)

    def _check_key(self) -> None:
        scheme, _, word = self.headers.get("Authorization", "").partition(" ")
        given = {"bearer": word, "basic": _basic_user(word)}.get(scheme.lower(), "")
        keys = {given, word if scheme.lower() == "basic" else given}
        if not any(hmac.compare_digest(one.strip().encode(), self.sandbox.key.encode()) for one in keys):
            raise RefusedError("global/invalid-api-key")

    def _send(self, status: int, answer: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()

    def _drop(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _note(self, began: float, status: int) -> None:
        if urlsplit(self.path).path.startswith(api.PREFIX):
            self.sandbox.log.add(
                {
                    "at": began,
                    "method": self.command,
                    "path": self.path.removeprefix(api.PREFIX),
                    "status": status or None,
                    "client": self.headers.get("User-Agent", ""),
                    "body": _harmless(self._body),
                }
            )


def _basic_user(word: str) -> str:
    try:
        return base64.b64decode(word, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _harmless(body: bytes) -> Any:
    """What a request carried, without what may be secret or long."""
    try:
        found = msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return f"{len(body)} bytes that are no JSON"
    if isinstance(found, dict) and "user_data" in found:
        found["user_data"] = f"({len(str(found['user_data']))} characters)"
    return found


class Server(ThreadingHTTPServer):
    """One thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Readers that leave early are no news."""


def make_server(sandbox: Sandbox) -> Server:
    """A server of `sandbox` on a free port of the loopback address; not yet serving."""
    handler = type("BoundHandler", (Handler,), {"sandbox": sandbox})
    return Server((LOOPBACK, 0), handler)


def serve(folder: Path, *, speed: float | None = None) -> int:
    """Serve the sandbox in `folder` until told to stop; 0 also when another process serves it already."""
    files = Files(folder)
    lock = hold_lock(files.lock)
    if lock is None:
        return 0
    sandbox = Sandbox(folder, speed=speed)
    server = make_server(sandbox)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sandbox.stop_soon())
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True),
        threading.Thread(target=sandbox.watch, daemon=True),
    ]
    for thread in threads:
        thread.start()
    files.announce(port=server.server_address[1], pid=os.getpid())
    while not sandbox.over.wait(0.5):
        pass
    server.shutdown()
    server.server_close()
    sandbox.close()
    files.server.unlink(missing_ok=True)
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), speed=float(sys.argv[2]) if len(sys.argv) > 2 else None))
