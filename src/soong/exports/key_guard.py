"""Lets nobody into vLLM without the key, whatever the path; only `/health` answers all.

vLLM 0.33 asks for its key under `/v1` and a few other paths alone: `/invocations`, `/pooling`, `/score` and `/tokenize`
answer anyone. This file is written out on the machine and named by `--middleware`, so it needs nothing but Python.
"""

import hmac
import os
from typing import Any


class KeyGuard:
    """ASGI middleware: the bearer token must be SOONG_API_KEY."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.token = b"Bearer " + os.environ["SOONG_API_KEY"].encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on what may pass, refuse the rest."""
        if scope["type"] not in ("http", "websocket") or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self.token):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            kind = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": kind})
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})
