"""The whole of it on a machine of the sandbox: user data, SSH, an engine, the end of the lease."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.clouds.sandbox import process
from soong.clouds.sandbox.provider import SandboxProvider
from soong.connect import keys, probing, ssh
from soong.connect.programs import programs
from soong.launch.boot_script import lease_file, user_data
from soong.launch.provider import LaunchRequest
from soong.lease.lease import make_lease
from tests.lease.test_ledger import a_rental
from tests.remote.conftest import KEY, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's client"),
]


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxProvider]:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    running = process.start(speed=600)
    running.ask("POST", "settings", {"rate_limit": False})
    yield SandboxProvider(running)
    process.stop()


def send(host: ssh.Host, name: str, content: bytes) -> None:
    ran = ssh.run(host, [f"mkdir -p -m 700 .soong && umask 077 && cat > .soong/{name}"], stdin=content)
    assert ran.code == 0, ran.err


def warden_says(host: ssh.Host, *words: str, stdin: bytes = b"") -> dict[str, Any]:
    ran = ssh.run(host, ['python3 "$SOONG_ROOT/opt/soong/warden.py"', *(words or ("status",))], stdin=stdin)
    said: dict[str, Any] = json.loads(ran.out)
    return said


def answers(port: int, key: str) -> int:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def test_served_watched_extended_and_stopped_at_the_end(provider: SandboxProvider) -> None:
    mine = keys.make_own_key()
    provider.add_ssh_key("test", mine.public_line)
    now = provider.clock.now()
    lease = make_lease(owner="me", now=now, hours=1000, cap_hours=2000)
    rental = a_rental(account=provider.account, cloud="sandbox", asked_at=now)
    rental = msgspec.structs.replace(rental, lease=lease)
    request = LaunchRequest(
        instance_type="gpu_1x_a10",
        region="us-east-1",
        name=lease.instance_name,
        tags=lease.tags,
        ssh_key_name="test",
        user_data=user_data(lease, provider.clock),
    )
    rental = msgspec.structs.replace(rental, instance_id=provider.launch(request), phase="granted")
    machine = probing.SshProber(provider, mine.private_file).probe(rental, lambda _: None)
    endpoint = provider.ssh_endpoint(machine)
    assert endpoint is not None
    host = probing.host_of(rental, endpoint, mine.private_file)

    said = eventually(
        lambda: (found := warden_says(host)) and found.get("lease") and found, "the warden answers"
    )
    assert said["lease"]["id"] == lease.id
    assert abs(said["now"] - provider.clock.now()) < 3600
    assert said["gpu_utilization_percent"] is None or 0 <= said["gpu_utilization_percent"] <= 100

    for name, content in programs().items():
        send(host, name, content)
    send(host, "fake_engine.py", Path(__file__).with_name("fake_engine.py").read_bytes())
    send(host, "api_key", KEY.encode())
    engine = {"argv": ["{python}", "fake_engine.py", "{port}"], "port": 0}
    send(
        host,
        "serve.json",
        json.dumps({"engine": engine, "gate": {"port": 0}, "gpus": 1, "ready_seconds": 60}).encode(),
    )
    assert ssh.run(host, ["python3", ".soong/boot.py", "start"]).code == 0

    def ready() -> dict[str, Any] | None:
        lines = [
            json.loads(line) for line in ssh.run(host, ["cat", ".soong/progress.jsonl"]).out.splitlines()
        ]
        assert not [line for line in lines if line["state"] == "failed"], lines
        return next((line for line in lines if (line["step"], line["state"]) == ("ready", "done")), None)

    port = eventually(ready, "ready")["gate_port"]
    assert answers(port, "") == 401
    assert answers(port, KEY) == 200
    said = eventually(lambda: (found := warden_says(host))["idle_seconds"] and found, "idleness is known")
    assert said["phase"] == "serving"

    longer = msgspec.structs.replace(lease, ends_at=lease.ends_at + 3600)
    warden_says(host, "lease", stdin=json.dumps(lease_file(longer)).encode())
    eventually(lambda: warden_says(host)["lease"]["ends_at"] == longer.ends_at, "the lease is longer")

    warden_says(
        host, "lease", stdin=json.dumps(lease_file(longer) | {"ends_at": provider.clock.now()}).encode()
    )
    eventually(lambda: answers(port, KEY) == 0, "the endpoint is gone")
    assert (
        eventually(lambda: (found := warden_says(host))["phase"] == "ended" and found)["boot"]["state"]
        == "stopped"
    )
