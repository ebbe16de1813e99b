"""What becomes of matplotlib's SVG: words for readers that cannot see it, tips at the dots, colours as variables."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from soong.pictures.palette import LIGHT

if TYPE_CHECKING:
    from collections.abc import Mapping

FONTS = "'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"
"""Verdana has the widths of DejaVu Sans, by which the words were placed; the others are narrower."""

_PROLOG = re.compile(r"\A.*?(?=<svg )", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_TITLE = re.compile(r"<title>.*?</title>", re.DOTALL)
_SIZE = re.compile(r' width="[0-9.]+pt" height="[0-9.]+pt"')


def finished(svg: str, *, title: str, description: str, tips: Mapping[str, str]) -> str:
    """The SVG of a file.

    Args:
        svg: as matplotlib writes it. title, description: for screen readers and the window's bar.
        tips: what to show over an element, by its id.
    """
    drawing = _METADATA.sub("", _PROLOG.sub("", svg, count=1), count=1)
    drawing = _TITLE.sub("", drawing, count=1).replace("font-family: 'DejaVu Sans'", f"font-family: {FONTS}")
    told = f"<title>{escape(title)}</title>\n <desc>{escape(description)}</desc>"
    head, tag, rest = drawing.partition(">")
    drawing = f'{head} role="img"{tag}\n {told}{rest}'
    for name, words in tips.items():
        drawing = drawing.replace(f'<g id="{name}">', f'<g id="{name}"><title>{escape(words)}</title>', 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{drawing}'


def inlined(svg: str, *, prefix: str) -> str:
    """The same as a part of an HTML page: as wide as there is room, its ids told apart, its colours the page's own."""
    drawing = _SIZE.sub("", _PROLOG.sub("", svg, count=1), count=1)
    drawing = re.sub(r'\bid="', f'id="{prefix}', drawing)
    drawing = re.sub(r"url\(#", f"url(#{prefix}", drawing)
    drawing = re.sub(r'xlink:href="#', f'xlink:href="#{prefix}', drawing)
    for name, colour in LIGHT._asdict().items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return drawing
