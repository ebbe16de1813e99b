"""An engine that serves no model: the same paths and the same words as a real one, by the standard library alone.

It understands the flags that place an engine, and these variables: FAKE_ENGINE_FAIL, a file whose text it prints
before it ends with 1; FAKE_ENGINE_WAIT, a file whose end it waits for before it listens.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def value(*names: str) -> str:
    for name in names:
        if name in sys.argv:
            return sys.argv[sys.argv.index(name) + 1]
    return ""


MODEL = value("--served-model-name", "--alias") or "fake"
ASKED: list[str] = []
"""The path of each question so far."""
WORDS = ("Paris", " is", " the", " capital", ".")


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def counters() -> list[tuple[str, int]]:
    """Of requests and tokens, under the names of the engine whose place this takes."""
    is_sglang = any("sglang" in word for word in sys.argv)
    family, running, queued = (
        ("sglang", "num_running_reqs", "num_queue_reqs")
        if is_sglang
        else ("vllm", "num_requests_running", "num_requests_waiting")
    )
    tokens = len(WORDS) * len(ASKED)
    counts = {running: 0, queued: 0, "generation_tokens_total": tokens, "prompt_tokens_total": len(ASKED)}
    return [(f"{family}:{name}", count) for name, count in counts.items()]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as engines do: else each answer waits 40 ms

    def log_message(self, form: str, *values: object) -> None:
        say("engine:", form % values)

    def answer(self, code: int, body: object, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, {})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif self.path == "/metrics":
            text = "".join(f'{name}{{model_name="{MODEL}"}} {count}\n' for name, count in counters())
            self.answer(200, text.encode(), "text/plain")
        else:
            self.answer(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append(self.path)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            self.answer(200, {"model": MODEL, "choices": [{"index": 0, "message": message}]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in WORDS:
            piece = {"model": MODEL, "choices": [{"index": 0, "delta": {"content": word}}]}
            self.wfile.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def main() -> None:
    say("argv:", json.dumps(sys.argv[1:]))
    fails = os.environ.get("FAKE_ENGINE_FAIL", "")
    if fails and Path(fails).exists():
        say(Path(fails).read_text())
        sys.exit(1)
    waits = os.environ.get("FAKE_ENGINE_WAIT", "")
    while waits and Path(waits).exists():
        time.sleep(0.05)
    ThreadingHTTPServer((value("--host") or "127.0.0.1", int(value("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
