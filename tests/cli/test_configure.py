"""`soong configure`: the tour at a terminal, and each of its answers as a flag."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from soong.settings import config, secrets
from tests.cli.rehearsal import Rehearsal, Terminal, kill_guardian

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

DOWN = "\x1b[B"
WRONG = "secret_a_key_that_is_wrong"
KEY_PROMPT = "m API key"
"""As it is drawn, after its style; the question before it has these words too, and is drawn again when answered."""


@pytest.fixture
def as_lambda(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The sandbox in Lambda's place; gives its key, and ends the guardian that a test has armed."""
    monkeypatch.setenv("SOONG_LAMBDA_API_URL", rehearsal.running.url)
    yield rehearsal.running.files.key_made()
    kill_guardian("lambda")


@pytest.mark.slow
def test_the_tour(soong: Soong, rehearsal: Rehearsal, as_lambda: str) -> None:
    rehearsal.set(cents={"gpu_1x_a6000": 115})
    rehearsal.client().add_ssh_key("soong", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE someone@else")
    tour = Terminal("configure")
    tour.read_on_until("Where do you want to rent?")
    tour.type("\r")
    tour.read_on_until("How does soong get the API key?")
    tour.type("\r")
    tour.read_on_until(KEY_PROMPT)
    tour.type(WRONG + "\r")
    typed = tour.read_on_until("How does soong get the API key?")
    assert "Lambda refused the API key" in typed
    assert WRONG not in typed, "what is typed is not shown"
    assert not secrets.lambda_key_path().exists(), "a key that is refused is not kept"
    tour.type("\r")
    tour.read_on_until(KEY_PROMPT)
    tour.type(as_lambda + "\r")
    assert "the key works: lambda answers, 1 SSH key in the account" in tour.read_on_until("Which model")
    assert "$1.15/h now, gpu_1x_a6000" in tour.read_on_until("another one")
    tour.type("\r")
    tour.read_on_until("Hours of a lease")
    tour.type("\x7fsoon\r")
    tour.read_on_until("cannot be used")
    tour.type("\x7f" * 4 + "3\r")
    tour.read_on_until("The most hours")
    tour.type("\x7f2\r")
    tour.read_on_until("the cap cannot be less")
    tour.type("\x7f6\r")
    tour.read_on_until("into the account?")
    tour.type("y")
    tour.read_on_until("`soong-")
    tour.read_on_until("~/.ssh/config?")
    tour.type("n")
    assert "it was tried just now, and works" in tour.read_on_until("Where could a reaper run")
    tour.type(DOWN + "\r")
    tour.read_on_until("run there already?")
    tour.type("n")
    assert tour.end() == 0
    assert "soong reap --install systemd" in tour.seen
    found = {one.setting.key: one.value for one in config.all_values() if one.origin == "file"}
    assert found == {
        "cloud": "lambda", "model": "llama-3.1-8b", "lease.hours": 3.0, "lease.cap_hours": 6.0
    }, "a reaper that does not run yet guards nothing"  # fmt: skip
    assert secrets.lambda_key_path().read_text().strip() == as_lambda


def test_ctrl_c_leaves_the_tour() -> None:
    tour = Terminal("configure")
    tour.read_until("Where do you want to rent?")
    tour.type("\x03")
    assert tour.end() == 130
    assert "interrupted" in tour.seen


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_every_answer_is_a_flag(
    soong: Soong, rehearsal: Rehearsal, as_lambda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, as_lambda + "\n")
    words = ("--cloud", "lambda", "--key-stdin", "--model", "qwen3-8b", "--hours", "2", "--cap-hours", "5")
    ended = soong("configure", *words, "--add-ssh-key", "--ssh-include", "--reaper", "the shelf", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["lease.reaper"] == "the shelf"
    assert (ended.json["model"], ended.json["lease.hours"], ended.json["lease.cap_hours"]) == (
        "qwen3-8b",
        2,
        5,
    )
    (key,) = rehearsal.client().ssh_keys()
    assert key.name.startswith("soong-")


def test_a_refused_key_does_not_replace_one_that_works(
    soong: Soong, as_lambda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, as_lambda)
    assert soong("configure", "--key-stdin").code == 0
    piped(monkeypatch, WRONG)
    refused = soong("configure", "--key-stdin")
    assert refused.code == 3
    assert WRONG not in refused.err
    assert secrets.lambda_key_path().read_text().strip() == as_lambda
    piped(monkeypatch, "")
    assert soong("configure", "--key-stdin").code == 3


def test_a_typed_key_wins_over_an_old_command(
    soong: Soong, as_lambda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert soong("config", "set", "lambda.api_key_command", "echo not-the-key-at-all").code == 0
    piped(monkeypatch, as_lambda)
    assert "is unset" in soong("configure", "--key-stdin").err
    assert soong("clouds", "check", "lambda").code == 0


def test_a_cloud_that_there_is_not(soong: Soong) -> None:
    ended = soong("configure", "--cloud", "lamda")
    assert (ended.code, "did you mean `lambda`?" in ended.err) == (4, True)


@pytest.mark.slow
def test_this_computer_asks_for_no_key_and_no_ssh() -> None:
    tour = Terminal("configure")
    tour.read_on_until("Where do you want to rent?")
    tour.type(DOWN + DOWN + "\r")
    assert "this computer has: 1 × " in tour.read_on_until("Which model")
    assert "llama-3.2-1b" in tour.read_on_until("another one")
    tour.type("\r")
    tour.read_on_until("Hours of a lease")
    tour.type("\r")
    tour.read_on_until("The most hours")
    tour.type("\r")
    assert tour.end() == 0
    assert "it was tried just now, and works" in tour.seen
    found = {one.setting.key: one.value for one in config.all_values() if one.origin == "file"}
    assert (found["cloud"], found["model"]) == ("local", "llama-3.2-1b")
    kill_guardian("local")
