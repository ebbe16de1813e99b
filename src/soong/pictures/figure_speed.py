"""Price against speed on two logarithmic axes, where a straight line is a price per token; the front stands out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from soong.pictures.fitting import fitted
from soong.pictures.names import BEATEN_SIZE, CROWD, CROWD_SIZE, FRONT_SIZE, RING_SIZE, write_names
from soong.pictures.palette import LIGHT
from soong.pictures.scales import one_two_five, round_figures, tick_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    from soong.pictures.figures import Area
    from soong.pictures.price_dots import Dot, SpeedView

NARROW = 0.7
"""A part of the figure below this share of its width gets smaller letters."""

MOST_WITH_TIPS = 300
MOST_COSTS, MOST_COSTS_NARROW = 12, 7
"""As many machines of a front are written with their price per token."""

SMALLEST_LETTERS = 8.0


def draw_speed(figure: Figure, area: Area, view: SpeedView) -> None:
    """The dots of a view in an area of a figure."""
    narrow = area.right - area.left < NARROW
    axes = figure.add_axes((area.left + 0.012, area.bottom, area.right - area.left - 0.057, 0.5))
    top = _head(figure, area, view, narrow=narrow) - ABOVE_AXES
    axes.set_position((area.left + 0.012, area.bottom, area.right - area.left - 0.057, top - area.bottom))
    _window(axes, view)
    _per_token_lines(axes)
    _beaten(axes, view)
    _front(axes, view)
    write_names(axes, view, most_costs=MOST_COSTS_NARROW if narrow else MOST_COSTS)
    axes.set_xlabel("price of the machine, $ per hour", fontsize=10.5)
    axes.set_ylabel("output tokens per second of all users, prompts included", fontsize=10.5)


ABOVE_AXES = 0.036
"""Of the figure's height: room for the prices per token that stand over the axes."""


def _head(figure: Figure, area: Area, view: SpeedView, *, narrow: bool) -> float:
    """The title, what the speeds are for, and the legend; how low they reach, as a share of the figure's height."""
    edge = area.left - 0.025
    figure.text(edge, area.top + 0.02, "Price against speed", fontsize=12.5, fontweight="bold")
    load = _load_line(figure, view, (edge, area.top + 0.002), area.right + 0.008 - edge)
    under = load.get_window_extent().y0 / figure.bbox.height
    corner = (edge - 0.008, under + 0.004) if narrow else (area.right + 0.008, area.top + 0.056)
    legend = _legend(figure, view, corner, narrow=narrow)
    low = float(legend.get_window_extent().y0) / figure.bbox.height
    return min(float(under), low)


def _load_line(figure: Figure, view: SpeedView, place: tuple[float, float], wide: float) -> Text:
    """What the speeds are for, in one line or two."""
    text = figure.text(*place, view.load, fontsize=9.5, color=LIGHT.faint, va="top", linespacing=1.25)
    fitted(text, wide * figure.bbox.width, smallest=SMALLEST_LETTERS, lines=2)
    return text


def _window(axes: Axes, view: SpeedView) -> None:
    prices = [dot.usd_per_hour for dot in view.dots]
    speeds = [dot.tokens_per_second for dot in view.dots]
    lows = [dot.low for dot in view.front] + speeds
    highs = [dot.high for dot in view.front] + speeds
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(prices) / 1.35, max(prices) * 1.7)
    axes.set_ylim(
        min(lows) / 1.35, max(highs) * (CROWDED_ABOVE if len(view.front) > MOST_COSTS_NARROW else 1.25)
    )
    for axis, limits, sign in ((axes.xaxis, axes.get_xlim(), "$"), (axes.yaxis, axes.get_ylim(), "")):
        ticks = round_figures(*limits)
        axis.set_ticks(ticks, [f"{sign}{words}" for words in tick_words(ticks, cents=bool(sign))])
        axis.set_ticks([], minor=True)
    axes.grid(visible=True)


CROWDED_ABOVE = 1.6
"""Above a crowded front there is more room, for its names."""


def _per_token_lines(axes: Axes) -> None:
    """Straight lines of one price per token, named where they leave the window."""
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
    least, most = (_usd_per_million(x, y) for x, y in ((x_low, y_high), (x_high, y_low)))
    for usd in _costs_to_draw(least * 1.6, most / 1.6):
        axes.plot(
            (x_low, x_high), [x * 1e6 / 3600 / usd for x in (x_low, x_high)],
            color=LIGHT.grid, linewidth=1.0, linestyle=(0, (6, 3)), zorder=1, scalex=False, scaley=False,
        )  # fmt: skip
        at_right = x_high * 1e6 / 3600 / usd
        words = f"${usd:,g} per M"
        if at_right < y_high:
            place, offset, horizontal, vertical = (x_high, at_right), (3, 0), "left", "center"
        else:
            place, offset, horizontal, vertical = (
                (y_high * usd * 3600 / 1e6, y_high),
                (0, 2),
                "center",
                "bottom",
            )
        axes.annotate(
            words, place, xytext=offset, textcoords="offset points", fontsize=8, color=LIGHT.faint,
            annotation_clip=False, ha=horizontal, va=vertical,
        )  # fmt: skip


def _costs_to_draw(least: float, most: float) -> list[float]:
    found = one_two_five(least, most)
    tens = [usd for usd in found if math.log10(usd).is_integer()]
    return found if len(found) <= MOST_LINES or len(tens) < 2 else tens


MOST_LINES = 6


def _usd_per_million(usd_per_hour: float, tokens_per_second: float) -> float:
    return usd_per_hour / 3600 / tokens_per_second * 1e6


def dot_id(place: int) -> str:
    """What a dot is called in the file, by its place among the dots."""
    return f"dot-{place}"


def _beaten(axes: Axes, view: SpeedView) -> None:
    """The dots that another beats; a crowd of them is one shape, or the file would be megabytes."""
    beaten = [(place, dot) for place, dot in enumerate(view.dots) if not dot.on_front]
    size = CROWD_SIZE if len(beaten) > CROWD else BEATEN_SIZE
    for launchable in (True, False):
        dots = [(place, dot) for place, dot in beaten if dot.launchable == launchable]
        face = LIGHT.beaten if launchable else LIGHT.paper
        if len(beaten) > MOST_WITH_TIPS:
            prices, speeds = [dot.usd_per_hour for _, dot in dots], [dot.tokens_per_second for _, dot in dots]
            axes.scatter(
                prices, speeds, s=14, zorder=2.5, facecolor=face, edgecolor=LIGHT.beaten, linewidth=0.8
            )
            continue
        for place, dot in dots:
            _dot(axes, dot, place, size=size, face=face, edge=LIGHT.beaten, order=2.5, line=1.0)


def _dot(
    axes: Axes,
    dot: Dot,
    place: int | None,
    *,
    size: float,
    face: str,
    edge: str,
    order: float,
    line: float = 1.6,
) -> None:
    (drawn,) = axes.plot(
        [dot.usd_per_hour], [dot.tokens_per_second], marker="o", markersize=size, markerfacecolor=face,
        markeredgecolor=edge, markeredgewidth=line, linestyle="none", zorder=order,
    )  # fmt: skip
    if place is not None:
        drawn.set_gid(dot_id(place))


def _front(axes: Axes, view: SpeedView) -> None:
    """The front as steps: at each price the most speed that money buys; with the range of each speed."""
    dots = view.front
    prices, speeds = [dot.usd_per_hour for dot in dots], [dot.tokens_per_second for dot in dots]
    axes.step(prices, speeds, where="post", color=LIGHT.front, linewidth=1.6, alpha=0.55, zorder=2.6)
    for place, dot in enumerate(view.dots):
        if dot.on_front:
            span = [dot.usd_per_hour] * 2, [dot.low, dot.high]
            axes.plot(*span, color=LIGHT.front, linewidth=1.1, alpha=0.45, zorder=2.6)
            face = LIGHT.front if dot.launchable else LIGHT.paper
            _dot(axes, dot, place, size=FRONT_SIZE, face=face, edge=LIGHT.front, order=3)
        if dot.shown:
            edge = LIGHT.limit if dot.chosen else LIGHT.ink
            _dot(axes, dot, None, size=RING_SIZE, face="none", edge=edge, order=3.1)


def _legend(figure: Figure, view: SpeedView, corner: tuple[float, float], *, narrow: bool) -> Legend:
    from matplotlib.lines import Line2D

    def marker(label: str, **more: Any) -> Line2D:
        return Line2D([], [], linestyle="none", marker="o", markersize=7, label=label, **more)

    handles = [marker("none is cheaper and as fast", color=LIGHT.front)] if view.front else []
    if any(dot.shown for dot in view.dots):
        edge = LIGHT.limit if any(dot.chosen for dot in view.dots) else LIGHT.ink
        ring = {"markerfacecolor": "none", "markeredgecolor": edge, "markeredgewidth": 1.8}
        handles.insert(0, marker(view.shown_is, **ring))
    if any(not dot.on_front for dot in view.dots):
        handles.append(marker("others", color=LIGHT.beaten))
    if any(not dot.launchable for dot in view.dots):
        handles.append(marker("price only", markerfacecolor=LIGHT.paper, markeredgecolor=LIGHT.faint))
    if any(dot.low < dot.tokens_per_second for dot in view.front):
        handles.append(Line2D([], [], color=LIGHT.front, linewidth=1.1, alpha=0.6, label="expected range"))
    return figure.legend(
        handles=handles,
        loc="upper left" if narrow else "upper right",
        bbox_to_anchor=corner,
        ncols=2 if narrow else len(handles),
        frameon=False,
        fontsize=8.5 if narrow else 10,
        handletextpad=0.4,
        columnspacing=1.3,
        labelcolor=LIGHT.ink,
    )
