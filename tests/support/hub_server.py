"""A Hub on this machine: real HTTP, on a free port, with a second server that holds the large files.

Paths map to a list of `Reply`s; each question takes the next, the last is repeated. Everything asked is kept
in `requests`, headers included, so that a test can see what was sent where.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.loopback import Loopback
from tests.support.safetensors_writer import header_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reply(NamedTuple):
    """endless: send `body`, then zeros until the reader leaves. hang: say nothing until the test is over."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    ranges: bool = True
    endless: bool = False
    hang: bool = False
    stated_length: int | None = None
    whole_bytes: int | None = None


class Request(NamedTuple):
    path: str
    headers: dict[str, str]


class Server(Loopback):
    """One HTTP server in a thread; a context manager."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.requests: list[Request] = []
        self.sent_bytes = 0
        super().__init__(_handler(self))

    def on(self, path: str, *replies: Reply) -> None:
        self.replies[path] = list(replies)

    def file(self, repository: str, name: str, *replies: Reply, revision: str = "main") -> None:
        self.on(f"/{repository}/resolve/{revision}/{name}", *replies)

    def asked(self, path_end: str) -> list[Request]:
        return [request for request in self.requests if request.path.endswith(path_end)]

    def next_reply(self, path: str) -> Reply:
        replies = self.replies.get(path)
        if replies is None:
            return Reply(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
        return replies.pop(0) if len(replies) > 1 else replies[0]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append(Request(self.path, dict(self.headers.items())))
            reply = server.next_reply(self.path)
            if reply.hang:
                server.over.wait()
                self.close_connection = True
                return
            try:
                self._send(reply)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _send(self, reply: Reply) -> None:
            status, body, headers = reply.status, reply.body, dict(reply.headers)
            asked = self.headers.get("Range", "")
            if asked and status == 200 and reply.ranges:
                last = int(asked.removeprefix("bytes=0-"))
                whole = reply.whole_bytes or len(body)
                status, body = 206, body[: last + 1]
                headers["Content-Range"] = f"bytes 0-{max(0, len(body) - 1)}/{whole}"
            length = 1 << 40 if reply.endless else reply.stated_length or len(body)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = reply.stated_length is not None
            while reply.endless and not server.over.is_set():
                self.wfile.write(bytes(1 << 16))
                server.sent_bytes += 1 << 16

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def json_reply(value: Any) -> Reply:
    return Reply(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})


def shard_reply(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], *, padding: int = 0, ranges: bool = True
) -> Reply:
    """A safetensors file of which only the header is really there."""
    start, data_bytes = header_bytes(tensors, padding=padding)
    return Reply(
        body=start + bytes(min(data_bytes, 1000)), ranges=ranges, whole_bytes=len(start) + data_bytes
    )
