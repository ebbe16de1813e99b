"""The doors of a group's router, with the real router between them: what others on this computer can do there."""

from __future__ import annotations

import http.client
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from soong.connect import router
from soong.launch import preflight
from soong.serve.secrets import endpoint_key
from tests.cli.rehearsal import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.real]
pytest.importorskip("sglang_router")

GROUP = "ab" * 5
ADMIN = (
    ("GET", "/workers"), ("POST", "/workers"), ("DELETE", "/workers/1"), ("POST", "/add_worker"),
    ("POST", "/remove_worker"), ("GET", "/list_workers"), ("POST", "/flush_cache"), ("GET", "/engine_metrics"),
    ("GET", "/get_loads"), ("POST", "/wasm"), ("GET", "/ha/status"), ("POST", "/v1/tokenizers"),
    ("GET", "/%77orkers"), ("GET", "//workers"),
)  # fmt: skip


class Asked(NamedTuple):
    """A request as it came to the machine, or to somebody's own port."""

    method: str
    path: str
    authorization: str


class Machine(ThreadingHTTPServer):
    """The gate of a machine: nothing without the key. Keeps what it is asked."""

    daemon_threads = True

    def __init__(self, key: str) -> None:
        self.key = key
        self.asked: list[Asked] = []
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answers(BaseHTTPRequestHandler):
    server: Machine

    def log_message(self, form: str, *values: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "m"}], "model_path": "m", "served_model_name": "m"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if body.get("stream"):
            self._answer(b'data: {"choices": [{"delta": {"content": "Paris"}}]}\n\ndata: [DONE]\n\n')
        else:
            self._answer({"choices": [{"index": 0, "text": "Paris", "message": {"content": "Paris"}}]})

    def _answer(self, body: Any) -> None:
        given = self.headers.get("Authorization", "")
        self.server.asked.append(Asked(self.command, self.path, given))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200 if given == f"Bearer {self.server.key}" else 401)
        self.send_header("Content-Type", "text/event-stream" if data is body else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class House(NamedTuple):
    """The doors, open, with one machine behind them. metrics: the port where the router counts its requests."""

    machine: Machine
    port: int
    inner: int
    metrics: int
    key: str

    def ask(
        self, path: str, *, port: int = 0, key: str = "", method: str = "GET", body: object = None
    ) -> tuple[int, str]:
        """Status and text of what is at a port, by itself the front."""
        line = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = json.dumps(body) if body is not None else None
        line.request(method, path, body=data, headers=headers | {"Content-Type": "application/json"})
        answer = line.getresponse()
        text = answer.read().decode()
        line.close()
        return answer.status, text

    def questions(self) -> list[Asked]:
        """What the machine was asked for somebody, not for the router's own looks."""
        return [one for one in self.machine.asked if one.method == "POST"]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    ports: list[int] = []
    free_port = preflight.free_port

    def noted_port() -> int:
        ports.append(free_port())
        return ports[-1]

    monkeypatch.setattr(preflight, "free_port", noted_port)
    key = endpoint_key(GROUP).reveal()
    front = free_port()
    with Machine(key) as machine, router._Doors(router.Router(group=GROUP, name="duo", port=front)) as doors:
        to = {machine.server_address[1]: "m"}
        until(lambda: is_well(doors, to), 30)
        yield House(machine, front, ports[0], ports[1], key)
        machine.shutdown()


def is_well(doors: Any, to: dict[int, str]) -> bool:
    try:
        return bool(doors.told(to) == dict.fromkeys(to, True))
    except OSError:
        return False


CHAT = {"model": "m", "messages": [{"role": "user", "content": "What is it?"}]}


def test_what_is_asked_with_the_key_reaches_the_machine(house: House) -> None:
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/completions", {"model": "m", "prompt": "What"}),
        ("/v1/completions", {"model": "m", "prompt": "What", "stream": True}),
        ("/generate", {"text": "What"}),
        ("/v1/embeddings", {"model": "m", "input": "What"}),
        ("/v1/classify", {"model": "m", "input": "What"}),
        ("/v1/responses", {"model": "m", "input": "What"}),
    ):
        status, text = house.ask(path, key=house.key, method="POST", body=body)
        assert status == 200, f"{path}: {text}"
    asked = house.questions()
    assert len(asked) == 8
    assert {one.authorization for one in asked} == {f"Bearer {house.key}"}
    assert '"m"' in house.ask("/v1/models", key=house.key)[1]
    assert house.ask("/health", key=house.key)[0] == 200


def addresses(house: House) -> set[tuple[int, str]]:
    """Port and path of what the router tells everybody on this computer of its machines."""
    told = house.ask("/metrics", port=house.metrics)[1] + house.ask("/engine_metrics", port=house.inner)[1]
    return {(int(port), path) for port, path in re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+/\d+)", told)}


def test_the_addresses_that_others_can_read_let_nobody_in(house: House) -> None:
    until(lambda: addresses(house))
    ((back, path),) = addresses(house)
    for method, rest in (
        ("POST", "/v1/chat/completions"),
        ("POST", "/generate"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/health"),
        ("GET", "/health/../v1/models"),
    ):
        for key in ("", "wrong", house.key):
            status, _ = house.ask(path + rest, port=back, method=method, key=key, body=CHAT)
            assert (status, rest) == (401, rest)
    assert house.questions() == []
    assert not [one for one in house.machine.asked if one.path in {"/metrics", "/v1/models"}]


def test_nobody_can_have_the_key_sent_to_a_port_of_their_own(house: House) -> None:
    """The looks pass without a key, and get it at the door."""
    until(lambda: addresses(house))
    ((back, path),) = addresses(house)
    assert house.ask(f"{path}/health", port=back)[0] == 200
    with Machine("another") as own:
        assert house.ask(f"{path.rsplit('/', 1)[0]}/{own.server_address[1]}/health", port=back)[0] == 401
        assert own.asked == []
        own.shutdown()


def test_the_key_does_not_alter_the_router(house: House) -> None:
    """A machine of somebody's own among the others would get a part of all questions."""
    before = house.ask("/v1/models", key=house.key)
    with Machine("another") as own:
        url = f"http://127.0.0.1:{own.server_address[1]}"
        for method, path in ADMIN:
            body = {"url": url, "model_id": "m"} if method == "POST" else None
            assert house.ask(path, method=method, body=body)[0] == 401, path
            assert house.ask(path, key=house.key, method=method, body=body)[0] == 404, path
        assert own.asked == []
        own.shutdown()
    assert house.ask("/v1/models", key=house.key) == before
