"""A launch is sent once, and what is said of it afterwards is never rosier than what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.clouds.lambda_cloud.client import LambdaClient
from soong.clouds.lambda_cloud.provider import LambdaProvider
from soong.clouds.lambda_cloud.service import Service
from soong.launch.provider import LaunchRefusedError, LaunchRequest, LaunchUnclearError
from soong.lease.lease import make_lease
from soong.settings.secrets import Secret
from tests.clouds.conftest import FAST, KEY
from tests.clouds.server import Reply, data, error

if TYPE_CHECKING:
    from soong.lease.clock import Clock
    from tests.clouds.server import FakeLambda

PATH = "/instance-operations/launch"
ID = "0920582c7ff041399e34823a0be62549"
LEASE = make_lease(owner="me-1a2b", now=1_800_000_000.0, hours=4, cap_hours=8, lease_id="0123456789")
REQUEST = LaunchRequest(
    instance_type="gpu_1x_a10",
    region="us-west-1",
    name=LEASE.instance_name,
    tags=LEASE.tags,
    ssh_key_name="my-key",
    user_data="#!/bin/bash\ntrue\n",
    hostname="soong-0123456789",
    filesystem_names=("models",),
)


def test_the_request_says_it_all(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("POST", PATH, data({"instance_ids": [ID]}))
    assert provider.launch(REQUEST) == ID
    assert server.asked("POST", PATH)[0].json == {
        "region_name": "us-west-1",
        "instance_type_name": "gpu_1x_a10",
        "ssh_key_names": ["my-key"],
        "file_system_names": ["models"],
        "name": "soong-0123456789-u1800014400",
        "hostname": "soong-0123456789",
        "user_data": "#!/bin/bash\ntrue\n",
        "tags": [
            {"key": "soong-id", "value": "0123456789"},
            {"key": "soong-owner", "value": "me-1a2b"},
            {"key": "soong-launched", "value": "1800000000"},
            {"key": "soong-lease", "value": "1800014400"},
            {"key": "soong-cap", "value": "1800028800"},
        ],
    }


REFUSALS = [
    ("instance-operations/launch/insufficient-capacity", 400, "no-capacity"),
    ("instance-operations/launch/file-system-in-wrong-region", 400, "wrong-region"),
    ("global/quota-exceeded", 400, "quota"),
    ("global/object-does-not-exist", 400, "missing"),
    ("global/object-does-not-exist", 404, "missing"),
    ("global/invalid-parameters", 400, "invalid"),
    ("global/invalid-api-key", 401, "account"),
    ("global/account-inactive", 403, "account"),
    ("global/invalid-address", 403, "account"),
]


@pytest.mark.parametrize(("code", "status", "refusal"), REFUSALS)
def test_codes_that_prove_that_nothing_was_launched(
    server: FakeLambda, provider: LambdaProvider, code: str, status: int, refusal: str
) -> None:
    server.on("POST", PATH, error(code, status, "The reason.", off_spec=status == 404))
    with pytest.raises(LaunchRefusedError) as caught:
        provider.launch(REQUEST)
    assert caught.value.refusal == refusal
    assert "The reason." in caught.value.why
    assert "Do other." in caught.value.hints
    assert len(server.requests) == 1


UNCLEAR = {
    "line dropped": Reply(drop=True),
    "silence": Reply(hang=True),
    "500": Reply(500, b""),
    "502 page": Reply(502, b"<html>Bad Gateway</html>"),
    "504": error("global/internal-error", 504),
    "internal error": error("global/internal-error", 409, off_spec=True),
    "provider": error("provider/internal-unavailable", 400, off_spec=True),
    "unknown": error("global/unknown", 400, off_spec=True),
    "new code": error("instance-operations/launch/brand-new", 400, off_spec=True),
    "duplicate": error("global/duplicate", 400, off_spec=True),
    "no code": Reply(400, b"{}", off_spec=True),
    "page": Reply(400, b"<html>", off_spec=True),
    "403 page": Reply(403, b"<html>", off_spec=True),
    "rate": error("global/rate-limit", 429),
    "rate with a harmless code": error("global/quota-exceeded", 429),
    "harmless code on 500": error("instance-operations/launch/insufficient-capacity", 500),
    "harmless code on 200": error("global/quota-exceeded", 200, off_spec=True),
    "redirect": Reply(307, b"", {"Location": "/elsewhere"}, off_spec=True),
    "happy nonsense": Reply(200, b"<html>", off_spec=True),
    "happy and empty": Reply(200, b"", off_spec=True),
    "no machine": data({"instance_ids": []}),
    "two machines": data({"instance_ids": [ID, "b" * 32]}),
    "a strange id": data({"instance_ids": ["../../x"]}),
}


@pytest.mark.parametrize("reply", UNCLEAR.values(), ids=UNCLEAR)
def test_anything_else_is_unclear_and_asked_once(server: FakeLambda, clock: Clock, reply: Reply) -> None:
    server.on("POST", PATH, reply, data({"instance_ids": [ID]}))
    limits = FAST._replace(launch_seconds=0.2)
    client = LambdaClient(Secret(KEY, origin="a test"), url=server.url, clock=clock, limits=limits)
    with pytest.raises(LaunchUnclearError) as caught:
        LambdaProvider(client).launch(REQUEST)
    client.close()
    assert "soong status" in caught.value.hints
    assert len(server.asked("POST", PATH)) == 1


def test_nobody_there_is_unclear_too(clock: Clock) -> None:
    client = LambdaClient(Secret(KEY, origin="a test"), url="http://127.0.0.1:1", clock=clock, limits=FAST)
    with pytest.raises(LaunchUnclearError, match="cannot reach"):
        LambdaProvider(client).launch(REQUEST)


def test_silence_asked_for_after_a_launch_is_kept(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("POST", PATH, error("global/rate-limit", 429)._replace(headers={"Retry-After": "40"}))
    server.on("GET", "/ssh-keys", data([]))
    with pytest.raises(LaunchUnclearError):
        provider.launch(REQUEST)
    start = provider.clock.now()
    provider.ssh_keys()
    assert provider.clock.now() - start == pytest.approx(40)


def test_what_stands_in_for_lambda_is_called_by_its_name(server: FakeLambda, clock: Clock) -> None:
    server.on("POST", PATH, Reply(500, b""), error("global/invalid-api-key", 401))
    service = Service("the sandbox", "http://127.0.0.1/console", key_hints=("soong sandbox",))
    client = LambdaClient(Secret(KEY, origin="a test"), url=server.url, clock=clock, service=service)
    provider = LambdaProvider(client, cloud="sandbox", costs_money=False)
    with pytest.raises(LaunchUnclearError, match="whether the sandbox launched") as unclear:
        provider.launch(REQUEST)
    with pytest.raises(LaunchRefusedError, match="the sandbox launched nothing") as refused:
        provider.launch(REQUEST)
    client.close()
    told = f"{unclear.value.hints}{refused.value.hints}"
    assert "http://127.0.0.1/console" in told
    assert "lambda.ai" not in told


def test_launches_keep_their_distance(server: FakeLambda, provider: LambdaProvider) -> None:
    """Lambda allows one in twelve seconds."""
    server.on("POST", PATH, data({"instance_ids": [ID]}))
    start = provider.clock.now()
    for _ in range(3):
        provider.launch(REQUEST)
    assert 24 <= provider.clock.now() - start < 30
