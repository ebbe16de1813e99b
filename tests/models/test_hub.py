from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import stamina

from soong.errors import (
    ConfigError,
    CredentialError,
    NotFoundError,
    RemoteError,
    SoongError,
    TimedOutError,
    UsageError,
)
from soong.models.hub import FIRST_GUESS_BYTES, Limits, Repository, read_repository, shard_names
from soong.models.hub_cache import (
    HubSettings,
    check_name,
    check_revision,
    settings_from_environment,
    snapshot,
)
from soong.models.safetensors import totals
from tests.support.hub_server import Reply, Server, json_reply, shard_reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "acme/tiny"
TOKEN = "hf_secretsecretsecret"
CONFIG = {"model_type": "llama", "hidden_size": 8}
FAST = Limits(connect_seconds=2, read_seconds=2, total_seconds=20, attempts=3, first_wait_seconds=0.0)


@pytest.fixture
def hub() -> Iterator[Server]:
    with Server() as server, stamina.set_testing(True, attempts=3, cap=True):
        server.file(NAME, "config.json", json_reply(CONFIG))
        yield server


@pytest.fixture
def cdn() -> Iterator[Server]:
    with Server() as server:
        yield server


def read(
    hub: Server, *, token: str | None = None, limits: Limits = FAST, revision: str = "main"
) -> Repository:
    from pathlib import Path

    settings = HubSettings(endpoint=hub.url, cache=Path("/nowhere"), offline=False, token=token)
    return read_repository(NAME, revision, settings=settings, limits=limits)


def failure(hub: Server, *, token: str | None = None, limits: Limits = FAST) -> SoongError:
    with pytest.raises(SoongError) as caught:
        read(hub, token=token, limits=limits)
    return caught.value


def all_words(error: SoongError) -> str:
    return "\n".join((repr(error), str(error), *error.hints, repr(error.__cause__)))


class TestReading:
    def test_config_and_the_single_file(self, hub: Server) -> None:
        hub.file(NAME, "model.safetensors", shard_reply({"w": ("BF16", (1000, 1000))}))
        found = read(hub)
        assert found.config == b'{"model_type": "llama", "hidden_size": 8}'
        assert found.tensors is not None
        assert totals(found.tensors).size_bytes == 2_000_000
        assert found.hf_quant is None

    def test_all_shards_that_the_index_names(self, hub: Server) -> None:
        places = {f"w{number}": f"model-{number % 20:05d}-of-00020.safetensors" for number in range(40)}
        hub.file(NAME, "model.safetensors.index.json", json_reply({"weight_map": places}))
        for number in range(20):
            shard = {f"w{number}": ("BF16", (100,)), f"w{number + 20}": ("F32", (100,))}
            hub.file(NAME, f"model-{number:05d}-of-00020.safetensors", shard_reply(shard))
        seen: list[tuple[int, int]] = []
        from pathlib import Path

        settings = HubSettings(endpoint=hub.url, cache=Path("/nowhere"), offline=False)
        found = read_repository(
            NAME, settings=settings, limits=FAST, progress=lambda *step: seen.append(step)
        )
        assert found.tensors is not None
        assert len(found.tensors) == 40
        assert totals(found.tensors).size_bytes == 20 * 600
        assert seen == [(count, 20) for count in range(1, 21)]

    def test_a_header_longer_than_the_first_guess_takes_a_second_question(self, hub: Server) -> None:
        hub.file(
            NAME, "model.safetensors", shard_reply({"w": ("BF16", (10,))}, padding=3 * FIRST_GUESS_BYTES)
        )
        assert read(hub).tensors
        ranges = [request.headers["Range"] for request in hub.asked("model.safetensors")]
        assert ranges[0] == f"bytes=0-{FIRST_GUESS_BYTES - 1}"
        assert len(ranges) == 2

    def test_a_server_that_ignores_ranges_does_not_make_us_download_weights(self, hub: Server) -> None:
        start = shard_reply({"w": ("BF16", (1 << 20, 1 << 19))}).body
        whole = (1 << 40) + len(start)  # more than its endless reply states: not checked, the reader has left
        hub.file(NAME, "model.safetensors", Reply(body=start, ranges=False, endless=True, whole_bytes=whole))
        failure(hub)  # the stated length is 1 TiB, one header short of what the header promises
        start = shard_reply({"w": ("BF16", (1 << 20, 1 << 18))}).body
        hub.file(NAME, "model.safetensors", Reply(body=start, ranges=False, endless=True))
        assert totals(read(hub).tensors or ()).size_bytes == 1 << 39
        assert hub.sent_bytes < 64 << 20

    def test_no_safetensors_at_all(self, hub: Server) -> None:
        assert read(hub).tensors is None

    def test_licence_and_gate(self, hub: Server) -> None:
        hub.on(
            f"/api/models/{NAME}", json_reply({"id": NAME, "gated": "manual", "cardData": {"license": "mit"}})
        )
        found = read(hub)
        assert (found.licence, found.gated) == ("mit", True)

    @pytest.mark.parametrize(
        ("siblings", "pools"),
        [
            ([{"rfilename": "config.json"}, {"rfilename": "modules.json"}], True),
            ([{"rfilename": "config.json"}, 3, {}], False),
            ({"rfilename": "modules.json"}, False),
        ],
    )
    def test_the_file_of_an_embedder(self, hub: Server, siblings: object, *, pools: bool) -> None:
        hub.on(f"/api/models/{NAME}", json_reply({"id": NAME, "siblings": siblings}))
        assert read(hub).pools is pools

    @pytest.mark.parametrize(
        "reply", [Reply(500), Reply(body=b"<html>"), json_reply([1]), json_reply({"gated": 3})]
    )
    def test_facts_that_nothing_depends_on_may_be_missing(self, hub: Server, reply: Reply) -> None:
        hub.on(f"/api/models/{NAME}", reply)
        assert read(hub).licence == ""

    def test_a_revision_stands_in_the_address(self, hub: Server) -> None:
        hub.file(NAME, "config.json", json_reply({"model_type": "v2"}), revision="refs%2Fpr%2F1")
        assert b"v2" in read(hub, revision="refs/pr/1").config

    def test_a_renamed_repository_is_followed(self, hub: Server) -> None:
        target = {"Location": "/acme/new/resolve/main/config.json"}
        hub.file(NAME, "config.json", Reply(307, b"", target))
        hub.file("acme/new", "config.json", json_reply(CONFIG))
        read(hub, token=TOKEN)
        assert all("Authorization" in request.headers for request in hub.requests)


class TestToken:
    def test_it_goes_to_the_hub_and_never_to_another_host(self, hub: Server, cdn: Server) -> None:
        hub.file(NAME, "model.safetensors", Reply(302, b"", {"Location": f"{cdn.url}/blob?sig=1"}))
        cdn.on("/blob?sig=1", shard_reply({"w": ("BF16", (10,))}))
        assert read(hub, token=TOKEN).tensors
        assert hub.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
        assert cdn.requests
        assert not any(TOKEN in str(request) for request in cdn.requests)
        assert not any(TOKEN in request.path for request in hub.requests)

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 200])
    def test_it_appears_in_no_error(
        self, hub: Server, status: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        hub.file(NAME, "config.json", Reply(status, TOKEN.encode()))
        caplog.set_level(0)
        assert TOKEN not in all_words(failure(hub, token=TOKEN))
        assert TOKEN not in caplog.text
        assert TOKEN not in "".join(capfd.readouterr())

    def test_settings_hide_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        settings = settings_from_environment()
        assert settings.token == TOKEN
        assert TOKEN not in repr(settings)

    def test_it_is_found_where_the_login_put_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
        assert settings_from_environment().token == TOKEN
        (tmp_path / "other").write_text("hf_other")
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "other"))
        assert settings_from_environment().token == "hf_other"

    def test_a_broken_one_is_refused_without_being_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_a\r\nX-Evil: 1")
        with pytest.raises(CredentialError) as caught:
            settings_from_environment()
        assert "Evil" not in all_words(caught.value)


class TestRefusals:
    @pytest.mark.parametrize("status", [401, 403])
    def test_a_gated_model_says_how_to_get_in(self, hub: Server, status: int) -> None:
        hub.file(NAME, "config.json", Reply(status, b"", {"X-Error-Code": "GatedRepo"}))
        error = failure(hub)
        assert isinstance(error, CredentialError)
        assert "gated" in error.message
        assert any(f"{hub.url}/{NAME}" in hint for hint in error.hints)
        assert any("HF_TOKEN" in hint for hint in error.hints)
        assert len(hub.asked("/config.json")) == 1

    def test_a_refused_token(self, hub: Server) -> None:
        hub.file(
            NAME,
            "config.json",
            Reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"}),
        )
        error = failure(hub, token=TOKEN)
        assert isinstance(error, CredentialError)
        assert "refused the token" in error.message

    def test_a_missing_repository(self, hub: Server) -> None:
        hub.file(NAME, "config.json", Reply(404, b"", {"X-Error-Code": "RepoNotFound"}))
        error = failure(hub)
        assert isinstance(error, NotFoundError)
        assert error.message == "acme/tiny not found on Hugging Face"
        assert any(f"visit {hub.url}/{NAME}" in hint for hint in error.hints)

    def test_strangers_are_told_401_of_repositories_that_do_not_exist(self, hub: Server) -> None:
        hub.file(NAME, "config.json", Reply(401, b"", {"X-Error-Message": "Invalid username or password."}))
        assert isinstance(failure(hub), NotFoundError)

    def test_a_repository_without_config(self, hub: Server) -> None:
        hub.replies.clear()
        hub.on(f"/api/models/{NAME}", json_reply({"id": NAME}))
        error = failure(hub)
        assert isinstance(error, NotFoundError)
        assert "config.json" in error.message

    def test_offline(self) -> None:
        with pytest.raises(RemoteError, match="HF_HUB_OFFLINE"):
            read_repository(NAME)


class TestTrouble:
    def test_a_server_error_is_tried_again(self, hub: Server) -> None:
        hub.file(NAME, "config.json", Reply(500), Reply(503), json_reply(CONFIG))
        assert read(hub).config
        assert len(hub.asked("/config.json")) == 3

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_attempts_are_limited(self, hub: Server, status: int) -> None:
        hub.file(NAME, "config.json", Reply(status))
        error = failure(hub)
        assert type(error) is RemoteError
        assert len(hub.asked("/config.json")) == FAST.attempts

    def test_a_server_that_hangs(self, hub: Server) -> None:
        hub.file(NAME, "config.json", Reply(hang=True))
        error = failure(hub, limits=FAST._replace(read_seconds=0.05, attempts=1))
        assert isinstance(error, TimedOutError)

    def test_the_whole_visit_has_a_limit(self, hub: Server) -> None:
        hub.file(NAME, "config.json", Reply(hang=True))
        error = failure(hub, limits=FAST._replace(total_seconds=0.1))
        assert isinstance(error, TimedOutError)

    def test_nobody_there(self) -> None:
        with Server() as gone:
            pass
        with stamina.set_testing(True, attempts=2, cap=True):
            error = failure(gone)
        assert type(error) is RemoteError
        assert "cannot reach" in error.message

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(body=b"<!doctype html><title>Hello</title>"),
            Reply(body=b'{"model_type": "lla'),
            Reply(body=b""),
            Reply(body=b"[1, 2]"),
            Reply(body=b"{}", stated_length=1000),
            Reply(body=b"x" * (9 << 20)),
            Reply(endless=True),
            Reply(204),
            Reply(302, b"", {"Location": "file:///etc/passwd"}),
            Reply(302, b"", {"Location": f"/{NAME}/resolve/main/config.json"}),
            Reply(302, b"", {"Location": "http://["}),
            Reply(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
        ],
    )
    def test_nonsense_for_the_config(self, hub: Server, reply: Reply) -> None:
        hub.file(NAME, "config.json", reply)
        assert type(failure(hub)) is RemoteError

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(body=b"<!doctype html>" * 100),
            Reply(body=b""),
            Reply(body=(1 << 60).to_bytes(8, "little") + b"{}"),
            Reply(body=(10).to_bytes(8, "little") + b"{"),
            Reply(206, b"abc", {"Content-Range": "bytes 7-9/100"}),
            Reply(body=b"abc", headers={"Content-Encoding": "gzip"}),
            Reply(endless=True, ranges=False),
        ],
    )
    def test_nonsense_for_a_header(self, hub: Server, reply: Reply) -> None:
        hub.file(NAME, "model.safetensors", reply)
        assert type(failure(hub)) is RemoteError

    @pytest.mark.parametrize(
        "index",
        [
            {},
            {"weight_map": []},
            {"weight_map": {"a": 1}},
            {"weight_map": {"a": "../../x.safetensors"}},
            {"weight_map": {"a": "/etc/passwd"}},
            {"weight_map": {"a": "x.safetensors?y"}},
            {"weight_map": {str(n): f"{n}.safetensors" for n in range(3000)}},
        ],
    )
    def test_nonsense_for_the_index(self, hub: Server, index: dict[str, object]) -> None:
        hub.file(NAME, "model.safetensors.index.json", json_reply(index))
        assert type(failure(hub)) is RemoteError
        with pytest.raises(ConfigError):
            shard_names(json_reply(index).body, "x")

    def test_no_thread_is_left_behind(self, hub: Server) -> None:
        hub.file(NAME, "model.safetensors", shard_reply({"w": ("BF16", (10,))}))
        read(hub)
        left = [thread for thread in threading.enumerate() if not thread.daemon]
        assert left == [threading.main_thread()]


class TestNames:
    @pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "a/b", "01-ai/Yi-1.5-34B", "x_y/z.w"])
    def test_sound(self, name: str) -> None:
        assert check_name(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            "x",
            "a/b/c",
            "../etc",
            "a/..",
            "a/b..c",
            "a--b/c",
            "/a",
            "a/",
            "a b/c",
            "a/b?c",
            "a/é",
            "a/b.git",
            "a/" + "b" * 200,
        ],
    )
    def test_malformed(self, name: str) -> None:
        with pytest.raises(UsageError):
            check_name(name)

    @pytest.mark.parametrize("revision", ["", "..", "a/../b", "/a", "a b", "a//b", "a/"])
    def test_malformed_revisions(self, revision: str) -> None:
        with pytest.raises(UsageError):
            check_revision(revision)

    @pytest.mark.parametrize("endpoint", ["ftp://x", "huggingface.co", "https://user:pw@host", "http://"])
    def test_malformed_endpoints(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(UsageError) as caught:
            settings_from_environment()
        assert "pw" not in all_words(caught.value).replace("password", "")


class TestCache:
    def test_a_snapshot_is_found_by_branch_and_by_commit(self, tmp_path: Path) -> None:
        settings = HubSettings(endpoint="http://x", cache=tmp_path, offline=True)
        commit = "0123456789abcdef0123456789abcdef01234567"
        root = tmp_path / "models--acme--tiny"
        assert snapshot(settings, NAME, "main") is None
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(commit)
        assert snapshot(settings, NAME, "main") is None
        folder = root / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        assert snapshot(settings, NAME, "main") == folder
        assert snapshot(settings, NAME, commit) == folder
        (root / "refs" / "main").write_text("../../../../etc")
        assert snapshot(settings, NAME, "main") is None
