"""A lease that is over before its machine is up is refused, with the least that makes sense, by published figures."""

from __future__ import annotations

import pytest

from soong import units
from soong.launch import booting


@pytest.mark.parametrize(
    ("gpu_count", "usd_per_hour", "said"),
    [
        (1, 1.09, "a machine of 1 GPU usually takes 5 min"),
        (4, 4.36, "a machine of 4 GPUs takes no less than 5 min"),
        (8, 31.92, "a machine of 8 GPUs usually takes 25 min"),
    ],
)
def test_the_least_that_is_named_is_enough(gpu_count: int, usd_per_hour: float, said: str) -> None:
    with pytest.raises(booting.TooShortError, match="before the machine can be used") as refused:
        booting.check("lambda", 3 / 3600, gpu_count, usd_per_hour)
    assert said in refused.value.why
    (hint,) = refused.value.hints
    _, hours, _, usd, _ = hint.split("`")
    for enough in (
        units.parse_hours(hours.removeprefix("--hours ")),
        units.parse_usd(usd.removeprefix("--max-cost ")) / usd_per_hour,
    ):
        ready_hours = booting.ready_seconds("lambda", gpu_count) / 3600
        assert enough - ready_hours == pytest.approx(0.1, abs=1 / 60), "some minutes to use it"
        booting.check("lambda", ready_hours, gpu_count, usd_per_hour)
        with pytest.raises(booting.TooShortError):
            booting.check("lambda", ready_hours - 1 / 60, gpu_count, usd_per_hour)


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0.09 / 1.09, "a lease of 4 min"), (6.99 / 60, "a lease of 6 min"), (59.9 / 3600, "a lease of 59 s")],
)
def test_what_is_too_short_never_reads_as_long_as_what_it_falls_short_of(hours: float, said: str) -> None:
    with pytest.raises(booting.TooShortError, match=f"^{said} would be over"):
        booting.check("lambda", hours, 1, 1.09)


def test_a_model_needs_more_and_this_computer_is_up_already() -> None:
    with pytest.raises(booting.TooShortError) as refused:
        booting.check("lambda", 0.01, 1, 1.09, serving_seconds=3300.0)
    served, alone = refused.value.hints
    assert served.endswith("makes sense is `--hours 1h8m` (`--max-cost 1.24`)")
    assert alone == "for the machine alone (`--no-serve`) it is `--hours 13m` (`--max-cost 0.24`)"
    booting.check("local", 0.001, 8, 0.0)


def test_a_lease_that_leaves_next_to_no_use_says_so() -> None:
    assert booting.hurried("lambda", 7 / 60, 1, 1.09).startswith(
        "of 7 min, 7 pass before the machine can be used"
    )
    assert "`--hours 13m` (`--max-cost 0.24`)" in booting.hurried("lambda", 12 / 60, 1, 1.09)
    assert "of 30 min, 27 pass" in booting.hurried("lambda", 0.5, 8, 30.0)
    assert booting.hurried("lambda", 13 / 60, 1, 1.09) == ""
    assert booting.hurried("local", 0.01, 8, 0.0) == ""
