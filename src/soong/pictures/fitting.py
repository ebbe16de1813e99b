"""Words in the room they have: in smaller letters, in more lines, and cut only where nothing else is left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.text import Text


def fitted(text: Text, room: float, *, smallest: float, lines: int = 1) -> None:
    """Make words no wider than their room.

    Args:
        text: with its words and size. room: pixels. smallest: points; no letters become smaller. lines: at the most.
    """
    words, size = text.get_text(), float(text.get_fontsize())
    for count in range(1, lines + 1):
        text.set_text(_broken(text, words, room, count))
        if _width(text) <= room:
            return
    text.set_fontsize(max(smallest, size * room / _width(text)))
    text.set_text(_broken(text, words, room, lines))
    while _width(text) > room and len(words) > 1:
        words = words[:-1].rstrip(" ….,·")
        text.set_text(_broken(text, f"{words}…", room, lines))


PARTS = (r"(?<=·) ", r"(?<=[,;:]) ", " ")
"""Where lines are broken, the best first."""


def _broken(text: Text, words: str, room: float, lines: int) -> str:
    """The words in so many lines, each but the last as full as its room allows, and whole parts where they fit."""
    for between in PARTS:
        pieces = re.split(between, words)
        if all(_fits(text, piece, room) for piece in pieces):
            break
    done: list[str] = []
    while pieces and len(done) < lines - 1:
        taken = len(pieces)
        while taken > 1 and not _fits(text, " ".join(pieces[:taken]), room):
            taken -= 1
        done.append(" ".join(pieces[:taken]).removesuffix(" ·"))
        pieces = pieces[taken:]
    return "\n".join([*done, " ".join(pieces)] if pieces else done)


def _fits(text: Text, words: str, room: float) -> bool:
    text.set_text(words)
    return _width(text) <= room


def _width(text: Text) -> float:
    return float(text.get_window_extent().width)
