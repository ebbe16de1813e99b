"""Names beside dots: none covers a dot, a line or another name, and the most important one is always there."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

import pytest

from soong.pictures.labels import VERY_FAR, Box, Ground, Line, Spot, Tag, crosses, placed

WINDOW = Box(0, 0, 400, 300)


def a_ground(random: Random, dots: int, front: int) -> tuple[list[Tag], Ground]:
    """A rising front and dots under it, as prices and speeds are."""
    xs = sorted(random.uniform(20, 380) for _ in range(front))
    ys = sorted(random.uniform(20, 280) for _ in range(front))
    places = list(zip(xs, ys, strict=True))
    steps = [
        line
        for (x, y), (right, up) in pairwise(places)
        for line in (Line(x, y, right, y), Line(right, y, right, up))
    ]
    others = [(random.uniform(20, 395), random.uniform(5, 150)) for _ in range(dots)]
    boxes = tuple(Box(x, y, x, y).padded(5) for x, y in places + others)
    names = [Tag(x, y, 5, ((random.uniform(50, 120), 11),)) for x, y in places]
    names[0] = names[0]._replace(far=VERY_FAR)
    return names, Ground(WINDOW, boxes, tuple(steps))


@pytest.mark.parametrize("seed", range(25))
def test_nothing_is_covered(seed: int) -> None:
    tags, ground = a_ground(Random(seed), dots=seed, front=2 + seed % 12)
    spots = placed(tags, ground)
    assert spots[0] is not None
    standing = [spot for spot in spots if spot is not None]
    assert len(standing) >= len(tags) * 0.6
    for one, other in combinations(standing, 2):
        assert not one.box.overlaps(other.box)
        for spot, name in ((one, other), (other, one)):
            assert spot.line is None or not crosses(spot.line, name.box)
    for spot in standing:
        assert spot.box.within(WINDOW)
        assert not any(spot.box.overlaps(dot) for dot in ground.dots)
        assert not any(crosses(line, spot.box) for line in ground.lines)


def test_a_name_stands_at_its_dot_where_there_is_room() -> None:
    (spot,) = placed([Tag(100, 100, 5, ((60, 10),))], Ground(WINDOW, (Box(95, 95, 105, 105),), ()))
    assert spot is not None
    assert spot.line is None
    assert 0 < spot.box.x0 - 105 < 5


def test_the_shorter_words_where_the_long_ones_have_no_room() -> None:
    (spot,) = placed([Tag(200, 150, 5, ((500, 20), (60, 10)), far=())], Ground(WINDOW, (), ()))
    assert spot is not None
    assert spot.saying == 1


def test_what_must_be_named_is_named_where_there_is_no_room_at_all() -> None:
    full = Ground(WINDOW, (WINDOW,), ())
    tag = Tag(200, 150, 5, ((60, 10),), far=VERY_FAR)
    (spot,) = placed([tag], full)
    assert isinstance(spot, Spot)
    assert spot.box.within(WINDOW)
    assert placed([tag], full, must=False) == [None]


def test_who_finds_no_place_may_push_another_but_not_the_first() -> None:
    """The last has one place only, where another would stand best."""
    ground = Ground(Box(0, 0, 300, 60), (), ())
    alone = Tag(20, 50, 5, ((40, 10),), far=())
    first, last = Tag(100, 10, 5, ((90, 10),), far=()), Tag(205, 10, 5, ((92, 10),), far=())
    narrow = ground._replace(window=Box(0, 0, 300, 20))
    assert all(placed([alone, first, last], ground))
    assert placed([first, last], narrow)[0] == placed([first], narrow)[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (Line(0, 0, 10, 10), True),
        (Line(0, 5, 3, 5), False),
        (Line(0, 5, 10, 5), True),
        (Line(5, 0, 5, 10), True),
        (Line(0, 7, 7, 14), False),
        (Line(5, 5, 5.5, 5.5), True),
        (Line(4, 0, 4, 10), False),
    ],
)
def test_lines_and_boxes(line: Line, expected: bool) -> None:
    box = Box(4, 4, 6, 6)
    assert crosses(line, box) is expected
    assert crosses(Line(line.x1, line.y1, line.x0, line.y0), box) is expected
