"""An engine that thinks of nothing: HTTP, server-sent events and counters like vLLM's. Standard library, Python 3.10.

    python fake_engine.py PORT [--seconds-to-load S] [--die-after S] [--exit-code N] [--log LINE]

`/v1/chat/completions` streams what it is asked to (`chunks`, `pause`); `/echo` tells what reached it; `/die` breaks off
in the middle of an answer; `/counted` says how many connections are open.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class State:
    """Counters."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.generated = 0
        self.prompt = 0
        self.requests: list[dict[str, Any]] = []
        self.left_early = 0
        self.metrics: str | None = None

    def text(self) -> str:
        """The metrics page."""
        labels = '{engine="0",model_name="fake"}'
        values = {
            "vllm:num_requests_running": float(self.running),
            "vllm:num_requests_waiting": 0.0,
            "vllm:generation_tokens_total": float(self.generated),
            "vllm:prompt_tokens_total": float(self.prompt),
        }
        return "".join(f"# TYPE {name} gauge\n{name}{labels} {value}\n" for name, value in values.items())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as engines do: else each answer waits 40 ms
    state: State

    def do_GET(self) -> None:
        state = self.state
        if self.path == "/health":
            self.reply(b"")
        elif self.path == "/metrics":
            self.reply((state.text() if state.metrics is None else state.metrics).encode(), "text/plain")
        elif self.path == "/seen":
            self.reply(
                json.dumps(
                    {"requests": state.requests, "left_early": state.left_early, "running": state.running}
                ).encode()
            )
        elif self.path.startswith("/big"):
            self.big(int(self.path.partition("=")[2]))
        elif self.path == "/die":
            self.die()
        elif self.path == "/old":
            self.wfile.write(
                b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nKeep-Alive: timeout=5\r\n\r\nuntil the end"
            )
            self.close_connection = True
        elif self.path == "/sleep":
            self.sleep()
        elif self.path == "/v1/models":
            self.reply(json.dumps({"object": "list", "data": [{"id": "fake", "object": "model"}]}).encode())
        else:
            self.note(b"")
            self.reply(b"{}")

    def do_POST(self) -> None:
        body = self.body()
        self.note(body)
        if self.path == "/v1/chat/completions":
            self.chat(json.loads(body))
        elif self.path == "/set":
            wish = json.loads(body)
            for name, value in wish.items():
                setattr(self.state, name, value)
            self.reply(b"{}")
        else:
            digest = hashlib.sha256(body).hexdigest()
            self.reply(
                json.dumps({"bytes": len(body), "sha256": digest, "headers": dict(self.headers)}).encode()
            )

    do_PUT = do_POST  # noqa: N815
    do_OPTIONS = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                assert self.rfile.readline() == b"\r\n"
            assert self.rfile.readline() == b"\r\n"
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def note(self, body: bytes) -> None:
        with self.state.lock:
            self.state.requests.append(
                {"method": self.command, "path": self.path, "headers": dict(self.headers), "bytes": len(body)}
            )

    def reply(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "keep-alive")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def chat(self, wish: dict[str, Any]) -> None:
        words = [str(number) for number in range(int(wish.get("chunks", 3)))]
        with self.state.lock:
            self.state.running += 1
            self.state.prompt += 5
        try:
            if wish.get("stream"):
                self.stream(words, float(wish.get("pause", 0.0)))
            else:
                time.sleep(float(wish.get("pause", 0.0)))
                self.count(len(words))
                self.reply(
                    json.dumps(
                        completion({"message": {"role": "assistant", "content": " ".join(words)}})
                    ).encode()
                )
        except OSError:
            with self.state.lock:
                self.state.left_early += 1
        finally:
            with self.state.lock:
                self.state.running -= 1

    def stream(self, words: list[str], pause: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in words:
            self.count(1)
            self.chunk(
                f"data: {json.dumps(completion({'delta': {'content': word}}, chunk=True))}\n\n".encode()
            )
            time.sleep(pause)
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def count(self, tokens: int) -> None:
        with self.state.lock:
            self.state.generated += tokens

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def big(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        piece = bytes(range(256)) * 4096
        while size > 0:
            self.wfile.write(piece[:size])
            size -= len(piece)

    def die(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half of it")
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def sleep(self) -> None:
        """Say nothing until the other side leaves, and notice that."""
        self.connection.settimeout(30)
        if not self.connection.recv(1):
            with self.state.lock:
                self.state.left_early += 1
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def completion(choice: dict[str, Any], *, chunk: bool = False) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk" if chunk else "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "finish_reason": None if chunk else "stop", **choice}],
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_: Any) -> None:
        pass


def serve(port: int) -> Server:
    """A server that is not running yet."""
    state = State()
    server = Server(("127.0.0.1", port), type("Handler", (Handler,), {"state": state}))
    server.state = state  # type: ignore[attr-defined]
    return server


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds-to-load", type=float, default=0.0)
    parser.add_argument("--die-after", type=float, default=0.0)
    parser.add_argument("--exit-code", type=int, default=1)
    parser.add_argument("--log", default="loading")
    parser.add_argument("--chat-template")
    wish = parser.parse_args()
    sys.stdout.write(wish.log + "\n")
    sys.stdout.flush()
    time.sleep(wish.seconds_to_load)
    if wish.die_after:
        threading.Timer(wish.die_after, lambda: os._exit(wish.exit_code)).start()
    serve(wish.port).serve_forever(0.05)


if __name__ == "__main__":
    main()
