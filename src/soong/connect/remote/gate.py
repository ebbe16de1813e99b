"""The gate: nothing reaches the engine without the key, on any path, `/health` and `/metrics` included.

Engines guard only some of their paths by themselves (vLLM only `/v1`). So the engine listens on one port of the
loopback and the gate on another, and whoever comes through the tunnel meets the gate. One request a connection, and
its head is read strictly and written anew: what was let in is exactly what the engine gets.

    python3 gate.py LISTEN_PORT ENGINE_PORT KEY_FILE
"""

import asyncio
import contextlib
import hmac
import json
import re
import resource
import sys
from pathlib import Path
from typing import NamedTuple

HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30.0
CONNECT_SECONDS = 10.0
LINGER_SECONDS = 2.0
"""How long a client that still sends may go on after its answer: closing at once would reset the line, and the
answer would be lost with it."""
CHUNK_BYTES = 64 * 1024
BACKLOG = 1024

REQUEST_LINE = re.compile(r"[A-Z]{1,20} (/[\x21-\x7e]*|\*) HTTP/1\.[01]")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[^\r\n]*)?")

NOT_FOR_THE_ENGINE = {
    "authorization", "connection", "host", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer",
    "upgrade",
}  # fmt: skip
"""Headers of a request that are not handed on: the key is not the engine's business, and the connection is ours."""
NOT_FOR_THE_CLIENT = (b"connection:", b"keep-alive:", b"proxy-connection:")

WORDS = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
}

Headers = list[tuple[str, str]]
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RefusedError(Exception):
    """A request that is not let in: status and words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientLeftError(Exception):
    """The client hung up: nobody waits for the answer."""


class Request(NamedTuple):
    """A request that was let in. length: bytes of the body, None for a chunked one."""

    line: str
    headers: Headers
    length: int | None


def main() -> None:
    """Serve until killed."""
    if len(sys.argv) != 4:
        sys.exit("usage: gate.py LISTEN_PORT ENGINE_PORT KEY_FILE")
    key = Path(sys.argv[3]).read_text(encoding="ascii").strip()
    if not key:
        sys.exit("the key file is empty")
    with contextlib.suppress(OSError, ValueError):
        allow_many_files()
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), key))


def allow_many_files() -> None:
    """Two connections a request: the usual limit of 1,024 open files would stop at 500 requests at once."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(listen_port: int, engine_port: int, key: str) -> None:
    """Listen on the loopback alone."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await one_request((reader, writer), engine_port, key)
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError, ClientLeftError):
            writer.transport.abort()
        finally:
            writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", listen_port, limit=HEAD_BYTES, backlog=BACKLOG)
    sys.stdout.write(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


async def one_request(client: Line, engine_port: int, key: str) -> None:
    """Check one request and carry it, and its answer, across."""
    try:
        request = await read_request(client[0], key)
        engine = await reach(engine_port)
        try:
            await exchange(client, engine, request, engine_port)
        finally:
            engine[1].transport.abort()
    except RefusedError as error:
        client[1].write(refusal(error))
    await part(client)


# --- what comes in --------------------------------------------------------------------------------------------------


async def read_request(reader: asyncio.StreamReader, key: str) -> Request:
    """A request that may pass.

    Raises:
        RefusedError: it may not. EOFError: the client left before it had asked.
    """
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
    except asyncio.LimitOverrunError:
        raise RefusedError(431, "the request's head is too long") from None
    except asyncio.TimeoutError:
        raise RefusedError(408, "the request's head took too long") from None
    line, headers = parsed(head.decode("latin-1"))
    check_key(headers, key)
    return Request(line, headers, body_length(line, headers))


def parsed(head: str) -> tuple[str, Headers]:
    """Request line and headers; anything that two readers could read in two ways is refused."""
    lines = head.split("\r\n")[:-2]
    if not REQUEST_LINE.fullmatch(lines[0]):
        raise RefusedError(400, "the request line cannot be read")
    headers = []
    for text in lines[1:]:
        name, colon, value = text.partition(":")
        if not colon or not HEADER_NAME.fullmatch(name) or any(sign in value for sign in "\r\n\0"):
            raise RefusedError(400, "a header cannot be read")
        headers.append((name, value.strip(" \t")))
    return lines[0], headers


def check_key(headers: Headers, key: str) -> None:
    """Raise unless one Authorization header carries the key; compared in constant time."""
    given = values(headers, "authorization")
    scheme, _, word = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    matches = hmac.compare_digest(word.strip().encode("latin-1"), key.encode("latin-1"))
    if scheme.lower() != "bearer" or not matches:
        raise RefusedError(401, "the API key is missing or wrong")


def body_length(line: str, headers: Headers) -> int | None:
    """Bytes of the body; None for a chunked one."""
    lengths = values(headers, "content-length")
    encodings = [value.lower() for value in values(headers, "transfer-encoding")]
    if encodings and (lengths or encodings != ["chunked"] or line.endswith("1.0")):
        raise RefusedError(400, "the length of the body is said in two ways")
    if encodings:
        return None
    if len(lengths) > 1 or any(not re.fullmatch("[0-9]{1,15}", value) for value in lengths):
        raise RefusedError(400, "the length of the body cannot be read")
    return int(lengths[0]) if lengths else 0


def values(headers: Headers, name: str) -> list[str]:
    """Every value of a header."""
    return [value for given, value in headers if given.lower() == name]


# --- to the engine and back -----------------------------------------------------------------------------------------


async def reach(engine_port: int) -> Line:
    """A connection to the engine."""
    try:
        opening = asyncio.open_connection("127.0.0.1", engine_port, limit=HEAD_BYTES)
        return await asyncio.wait_for(opening, CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError):
        raise RefusedError(503, "the engine does not answer yet") from None


async def exchange(
    client: Line, engine: Line, request: Request, engine_port: int, more: tuple[str, ...] = ()
) -> None:
    """The body over and the answer back, at the same time; ends with the answer, or when the client leaves."""
    engine[1].write(forwarded(request, engine_port, more))
    began = asyncio.Event()
    answering = asyncio.ensure_future(answer(request, engine[0], client[1], began))
    sending = asyncio.ensure_future(send_and_watch(client[0], engine[1], request.length))
    try:
        await asyncio.wait({answering, sending}, return_when=asyncio.FIRST_COMPLETED)
        (answering if answering.done() else sending).result()
    except RefusedError:
        if began.is_set():
            raise ClientLeftError from None
        raise
    finally:
        for task in (answering, sending):
            task.cancel()
        await asyncio.gather(answering, sending, return_exceptions=True)


def forwarded(request: Request, engine_port: int, more: tuple[str, ...] = ()) -> bytes:
    """The head as the engine gets it. more: header lines of our own."""
    kept = [f"{name}: {value}" for name, value in request.headers if name.lower() not in NOT_FOR_THE_ENGINE]
    lines = [request.line, f"Host: 127.0.0.1:{engine_port}", "Connection: close", *more, *kept, "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def send_and_watch(
    reader: asyncio.StreamReader, engine: asyncio.StreamWriter, length: int | None
) -> None:
    """Hand on exactly the body, drop what follows it, and never return.

    Raises:
        ClientLeftError: so that the engine stops working for nobody. RefusedError: the body cannot be read.
    """
    try:
        if length is None:
            await send_chunks(reader, engine)
        else:
            await send_bytes(reader, engine, length)
        while await reader.read(CHUNK_BYTES):
            pass
    except (EOFError, ConnectionError):
        raise ClientLeftError from None
    raise ClientLeftError


async def send_bytes(reader: asyncio.StreamReader, engine: asyncio.StreamWriter, length: int) -> None:
    """The next `length` bytes."""
    left = length
    while left > 0:
        data = await reader.read(min(CHUNK_BYTES, left))
        if not data:
            raise ClientLeftError
        left -= len(data)
        await hand_on(engine, data)


async def hand_on(engine: asyncio.StreamWriter, data: bytes) -> None:
    """Write to the engine; one that has answered and hung up need not hear the rest."""
    with contextlib.suppress(ConnectionError):
        engine.write(data)
        await engine.drain()


async def send_chunks(reader: asyncio.StreamReader, engine: asyncio.StreamWriter) -> None:
    """A chunked body, each chunk's head written anew, without extensions and trailers."""
    while True:
        found = CHUNK_SIZE.fullmatch((await read_line(reader))[:-2])
        if not found:
            raise RefusedError(400, "a chunk of the body cannot be read")
        size = int(found[1], 16)
        if size == 0:
            break
        await hand_on(engine, b"%x\r\n" % size)
        await send_bytes(reader, engine, size)
        if await reader.readexactly(2) != b"\r\n":
            raise RefusedError(400, "a chunk of the body is longer than it says")
        await hand_on(engine, b"\r\n")
    left = HEAD_BYTES
    while (trailer := await read_line(reader)) != b"\r\n":
        left -= len(trailer)
        if left < 0:
            raise RefusedError(431, "the request's trailers are too long")
    await hand_on(engine, b"0\r\n\r\n")


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """One line of a chunked body."""
    try:
        return await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError:
        raise RefusedError(400, "a chunk of the body cannot be read") from None


async def answer(
    request: Request, engine: asyncio.StreamReader, client: asyncio.StreamWriter, began: asyncio.Event
) -> None:
    """The engine's answer, piece by piece as it comes; `began` is set once the client has seen some of it.

    Raises:
        RefusedError: there is none. OSError, EOFError: the engine broke off in the middle.
    """
    while True:
        head = await read_answer_head(engine)
        began.set()
        status = int(head[9:12])
        client.write(told_to_close(head) if status >= 200 else head)
        if status >= 200:
            break
    if request.line.startswith("HEAD ") or status in {204, 304}:
        return
    if header_of(head, b"transfer-encoding") == b"chunked":
        await pour_chunks(engine, client)
        return
    length = header_of(head, b"content-length")
    await pour(engine, client, int(length) if length.isdigit() else None)


def header_of(head: bytes, name: bytes) -> bytes:
    """A header of the answer, in small letters; empty when it is not there."""
    for line in head.split(b"\r\n")[1:]:
        given, _, value = line.lower().partition(b":")
        if given == name:
            return value.strip()
    return b""


async def pour(engine: asyncio.StreamReader, client: asyncio.StreamWriter, length: int | None) -> None:
    """The next `length` bytes, or all until the engine hangs up."""
    while length is None or length > 0:
        data = await engine.read(CHUNK_BYTES if length is None else min(CHUNK_BYTES, length))
        if not data and length is not None:
            raise EOFError
        if not data:
            return
        length = None if length is None else length - len(data)
        client.write(data)
        await client.drain()


async def pour_chunks(engine: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    """A chunked body, as it is, to its end: an engine may leave the connection open after it."""
    while True:
        line = await engine.readuntil(b"\r\n")
        client.write(line)
        if not (found := CHUNK_SIZE.fullmatch(line[:-2])):
            raise EOFError
        if int(found[1], 16) == 0:
            break
        await pour(engine, client, int(found[1], 16) + 2)
    while line != b"\r\n":
        line = await engine.readuntil(b"\r\n")
        client.write(line)


async def read_answer_head(engine: asyncio.StreamReader) -> bytes:
    """Status line and headers of an answer; the engine may take its time."""
    try:
        head = await engine.readuntil(b"\r\n\r\n")
    except (EOFError, ConnectionError):
        raise RefusedError(502, "the engine broke off before it answered") from None
    except asyncio.LimitOverrunError:
        raise RefusedError(502, "the head of the engine's answer is too long") from None
    if not STATUS_LINE.match(head):
        raise RefusedError(502, "the engine's answer cannot be read")
    return head


def told_to_close(head: bytes) -> bytes:
    """The answer's head, with the word that the connection ends after it."""
    lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(NOT_FOR_THE_CLIENT)]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


# --- parting --------------------------------------------------------------------------------------------------------


def refusal(error: RefusedError) -> bytes:
    """An answer in the form that OpenAI's clients understand."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    body = json.dumps({"error": {"message": error.message, "type": kind, "code": error.status}}).encode()
    lines = [f"HTTP/1.1 {error.status} {WORDS[error.status]}", "Content-Type: application/json"]
    if error.status == 401:
        lines.append("WWW-Authenticate: Bearer")
    if error.status == 503:
        lines.append("Retry-After: 5")
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


async def part(client: Line) -> None:
    """Say that the answer is complete, and let a client that still sends see it."""
    reader, writer = client
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(writer.drain(), HEAD_SECONDS)
        writer.write_eof()
        await asyncio.wait_for(drained(reader), LINGER_SECONDS)


async def drained(reader: asyncio.StreamReader) -> None:
    """Read and drop until the client closes its side."""
    while await reader.read(CHUNK_BYTES):
        pass


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
