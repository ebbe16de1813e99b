"""A sandbox in this process, without machines to log in to; every answer is judged by Lambda's specification."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from soong.clouds.sandbox.server import Sandbox, make_server
from tests.clouds.spec import faults_of_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICN0lJwsONkwrdsSnQsu1ydUkIuIg5oOCEslvmtt60TT me"
LAUNCH = {"region_name": "us-east-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["me"]}
A_WHILE = 3600.0


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    json: Any
    headers: dict[str, str]

    @property
    def data(self) -> Any:
        assert self.status == 200, self
        return self.json["data"]

    @property
    def code(self) -> str:
        assert self.status >= 400, self
        return str(self.json["error"]["code"])


class Account:
    """Asks over real HTTP; whatever comes back from Lambda's paths must be what the specification says."""

    def __init__(self, sandbox: Sandbox, port: int) -> None:
        self.sandbox = sandbox
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, *, auth: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        target = path if path.startswith("/sandbox/") else f"/api/v1{path}"
        headers = {"Authorization": auth if auth is not None else f"Bearer {self.sandbox.key}"}
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, target, sent, headers)
            reply = connection.getresponse()
            raw = reply.read()
        finally:
            connection.close()
        if target.startswith("/api/v1") and "/audit-events" not in target and reply.status != 405:
            assert faults_of_answer(method, target, reply.status, raw) == []
        return Answer(reply.status, json.loads(raw), dict(reply.headers.items()))

    def get(self, path: str) -> Any:
        return self.ask("GET", path).data

    def post(self, path: str, body: Any) -> Any:
        return self.ask("POST", path, body).data

    def launch(self, **more: Any) -> str:
        """Launch one machine and return its id."""
        (found,) = self.post("/instance-operations/launch", {**LAUNCH, **more})["instance_ids"]
        return str(found)

    def launch_refusal(self, **more: Any) -> Answer:
        return self.ask("POST", "/instance-operations/launch", {**LAUNCH, **more})

    def terminate(self, *instance_ids: str) -> Answer:
        return self.ask("POST", "/instance-operations/terminate", {"instance_ids": list(instance_ids)})

    def status(self, instance_id: str) -> str:
        return str(self.get(f"/instances/{instance_id}")["status"])

    def skip(self, seconds: float) -> None:
        """Let time pass at once."""
        self.post("/sandbox/clock", {"skip_seconds": seconds})

    def fault(self, name: str, **about: Any) -> None:
        self.post("/sandbox/faults", {"name": name, **about})

    def settings(self, **about: Any) -> Any:
        return self.post("/sandbox/settings", about)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """One server for all tests of a file."""
    folder = tmp_path_factory.mktemp("sandbox")
    sandbox = Sandbox(folder, speed=1.0)
    sandbox.machines.can_run = False
    server = make_server(sandbox)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Account(sandbox, server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()
    sandbox.close()


@pytest.fixture
def bare(served: Account) -> Account:
    """A new account, as slow as life, with its rate limit."""
    served.sandbox.reset()
    served.skip(A_WHILE)
    return served


@pytest.fixture
def account(bare: Account) -> Account:
    """An account that may be asked as fast as one likes, with one SSH key, `me`."""
    bare.settings(rate_limit=False)
    bare.post("/ssh-keys", {"name": "me", "public_key": PUBLIC_KEY})
    return bare
