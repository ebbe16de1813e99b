"""The same pictures with letters, for a terminal: drawn with plotille's dots, or in ASCII where there are none."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from soong import units
from soong.errors import UsageError
from soong.pictures.figure_memory import verdict_words
from soong.pictures.figures import INSTALL
from soong.pictures.scales import round_figures, tick_words
from soong.pictures.subject import short_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.pictures.memory_curves import MemoryCurve, MemoryView
    from soong.pictures.price_dots import Dot, SpeedView

MOST_CURVES = 5
MOST_NAMED = 12
LETTERS = "ABCDEFGHIJKL"
ROWS = 15
MOST_COLUMNS = 100
LEAST_COLUMNS = 40
MARGIN = 6
"""Columns left of the axis: `100% `."""

COLOURS = (33, 214, 37, 170, 113)
"""Of the 256 that terminals have; near to Okabe and Ito's blue, orange, green, purple and a light green. The letters
tell the curves apart for those who see no colours."""

GREY, LIMIT, FRONT = 245, 202, 33
SHARES = (150, 200, 300, 400, 600, 800, 1000)
"""Of a GPU's memory, in percent: where the sheet may end."""

MOST_FOR_TOO_SMALL = 300

LEAST_LEGEND = 3
"""Columns that a legend keeps however narrow the terminal is."""

BRAILLE = 0x2800


class Layer(NamedTuple):
    """Something drawn in one colour, row by row from the top; a blank cell shows what is below it."""

    rows: list[str]
    colour: int


def memory_plot(view: MemoryView, *, columns: int, ascii_only: bool) -> str:
    """Memory against context: each machine's need as a share of its GPU, so that all share one line to stay under.

    Args:
        view: at most `MOST_CURVES` curves. columns: of the terminal. ascii_only: no letters but ASCII's.

    Raises:
        UsageError: plotille is not installed; says how to get it.
    """
    wide = _width(columns)
    low, high = math.log2(view.least_tokens), math.log2(max(view.limit_tokens, view.least_tokens + 1))
    above = _above_percent(view)
    sheet = Sheet(wide, ROWS, (low, 0.0), (high, float(above)))
    layers = [sheet.drawn([((low, 100.0), (high, 100.0))], GREY)]
    marks: list[Mark] = []
    for place, curve in enumerate(view.curves):
        layers.append(sheet.drawn(_strokes(curve, above), COLOURS[place % len(COLOURS)]))
        marks.append(_end_mark(curve, LETTERS[place], COLOURS[place % len(COLOURS)], above))
    layers += sheet.written(marks)
    labels = {sheet.row(float(percent)): f"{percent}%" for percent in _percents(above)}
    powers = range(math.ceil(low), math.floor(high) + 1)
    ticks = [(sheet.column(float(power)), short_tokens(1 << power)) for power in powers]
    lines = [
        "Memory against context: each GPU's need in % of its memory",
        *sheet.framed(layers, labels, ticks, "tokens of context", pointer=_asked(view, sheet)),
        *_memory_legend(view, columns),
    ]
    return _words("\n".join(lines), ascii_only=ascii_only)


def speed_plot(view: SpeedView, *, columns: int, ascii_only: bool) -> str:
    """Price against speed on logarithmic axes, the front as steps.

    Raises:
        UsageError: plotille is not installed; says how to get it.
    """
    wide = _width(columns)
    prices = [dot.usd_per_hour for dot in view.dots]
    speeds = [dot.tokens_per_second for dot in view.dots]
    low = math.log10(min(prices) / 1.3), math.log10(min(speeds) / 1.3)
    high = math.log10(max(prices) * 1.3), math.log10(max(speeds) * 1.3)
    sheet = Sheet(wide, ROWS, low, high)
    named = _named(view)
    others = [dot for dot in view.dots if dot not in named]
    layers = [sheet.drawn(_steps(view.front), FRONT)]
    layers += sheet.written([_dot_mark(dot, "·", GREY) for dot in others], moves=False)
    colours = [LIMIT if dot.shown else FRONT if dot.on_front else GREY for dot in named]
    layers += sheet.written(
        [_dot_mark(dot, letter, colour) for dot, letter, colour in zip(named, LETTERS, colours, strict=False)]
    )
    speeds_at = round_figures(10 ** low[1], 10 ** high[1])
    labels = {
        sheet.row(math.log10(value)): words
        for value, words in zip(speeds_at, tick_words(speeds_at), strict=True)
    }
    prices_at = round_figures(10 ** low[0], 10 ** high[0])
    ticks = [
        (sheet.column(math.log10(value)), f"${words}")
        for value, words in zip(prices_at, tick_words(prices_at, cents=True), strict=True)
    ]
    lines = [
        *wrap(
            "Price against speed: output tokens/s of all users, prompts included", max(columns, LEAST_COLUMNS)
        ),
        *(f"  {line}" for line in wrap(view.load, max(columns, LEAST_COLUMNS) - 2)),
        *sheet.framed(layers, labels, ticks, "$ per hour"),
        *_speed_legend(view, named, colours, columns),
    ]
    return _words("\n".join(lines), ascii_only=ascii_only)


def _width(columns: int) -> int:
    return max(LEAST_COLUMNS, min(columns, MOST_COLUMNS)) - MARGIN - 2


class Mark(NamedTuple):
    """A letter at a place of the sheet, in the axes' own units."""

    x: float
    y: float
    letter: str
    colour: int


class Sheet:
    """A rectangle of cells with axes in the picture's units; a cell has two dots across and four up, as plotille's do.

    Args:
        wide, high: cells. low, high_corner: the units at the lower left and the upper right.
    """

    def __init__(
        self, wide: int, high: int, low: tuple[float, float], high_corner: tuple[float, float]
    ) -> None:
        self.wide, self.high = wide, high
        self.low, self.top = low, high_corner

    def column(self, x: float) -> int:
        """The cell of a value on the lower axis, from the left."""
        share = (x - self.low[0]) / (self.top[0] - self.low[0])
        return max(0, min(self.wide - 1, round(share * self.wide * 2) // 2))

    def row(self, y: float) -> int:
        """The cell of a value on the left axis, from the top."""
        share = (y - self.low[1]) / (self.top[1] - self.low[1])
        return max(0, min(self.high - 1, self.high - 1 - round(share * self.high * 4) // 4))

    def drawn(self, strokes: Iterable[tuple[tuple[float, float], tuple[float, float]]], colour: int) -> Layer:
        """Straight strokes, as far as they lie on the sheet."""
        canvas = _canvas_class()(self.wide, self.high, *self.low, *self.top)
        for (x_a, y_a), (x_b, y_b) in strokes:
            canvas.line(x_a, y_a, x_b, y_b)
        return Layer(canvas.plot(linesep="\n").split("\n"), colour)

    def written(self, marks: Sequence[Mark], *, moves: bool = True) -> list[Layer]:
        """The letters, each moved to the left while its cell is taken, or over what is there where it may not move."""
        taken: set[tuple[int, int]] = set()
        layers = []
        for mark in marks:
            row, column = self.row(mark.y), self.column(mark.x)
            while moves and (row, column) in taken and column > 0:
                column -= 1
            taken.add((row, column))
            rows = [" " * self.wide] * self.high
            rows[row] = " " * column + mark.letter + " " * (self.wide - column - 1)
            layers.append(Layer(rows, mark.colour))
        return layers

    def framed(
        self,
        layers: Sequence[Layer],
        labels: dict[int, str],
        ticks: Sequence[tuple[int, str]],
        below: str,
        *,
        pointer: tuple[int, str] | None = None,
    ) -> list[str]:
        """The layers over each other, with both axes and the name of the lower one.

        Args:
            pointer: a column of the lower axis and what it is, pointed at from below.
        """
        lines = []
        for row in range(self.high):
            label = labels.get(row, "")
            lines.append(f"{label:>{MARGIN - 1}} {'┤' if label else '│'}{_overlaid(layers, row)}".rstrip())
        axis, words = ["─"] * self.wide, [" "] * self.wide
        end = -2
        for column, word in ticks:
            start = min(max(0, column - len(word) // 2), self.wide - len(word))
            if start > end + 1:
                axis[column] = "┴"
                words[start : start + len(word)] = word
                end = start + len(word) - 1
        gap = " " * MARGIN
        return [
            *lines,
            f"{gap}└{''.join(axis)}",
            f"{gap} {''.join(words)}".rstrip(),
            f"{gap} {_below(below, pointer, self.wide)}",
        ]


def _below(words: str, pointer: tuple[int, str] | None, wide: int) -> str:
    """The line under an axis: its name, on the side where it leaves room for what points up at a column."""
    if pointer is None:
        return f"{words:>{wide}}"
    column, told = pointer
    if column > wide // 2:
        return f"{words:<{max(0, column - len(told) - 1)}}{told} ▲"
    return f"{' ' * column}▲ {told}".ljust(wide - len(words)) + words


def _canvas_class() -> Any:
    try:
        from plotille import Canvas
    except ImportError as error:
        raise UsageError(
            "plots in the terminal are drawn with plotille, which is not installed",
            hints=(INSTALL,),
            docs="pictures.md",
        ) from error
    return Canvas


def _overlaid(layers: Sequence[Layer], row: int) -> str:
    """One line: dots of several layers in one cell are all shown, in the colour of the uppermost."""
    cells: list[tuple[str, int | None]] = [(" ", None)] * len(layers[0].rows[row])
    for layer in layers:
        for place, letter in enumerate(layer.rows[row]):
            if letter in {" ", chr(BRAILLE)}:
                continue
            below = cells[place][0]
            both = _is_braille(letter) and _is_braille(below)
            cells[place] = (chr(ord(letter) | ord(below)) if both else letter, layer.colour)
    runs = (
        (colour, "".join(letter for letter, _ in run)) for colour, run in groupby(cells, lambda cell: cell[1])
    )
    return "".join(run if colour is None else painted(run, colour) for colour, run in runs)


def _is_braille(letter: str) -> bool:
    return BRAILLE <= ord(letter) < BRAILLE + 256


def painted(text: str, colour: int) -> str:
    """Text in one of the 256 colours of a terminal; whoever prints takes them out where none are wanted."""
    return f"\x1b[38;5;{colour}m{text}\x1b[0m"


def _asked(view: MemoryView, sheet: Sheet) -> tuple[int, str]:
    """The context that was asked for, as a place of the lower axis."""
    return sheet.column(math.log2(view.context_tokens)), f"{short_tokens(view.context_tokens)} asked for"


def _above_percent(view: MemoryView) -> int:
    """Where the sheet ends: a round share that no need at the asked context passes.

    Machines that never start stay at the upper edge where they need much more: they would press the others flat.
    """
    asked = [
        min(_percent(curve, point.need_bytes), math.inf if curve.starts_to else MOST_FOR_TOO_SMALL)
        for curve in view.curves
        for point in curve.points
        if point.context_tokens == view.context_tokens
    ]
    most = max(asked, default=0)
    return next((share for share in SHARES if share >= most), 1000 * math.ceil(most / 1000))


def _percents(above: int) -> tuple[int, ...]:
    return (0, 50, 100, above) if above == SHARES[0] else (0, 100, above // 2, above)


def _strokes(curve: MemoryCurve, above: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The curve up to where the engine does not start any more, or to the sheet's upper edge."""
    places = [
        (math.log2(point.context_tokens), _percent(curve, point.need_bytes))
        for point in curve.points
        if curve.starts_to is None or point.context_tokens <= curve.starts_to
    ]
    inside = [place for place in places if place[1] <= above]
    return list(pairwise(inside))


def _percent(curve: MemoryCurve, need_bytes: int) -> float:
    return 100 * need_bytes / curve.total_bytes


def _end_mark(curve: MemoryCurve, letter: str, colour: int, above: int) -> Mark:
    """The letter where the curve stops; at the upper edge where all of it is above."""
    points = [one for one in curve.points if curve.starts_to is None or one.context_tokens <= curve.starts_to]
    below = [one for one in points if _percent(curve, one.need_bytes) <= above]
    last = below[-1] if below else points[0]
    return Mark(math.log2(last.context_tokens), min(_percent(curve, last.need_bytes), above), letter, colour)


def _memory_legend(view: MemoryView, columns: int) -> list[str]:
    rows = [[curve.name, curve.price, verdict_words(curve)] for curve in view.curves]
    heads = [
        Head(letter, COLOURS[place % len(COLOURS)], curve.chosen)
        for place, (letter, curve) in enumerate(zip(LETTERS, view.curves, strict=False))
    ]
    more = [f"  {view.note}"] if view.note else []
    return [*_aligned(rows, heads, columns), *more]


def _named(view: SpeedView) -> list[Dot]:
    """The shown machine and the front, as many as there are letters, cheapest first."""
    named = list(view.to_name)
    while len(named) > MOST_NAMED:
        named.pop(len(named) // 2)
    return sorted(named, key=lambda dot: dot.usd_per_hour)


def _steps(front: Sequence[Dot]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    places = [(math.log10(dot.usd_per_hour), math.log10(dot.tokens_per_second)) for dot in front]
    strokes = []
    for before, after in pairwise(places):
        turn = (after[0], before[1])
        strokes += [(before, turn), (turn, after)]
    return strokes


def _dot_mark(dot: Dot, letter: str, colour: int) -> Mark:
    return Mark(math.log10(dot.usd_per_hour), math.log10(dot.tokens_per_second), letter, colour)


def _speed_legend(view: SpeedView, named: Sequence[Dot], colours: Sequence[int], columns: int) -> list[str]:
    many = any(dot.sequences > 1 for dot in view.dots)
    rows = []
    for dot in named:
        told = [dot.name, f"${dot.usd_per_hour:.2f}/hour"]
        if many:
            each = f"{units.format_rate(dot.per_user_tokens_per_second)} for each of {dot.sequences:,}"
            told += [f"{units.format_rate(dot.tokens_per_second)} tokens/s", f"{dot.cost_words} per M", each]
        else:
            told += [f"{dot.each_words} each", f"{dot.cost_words} per M"]
        rows.append([*told, "" if dot.launchable else "price only"])
    heads = [
        Head(letter, colour, dot.chosen) for letter, colour, dot in zip(LETTERS, colours, named, strict=False)
    ]
    low = min(dot.low / dot.tokens_per_second for dot in view.dots)
    high = max(dot.high / dot.tokens_per_second for dot in view.dots)
    others = f"· {len(view.dots) - len(named)} more; " if len(view.dots) > len(named) else ""
    shown = next(
        (letter for letter, dot in zip(LETTERS, named, strict=False) if dot.shown and not dot.chosen), ""
    )
    is_what = f"{shown} is {view.shown_is}; " if shown else ""
    notes = wrap(
        f"{is_what}{others}expected between ×{low:.2g} and ×{high:.2g}", max(columns, LEAST_COLUMNS) - 2
    )
    return [*_aligned(rows, heads, columns), *(f"  {line}" for line in notes)]


class Head(NamedTuple):
    """What stands before a line of a legend. chosen: the recommended machine."""

    letter: str
    colour: int
    chosen: bool


def _aligned(rows: Sequence[list[str]], heads: Sequence[Head], columns: int) -> list[str]:
    """Rows with their letters, in columns: words at the left, figures at the right; the recommended one is marked.

    In a narrow terminal the last column of figures gives way, then the ends of lines.
    """
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    if sum(widths) + 2 * len(widths) + 2 > columns and len(widths) > LEAST_LEGEND:
        return _aligned([[*row[:-2], row[-1]] for row in rows], heads, columns)
    last, room = len(widths) - 1, columns - 4
    lines = []
    for head, row in zip(heads, rows, strict=True):
        cells = "  ".join(
            f"{cell:<{wide}}" if place in {0, last} else f"{cell:>{wide}}"
            for place, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        short = cells if len(cells) <= room else f"{cells[: room - 1].rstrip()}…"
        lines.append(f"{'▶' if head.chosen else ' '} {painted(head.letter, head.colour)} {short}")
    return lines


def _words(text: str, *, ascii_only: bool) -> str:
    return plain(text) if ascii_only else text.replace(chr(BRAILLE), " ")


def plain(text: str) -> str:
    """The text in ASCII; what has no likeness there becomes a question mark."""
    return text.translate(ASCII).encode("ascii", "replace").decode()


def _ascii_of(dots: int) -> str:
    """The ASCII letter nearest to a cell's dots: by whether its upper and its lower half are set."""
    upper, lower = dots & 0b00011011, dots & 0b11100100
    return {(False, False): " ", (True, False): "'", (False, True): ".", (True, True): ":"}[
        bool(upper), bool(lower)
    ]


ASCII: dict[int, str] = {
    **{BRAILLE + dots: _ascii_of(dots) for dots in range(256)},
    **{ord(letter): plain for letter, plain in zip("│┤└─┴·×…▶▲", "|+`-+.x.>^", strict=True)},
}
"""What stands for the letters of these plots where a terminal has none but ASCII's."""
