"""Quantities: what a person may type, and what is printed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soong import units
from soong.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GiB", 85_899_345_920),
        ("24GB", 24_000_000_000),
        ("24 gb", 24_000_000_000),
        ("512MiB", 536_870_912),
        ("79.19GiB", round(79.19 * 2**30)),
        ("1TiB", 2**40),
        ("10737418240", 10_737_418_240),
        (10_737_418_240, 10_737_418_240),
        ("1,000,000", 1_000_000),
        (2.0**33, 2**33),
    ],
)
def test_sizes(text: str | float, size: int) -> None:
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("8k", 8192),
        ("32k", 32768),
        ("128K", 131072),
        ("1M", 1_048_576),
        ("128000", 128_000),
        ("100k", 100_000),
        ("200k", 200_000),
        ("10M", 10_000_000),
        ("1.5k", 1500),
        ("131,072", 131_072),
        (40960, 40960),
        (40960.0, 40960),
    ],
)
def test_tokens_follow_the_habit_of_model_cards(text: str | float, tokens: int) -> None:
    assert units.parse_tokens(text) == tokens


@pytest.mark.parametrize(
    ("text", "hours"),
    [("4h", 4), ("90m", 1.5), ("1h30m", 1.5), ("2d", 48), ("1.5", 1.5), (8, 8), ("1d 2h", 26)],
)
def test_hours(text: str | float, hours: float) -> None:
    assert units.parse_hours(text) == pytest.approx(hours)


@pytest.mark.parametrize(
    ("text", "usd"), [("$2.49", 2.49), ("2.49", 2.49), (2.49, 2.49), ("1 USD", 1), (0.005, 0.005)]
)
def test_usd(text: str | float, usd: float) -> None:
    assert units.parse_usd(text) == pytest.approx(usd)


NONSENSE = [
    "",
    "-1",
    -1,
    "0",
    0,
    "nan",
    "inf",
    math.inf,
    math.nan,
    -math.inf,
    "1e999",
    10**400,
    "9" * 5000,
    "abc",
    "1 2",
    "٣",
    True,
    None,
    "1,2",
]


@pytest.mark.parametrize("parse", [units.parse_bytes, units.parse_tokens, units.parse_hours, units.parse_usd])
@pytest.mark.parametrize("text", NONSENSE, ids=lambda text: str(text)[:12])
def test_nonsense_is_refused_with_the_forms_that_are_not(parse: Callable[..., float], text: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, what="`--option`")
    assert "`--option`" in caught.value.message
    assert len(caught.value.message) < 80
    assert caught.value.why.startswith("write ")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (units.parse_bytes, "1.5"),
        (units.parse_bytes, "9999TiB"),
        (units.parse_bytes, "80XB"),
        (units.parse_tokens, "1.5"),
        (units.parse_tokens, "32kb"),
        (units.parse_tokens, "9999999M"),
        (units.parse_hours, "4x"),
        (units.parse_hours, "30m1h"),
        (units.parse_hours, "9999d"),
        (units.parse_hours, "1h30"),
        (units.parse_usd, "€2"),
        (units.parse_usd, "1e9"),
        (units.parse_usd, "99999999"),
    ],
)
def test_wrong_units_and_absurd_numbers_are_refused(parse: Callable[..., float], text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_a_bare_g_could_be_either_and_says_so() -> None:
    with pytest.raises(UsageError) as caught:
        units.parse_bytes("80G")
    assert caught.value.hints == ("say 80GiB or 80GB",)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    for parse in (units.parse_bytes, units.parse_tokens, units.parse_hours, units.parse_usd):
        try:
            value = parse(text)
        except UsageError:
            continue
        assert value > 0
        assert math.isfinite(value)


def test_printed_sizes_carry_their_unit() -> None:
    assert units.format_gib(85_029_027_840) == "79.2 GiB"
    assert units.format_gib(85_029_027_840, 2) == "79.19 GiB"
    assert units.format_gb(44.5) == "44.5 GB"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (70_553_706_496, "70.6B"),
        (494_032_768, "494M"),
        (1.04e12, "1.04T"),
        (8_030_261_248, "8.03B"),
        (999_999_999, "1B"),
        (950, "950"),
    ],
)
def test_counts_read_as_model_names_do(number: float, text: str) -> None:
    assert units.format_count(number) == text


def test_money_time_and_tokens() -> None:
    assert [units.format_usd(usd) for usd in (2.49, 1592, 0.0031, 0)] == [
        "$2.49",
        "$1,592.00",
        "$0.0031",
        "$0.00",
    ]
    assert [units.format_hours(hours) for hours in (4, 1.5, 0.75, 0)] == ["4h", "1h30m", "45m", "0m"]
    assert units.format_tokens(131072) == "131,072"
