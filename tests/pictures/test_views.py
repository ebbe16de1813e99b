"""What is drawn is what the planner says: each point of a curve, each stop, each dot, and the front."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.errors import NothingFitsError
from soong.pictures.memory_curves import MemoryCurve, memory_view
from soong.pictures.price_dots import speed_view
from soong.pictures.subject import caption, prices_words, short_tokens
from tests.pictures.conftest import a_plan

if TYPE_CHECKING:
    from soong.plan.plan import Candidate


def as_planned(model: str, context: int, curve: MemoryCurve, **options: object) -> Candidate:
    plan = a_plan(model, context=context, **options)
    return next(
        one
        for one in plan.candidates
        if f"{one.gpu_count}× {one.gpu.name}" == curve.name
        and one.offer
        and one.offer.usd_per_hour == curve.usd_per_hour
    )


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("llama-3.1-8b", {"sequences": 4}),
        ("qwen3-32b", {"engine": "vllm"}),
        ("deepseek-r1", {}),
        ("llama-3.1-8b", {"target": "30", "rank": "cost-per-token"}),
    ],
)
def test_each_point_is_what_the_plan_of_that_context_says(model: str, options: dict[str, object]) -> None:
    view = memory_view(a_plan(model, context=8192, **options), most=6)
    assert any(curve.chosen for curve in view.curves)
    for curve in view.curves:
        for point in curve.points[:: len(curve.points) // 3]:
            footprint = as_planned(model, point.context_tokens, curve, **options).footprint
            assert footprint is not None
            if (
                "target" not in options
            ):  # there the batch, and the memory with it, is searched for each context
                assert point.need_bytes == footprint.need_bytes
            assert curve.total_bytes == footprint.total_bytes
        asked = next(one for one in curve.points if one.context_tokens == 8192)
        now = as_planned(model, 8192, curve, **options).footprint
        assert now is not None
        assert asked.need_bytes == now.need_bytes


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-32b", "deepseek-r1"])
def test_a_curve_stops_where_the_plan_stops(model: str) -> None:
    view = memory_view(a_plan(model, sequences=2), most=6)
    stops = 0
    for curve in view.curves:
        for stop, verdicts in ((curve.fits_to, {"fits"}), (curve.starts_to, {"fits", "tight"})):
            if stop is not None:
                assert as_planned(model, stop, curve, sequences=2).verdict in verdicts
            if stop != view.limit_tokens:
                stops += 1
                beyond = (stop or view.least_tokens - 1) + 1
                assert as_planned(model, beyond, curve, sequences=2).verdict not in verdicts
    assert stops, "a picture in which nothing stops proves nothing"


A_PAGE_BYTES = 64 * 32 * 2 * 8 * 128 * 2
"""SGLang's page on Blackwell, 64 tokens, of Llama 3.1 8B."""


@pytest.mark.parametrize("lengths", [{"input_tokens": 4000, "output_tokens": 300}, {}])
def test_a_curve_has_no_step_at_what_was_asked(lengths: dict[str, object]) -> None:
    """What several sequences take is the same question at every context."""
    view = memory_view(a_plan("llama-3.1-8b", sequences=64, context=8192, **lengths), most=6)
    for curve in view.curves:
        for before, after in pairwise(curve.points):
            assert before.kv_bytes <= after.kv_bytes, (curve.name, before.context_tokens)
            grown = after.context_tokens / before.context_tokens
            smooth = before.kv_bytes * grown * 1.02 + 64 * A_PAGE_BYTES  # of each sequence, one page more
            assert after.kv_bytes <= smooth, (curve.name, before.context_tokens)


def test_a_context_beyond_the_models_limit_is_drawn_all_the_same() -> None:
    plan = a_plan("qwen3-32b", context=131072)
    assert {one.verdict for one in plan.candidates} == {"unsupported"}
    assert len(memory_view(plan, most=6).curves) == 6


def test_the_axis_ends_at_the_models_limit_or_at_what_was_asked() -> None:
    assert memory_view(a_plan("llama-3.1-8b"), most=1).limit_tokens == 131072
    beyond = memory_view(a_plan("llama-3.1-8b", context=200000, engine="llama.cpp"), most=1)
    assert (beyond.limit_tokens, beyond.limit_is_the_models) == (200000, False)


def test_the_curves_that_are_kept() -> None:
    plan = a_plan("qwen3-32b", context=32768)
    for most in (1, 2, 4, 6):
        view = memory_view(plan, most=most)
        assert len(view.curves) == most
        assert sum(curve.chosen for curve in view.curves) == 1
        prices = [curve.usd_per_hour or 0 for curve in view.curves]
        assert prices == sorted(prices)
        assert view.note.startswith(f"{most} of ")
    too_small = [curve for curve in view.curves if curve.starts_to is None]
    assert [curve.why_not.startswith("needs ") for curve in too_small] == [True]


def test_one_machine_that_was_named_has_one_curve() -> None:
    view = memory_view(a_plan(gpu="gpu_1x_a10"), most=6)
    assert [curve.name for curve in view.curves] == ["1× A10"]
    assert view.note == ""


def test_a_model_of_unknown_architecture_is_drawn_by_the_rule_of_thumb(tmp_path: object) -> None:
    plan = a_plan("llama-3.1-8b", context=8192)
    bare = msgspec.structs.replace(plan.model, architecture=None)
    plain = msgspec.structs.replace(
        plan,
        model=bare,
        candidates=tuple(
            msgspec.structs.replace(one, footprint=None, throughput=None) for one in plan.candidates
        ),
    )
    view = memory_view(plain, most=3)
    for curve in view.curves:
        assert not curve.exact
        asked = next(one for one in curve.points if one.context_tokens == 8192)
        assert asked.need_bytes * curve.gpu_count == pytest.approx(plan.rule_of_thumb.total_gb * 1e9, abs=10)


def test_the_front_is_what_nothing_beats() -> None:
    view = speed_view(a_plan("qwen3-32b", cloud="all", context=8192))
    assert len(view.dots) > 20
    dots = view.dots
    for dot in view.front:
        assert not [
            other
            for other in dots
            if other.on_front
            and other.usd_per_hour <= dot.usd_per_hour
            and other.tokens_per_second > dot.tokens_per_second
        ]
    prices = [dot.usd_per_hour for dot in view.front]
    speeds = [dot.tokens_per_second for dot in view.front]
    assert (prices, speeds) == (sorted(prices), sorted(speeds))
    assert all(dot.low <= dot.tokens_per_second <= dot.high for dot in dots)
    for dot in dots:
        cost = dot.usd_per_hour / dot.tokens_per_second / 3600 * 1e6
        assert dot.usd_per_million == pytest.approx(cost)


def test_clouds_are_named_where_there_are_several() -> None:
    assert speed_view(a_plan("qwen3-32b")).dots[0].name == "1× RTX A6000"
    assert ", lambda" in " ".join(dot.name for dot in speed_view(a_plan("qwen3-32b", cloud="all")).dots)


def test_no_speeds_no_picture() -> None:
    plan = a_plan("qwen3-32b")
    slow = tuple(msgspec.structs.replace(one, throughput=None) for one in plan.candidates)
    with pytest.raises(NothingFitsError, match="no machine with a price and a known speed"):
        speed_view(msgspec.structs.replace(plan, candidates=slow))


def test_the_caption_says_what_and_when() -> None:
    plan = a_plan("qwen3-32b", context=32768, sequences=4, engine="vllm", kv_dtype="fp8")
    told = caption(plan, drawn_on="2026-11-23", version="0.1.0")
    assert told.title == "qwen3-32b: 2× RTX A6000 for $2.18/hour"
    for word in ("32.8B", "32,768 tokens", "4 sequences", "KV cache in fp8", "vllm 0.", "2026-11-23"):
        assert word in told.workload
    assert "Prices: lambda, 2026-" in told.footer[0]
    assert told.with_notes("", "") is told
    assert told.with_notes("", "one", "two").footer[0] == "one · two"


def test_the_caption_says_what_the_speeds_are_for() -> None:
    """Naming the usual context is another load, and must be seen to be one."""
    unsaid, said, batch, slow = (
        caption(a_plan("qwen3-32b", **options), drawn_on="2026-11-23", version="1")
        for options in ({}, {"context": 32768}, {"target": "40"}, {"target": "5000"})
    )
    assert (
        "32,768 tokens of context, one sequence · speed for 1,024 tokens in and 1,024 out" in unsaid.workload
    )
    assert (
        "32,768 tokens of context, one sequence · speed for 31,744 tokens in and 1,024 out" in said.workload
    )
    assert "as many sequences as will do" in batch.workload
    assert "one sequence" not in batch.workload
    assert slow.title == "qwen3-32b: nothing that fits gives each user 5000 tokens/s"


def test_the_title_says_what_the_text_says() -> None:
    from soong.cli.views.plan import screen

    for model, options, said in (
        ("qwen3-32b", {"target": "5000"}, "nothing that fits gives each user 5000 tokens/s"),
        (
            "llama-3.1-8b",
            {"max_price": 0.7, "engine": "vllm", "context": "32k"},
            "nothing fits with 10% to spare",
        ),
        ("kimi-k2", {"max_price": 2}, "nothing considered here runs"),
    ):
        plan = a_plan(model, **options)
        assert plan.chosen is None
        assert said in caption(plan, drawn_on="2026-11-23", version="1").title
        assert said in screen(plan).lower()


def test_prices_are_named_with_their_days() -> None:
    offers = [one.offer for one in a_plan().candidates if one.offer]
    one = offers[0]
    assert prices_words([one]) == f"Prices: lambda, {one.as_of} ({one.source.partition(';')[0]})"
    live = msgspec.structs.replace(one, live=True, as_of="2026-11-23")
    assert prices_words([live]) == "Prices: lambda, 2026-11-23 (asked of the cloud)"
    clouds = [
        msgspec.structs.replace(one, cloud=name, as_of=f"2026-11-0{place}")
        for place, name in enumerate("abcd", 1)
    ]
    assert prices_words(clouds) == "Prices: 4 clouds, 2026-11-01 to 2026-11-04"
    assert prices_words([]) == "No prices"


@pytest.mark.parametrize(
    ("tokens", "said"), [(512, "512"), (8192, "8k"), (131072, "128k"), (1 << 20, "1M"), (40960, "40k")]
)
def test_contexts_on_an_axis(tokens: int, said: str) -> None:
    assert short_tokens(tokens) == said
