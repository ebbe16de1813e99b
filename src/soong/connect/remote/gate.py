"""The gate: nothing reaches the engine without the key, on any path, `/health` and `/metrics` included.

Engines guard only some of their paths by themselves (vLLM only `/v1`). So the engine listens on one port of the
loopback and the gate on another, and whoever comes through the tunnel meets the gate. One request a connection: what
was let in is exactly what was asked for.

    python3 gate.py LISTEN_PORT ENGINE_PORT KEY_FILE
"""

import asyncio
import hmac
import json
import sys

HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30
CONNECT_SECONDS = 10
CHUNK = 64 * 1024
DROPPED = {"authorization", "connection", "keep-alive", "proxy-authorization", "proxy-connection"}
"""Headers that are not handed on: the key is not the engine's business, and the connection ends after one request."""


class RefusedError(Exception):
    """A request that is not let in: status and words."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
        self.message = message


def main():
    """Serve until killed."""
    listen_port, engine_port, key_file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with open(key_file, encoding="ascii") as file:
        key = file.read().strip()
    if not key:
        sys.exit("the key file is empty")
    asyncio.run(serve(listen_port, engine_port, key))


async def serve(listen_port, engine_port, key):
    """Listen on the loopback alone."""

    async def met(reader, writer):
        try:
            await one_request(reader, writer, engine_port, key)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", listen_port, limit=HEAD_BYTES)
    async with server:
        await server.serve_forever()


async def one_request(reader, writer, engine_port, key):
    """Check one request and carry it, and its answer, across."""
    try:
        line, headers = await read_head(reader)
        check_key(headers, key)
        length = body_length(headers)
        engine = await reach(engine_port)
    except RefusedError as error:
        writer.write(refusal(error))
        await writer.drain()
        return
    engine_reader, engine_writer = engine
    engine_writer.write(forwarded(line, headers, engine_port))
    sending = asyncio.ensure_future(send_body(reader, engine_writer, length))
    try:
        await pour(engine_reader, writer)
    finally:
        sending.cancel()
        engine_writer.close()


async def read_head(reader):
    """Request line and headers."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
    except asyncio.LimitOverrunError:
        raise RefusedError(431, "the request's head is too long") from None
    lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = []
    for text in lines[1:]:
        name, colon, value = text.partition(":")
        if not colon or name != name.strip() or not name:
            raise RefusedError(400, "a header cannot be read")
        headers.append((name, value.strip()))
    if len(lines[0].split(" ")) != 3:
        raise RefusedError(400, "the request cannot be read")
    return lines[0], headers


def check_key(headers, key):
    """Raise unless one Authorization header carries the key; compared in constant time."""
    given = [value for name, value in headers if name.lower() == "authorization"]
    wanted = "Bearer " + key
    if len(given) != 1 or not hmac.compare_digest(given[0].encode("latin-1"), wanted.encode("latin-1")):
        raise RefusedError(401, "the API key is missing or wrong")


def body_length(headers):
    """Bytes of the body; None for a chunked one."""
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    encodings = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
    if encodings and (lengths or encodings != ["chunked"]):
        raise RefusedError(400, "the length of the body is said twice")
    if encodings:
        return None
    if len(lengths) > 1 or (lengths and not lengths[0].isdecimal()):
        raise RefusedError(400, "the length of the body cannot be read")
    return int(lengths[0]) if lengths else 0


async def reach(engine_port):
    """A connection to the engine."""
    try:
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", engine_port), CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError):
        raise RefusedError(503, "the engine does not answer yet") from None


def forwarded(line, headers, engine_port):
    """The head as the engine gets it."""
    kept = [f"{name}: {value}" for name, value in headers if name.lower() not in DROPPED | {"host"}]
    lines = [line, f"Host: 127.0.0.1:{engine_port}", "Connection: close", *kept, "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def send_body(reader, engine_writer, length):
    """Exactly the body, and nothing that follows it on the line."""
    if length is None:
        await send_chunks(reader, engine_writer)
        return
    left = length
    while left > 0:
        data = await reader.read(min(CHUNK, left))
        if not data:
            return
        left -= len(data)
        engine_writer.write(data)
        await engine_writer.drain()


async def send_chunks(reader, engine_writer):
    """A chunked body, up to and with its last chunk and trailers."""
    while True:
        head = await reader.readuntil(b"\r\n")
        engine_writer.write(head)
        size = int(head.split(b";")[0].strip(), 16)
        if size == 0:
            break
        engine_writer.write(await reader.readexactly(size + 2))
        await engine_writer.drain()
    while True:
        trailer = await reader.readuntil(b"\r\n")
        engine_writer.write(trailer)
        if trailer == b"\r\n":
            return


async def pour(reader, writer):
    """The engine's answer, piece by piece as it comes."""
    while True:
        data = await reader.read(CHUNK)
        if not data:
            return
        writer.write(data)
        await writer.drain()


def refusal(error):
    """An answer in the form that OpenAI's clients understand."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    body = json.dumps({"error": {"message": error.message, "type": kind, "code": error.status}}).encode()
    words = {400: "Bad Request", 401: "Unauthorized", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}
    head = (
        f"HTTP/1.1 {error.status} {words[error.status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nWWW-Authenticate: Bearer\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    main()
