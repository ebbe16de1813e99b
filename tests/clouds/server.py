"""A Lambda on this computer, for the client's tests: real HTTP on a free port, judged by the specification.

Each question takes the next `Reply` laid out for its method and path; the last is repeated. Everything asked is kept
with its time, and every request that the specification does not know is kept in `faults`.
"""

from __future__ import annotations

import json
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.clouds.spec import faults_of_answer, faults_of_request
from tests.support.loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reply(NamedTuple):
    """drop: close the line after reading the request. hang: say nothing until the test is over.

    off_spec: the answer is one that the specification does not know, on purpose.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    drop: bool = False
    hang: bool = False
    off_spec: bool = False


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def data(value: object, status: int = 200, **more: Any) -> Reply:
    """A happy answer."""
    return Reply(status, json.dumps({"data": value}).encode(), {"Content-Type": "application/json"}, **more)


def error(code: str, status: int, message: str = "No.", suggestion: str = "Do other.", **more: Any) -> Reply:
    """A refusal in Lambda's own form."""
    body = {"error": {"code": code, "message": message, "suggestion": suggestion}}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"}, **more)


class FakeLambda(Loopback):
    """One HTTP server in a thread; a context manager."""

    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], list[Reply]] = {}
        self.requests: list[Request] = []
        self.faults: list[str] = []
        super().__init__(_handler(self))

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Lay out the answers to a question; `path` without `/api/v1`."""
        self.replies[method, f"/api/v1{path}"] = list(replies)

    def asked(self, method: str, path: str) -> list[Request]:
        wanted = (method, f"/api/v1{path}")
        return [request for request in self.requests if (request.method, request.path) == wanted]

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        self.faults += faults_of_request(request.method, request.path, request.body)
        replies = self.replies.get((request.method, request.path))
        if replies is None:
            return error("global/not-found", 404)
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if not (reply.off_spec or reply.drop or reply.hang):
            self.faults += faults_of_answer(request.method, request.path, reply.status, reply.body)
        return reply


def _handler(fake: FakeLambda) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Silent."""

        def _serve(self) -> None:
            at = time.time()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = fake.answer(Request(self.command, self.path, headers, body, at))
            if reply.hang:
                fake.over.wait(30)
            if reply.hang or reply.drop:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response_only(reply.status)
            for name, value in {"Date": self.date_time_string(), **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _serve  # noqa: N815 - the library's names

    return Handler
