"""The names at the dots of price against speed: measured, then put where `labels` finds room for them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from soong.pictures.labels import VERY_FAR, Box, Ground, Line, Tag, placed
from soong.pictures.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from soong.pictures.labels import Spot
    from soong.pictures.price_dots import Dot, SpeedView

MOST_BEATEN_NAMED = 14
"""More names than that of machines that another beats are a crowd, not information."""

FRONT_SIZE, BEATEN_SIZE, CROWD_SIZE, RING_SIZE = 8.0, 5.0, 3.6, 15.0
"""Points across: of dots on the front, of others, of others where they are many, of the ring of the recommended one."""

CROWD = 20
"""More dots than that are drawn small."""


def write_names(axes: Axes, view: SpeedView, *, most_costs: int) -> None:
    """A name at the shown machine, at each dot of the front, and at others where there is room.

    Args:
        most_costs: where more are to be named they are without the price per token, which the lines tell roughly.
    """
    first = view.to_name
    others = [dot for dot in view.dots if dot not in first]
    rest = others if len(others) <= MOST_BEATEN_NAMED else []
    shortly = len(first) > most_costs
    important = [_Name(axes, dot, _sayings(dot, shortly=shortly), reach=_reach(dot, view)) for dot in first]
    tags = [name.tag for name in important]
    must = bool(first) and first[0].shown
    if must:
        tags[0] = tags[0]._replace(far=VERY_FAR)
    ground = _ground(axes, view)
    spots = placed(tags, ground, must=must)
    for name, spot in zip(important, spots, strict=True):
        name.stand(spot)
    taken = [spot for spot in spots if spot is not None]
    ground = ground._replace(
        dots=(*ground.dots, *(spot.box for spot in taken)),
        lines=(*ground.lines, *ground.thin, *(spot.line for spot in taken if spot.line is not None)),
    )
    less = [_Name(axes, dot, (dot.name,), reach=_reach(dot, view)) for dot in rest]
    tags = [name.tag._replace(far=()) for name in less]
    for name, spot in zip(less, placed(tags, ground, must=False), strict=True):
        name.stand(spot)


class _Name:
    """The words at a dot: measured first, then put where there is room, or taken away."""

    def __init__(self, axes: Axes, dot: Dot, sayings: tuple[str, ...], *, reach: float) -> None:
        important = dot.on_front or dot.shown or len(sayings) > 1
        self.sayings = sayings
        self.axes = axes
        self.text = axes.annotate(
            "", (dot.usd_per_hour, dot.tokens_per_second), (0, 0), textcoords="offset points",
            fontsize=9.5 if important else 8, fontweight="bold" if dot.shown else "normal", ha="left", va="bottom",
            color=LIGHT.ink if important else LIGHT.faint, zorder=4, linespacing=1.15,
            bbox={"facecolor": LIGHT.paper, "alpha": 0.75, "linewidth": 0, "pad": 0.6},
        )  # fmt: skip
        x, y = axes.transData.transform((dot.usd_per_hour, dot.tokens_per_second))
        self.tag = Tag(x, y, reach, tuple(self._size(words) for words in sayings))

    def _size(self, words: str) -> tuple[float, float]:
        self.text.set_text(words)
        box = self.text.get_window_extent()
        return box.width, box.height

    def stand(self, spot: Spot | None) -> None:
        """Write the words at a place; none: nothing is written."""
        if spot is None:
            self.text.remove()
            return
        self.text.set_text(self.sayings[spot.saying])
        self.text.set_position((spot.box.x0 - self.tag.x, spot.box.y0 - self.tag.y))
        if spot.line is not None:
            ends = self.axes.transData.inverted().transform([spot.line[:2], spot.line[2:]])
            self.axes.plot(
                ends[:, 0], ends[:, 1], color=LIGHT.faint, linewidth=0.7, zorder=2.4, scalex=False, scaley=False,
            )  # fmt: skip


def _reach(dot: Dot, view: SpeedView) -> float:
    """From the middle of a dot to its edge."""
    if dot.shown:
        return RING_SIZE / 2 + 1
    beaten = CROWD_SIZE if len(view.dots) - len(view.front) > CROWD else BEATEN_SIZE
    return (FRONT_SIZE if dot.on_front else beaten) / 2 + 1


def _ground(axes: Axes, view: SpeedView) -> Ground:
    """What no name may cover: dots and the steps of the front; and what it had better not: the ranges of speeds."""

    def point(usd: float, speed: float) -> tuple[float, float]:
        x, y = axes.transData.transform((usd, speed))
        return float(x), float(y)

    def dot_box(dot: Dot) -> Box:
        x, y = point(dot.usd_per_hour, dot.tokens_per_second)
        return Box(x, y, x, y).padded(_reach(dot, view))

    steps = []
    for before, after in pairwise(view.front):
        turn = point(after.usd_per_hour, before.tokens_per_second)
        steps.append(Line(*point(before.usd_per_hour, before.tokens_per_second), *turn))
        steps.append(Line(*turn, *point(after.usd_per_hour, after.tokens_per_second)))
    ranges = [
        Line(*point(dot.usd_per_hour, dot.low), *point(dot.usd_per_hour, dot.high)) for dot in view.front
    ]
    window = axes.get_window_extent()
    return Ground(
        window=Box(window.x0, window.y0, window.x1, window.y1).padded(-1),
        dots=tuple(dot_box(dot) for dot in view.dots),
        lines=tuple(steps),
        thin=tuple(ranges),
    )


def _sayings(dot: Dot, *, shortly: bool) -> tuple[str, ...]:
    """What a name may be, the best first."""
    return (dot.name,) if shortly else (f"{dot.name}\n{dot.cost_words} per M tokens", dot.name)
