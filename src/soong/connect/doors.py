"""The two doors of a group of replicas on this computer, with the router between them.

Whoever asks comes in at the front with the group's key; without it every path answers 401, which the router alone does
not do. The router shares the requests out, and leaves by the back, where the key is put on what passes to a machine's
own gate. That door is not open to others either: a request shows the router's key, which the front put on it and the
router hands on. The router has none to show when it looks whether a machine is well, and these looks alone pass
without. The addresses that it knows carry a word, which leads to one port only, so that nobody can have the key sent to
a port of their own; others on this computer can read the addresses where the router counts its requests.

    python -m soong.connect.doors     reads its orders as one line of JSON, and ends when its input does
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import subprocess
import sys
from typing import Any, NamedTuple

from soong.connect.remote import gate

LOOK_SECONDS = 0.2
"""Between two looks whether the router lives."""

LOOKS = {"/health", "/server_info", "/get_server_info", "/model_info", "/get_model_info", "/get_load"}
"""What the router (sglang-router 0.3.2) asks a machine by itself, with GET and without a key."""

OPEN = {
    "/generate", "/get_model_info", "/get_server_info", "/health", "/health_generate", "/liveness", "/model_info",
    "/readiness", "/rerank", "/server_info", "/v1/chat/completions", "/v1/classify", "/v1/completions",
    "/v1/embeddings", "/v1/models", "/v1/rerank", "/v1/responses",
}  # fmt: skip
"""What may be asked at the front: the router's paths that ask an engine. Its others alter the router itself, for one to
send requests to another machine."""


class Orders(NamedTuple):
    """port: of the front. key: that opens it. router_key: that the router wants. word: that `word_of` is made of."""

    port: int
    key: str
    router: dict[str, Any]
    router_key: str
    word: str


def main() -> None:
    """Keep both doors and the router until the input ends or the router does."""
    with contextlib.suppress(OSError, ValueError):
        gate.allow_many_files()
    orders = Orders(**json.loads(sys.stdin.readline()))
    sys.exit(asyncio.run(_kept(orders)))


async def _kept(orders: Orders) -> int:
    front = await _opened(orders.port, lambda client: _in_front(client, orders))
    back = await _opened(0, lambda client: _at_the_back(client, orders))
    router = _router(orders)
    try:
        about = {"back_port": back.sockets[0].getsockname()[1], "router_pid": router.pid}
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()
        over = asyncio.ensure_future(_input_ended())
        while not over.done() and router.poll() is None:
            await asyncio.wait({over}, timeout=LOOK_SECONDS)
        return 0 if over.done() else 1
    finally:
        router.kill()
        router.wait()
        front.close()
        back.close()


def _router(orders: Orders) -> subprocess.Popen[bytes]:
    """The router, told its orders by its input: an argument could be read by every user of this computer."""
    router = subprocess.Popen(
        [sys.executable, "-P", "-m", "soong.connect.router_process"],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
        stderr=sys.stderr,
    )
    assert router.stdin is not None  # noqa: S101 - narrows for the type checker
    router.stdin.write(json.dumps({**orders.router, "api_key": orders.router_key}).encode() + b"\n")
    router.stdin.close()
    return router


async def _input_ended() -> None:
    """Whoever started this has ended, however it ended."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(gate.CHUNK_BYTES):
        pass


async def _opened(port: int, pass_on: Any) -> asyncio.Server:
    """A door on the loopback."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = (reader, writer)
        try:
            try:
                await pass_on(client)
            except gate.RefusedError as error:
                writer.write(gate.refusal(error))
            await gate.part(client)
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError, gate.ClientLeftError):
            writer.transport.abort()
        finally:
            writer.close()

    return await asyncio.start_server(met, "127.0.0.1", port, limit=gate.HEAD_BYTES, backlog=gate.BACKLOG)


async def _in_front(client: gate.Line, orders: Orders) -> None:
    """A request with the group's key, to the router."""
    request = await gate.read_request(client[0], orders.key)
    path = request.line.split(" ")[1].partition("?")[0]
    if path not in OPEN and not path.startswith(("/v1/responses/", "/v1/conversations")):
        raise gate.RefusedError(404, "replicas do not answer this path; each machine's own address may")
    await _carried(client, request, int(orders.router["port"]), orders.router_key)


async def _at_the_back(client: gate.Line, orders: Orders) -> None:
    """A request of the router's, to the machine whose port its path begins with."""
    head = await asyncio.wait_for(client[0].readuntil(b"\r\n\r\n"), gate.HEAD_SECONDS)
    line, headers = gate.parsed(head.decode("latin-1"))
    method, path, version = line.split(" ")
    _, word, port, rest = [*path.split("/", 3), "", "", ""][:4]
    if not hmac.compare_digest(word.encode("latin-1"), word_of(orders.word, port).encode()):
        raise gate.RefusedError(401, "this door is the router's")
    if method != "GET" or f"/{rest}" not in LOOKS:
        gate.check_key(headers, orders.router_key)
    request = gate.Request(f"{method} /{rest} {version}", headers, gate.body_length(line, headers))
    await _carried(client, request, int(port), orders.key)


def word_of(word: str, port: int | str) -> str:
    """What the router's address of a machine carries: it leads to this port of this computer, and to no other."""
    return hmac.new(word.encode(), str(port).encode("latin-1"), "sha256").hexdigest()


async def _carried(client: gate.Line, request: gate.Request, port: int, key: str) -> None:
    """One request across, and its answer back."""
    other = await gate.reach(port)
    try:
        await gate.exchange(client, other, request, port, (f"Authorization: Bearer {key}",))
    finally:
        other[1].transport.abort()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
