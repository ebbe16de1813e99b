"""Where names may stand beside dots: plain geometry, in points, without a plotting library.

A name covers no dot, no other name and no line; where there is no room beside its dot it stands further away, with a
thin line to the dot. Names come in order of importance: the first is never given up for another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CLEAR = 2.5
"""Points between a name and whatever it must not touch."""

BESIDE = 3.5
"""Points between a dot's edge and a name that stands at it."""

FAR = (16, 26, 38, 52, 68, 86, 106)
"""Points from a dot to a name that needs a line."""

VERY_FAR = (*FAR, 130, 160, 195, 235)
"""The same for the name that must be there."""

ANGLES = tuple(range(-171, 181, 18))
"""Of such a line, in degrees; none is level or upright, as axes and fronts are."""

SHORTER_COSTS, CROSSING_COSTS, LINE_COSTS = 24.0, 14.0, 10.0
"""In points of distance: what it is worth to say all, not to cross a thin line, to need no line of one's own."""


class Box(NamedTuple):
    """A rectangle; y grows upwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def within(self, other: Box) -> bool:
        """Whether all of it is inside of the other."""
        return self.x0 >= other.x0 and self.x1 <= other.x1 and self.y0 >= other.y0 and self.y1 <= other.y1

    def padded(self, points: float) -> Box:
        """The same with an edge around it."""
        return Box(self.x0 - points, self.y0 - points, self.x1 + points, self.y1 + points)


class Line(NamedTuple):
    """A straight line between two places."""

    x0: float
    y0: float
    x1: float
    y1: float


class Tag(NamedTuple):
    """What wants a name.

    x, y: the middle of its dot. reach: from there to the dot's edge. sizes: width and height of each thing that the
    name may say, the best first. far: how far away it may stand, with a line; empty: only at its dot.
    """

    x: float
    y: float
    reach: float
    sizes: tuple[tuple[float, float], ...]
    far: tuple[int, ...] = FAR


class Ground(NamedTuple):
    """What is drawn already.

    window: the names stay inside. dots: a name covers none. lines: nor any of these. thin: it had better not
    cross these.
    """

    window: Box
    dots: tuple[Box, ...]
    lines: tuple[Line, ...]
    thin: tuple[Line, ...] = ()


class Spot(NamedTuple):
    """Where a name stands: which of its sayings, the rectangle it fills, and the line to its dot, if it has one."""

    saying: int
    box: Box
    line: Line | None
    cost: float


def placed(tags: Sequence[Tag], ground: Ground, *, must: bool = True) -> list[Spot | None]:
    """A place for each name, as many as there is room for; the first tag's is kept free before all others.

    Args:
        must: the first has a name in any case, where it covers least.

    Returns:
        One for each tag; None where there is no room.
    """
    choices = [sorted(_spots(tag, ground), key=lambda spot: spot.cost) for tag in tags]
    if must and tags and not choices[0]:
        choices[0] = [_least_bad(tags[0], ground)]
    rest = range(1, len(tags))
    orders = (rest, rest[::-1], sorted(rest, key=lambda index: len(choices[index])))
    return min((_one_by_one(choices, [*range(min(1, len(tags))), *order]) for order in orders), key=_score)


def _score(spots: Iterable[Spot | None]) -> tuple[int, float]:
    """Fewest without a name; of those the shortest ways."""
    listed = list(spots)
    return listed.count(None), sum(spot.cost for spot in listed if spot)


def _one_by_one(choices: Sequence[Sequence[Spot]], order: Sequence[int]) -> list[Spot | None]:
    """Each takes its best place that is left; who finds none may push one, but the first, to another place."""
    taken: list[Spot | None] = [None] * len(choices)
    for index in order:
        free = next((spot for spot in choices[index] if not _in_the_way(spot, taken)), None)
        if free is not None:
            taken[index] = free
    for index in order:
        if taken[index] is None:
            _push(index, choices, taken)
    return taken


def _push(index: int, choices: Sequence[Sequence[Spot]], taken: list[Spot | None]) -> None:
    for spot in choices[index]:
        blocking = _in_the_way(spot, taken)
        if len(blocking) != 1 or blocking[0] == 0:
            continue
        (other,) = blocking
        without = [*taken]
        without[index], without[other] = spot, None
        for elsewhere in choices[other]:
            if not _in_the_way(elsewhere, without):
                taken[index], taken[other] = spot, elsewhere
                return


def _in_the_way(spot: Spot, taken: Sequence[Spot | None]) -> list[int]:
    return [index for index, other in enumerate(taken) if other is not None and _clash(spot, other)]


def _clash(one: Spot, other: Spot) -> bool:
    if one.box.padded(CLEAR).overlaps(other.box):
        return True
    if one.line is not None and crosses(one.line, other.box.padded(CLEAR)):
        return True
    if other.line is not None and crosses(other.line, one.box.padded(CLEAR)):
        return True
    return one.line is not None and other.line is not None and _meet(one.line, other.line)


def _spots(tag: Tag, ground: Ground) -> Iterable[Spot]:
    """Every place of a name where it covers nothing that is drawn already."""
    for saying, size in enumerate(tag.sizes):
        for box, line, cost in _places(tag, size):
            if not box.within(ground.window) or _covers(box, ground):
                continue
            if line is not None and _line_is_blocked(line, tag, ground):
                continue
            crossed = sum(crosses(thin, box) for thin in ground.thin)
            yield Spot(saying, box, line, cost + saying * SHORTER_COSTS + crossed * CROSSING_COSTS)


def _places(tag: Tag, size: tuple[float, float]) -> Iterable[tuple[Box, Line | None, float]]:
    """All places of a name, whatever is there: at its dot, all around; and at the ends of lines."""
    wide, high = size
    aside, slanted = tag.reach + BESIDE, tag.reach * 0.7 + BESIDE - 1
    yield _box(tag.x + aside, tag.y - high / 2, size), None, 0
    yield _box(tag.x - aside - wide, tag.y - high / 2, size), None, 1
    yield _box(tag.x - slanted - wide, tag.y + slanted, size), None, 2
    yield _box(tag.x + slanted, tag.y - slanted - high, size), None, 2
    yield _box(tag.x + slanted, tag.y + slanted, size), None, 3
    yield _box(tag.x - slanted - wide, tag.y - slanted - high, size), None, 3
    yield _box(tag.x - wide / 2, tag.y + aside, size), None, 4
    yield _box(tag.x - wide / 2, tag.y - aside - high, size), None, 4
    for far in tag.far:
        for angle in ANGLES:
            right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = tag.x + (tag.reach + far) * right, tag.y + (tag.reach + far) * up
            start = tag.reach + 0.5
            line = Line(tag.x + start * right, tag.y + start * up, x, y)
            if abs(right) >= LEVEL:
                yield _box(x + 2 if right > 0 else x - 2 - wide, y - high / 2, size), line, far + LINE_COSTS
                continue
            for share in SHARES if right > 0 else reversed(SHARES):
                box = _box(x - share * wide, y + 1 if up > 0 else y - 1 - high, size)
                yield box, line, far + LINE_COSTS + 1


SHARES = (0.07, 0.5, 0.93)
"""Where a name that stands over or under its line is met by it, of its width from the left."""

LEVEL = 0.6
"""Cosine from which on a name stands at the end of its line, not over or under it."""


def _box(left: float, bottom: float, size: tuple[float, float]) -> Box:
    return Box(left, bottom, left + size[0], bottom + size[1])


def _covers(box: Box, ground: Ground) -> bool:
    wider = box.padded(CLEAR)
    return any(wider.overlaps(dot) for dot in ground.dots) or any(
        crosses(line, wider) for line in ground.lines
    )


def _line_is_blocked(line: Line, tag: Tag, ground: Ground) -> bool:
    """Whether a name's line runs over a dot, but those at which it begins, or over a line."""
    own = Box(tag.x, tag.y, tag.x, tag.y).padded(tag.reach + 1)
    if any(not dot.overlaps(own) and crosses(line, dot) for dot in ground.dots):
        return True
    return any(_meet(line, other) for other in ground.lines)


def _least_bad(tag: Tag, ground: Ground) -> Spot:
    """The place inside of the window where a name covers the fewest dots and lines, for one that must have a name."""

    def covered(place: tuple[Box, Line | None, float]) -> tuple[bool, int, float]:
        box, _, cost = place
        dots = sum(box.overlaps(dot) for dot in ground.dots)
        return not box.within(ground.window), dots + sum(crosses(line, box) for line in ground.lines), cost

    box, line, cost = min(_places(tag, tag.sizes[-1]), key=covered)
    return Spot(len(tag.sizes) - 1, box, line, cost)


def crosses(line: Line, box: Box) -> bool:
    """Whether any part of a line is inside of a box (Liang and Barsky's clipping)."""
    begin, end = 0.0, 1.0
    for start, length, low, high in (
        (line.x0, line.x1 - line.x0, box.x0, box.x1),
        (line.y0, line.y1 - line.y0, box.y0, box.y1),
    ):
        if length == 0:
            if not low < start < high:
                return False
            continue
        one, other = sorted(((low - start) / length, (high - start) / length))
        begin, end = max(begin, one), min(end, other)
    return begin < end


def _meet(one: Line, other: Line) -> bool:
    """Whether two lines cross."""
    return _sides(one, other) and _sides(other, one)


def _sides(line: Line, other: Line) -> bool:
    """Whether the other's ends lie on the two sides of this line, or on it."""

    def side(x: float, y: float) -> float:
        return (line.x1 - line.x0) * (y - line.y0) - (line.y1 - line.y0) * (x - line.x0)

    return side(other.x0, other.y0) * side(other.x1, other.y1) <= 0
