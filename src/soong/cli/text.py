"""Tables and colour for a terminal.

Written here because the libraries that do it cost more time to import (50 ms and above) than a whole command may take;
see docs/speed.md. Cells may hold several lines and styled parts; widths count what a person sees.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import TextIO

WIDTH_WITHOUT_TERMINAL = 120
"""Columns when nobody's terminal says how many."""

LEAST_COLUMN = 8
"""No column is squeezed below this."""

_STYLED = r"\x1b\[[0-9;]*m"
_PLAIN = "\x1b[0m"


def style(text: str, name: str) -> str:
    """`text` in one of the few styles that screens use: bold, dim, or a colour."""
    if name in {"bold", "dim"}:
        return click.style(text, bold=name == "bold" or None, dim=name == "dim" or None)
    return click.style(text, fg=name)


def width(text: str) -> int:
    """The columns that a line takes on a terminal; wide characters take two, styles and combining marks none."""
    plain = re.sub(_STYLED, "", text) if "\x1b" in text else text
    if plain.isascii():
        return len(plain)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in plain)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    right: Collection[int] = (),
    fit: int | None = None,
    whole: Collection[int] = (),
) -> str:
    """A boxed table.

    Args:
        columns: the heads. rows: as many cells each; a cell may hold several lines.
        title: stands above, centred. right: the columns of numbers, which end at the right.
        fit: the widest the table may be; the widest columns wrap to meet it. None: the terminal's width.
        whole: columns of words that are copied, which wrap only when no other can.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(_widest(row[index]) for row in [columns, *cells]) for index in range(len(columns))]
    widths = _squeezed(widths, (fit or screen_width()) - 3 * len(columns) - 1, whole)
    lines = [
        _rule("┌┬┐", widths),
        *_lines([style(name, "bold") for name in columns], widths, ()),
        _rule("├┼┤", widths),
    ]
    for row in cells:
        lines += _lines(row, widths, right)
    lines.append(_rule("└┴┘", widths))
    if title:
        lines.insert(0, " " * ((width(lines[0]) - width(title)) // 2) + style(title, "bold"))
    return "\n".join(lines)


def heading(text: str) -> str:
    """A title in a box."""
    inner = width(text) + 12
    return f"┌{'─' * inner}┐\n│{' ' * 6}{style(text, 'bold')}{' ' * 6}│\n└{'─' * inner}┘"


PROSE_WIDTH = 110
"""Longer lines are hard to read, however wide the terminal."""

_WORD = r"[^\s`]*`[^`]*`[^\s`]*|(?<=: )soong (?:plan|models|offers|export)\b[^`]*|\S+"
"""Never broken: a word, and a command to be copied, which stands in backticks or ends its line after a colon."""

_DRAWN = ("┌", "│", "├", "└", "▕")


def prose(text: str, *, stream: TextIO | None = None) -> str:
    """Lines that are too long for the terminal broken between words; tables, and commands on lines of their own, whole.

    Args:
        text: what will be written to `stream`, stdout where none is named; nothing is broken for a pipe or a file.
    """
    if not (stream or sys.stdout).isatty():
        return text
    limit = max(min(screen_width(), PROSE_WIDTH), LEAST_COLUMN)
    return "\n".join(_filled(line, limit) for line in text.split("\n"))


def _filled(line: str, limit: int) -> str:
    """One line as those it takes; what is indented without a style is a command, a picture or a list, and stays."""
    if width(line) <= limit or line.startswith((" ", *_DRAWN)):
        return line
    indent = "  "
    filled, used, end = "", 0, 0
    for word in re.finditer(_WORD, line):
        gap, size = line[end : word.start()], width(word[0])
        end = word.end()
        if used and used + width(gap) + size > limit:
            gap = f"\n{indent}"
            used = len(indent) + size
        else:
            used += width(gap) + size
        filled += gap + word[0]
    return filled + line[end:]


def screen_width() -> int:
    """The columns of the terminal; `COLUMNS` and then a generous width where there is none."""
    import os

    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or WIDTH_WITHOUT_TERMINAL
    except (OSError, ValueError):
        return WIDTH_WITHOUT_TERMINAL


def _widest(cell: str) -> int:
    return max(map(width, cell.split("\n")))


def _squeezed(widths: list[int], room: int, whole: Collection[int]) -> list[int]:
    """Take columns from the widest until the table fits, or nothing more can be taken; from `whole` ones last."""
    widths = list(widths)
    while sum(widths) > room and max(widths) > LEAST_COLUMN:
        others = [index for index, size in enumerate(widths) if index not in whole and size > LEAST_COLUMN]
        widest = max(others or range(len(widths)), key=lambda index: widths[index])
        widths[widest] -= 1
    return widths


def _rule(corners: str, widths: Sequence[int]) -> str:
    left, middle, right = tuple(corners)
    return left + middle.join("─" * (size + 2) for size in widths) + right


def _lines(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> list[str]:
    """One row as the lines it takes."""
    wrapped = [_wrapped(cell, size) for cell, size in zip(row, widths, strict=True)]
    height = max(map(len, wrapped))
    lines = []
    for place in range(height):
        parts = [
            _padded(cell[place] if place < len(cell) else "", size, at_right=index in right)
            for index, (cell, size) in enumerate(zip(wrapped, widths, strict=True))
        ]
        lines.append("│ " + " │ ".join(parts) + " │")
    return lines


def _wrapped(cell: str, size: int) -> list[str]:
    from textwrap import wrap

    lines: list[str] = []
    for line in cell.split("\n"):
        if width(line) <= size:
            lines.append(line)
            continue
        plain = re.sub(_STYLED, "", line)
        pieces = wrap(plain, size, subsequent_indent="  " if plain[:1] == "•" else "")
        lines += pieces if plain == line else _styled_again(pieces, line)
    return lines


def _styled_again(pieces: Iterable[str], line: str) -> Iterator[str]:
    """Parts of a styled line that was broken bare: each letter in its style, which ends with its line."""
    letters, styles, active = "", [], ""
    for code, letter in re.findall(rf"({_STYLED})|(.)", line):
        if code:
            active = "" if code == _PLAIN else active + code
        else:
            letters += letter
            styles.append(active)
    end = 0
    for piece in pieces:
        bare = piece.lstrip()
        start = letters.index(bare, end)
        end = start + len(bare)
        filled, active = piece[: len(piece) - len(bare)], ""
        for letter, own in zip(bare, styles[start:end], strict=True):
            filled += (_PLAIN if active and own != active else "") + (own if own != active else "") + letter
            active = own
        yield filled + (_PLAIN if active else "")


def _padded(text: str, size: int, *, at_right: bool) -> str:
    space = " " * (size - width(text))
    return space + text if at_right else text + space
