"""Tables that are too wide break between words, and a style never breaks with them."""

from __future__ import annotations

import re

import pytest

from soong.cli import text

RED, PLAIN = "\x1b[31m", "\x1b[0m"


def bare(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


@pytest.mark.parametrize("cell", ["too-small by far", "one two three four five", "• needs more than it has"])
@pytest.mark.parametrize("fit", [24, 30, 200])
def test_a_styled_cell_breaks_as_a_plain_one_would(cell: str, fit: int) -> None:
    plain = text.table(["first", "second"], [["a b c d e f g h", cell]], fit=fit)
    styled = text.table(["first", "second"], [["a b c d e f g h", f"{RED}{cell}{PLAIN}"]], fit=fit)
    assert bare(styled) == bare(plain)


@pytest.mark.parametrize("fit", [20, 26, 200])
def test_every_line_ends_the_style_that_it_begins(fit: int) -> None:
    cell = f"plain words {RED}and then red ones{PLAIN} and {text.style('bold', 'bold')} at last"
    for line in text.table(["a", "b"], [["x", cell]], fit=fit).splitlines():
        active = ""
        for code in re.findall(r"\x1b(?:\[[0-9;]*m|.)", line):
            assert re.fullmatch(r"\x1b\[[0-9;]*m", code)
            active = "" if code == PLAIN else code
        assert not active


def test_the_words_that_were_styled_stay_so() -> None:
    cell = f"plain words {RED}and then red ones{PLAIN} at last"
    shown = text.table(["a", "b"], [["x", cell]], fit=20)
    red = " ".join(re.findall(rf"{re.escape(RED)}(.*?){re.escape(PLAIN)}", shown))
    assert red.split() == ["and", "then", "red", "ones"]
