"""`soong models add` against a real server that speaks like the Hub, and two of them at once."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import stamina

from soong.models import from_hub as module
from tests.models.test_resolve import CONFIG, PARAMETERS
from tests.support.hub_server import Reply, Server, json_reply, shard_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

TYPED = ("--params", "3", "--quantization", "fp16", "--context", "8k")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    module._asked.clear()
    with Server() as server, stamina.set_testing(True, attempts=2, cap=True):
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        server.file("acme/tiny", "config.json", json_reply(CONFIG))
        server.file("acme/tiny", "model.safetensors", shard_reply({"w": ("BF16", (PARAMETERS,))}))
        yield server


def test_a_path_alone_is_enough(soong: Soong, hub: Server) -> None:
    ended = soong("models", "add", "--hf-path", "acme/tiny")
    assert ended.code == 0, ended.err
    row = next(row for row in soong("models", "--json").json if row["id"] == "tiny")
    assert row["parameters"] == PARAMETERS
    assert row["basis"] != "rule-of-thumb"
    assert row["context_tokens"] == 4096
    assert hub.requests


@pytest.mark.parametrize("typed", [(), TYPED], ids=["path alone", "everything typed"])
@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (Reply(404, b"", {"X-Error-Code": "RepoNotFound"}), 4, "not found"),
        (Reply(403, b"", {"X-Error-Code": "GatedRepo"}), 3, "gated"),
    ],
    ids=["missing", "gated"],
)
def test_a_wrong_path_is_told_before_anything_is_saved(
    soong: Soong, hub: Server, sealed: object, reply: Reply, code: int, said: str, typed: tuple[str, ...]
) -> None:
    hub.file("acme/wrong", "config.json", reply)
    ended = soong("models", "add", "--hf-path", "acme/wrong", *typed)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert "wrong" not in soong("models", "-q").out.split()


def test_offline_the_flags_are_asked_for(soong: Soong) -> None:
    ended = soong("models", "add", "--hf-path", "acme/tiny")
    assert ended.code == 6
    assert "--params 12 --quantization fp16 --context 128000" in ended.err


def test_offline_what_was_typed_is_taken(soong: Soong) -> None:
    ended = soong("models", "add", "--hf-path", "acme/tiny", *TYPED)
    assert ended.code == 0, ended.err
    assert "tiny" in soong("models", "-q").out.split()


def test_a_built_in_name_is_taken_in_any_case(soong: Soong) -> None:
    ended = soong("models", "add", "--name", "LLAMA-3.1-8B", "--hf-path", "acme/tiny", *TYPED)
    assert ended.code == 2
    assert "built-in" in ended.err


def test_two_at_once_lose_nothing(soong: Soong) -> None:
    words = ["models", "add", "--hf-path", "acme/tiny", *TYPED]
    script = "import sys; from soong.cli.app import call; sys.exit(call(sys.argv[1:]))"
    running = [
        subprocess.Popen([sys.executable, "-c", script, *words, "--name", name], stdout=subprocess.PIPE)
        for name in ("one", "two", "three")
    ]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    for process in running:
        process.communicate()
    assert {"one", "two", "three"} <= set(soong("models", "-q").out.split())
