"""Price against speed on two logarithmic axes, where a straight line is a price per token; the front stands out."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from soong.pictures.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    from soong.pictures.figures import Area
    from soong.pictures.price_dots import Dot, SpeedView

STEPS = (1, 2, 5)
"""Of each power of ten: round figures that stand evenly on a logarithmic axis."""

NARROW = 0.7
"""A part of the figure below this share of its width gets smaller letters."""
MOST_BEATEN_NAMED = 14
"""More names than that of machines that another beats are a crowd, not information."""

CLEAR = 3
"""Points between a line and a name."""

FAR_POINTS = 20
MOST_WITH_TIPS = 300
NEAR = 8
"""Of the places, so many are close enough that a grey name is seen to belong to its grey dot."""

Place = tuple[float, float, str, str]
MOST_COSTS, MOST_COSTS_NARROW = 12, 7
"""As many machines of a front are written with their price per token."""

PLACES: tuple[Place, ...] = (
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (7, 8, "left", "bottom"),
    (-7, 8, "right", "bottom"),
    (7, -8, "left", "top"),
    (-7, -8, "right", "top"),
    (12, 20, "left", "bottom"),
    (-12, 20, "right", "bottom"),
    (12, -20, "left", "top"),
    (-12, -20, "right", "top"),
    (14, 34, "left", "bottom"),
    (14, -34, "left", "top"),
    (-14, 34, "right", "bottom"),
    (-14, -34, "right", "top"),
)
"""Where a name may stand: points from its dot, and how the words are aligned; the nearest that is free is taken."""

FAR_PLACES: tuple[Place, ...] = tuple(
    (across * points, up * points, "left" if across > 0 else "right", "bottom" if up > 0 else "top")
    for points in (54, 72, 90)
    for up in (1, -1)
    for across in (1, -1)
)


def draw_speed(figure: Figure, area: Area, view: SpeedView) -> None:
    """The dots of a view in an area of a figure."""
    narrow = area.right - area.left < NARROW
    left, bottom = area.left + 0.012, area.bottom
    above = 0.13 if narrow else 0.075
    axes = figure.add_axes((left, bottom, area.right - left - 0.045, area.top - bottom - above))
    _window(axes, view)
    _per_token_lines(axes)
    _beaten(axes, view)
    _front(axes, view)
    _names(axes, view, shortly=len(view.front) > (MOST_COSTS_NARROW if narrow else MOST_COSTS))
    axes.set_xlabel("price of the machine, $ per hour", fontsize=10.5)
    axes.set_ylabel("output tokens per second, all users together", fontsize=10.5)
    edge = area.left - 0.025
    figure.text(edge, area.top + 0.02, "Price against speed", fontsize=12.5, fontweight="bold")
    figure.text(edge, area.top - 0.012, view.load, fontsize=9.5, color=LIGHT.faint)
    corner = (edge - 0.008, area.top - 0.018) if narrow else (area.right + 0.008, area.top + 0.048)
    _legend(figure, view, corner, narrow=narrow)


def _window(axes: Axes, view: SpeedView) -> None:
    prices = [dot.usd_per_hour for dot in view.dots]
    speeds = [dot.tokens_per_second for dot in view.dots]
    lows = [dot.low for dot in view.front] + speeds
    highs = [dot.high for dot in view.front] + speeds
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(prices) / 1.35, max(prices) * 1.7)
    axes.set_ylim(min(lows) / 1.25, max(highs) * 1.25)
    for axis, limits, form in (
        (axes.xaxis, axes.get_xlim(), "${:g}"),
        (axes.yaxis, axes.get_ylim(), "{:,g}"),
    ):
        ticks = one_two_five(*limits)
        axis.set_ticks(ticks, [form.format(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.grid(visible=True)


def one_two_five(low: float, high: float, most: int = 8) -> list[float]:
    """Round figures between two limits: 1, 2, 5, 10, ...; powers of ten alone where those are too many."""
    found = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in STEPS
        if low <= step * 10.0**power <= high
    ]
    tens = [value for value in found if math.log10(value).is_integer()]
    return found if len(found) <= most or len(tens) < 2 else tens


def _per_token_lines(axes: Axes) -> None:
    """Straight lines of one price per token, named where they leave the window."""
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
    least, most = (_usd_per_million(x, y) for x, y in ((x_low, y_high), (x_high, y_low)))
    for usd in one_two_five(least * 1.6, most / 1.6, most=6):
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


def _usd_per_million(usd_per_hour: float, tokens_per_second: float) -> float:
    return usd_per_hour / 3600 / tokens_per_second * 1e6


def dot_id(place: int) -> str:
    """What a dot is called in the file, by its place among the dots."""
    return f"dot-{place}"


def _beaten(axes: Axes, view: SpeedView) -> None:
    """The dots that another beats; a crowd of them is one shape, or the file would be megabytes."""
    beaten = [(place, dot) for place, dot in enumerate(view.dots) if not dot.on_front]
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
            _dot(axes, dot, place, size=5.5, face=face, edge=LIGHT.beaten, order=2.5)


def _dot(axes: Axes, dot: Dot, place: int | None, *, size: float, face: str, edge: str, order: float) -> None:
    (drawn,) = axes.plot(
        [dot.usd_per_hour], [dot.tokens_per_second], marker="o", markersize=size, markerfacecolor=face,
        markeredgecolor=edge, markeredgewidth=1.6, linestyle="none", zorder=order,
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
            _dot(axes, dot, place, size=8, face=face, edge=LIGHT.front, order=3)
        if dot.chosen:
            _dot(axes, dot, None, size=15, face="none", edge=LIGHT.limit, order=3.1)


def _names(axes: Axes, view: SpeedView, *, shortly: bool) -> None:
    """A name at each dot of the front, and at the others where there is room: no two overlap, none covers a dot.

    Args:
        shortly: without the price per token, which the lines of one price tell roughly.
    """
    dots, steps, ranges = _obstacles(axes, view)
    beaten = [dot for dot in view.dots if not (dot.on_front or dot.chosen)]
    named = [dot for dot in view.dots if dot.chosen] + [dot for dot in view.front if not dot.chosen]
    names: list[Bbox] = []
    # Where it is crowded the price per token gives way first, then thin lines may run behind a name, then it stands far
    # away; whoever has a good place takes it before the others look for a worse one.
    everything, solid = dots + steps + ranges, dots + steps
    tries = ((PLACES, everything), (PLACES, solid), (FAR_PLACES, solid), (PLACES, dots))
    for unnamed in (named[:1], named[1:]):
        left = unnamed
        for places, free in tries:
            left = [
                dot
                for dot in left
                if not any(
                    _placed(axes, dot, words, free, names, places) for words in _sayings(dot, shortly=shortly)
                )
            ]
    for dot in beaten if len(beaten) <= MOST_BEATEN_NAMED else []:
        _placed(axes, dot, dot.name, dots + steps + ranges, names, PLACES[:NEAR])


def _placed(
    axes: Axes, dot: Dot, words: str, taken: list[Bbox], names: list[Bbox], places: tuple[Place, ...]
) -> bool:
    """Write the words at the first place that is free, and note them among the names; whether there was one."""
    important, window = dot.on_front or dot.chosen, axes.get_window_extent()
    text = axes.annotate(
        words, (dot.usd_per_hour, dot.tokens_per_second), (0, 0), textcoords="offset points",
        fontsize=9.5 if important else 8, fontweight="bold" if dot.chosen else "normal",
        color=LIGHT.ink if important else LIGHT.faint, zorder=4, linespacing=1.15,
    )  # fmt: skip
    for right, up, horizontal, vertical in places:
        text.set_position((right, up))
        text.set(ha=horizontal, va=vertical)
        box = text.get_window_extent()
        inside = box.x0 >= window.x0 and box.x1 <= window.x1 and box.y0 >= window.y0 and box.y1 <= window.y1
        line = _along(axes, dot, (right, up)) if max(abs(right), abs(up)) >= FAR_POINTS else []
        free = not any(box.overlaps(other) for other in (*taken, *names))
        if inside and free and not any(step.overlaps(name) for step in line for name in names):
            names += [box.padded(CLEAR), *line]
            if line:
                _leader(axes, dot, (right, up))
            return True
    text.remove()
    return False


def _along(axes: Axes, dot: Dot, offset: tuple[float, float]) -> list[Bbox]:
    """Small boxes along the line from a dot to its name, which no other name may cover."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((dot.usd_per_hour, dot.tokens_per_second))
    steps = round(max(abs(offset[0]), abs(offset[1])) / 3)
    places = [(x + offset[0] * step / steps, y + offset[1] * step / steps) for step in range(1, steps)]
    return [Bbox.from_extents(right - 1, up - 1, right + 1, up + 1) for right, up in places]


def _leader(axes: Axes, dot: Dot, offset: tuple[float, float]) -> None:
    """A thin line from a dot to its name, where that stands so far away that it could be another's."""
    axes.annotate(
        "", (dot.usd_per_hour, dot.tokens_per_second), offset, textcoords="offset points", zorder=2.4,
        arrowprops={"arrowstyle": "-", "color": LIGHT.faint, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _obstacles(axes: Axes, view: SpeedView) -> tuple[list[Bbox], list[Bbox], list[Bbox]]:
    """What no name may cover, every dot; and what it had better not: the steps of the front, the ranges of speeds."""
    from matplotlib.transforms import Bbox

    def box(usd_a: float, speed_a: float, usd_b: float, speed_b: float, reach: float) -> Bbox:
        (x_a, y_a), (x_b, y_b) = axes.transData.transform([(usd_a, speed_a), (usd_b, speed_b)])
        low_x, high_x, low_y, high_y = min(x_a, x_b), max(x_a, x_b), min(y_a, y_b), max(y_a, y_b)
        return Bbox.from_extents(low_x - reach, low_y - reach, high_x + reach, high_y + reach)

    def dot_box(dot: Dot) -> Bbox:
        usd, speed = dot.usd_per_hour, dot.tokens_per_second
        return box(usd, speed, usd, speed, 11 if dot.chosen else 6)

    dots = [dot_box(dot) for dot in view.dots]
    ranges = [box(dot.usd_per_hour, dot.low, dot.usd_per_hour, dot.high, CLEAR) for dot in view.front]
    steps = []
    for before, after in pairwise(view.front):
        turn = after.usd_per_hour, before.tokens_per_second
        steps.append(box(before.usd_per_hour, before.tokens_per_second, *turn, CLEAR))
        steps.append(box(*turn, after.usd_per_hour, after.tokens_per_second, CLEAR))
    return dots, steps, ranges


def _sayings(dot: Dot, *, shortly: bool) -> tuple[str, ...]:
    """What a name may be, the best first."""
    return (dot.name,) if shortly else (f"{dot.name}\n${dot.usd_per_million:,.2f} per M tokens", dot.name)


def _legend(figure: Figure, view: SpeedView, corner: tuple[float, float], *, narrow: bool) -> None:
    from matplotlib.lines import Line2D

    def marker(label: str, **more: Any) -> Line2D:
        return Line2D([], [], linestyle="none", marker="o", markersize=7, label=label, **more)

    handles = [marker("none is cheaper and as fast", color=LIGHT.front)]
    if any(dot.chosen for dot in view.dots):
        ring = {"markerfacecolor": "none", "markeredgecolor": LIGHT.limit, "markeredgewidth": 1.8}
        handles.insert(0, marker("recommended", **ring))
    if any(not dot.on_front for dot in view.dots):
        handles.append(marker("others", color=LIGHT.beaten))
    if any(not dot.launchable for dot in view.dots):
        handles.append(marker("price only", markerfacecolor=LIGHT.paper, markeredgecolor=LIGHT.faint))
    if any(dot.low < dot.tokens_per_second for dot in view.front):
        handles.append(Line2D([], [], color=LIGHT.front, linewidth=1.1, alpha=0.6, label="expected range"))
    figure.legend(
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
