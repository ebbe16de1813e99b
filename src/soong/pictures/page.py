"""Pictures as one HTML file: nothing is loaded when it is looked at, light and dark, with the figures as tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from soong import units
from soong.pictures.figure_memory import verdict_words
from soong.pictures.palette import DARK, LIGHT
from soong.pictures.svg import inlined

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.pictures.memory_curves import MemoryView
    from soong.pictures.palette import Palette
    from soong.pictures.price_dots import SpeedView
    from soong.pictures.subject import Caption

STYLE = """
:root { color-scheme: light dark; %(light)s }
@media (prefers-color-scheme: dark) { :root { %(dark)s } }
body { margin: 0 auto; padding: 1.5rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
svg { width: 100%%; height: auto; display: block; }
details { margin: .5rem 0 2rem; } summary { cursor: pointer; color: var(--faint); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin-top: .5rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.words { text-align: left; }
tr.chosen td { font-weight: 600; }
.scroll { overflow-x: auto; }
@media print { details > * { display: block; } }
"""


def page(
    caption: Caption, drawings: Sequence[str], *, memory: MemoryView | None, speed: SpeedView | None
) -> str:
    """The whole page.

    Args:
        drawings: SVG files' texts, in order. memory, speed: what they show, for the tables; None where it is not shown.
    """
    tables = [_memory_table(memory)] if memory is not None else []
    tables += [_speed_table(speed)] if speed is not None else []
    parts = [
        f"{inlined(drawing, prefix=f'p{place}-')}\n{table}"
        for place, (drawing, table) in enumerate(zip(drawings, tables, strict=True))
    ]
    style = STYLE % {"light": _variables(LIGHT), "dark": _variables(DARK)}
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(caption.title)}</title>\n<style>{style}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _variables(palette: Palette) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in palette._asdict().items())


def _memory_table(view: MemoryView) -> str:
    rows = []
    for curve in view.curves:
        asked = next((one for one in curve.points if one.context_tokens == view.context_tokens), None)
        need = units.format_gib(asked.need_bytes) if asked else ""
        total = units.format_gib(curve.total_bytes)
        rows.append((curve.chosen, (curve.name, curve.price, total, need, verdict_words(curve))))
    heads = ("Machine", "Price", "One GPU has", f"needs at {view.context_tokens:,} tokens", "Context")
    return _table("The figures: memory", heads, rows)


def _speed_table(view: SpeedView) -> str:
    rows = [
        (
            dot.chosen,
            (
                dot.name,
                f"${dot.usd_per_hour:.2f}",
                units.format_rate(dot.per_user_tokens_per_second),
                f"{dot.sequences:,}",
                units.format_rate(dot.tokens_per_second),
                f"{units.format_rate(dot.low)} to {units.format_rate(dot.high)}",
                dot.cost_words,
                ("no other is as cheap and as fast" if dot.on_front else "")
                + ("" if dot.launchable else " (price only)"),
            ),
        )
        for dot in view.dots
    ]
    heads = (
        "Machine", "$/hour", "tokens/s each", "at once", "of all, prompts included", "expected", "$/M tokens", "",
    )  # fmt: skip
    return _table("The figures: price and speed", heads, rows)


def _table(title: str, heads: Iterable[str], rows: Iterable[tuple[bool, Sequence[str]]]) -> str:
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    body = "\n".join(_row(cells, chosen=chosen) for chosen, cells in rows)
    return (
        f"<details><summary>{escape(title)}</summary><div class=scroll><table>\n"
        f"<tr>{head}</tr>\n{body}\n</table></div></details>"
    )


def _row(cells: Sequence[str], *, chosen: bool) -> str:
    *figures, last = (escape(cell) for cell in cells)
    written = "".join(f"<td>{cell}</td>" for cell in figures)
    return f"<tr{' class=chosen' if chosen else ''}>{written}<td class=words>{last}</td></tr>"
