"""Sentences end at the terminal's edge between two words; commands, tables, and what goes into a pipe stay whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from soong.cli import text
from tests.cli.rehearsal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

WORDS = ("plan", "qwen3-32b", "--cloud", "all", "--rank", "cost-per-token", "--search")


def seen(*words: str) -> list[str]:
    """The lines on a terminal, without their styles."""
    terminal = Terminal(*words)
    terminal.end()
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.seen).replace("\r", "").splitlines()


def words_in(shown: str) -> list[str]:
    """Without what tables are drawn of, which a terminal's chunks may cut in the middle of a character."""
    return re.sub(r"[^\x00-\x7f]", "", shown).split()


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_a_plan_on_a_terminal(soong: Soong, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = seen(*WORDS)
    limit = min(int(columns), text.PROSE_WIDTH)
    long = [line for line in lines if len(line) > limit and line[:1] not in "┌│├└▕"]
    assert all(line.startswith("  ") and re.match(r" +(python|soong|`soong) ", line) for line in long), long
    piped = soong(*WORDS, "--color", "never").out
    assert words_in(piped) == words_in("\n".join(lines)), "the same words"


def test_what_is_piped_is_not_broken(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    (line,) = (one for one in soong("plan", "qwen3-32b").out.splitlines() if one.startswith("Speed:"))
    assert line.count(";") == 1
    assert len(line) > 80


@pytest.mark.parametrize("words", [("recommend", "--task", "coding"), ("plan", "llama-3.1-8b")], ids=" ".join)
def test_commands_stay_on_one_line(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    commands = [line for line in seen(*words) if re.match(r"Next: soong|  python -m sglang", line)]
    (command,) = commands
    assert len(command) > 50 or command.startswith("Next: soong plan ")


class _AtTerminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("one two three four five six", "one two three four\n  five six"),
        ("\x1b[2m  one two three four five\x1b[0m", "\x1b[2m  one two three four\n  five\x1b[0m"),
        ("say `soong export shell MODEL` now", "say\n  `soong export shell MODEL`\n  now"),
        ("newer: soong offers --refresh --cloud all", "newer:\n  soong offers --refresh --cloud all"),
        ("  python -m sglang.launch_server --x", "  python -m sglang.launch_server --x"),
        ("│ one two three four five six │", "│ one two three four five six │"),
        ("日本語 日本語 日本語 日本語", "日本語 日本語 日本語\n  日本語"),
    ],
)
def test_one_line(monkeypatch: pytest.MonkeyPatch, line: str, broken: str) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert text.prose(line, stream=_AtTerminal()) == broken  # type: ignore[arg-type]
