"""Nothing passes the gate without the key, and with it everything passes as it was sent."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.remote.conftest import KEY, eventually, get, old_python, program

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = [
    "/",
    "/health",
    "/metrics",
    "/v1/models",
    "/v1/chat/completions",
    "/docs",
    "/load_lora",
    "/sleep",
    "//v1",
    "/%2e",
]
WITH_KEY = {"Authorization": f"Bearer {KEY}"}


def start_gate(folder: Path, engine_port: int) -> tuple[subprocess.Popen[bytes], int]:
    """A gate before an engine, on a free port."""
    key = folder / "api_key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    words = [old_python(), str(program("gate.py")), "0", str(engine_port), str(key)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline().decode().rpartition(":")[2])


def end_gate(process: subprocess.Popen[bytes]) -> str:
    """Its last words."""
    process.kill()
    _, said = process.communicate()
    return said.decode()


@pytest.fixture
def gate(tmp_path: Path, engine: int) -> Iterator[int]:
    """A gate's port. Whatever was done to it, it has nothing to complain of."""
    process, port = start_gate(tmp_path, engine)
    yield port
    assert process.poll() is None
    assert end_gate(process) == ""


@pytest.fixture
def closed_gate(tmp_path: Path) -> Iterator[int]:
    """A gate before an engine that is not there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        process, port = start_gate(tmp_path, probe.getsockname()[1])
        yield port
        end_gate(process)


def ask(
    port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """One request; status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def raw(port: int, data: bytes) -> bytes:
    """All that is answered to some bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(data)
        pieces = []
        while piece := line.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_closed_without_the_key(gate: int, engine: int, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "HEAD", "DELETE"):
        status, body = ask(gate, method, path)
        assert status == 401
        if method != "HEAD":
            assert json.loads(body)["error"]["code"] == 401
    assert get(engine, "/seen")["requests"] == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer x {KEY}",
        "Bearer \xe9",
    ],
)
def test_a_wrong_key_opens_nothing(gate: int, engine: int, value: str) -> None:
    assert ask(gate, "GET", "/v1/models", headers={"Authorization": value})[0] == 401
    assert get(engine, "/seen")["requests"] == []


def test_two_keys_open_nothing(gate: int) -> None:
    head = f"GET / HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nAuthorization: Bearer other\r\n\r\n"
    assert raw(gate, head.encode()).startswith(b"HTTP/1.1 401 ")


def test_the_key_opens_and_stays_at_the_gate(gate: int, engine: int) -> None:
    assert ask(gate, "GET", "/any?x=1", headers={**WITH_KEY, "X-Mine": "kept"}) == (200, b"{}")
    assert ask(gate, "GET", "/any", headers={"authorization": f"bearer {KEY}"})[0] == 200
    seen = get(engine, "/seen")["requests"][0]
    assert seen["path"] == "/any?x=1"
    assert seen["headers"]["X-Mine"] == "kept"
    assert seen["headers"]["Host"] == f"127.0.0.1:{engine}"
    assert KEY not in json.dumps(seen)


def test_pieces_come_as_they_are_made(gate: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gate, timeout=20)
    wish = {"stream": True, "chunks": 5, "pause": 0.2}
    connection.request("POST", "/v1/chat/completions", json.dumps(wish), WITH_KEY)
    answer = connection.getresponse()
    arrived = [time.monotonic() for line in answer if line.startswith(b"data: {")]
    connection.close()
    assert len(arrived) == 5
    assert arrived[-1] - arrived[0] > 0.6
    assert max(later - earlier for earlier, later in pairwise(arrived)) < 0.6


def test_the_official_client_is_served(gate: int) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{gate}/v1", api_key=KEY, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["fake"]
        asked = {"model": "fake", "messages": [{"role": "user", "content": "count"}]}
        for _ in range(3):
            said = client.chat.completions.create(**asked, extra_body={"chunks": 4})
            assert said.choices[0].message.content == "0 1 2 3"
        stream = client.chat.completions.create(**asked, stream=True, extra_body={"chunks": 4})
        assert [chunk.choices[0].delta.content for chunk in stream] == ["0", "1", "2", "3"]
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{gate}/v1", api_key="wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_bodies_of_both_kinds_arrive_whole(gate: int) -> None:
    content = bytes(range(256)) * 40_000
    wanted = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    pieces = (content[at : at + 70_001] for at in range(0, len(content), 70_001))
    for body in (content, pieces):
        status, said = ask(gate, "POST", "/upload", body, dict(WITH_KEY))
        assert status == 200
        found = json.loads(said)
        assert {name: found[name] for name in wanted} == wanted


def test_a_large_answer_arrives_whole(gate: int) -> None:
    status, body = ask(gate, "GET", "/big=50000000", headers=WITH_KEY)
    assert (status, len(body)) == (200, 50_000_000)
    assert (
        hashlib.sha256(body).digest() == hashlib.sha256((bytes(range(256)) * 195_313)[:50_000_000]).digest()
    )


def test_a_large_body_without_the_key_is_answered_not_cut_off(gate: int) -> None:
    with socket.create_connection(("127.0.0.1", gate), timeout=20) as line:
        line.sendall(b"POST /v1/x HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n" + bytes(1_000_000))
        assert line.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_client_that_waits_for_100_continue_is_served(gate: int) -> None:
    with socket.create_connection(("127.0.0.1", gate), timeout=20) as line:
        head = f"POST /x HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        line.sendall(head.encode())
        assert line.recv(100).startswith(b"HTTP/1.1 100 ")
        line.sendall(b"{}")
        said = b""
        while piece := line.recv(65536):
            said += piece
    assert b"HTTP/1.1 200 OK" in said


def test_a_client_that_keeps_its_connection_is_told_that_it_ends(gate: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gate, timeout=20)
    for _ in range(3):
        connection.request("GET", "/v1/models", headers={**WITH_KEY, "Connection": "keep-alive"})
        answer = connection.getresponse()
        assert answer.getheader("Connection") == "close"
        assert json.loads(answer.read())["data"]
    connection.close()


def test_an_answer_that_ends_with_its_connection_is_whole(gate: int) -> None:
    assert ask(gate, "GET", "/old", headers=WITH_KEY) == (200, b"until the end")


def test_a_second_request_on_the_same_line_is_not_let_through(gate: int, engine: int) -> None:
    first = f"GET /first HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
    second = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
    said = raw(gate, first + second + second)
    assert said.count(b"HTTP/1.1 ") == 1
    assert [one["path"] for one in get(engine, "/seen")["requests"]] == ["/first"]


HOST = f"Host: x\r\nAuthorization: Bearer {KEY}\r\n"
SMUGGLED = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 40\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3, 40\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: +3\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: -1\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0x3\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding : chunked\r\n\r\n",
        f"POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}X: a\r\n Content-Length: 40\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}X: a\nContent-Length: 40\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}X: a\rContent-Length: 40\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}X: a\0\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}no colon\r\n\r\n",
        f"POST / HTTP/1.1\r\n{HOST}: no name\r\n\r\n",
        f"POST  / HTTP/1.1\r\n{HOST}\r\n",
        f"POST / HTTP/2.0\r\n{HOST}\r\n",
        f"POST http://elsewhere/ HTTP/1.1\r\n{HOST}\r\n",
        f"\r\nPOST / HTTP/1.1\r\n{HOST}\r\n",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(gate: int, engine: int, head: str) -> None:
    said = raw(gate, (head + SMUGGLED).encode())
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1
    assert get(engine, "/seen")["requests"] == []


@pytest.mark.parametrize(
    "chunks",
    [
        "zz\r\n",
        "-5\r\n",
        "0x5\r\nabcde\r\n",
        "5\r\nabcdefg\r\n",
        "5\n\r\nabcde\r\n",
        "ffffffffffffffffff\r\n",
    ],
)
def test_a_chunked_body_that_cannot_be_read_is_broken_off(gate: int, engine: int, chunks: str) -> None:
    head = f"POST /x HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
    said = raw(gate, (head + chunks + SMUGGLED).encode())
    assert said.startswith(b"HTTP/1.1 400 ")
    assert not [one for one in get(engine, "/seen")["requests"] if one["path"] == "/smuggled"]


def test_extensions_and_trailers_of_a_chunked_body_stay_behind(gate: int) -> None:
    head = f"POST /x HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
    said = raw(gate, (head + "5;name=value\r\nabcde\r\n0\r\nX-Late: 1\r\n\r\n").encode())
    assert json.loads(said.partition(b"\r\n\r\n")[2])["bytes"] == 5


def test_a_huge_head_is_refused(gate: int) -> None:
    assert raw(gate, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_a_client_that_says_nothing_keeps_nobody_out(gate: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", gate)) for _ in range(300)]
    for line in silent[:100]:
        line.sendall(b"GET / HT")
    assert ask(gate, "GET", "/v1/models", headers=WITH_KEY)[0] == 200
    for line in silent:
        line.close()


def test_no_engine_is_a_503(closed_gate: int) -> None:
    status, body = ask(closed_gate, "GET", "/v1/models", headers=WITH_KEY)
    assert status == 503
    assert json.loads(body)["error"]["message"] == "the engine does not answer yet"
    assert ask(closed_gate, "GET", "/v1/models")[0] == 401


def test_an_engine_that_dies_in_the_middle_is_not_taken_for_a_whole_answer(gate: int) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask(gate, "GET", "/die", headers=WITH_KEY)


def test_an_engine_that_hangs_up_at_once_is_a_502(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            line, _ = listening.accept()
            line.recv(100)
            line.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        process, port = start_gate(tmp_path, listening.getsockname()[1])
        assert ask(port, "GET", "/x", headers=WITH_KEY)[0] == 502
        thread.join()
        end_gate(process)


def test_a_client_that_leaves_frees_the_engine(gate: int, engine: int) -> None:
    with socket.create_connection(("127.0.0.1", gate)) as line:
        line.sendall(f"GET /sleep HTTP/1.1\r\n{HOST}\r\n".encode())
        time.sleep(0.2)
    eventually(lambda: get(engine, "/seen")["left_early"] == 1, "the engine's connection was closed")


def test_a_client_that_leaves_a_stream_frees_the_engine(gate: int, engine: int) -> None:
    with socket.create_connection(("127.0.0.1", gate)) as line:
        body = json.dumps({"stream": True, "chunks": 100_000, "pause": 0.01})
        head = f"POST /v1/chat/completions HTTP/1.1\r\n{HOST}Content-Length: {len(body)}\r\n\r\n"
        line.sendall((head + body).encode())
        assert line.recv(1000)
    eventually(lambda: get(engine, "/seen")["left_early"] == 1, "the engine's stream was closed")


@pytest.mark.slow
def test_two_hundred_streams_at_once(gate: int) -> None:
    def one(number: int) -> bytes:
        wish = {"stream": True, "chunks": 5, "pause": 0.1, "number": number}
        return ask(gate, "POST", "/v1/chat/completions", json.dumps(wish), WITH_KEY)[1]

    began = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(one, range(200)))
    assert all(answer.count(b"data: {") == 5 and answer.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert time.monotonic() - began < 20  # one after the other they would take 100 s


def test_it_listens_on_the_loopback_alone(gate: int) -> None:
    listening = f"{gate:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    addresses = {line.split()[1].split(":")[0] for line in lines if line.split()[1].endswith(f":{listening}")}
    assert addresses == {"0100007F"}


def test_an_empty_key_opens_no_gate(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    words = [old_python(), str(program("gate.py")), "0", "1", str(tmp_path / "key")]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert "empty" in ended.stderr
