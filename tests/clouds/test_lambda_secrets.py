"""A planted key is looked for everywhere it could come out: errors, logs, reprs, addresses, command lines."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING

import pytest

from soong.clouds.lambda_cloud.client import LambdaClient
from soong.clouds.lambda_cloud.provider import LambdaProvider
from soong.errors import SoongError
from soong.settings.secrets import Secret
from tests.clouds.conftest import FAST, KEY, HandClock
from tests.clouds.server import Reply, data
from tests.clouds.test_lambda_launch import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clouds.server import FakeLambda

ECHO = json.dumps(
    {"error": {"code": f"x/{KEY}", "message": f"Bad key {KEY}.", "suggestion": f"Not {KEY}"}}
).encode()
CALLS: dict[str, Callable[[LambdaProvider], object]] = {
    "instances": lambda provider: provider.instances(),
    "offers": lambda provider: provider.offers(),
    "launch": lambda provider: provider.launch(REQUEST),
    "rename": lambda provider: provider.rename("abc", "x"),
    "terminate": lambda provider: provider.terminate("abc"),
    "ssh_keys": lambda provider: provider.ssh_keys(),
    "filesystems": lambda provider: provider.filesystems(),
}
REPLIES = {
    "echo 400": Reply(400, ECHO, off_spec=True),
    "echo 401": Reply(401, ECHO, off_spec=True),
    "echo 500": Reply(500, ECHO, off_spec=True),
    "echo 200": Reply(200, ECHO, off_spec=True),
    "echo as a field": Reply(200, b'{"data": [{"id": {"' + KEY.encode() + b'": 1}}]}', off_spec=True),
    "echo as words": Reply(403, json.dumps({"message": f"key {KEY}"}).encode(), off_spec=True),
    "dropped": Reply(drop=True),
    "silent": Reply(hang=True),
}
PATHS = [
    ("GET", "/instances"),
    ("GET", "/instance-types"),
    ("POST", "/instance-operations/launch"),
    ("POST", "/instances/abc"),
    ("POST", "/instance-operations/terminate"),
    ("GET", "/ssh-keys"),
    ("GET", "/file-systems"),
]


def _everything(error: BaseException) -> str:
    """All that could be printed of an error, its causes and contexts included."""
    text = "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        hints = seen.hints if isinstance(seen, SoongError) else ()
        request = getattr(seen, "_request", None)
        headers = repr(request.headers) if request is not None else ""
        text += f"{seen}{seen!r}{seen.args}{hints}{getattr(seen, 'why', '')}{headers}"
        seen = seen.__cause__ or seen.__context__
    return text


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_the_key_is_in_no_error_and_no_log(
    server: FakeLambda, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], reply: Reply
) -> None:
    caplog.set_level(logging.DEBUG)
    for method, path in PATHS:
        server.on(method, path, reply)
    limits = FAST._replace(read_seconds=0.05, launch_seconds=0.05, attempts=2)
    client = LambdaClient(Secret(KEY, origin="a test"), url=server.url, clock=HandClock(), limits=limits)
    texts = [repr(client), repr(LambdaProvider(client))]
    for name, call in CALLS.items():
        with pytest.raises(SoongError) as caught:
            call(LambdaProvider(client))
        texts.append(_everything(caught.value))
        assert texts[-1], name
    client.close()
    out = capfd.readouterr()
    assert caplog.records, "the network's own log was silent, so it proves nothing"
    assert KEY not in "\n".join([*texts, caplog.text, out.out, out.err])
    assert {f"Bearer {KEY}"} == {request.headers["authorization"] for request in server.requests}
    assert KEY not in "".join(request.path for request in server.requests)


def test_the_log_of_a_happy_call_is_clean(
    server: FakeLambda, client: LambdaClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.on("GET", "/regions", data([]))
    client.regions()
    assert caplog.records
    assert KEY not in caplog.text
    assert "Bearer" not in caplog.text


def test_the_key_goes_to_no_other_address(server: FakeLambda, client: LambdaClient) -> None:
    server.on("GET", "/instances", Reply(302, b"", {"Location": f"{server.url}/caught"}, off_spec=True))
    with pytest.raises(SoongError):
        client.instances()
    assert [request.path for request in server.requests] == ["/api/v1/instances"]


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, lambda secret: f"{[secret]}"])
def test_a_secret_shows_a_mask(show: Callable[[object], str]) -> None:
    assert KEY not in show(Secret(KEY, origin="a test"))


def test_a_secret_is_not_pickled_or_encoded() -> None:
    import msgspec

    secret = Secret(KEY, origin="a test")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert KEY.encode() not in msgspec.json.encode([secret], enc_hook=str)
    with pytest.raises(TypeError):
        vars(secret)
