"""The client over real HTTP, judged by the specification: what it asks, how it repeats, what it makes of refusals."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING

import pytest

from soong.clouds.lambda_cloud.client import API_URL, MOST_ANSWER_BYTES, LambdaClient, checked_url
from soong.errors import (
    ConfigError,
    CredentialError,
    NotFoundError,
    RemoteError,
    SoongError,
    TimedOutError,
)
from soong.settings.secrets import Secret
from tests.clouds import samples
from tests.clouds.conftest import FAST, KEY, HandClock
from tests.clouds.server import Reply, data, error

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clouds.server import FakeLambda

ID = samples.instance()["id"]
SSH_KEY = {"id": "ddf9a910ceb744a0bb95242cbba6cb50", "name": "my-key", "public_key": "ssh-ed25519 AAAA me"}
PAGE = Reply(502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"})


# ── every call ───────────────────────────────────────────────────────────────────────────────────


def test_every_call_asks_by_the_specification(server: FakeLambda, client: LambdaClient) -> None:
    filesystem = {
        "id": "f1",
        "name": "models",
        "mount_point": "/lambda/nfs/models",
        "created": "2026-01-01T00:00:00Z",
        "created_by": {"id": "u1", "email": "a@example.com", "status": "active"},
        "is_in_use": True,
        "region": samples.REGION,
    }
    image = {
        "id": "i1",
        "created_time": "2026-01-01T00:00:00Z",
        "updated_time": "2026-01-01T00:00:00Z",
        "name": "Lambda Stack",
        "description": "words",
        "family": "lambda-stack-24-04",
        "version": "24.4.1",
        "architecture": "x86_64",
        "region": samples.REGION,
    }
    server.on("GET", "/instances", data([samples.instance()]))
    server.on("GET", f"/instances/{ID}", data(samples.instance()))
    server.on("POST", f"/instances/{ID}", data(samples.instance(name="new")))
    server.on("GET", "/instance-types", data(samples.types((samples.A10, [samples.REGION]))))
    server.on("POST", "/instance-operations/launch", data({"instance_ids": [ID]}))
    server.on("POST", "/instance-operations/terminate", data({"terminated_instances": [samples.instance()]}))
    server.on("GET", "/ssh-keys", data([SSH_KEY]))
    server.on("POST", "/ssh-keys", data(SSH_KEY))
    server.on("DELETE", f"/ssh-keys/{SSH_KEY['id']}", data({}))
    server.on("GET", "/file-systems", data([filesystem]))
    server.on("GET", "/images", data([image]))
    server.on("GET", "/regions", data([samples.REGION]))

    assert client.instances()[0].ip == "198.51.100.2"
    assert client.instance(ID).hostname == "soong"
    client.rename(ID, "new")
    assert client.instance_types()["gpu_1x_a10"].instance_type.price_cents_per_hour == 129
    body = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["my-key"]}
    assert client.launch(body) == ID
    assert client.terminate([ID]).terminated_instances[0].id == ID
    assert client.ssh_keys()[0].name == "my-key"
    assert client.add_ssh_key("my-key", "ssh-ed25519 AAAA me").id == SSH_KEY["id"]
    client.delete_ssh_key(SSH_KEY["id"])
    assert client.filesystems()[0].is_in_use
    assert client.images()[0].family == "lambda-stack-24-04"
    assert client.regions()[0].name == "us-west-1"

    assert server.asked("POST", f"/instances/{ID}")[0].json == {"name": "new"}
    assert server.asked("POST", "/instance-operations/terminate")[0].json == {"instance_ids": [ID]}
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}


def test_basic_sends_the_key_as_user(server: FakeLambda, clock: HandClock) -> None:
    from base64 import b64decode

    server.on("GET", "/regions", data([samples.REGION]))
    client = LambdaClient(Secret(KEY, origin="a test"), url=server.url, clock=clock, scheme="basic")
    client.regions()
    client.close()
    scheme, _, sent = server.requests[0].headers["authorization"].partition(" ")
    assert (scheme, b64decode(sent).decode()) == ("Basic", f"{KEY}:")


def test_what_is_new_or_missing_or_null_is_tolerated(server: FakeLambda, client: LambdaClient) -> None:
    strange = {
        "id": ID,
        "status": "defrosting",
        "ip": None,
        "name": None,
        "tags": None,
        "aura": {"colour": 1},
    }
    server.on("GET", "/instances", data([strange], off_spec=True))
    found = client.instances()[0]
    assert (found.status, found.ip, found.actions) == ("defrosting", None, None)


def test_secrets_in_answers_are_never_held(server: FakeLambda, client: LambdaClient) -> None:
    server.on("GET", "/instances", data([samples.instance()]))
    server.on("POST", "/ssh-keys", data({**SSH_KEY, "private_key": "-----planted"}))
    assert "planted-secret" not in repr(client.instances())
    assert "planted" not in repr(client.add_ssh_key("my-key", "ssh-ed25519 AAAA me"))


def test_an_instance_that_cannot_be_read_is_never_passed_over(
    server: FakeLambda, client: LambdaClient
) -> None:
    """A list without it would look as if it were gone."""
    server.on("GET", "/instances", data([samples.instance(), {"name": "no id"}], off_spec=True))
    with pytest.raises(RemoteError, match="id"):
        client.instances()


@pytest.mark.parametrize("word", ["", "..", "a/b", "a?b", "x" * 300, "é"])
def test_an_id_never_leads_to_another_path(client: LambdaClient, server: FakeLambda, word: str) -> None:
    with pytest.raises(RemoteError, match="no id"):
        client.rename(word, "x")
    assert server.requests == []


# ── refusals and stumbles ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error("global/invalid-api-key", 401), CredentialError),
        (error("global/account-inactive", 403), CredentialError),
        (Reply(401, b"", off_spec=True), CredentialError),
        (Reply(403, b"<html>", off_spec=True), CredentialError),
        (Reply(404, b"<html>", off_spec=True), NotFoundError),
        (error("global/object-does-not-exist", 400, off_spec=True), NotFoundError),
        (error("global/invalid-parameters", 400), RemoteError),
        (error("something/brand-new", 418, off_spec=True), RemoteError),
        (Reply(302, b"", {"Location": "https://elsewhere.example/"}, off_spec=True), RemoteError),
    ],
)
def test_a_refusal_is_said_once_and_not_asked_again(
    server: FakeLambda, client: LambdaClient, reply: Reply, kind: type[SoongError]
) -> None:
    server.on("GET", "/instances", reply)
    with pytest.raises(kind) as caught:
        client.instances()
    assert len(server.requests) == 1
    assert str(reply.status) in str(caught.value)


def test_a_refused_key_names_the_ways_out(server: FakeLambda, client: LambdaClient) -> None:
    server.on("GET", "/instances", error("global/invalid-api-key", 401, "API key was invalid."))
    with pytest.raises(CredentialError) as caught:
        client.instances()
    assert "soong configure" in caught.value.hints
    assert any("soong doctor" in hint for hint in caught.value.hints)
    assert "API key was invalid." in caught.value.why


def test_the_suggestion_becomes_a_hint(server: FakeLambda, client: LambdaClient) -> None:
    server.on("GET", "/instances", error("global/invalid-parameters", 400, "Bad.", "Mend it."))
    with pytest.raises(RemoteError) as caught:
        client.instances()
    assert "Mend it." in caught.value.hints


@pytest.mark.parametrize(
    "reply",
    [
        PAGE,
        Reply(500, b""),
        Reply(503, b'{"message": "upstream sleeps"}'),
        error("global/internal-error", 409, off_spec=True),
        error("provider/internal-unavailable", 400, off_spec=True),
        Reply(429, b"slow down"),
        Reply(drop=True),
    ],
)
def test_what_passes_is_asked_again(server: FakeLambda, client: LambdaClient, reply: Reply) -> None:
    server.on("GET", "/instances", reply, reply, data([]))
    assert client.instances() == []
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("ask", "path"),
    [
        (lambda client: client.terminate([ID]), "/instance-operations/terminate"),
        (lambda client: client.rename(ID, "x"), f"/instances/{ID}"),
    ],
    ids=["terminate", "rename"],
)
def test_what_is_safe_to_repeat_is_repeated(
    server: FakeLambda, client: LambdaClient, ask: Callable[[LambdaClient], object], path: str
) -> None:
    answer = samples.instance() if "instances" in path else {"terminated_instances": []}
    server.on("POST", path, Reply(drop=True), PAGE, data(answer))
    ask(client)
    assert len(server.asked("POST", path)) == 3


def test_a_key_is_added_once(server: FakeLambda, client: LambdaClient) -> None:
    server.on("POST", "/ssh-keys", Reply(drop=True))
    with pytest.raises(RemoteError):
        client.add_ssh_key("my-key", "ssh-ed25519 AAAA me")
    assert len(server.requests) == 1


def test_asking_again_ends(server: FakeLambda, client: LambdaClient, clock: HandClock) -> None:
    server.on("GET", "/instances", PAGE)
    with pytest.raises(RemoteError, match="status 502") as caught:
        client.instances()
    assert caught.value.hints
    assert len(server.requests) == FAST.attempts
    waits = [seconds for seconds in clock.slept if seconds > 0]
    assert 3 < sum(waits) < 20


def test_silence_is_told_as_such(server: FakeLambda, clock: HandClock) -> None:
    server.on("GET", "/instances", Reply(hang=True))
    limits = FAST._replace(read_seconds=0.1, attempts=2)
    client = LambdaClient(Secret(KEY, origin="a test"), url=server.url, clock=clock, limits=limits)
    with pytest.raises(TimedOutError, match="in time"):
        client.instances()
    client.close()
    assert len(server.requests) == 2


def test_nobody_there(clock: HandClock) -> None:
    limits = FAST._replace(attempts=2)
    client = LambdaClient(Secret(KEY, origin="a test"), url="http://127.0.0.1:1", clock=clock, limits=limits)
    with pytest.raises(RemoteError, match="cannot reach"):
        client.instances()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(
            200, b"<html>log in to the hotel's network</html>", {"Content-Type": "text/html"}, off_spec=True
        ),
        Reply(200, b"", off_spec=True),
        Reply(200, b"[]", off_spec=True),
        Reply(200, b'{"data": {"a": 1}}', off_spec=True),
        Reply(200, b'{"instances": []}', off_spec=True),
        Reply(200, b"\xff\xfe", off_spec=True),
        Reply(200, b"[" * 100_000, off_spec=True),
    ],
)
def test_nonsense_is_an_error_and_never_an_empty_list(
    server: FakeLambda, client: LambdaClient, reply: Reply
) -> None:
    server.on("GET", "/instances", reply)
    with pytest.raises(RemoteError, match="cannot be used"):
        client.instances()


def test_an_endless_answer_ends(server: FakeLambda, client: LambdaClient) -> None:
    server.on("GET", "/instances", Reply(200, b" " * (MOST_ANSWER_BYTES + 1), off_spec=True))
    with pytest.raises(RemoteError, match="does not end"):
        client.instances()


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────


def _in_a_date(seconds: float) -> dict[str, str]:
    """Both dates as a server an hour ahead of us would write them: only their distance counts."""
    server_now = 1_800_003_600.0
    return {
        "Date": email.utils.formatdate(server_now, usegmt=True),
        "Retry-After": email.utils.formatdate(server_now + seconds, usegmt=True),
    }


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "7"}, 7.0), ({"Retry-After": "2.5"}, 2.5), ({"Retry-After": "0"}, 0.0)],
)
def test_the_wait_that_is_asked_for_is_kept(
    server: FakeLambda, client: LambdaClient, clock: HandClock, headers: dict[str, str], seconds: float
) -> None:
    server.on("GET", "/instances", Reply(429, b"", headers), data([]))
    start = clock.now()
    client.instances()
    assert clock.slept[0] == seconds
    assert clock.now() - start >= seconds


def test_a_wait_until_a_date_follows_the_servers_clock(
    server: FakeLambda, client: LambdaClient, clock: HandClock
) -> None:
    server.on("GET", "/instances", Reply(503, b"", _in_a_date(20)), data([]))
    client.instances()
    assert clock.slept[0] == 20


def test_how_far_the_clocks_are_apart_is_noticed(
    server: FakeLambda, client: LambdaClient, clock: HandClock
) -> None:
    ahead = {"Date": email.utils.formatdate(clock.now() + 3600, usegmt=True)}
    server.on("GET", "/instances", data([])._replace(headers=ahead))
    assert client.clock_skew_seconds is None
    client.instances()
    assert client.clock_skew_seconds == 3600


@pytest.mark.parametrize("text", ["soon", "-5", "1e9", "", "Mon, 99 Foo 2026 00:00:00 GMT", "9" * 400])
def test_a_wait_that_cannot_be_read_is_our_own(
    server: FakeLambda, client: LambdaClient, clock: HandClock, text: str
) -> None:
    server.on("GET", "/instances", Reply(429, b"", {"Retry-After": text}), data([]))
    client.instances()
    assert 0 < clock.slept[0] < 2


def test_a_wait_beyond_reason_is_refused_honestly(
    server: FakeLambda, client: LambdaClient, clock: HandClock
) -> None:
    server.on("GET", "/instances", Reply(429, b"", {"Retry-After": "86400"}))
    with pytest.raises(RemoteError, match="86,400 s of silence") as caught:
        client.instances()
    assert "1,440 minutes" in caught.value.hints[0]
    assert len(server.requests) == 1
    assert sum(clock.slept) == 0


# ── the address ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("https://cloud.lambda.ai", API_URL),
        ("https://cloud.lambda.ai/api/v1/", API_URL),
        (" http://127.0.0.1:8080/ ", "http://127.0.0.1:8080"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses(given: str, clean: str) -> None:
    assert checked_url(given) == clean


@pytest.mark.parametrize(
    "given",
    ["", "cloud.lambda.ai", "ftp://x", "http://cloud.lambda.ai", "https://u:p@x.example", "https://x?y=1", "http://[",
     "https://a b", "http://127.0.0.1.evil.example", "https://x:99999999"],
)  # fmt: skip
def test_addresses_that_would_betray_the_key_are_refused(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_url(given)
    assert "u:p" not in str(caught.value)
