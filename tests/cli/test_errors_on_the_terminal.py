"""What a person typed is told again without obeying it, and a slip is told how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.cli.app import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

HOSTILE = "a\x1b[2J\x1b]0;title\x07\u202eb\x9b\rerror: forged\nhint: forged"


@pytest.mark.parametrize(
    "words",
    [
        ("plan", HOSTILE),
        (HOSTILE,),
        ("plan", "llama-3.1-8b", "--gpu", HOSTILE),
        ("plan", "llama-3.1-8b", "--rank", HOSTILE),
        ("plan", f"--{HOSTILE}"),
        ("config", "get", HOSTILE),
        ("offers", "--cloud", HOSTILE),
    ],
)
def test_no_error_sends_control_characters_to_the_terminal(soong: Soong, words: tuple[str, ...]) -> None:
    ended = soong(*words)
    assert ended.code in {2, 4}
    assert "a\\x1b[2j" in ended.err.lower(), "it is still told what was typed"
    assert all(letter.isprintable() or letter == "\n" for letter in ended.err)
    assert "\nhint: forged" not in ended.err


def test_bytes_that_are_no_text_are_told_too(soong: Soong) -> None:
    """Python hands them over as halves of characters, which neither a terminal nor JSON can take."""
    assert "a\\udcffb" in soong("plan", "a\udcffb").err
    assert "a\\udcffb" in msgspec.json.decode(soong("plan", "a\udcffb", "--json").err)["message"]


@pytest.mark.parametrize(
    ("word", "groups"),
    [("info", {"models", "gpus"}), ("compare", {"models"}), ("check", {"clouds"}), ("edit", {"config"})],
)
def test_a_command_that_is_inside_others_is_named(soong: Soong, word: str, groups: set[str]) -> None:
    ended = soong(word)
    assert ended.code == 2
    assert {name for name in COMMANDS if f"did you mean `soong {name} {word}`?" in ended.err} == groups


@pytest.mark.parametrize("rank", ["", " ", "cheapest"])
def test_an_unknown_rank_is_answered_with_the_known_ones(soong: Soong, rank: str) -> None:
    ended = soong("plan", "llama-3.1-8b", "--rank", rank)
    assert (ended.code, "must be one of price, cost-per-token, time" in ended.err) == (2, True)


def test_one_picture_is_not_written_twice(
    soong: Soong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = soong("plan", "llama-3.1-8b", "--save", "x.svg", "--save", "./x.svg", "--force")
    assert ended.code == 2
    assert "two of the files that `--save` names are one" in ended.err
    assert not list(tmp_path.glob("*.svg"))
