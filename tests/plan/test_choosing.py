"""The choice: the same as a search over everything, whatever is asked, and what the ranks and the target mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import soong
from soong.errors import NotFoundError, UsageError
from soong.gpus.catalogue import all_gpus
from soong.offers.offer import Offer
from soong.plan.document import plan_document
from soong.plan.planner import make_plan
from soong.plan.ranking import front
from soong.plan.request import Request, read_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.plan.plan import Candidate, Plan

GPUS = [gpu.id for gpu in all_gpus() if gpu.vendor == "nvidia"]
MODELS = (
    "llama-3.1-8b",
    "qwen2.5-coder-32b-int4",
    "gpt-oss-120b",
    "llama-3.1-70b",
    "deepseek-r1",
    "mistral-7b",
)


def offer(gpu: str, usd_per_hour: float, count: int = 1, **changes: Any) -> Offer:
    row = {
        "cloud": "c",
        "instance_type": f"{count}x-{gpu}",
        "gpu": gpu,
        "gpu_count": count,
        "usd_per_hour": usd_per_hour,
        "as_of": "2026-11-01",
        "source": "a test",
    }
    return Offer(**{**row, **changes})


def plan(model: str = "llama-3.1-8b", **options: Any) -> Plan:
    return soong.plan_model(model, allow_network=False, **options)


# ── against a search over everything ─────────────────────────────────────────────────────────────────


offers_strategy = st.lists(
    st.builds(
        offer,
        st.sampled_from(GPUS),
        # Few prices, so that many offers cost the same.
        st.sampled_from([0.5, 1.0, 1.99, 2.0, 3.5, 8.0, 30.0]),
        st.sampled_from([1, 1, 2, 4, 8]),
        cloud=st.sampled_from(["a", "b"]),
        region=st.sampled_from([None, "north", "south"]),
        launchable=st.booleans(),
    ),
    min_size=1,
    max_size=25,
)
requests_strategy = st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS), "rank": st.sampled_from(["price", "cost-per-token", "time"])},
    optional={
        "context": st.sampled_from([2048, 16384]),
        "sequences": st.sampled_from([1, 8, 64]),
        "input_tokens": st.just(700),
        "output_tokens": st.just(300),
        "target": st.sampled_from([5, 40, 150]),
        "engine": st.sampled_from(["sglang", "vllm"]),
        "kv_dtype": st.just("fp8"),
        "cloud": st.sampled_from(["a", "b"]),
        "region": st.just("north"),
        "max_price": st.sampled_from([1.0, 3.0]),
        "gpu_count": st.sampled_from([1, 2]),
        "job_tokens": st.sampled_from(["5M", "60k"]),
    },
)


def brute_force(request: dict[str, Any], offers: Sequence[Offer]) -> tuple[bool, float] | None:
    """Each offer planned alone, on its own; the best of all: whether it can be rented, and what it scores."""
    scores = []
    for one in offers:
        if request.get("cloud") not in {None, one.cloud} or request.get("gpu_count") not in {
            None,
            one.gpu_count,
        }:
            continue
        if request.get("region") is not None and one.region not in {None, request["region"]}:
            continue
        if "max_price" in request and one.usd_per_hour > request["max_price"]:
            continue
        places = {"cloud", "region", "max_price", "gpu_count", "rank"}
        alone = {key: value for key, value in request.items() if key not in places}
        if request["rank"] != "price":  # what makes the batch a searched one
            alone["rank"] = request["rank"]
        document = plan_document(make_plan(read_request(alone), offers=[one], allow_network=False))
        score = score_of(document["candidates"][0], request)
        if score is not None:
            scores.append((not one.launchable, score))
    return min(scores, default=None)


def score_of(candidate: dict[str, Any], request: dict[str, Any]) -> float | None:
    """From the figures of the JSON alone; None where it will not do."""
    speed = candidate["throughput"]
    rate = speed["decode_tokens_per_second"]
    target = request.get("target")
    if candidate["verdict"] != "fits":
        return None
    if target is not None and (
        rate is None or speed["decode_tokens_per_second_per_user"] < target * (1 - 1e-9)
    ):
        return None
    price = float(candidate["offer"]["usd_per_hour"])
    if request["rank"] == "price":
        return price
    if rate is None:
        return float("inf")
    return price / rate if request["rank"] == "cost-per-token" else 1 / float(rate)


@settings(max_examples=120, deadline=None)
@given(requests_strategy, offers_strategy)
def test_the_choice_equals_a_search_over_everything(request: dict[str, Any], offers: list[Offer]) -> None:
    best = brute_force(request, offers)
    try:
        found = make_plan(read_request(request), offers=offers, allow_network=False)
    except NotFoundError:  # no offer of that cloud
        assert best is None
        return
    lazily = make_plan(read_request(request), offers=tuple(offers), allow_network=False, first_fit_only=True)
    for answer in (found, lazily):
        chosen = answer.chosen
        if best is None:
            assert chosen is None
        else:
            assert chosen is not None
            score = score_of(plan_document(answer)["candidates"][answer.choice or 0], request)
            assert chosen.launchable is not best[0]
            assert score == pytest.approx(best[1], rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(requests_strategy, offers_strategy)
def test_the_front_is_what_no_other_beats(request: dict[str, Any], offers: list[Offer]) -> None:
    try:
        found = make_plan(read_request(request), offers=offers, allow_network=False)
    except NotFoundError:
        return
    compared = [
        (index, one.offer.usd_per_hour, one.throughput.decode_tokens_per_second)
        for index, one in enumerate(found.candidates)
        if one.will_do and one.offer and one.throughput
    ]
    unbeaten = {
        index
        for index, price, rate in compared
        if not any(
            other <= price and faster >= rate and (other < price or faster > rate)
            for _, other, faster in compared
        )
    }
    assert set(front(found.candidates)) == unbeaten


def test_same_gpus_at_many_prices_are_judged_once_and_priced_each() -> None:
    offers = [offer("h100-80gb-sxm5", price, cloud=f"c{price}") for price in (3.0, 2.0, 4.0)]
    found = make_plan(Request(model="llama-3.1-8b"), offers=offers, allow_network=False).candidates
    assert [one.offer.usd_per_hour for one in found if one.offer] == [2.0, 3.0, 4.0]
    costs = [one.usd_per_million_output_tokens for one in found]
    assert costs == [pytest.approx(costs[0] * factor) for factor in (1, 1.5, 2)]  # type: ignore[operator]


# ── what the words mean ──────────────────────────────────────────────────────────────────────────────


def test_cost_per_token_is_the_price_over_the_tokens_of_an_hour() -> None:
    for candidate in plan(sequences=16).candidates:
        if candidate.offer and candidate.throughput:
            an_hour = candidate.throughput.decode_tokens_per_second * 3600
            expected = candidate.offer.usd_per_hour / an_hour * 1e6
            assert candidate.usd_per_million_output_tokens == pytest.approx(expected)


def test_the_speed_is_for_the_sequences_that_were_said() -> None:
    one, many = (
        plan(gpu="h100-80gb-sxm5").candidates[0],
        plan(gpu="h100-80gb-sxm5", sequences=16).candidates[0],
    )
    assert (speed(one).load.sequences, speed(many).load.sequences) == (1, 16)
    assert speed(many).decode_tokens_per_second > 4 * speed(one).decode_tokens_per_second


def speed(candidate: Candidate) -> Any:
    assert candidate.throughput is not None
    return candidate.throughput


def test_a_target_takes_the_largest_batch_that_reaches_it() -> None:
    found = plan(gpu="h100-80gb-sxm5", target=60, engine="vllm").candidates[0]
    batch = speed(found).load.sequences
    assert batch > 1
    assert found.meets_target
    assert speed(found).decode_tokens_per_second_per_user >= 60
    assert found.engine_argv[found.engine_argv.index("--max-num-seqs") + 1] == str(batch)
    one_more = plan(gpu="h100-80gb-sxm5", sequences=batch + 1, engine="vllm").candidates[0]
    assert speed(one_more).decode_tokens_per_second_per_user < 60


def test_a_target_out_of_reach_is_said_and_not_chosen() -> None:
    found = plan("llama-3.1-70b", target=1000)
    assert found.chosen is None
    fitting = [one for one in found.candidates if one.verdict == "fits"]
    assert fitting
    assert all(one.meets_target is False and "the target is 1000" in one.reasons[-1] for one in fitting)


def test_stated_sequences_must_all_see_the_target() -> None:
    easy, hard = (plan(gpu="h100-80gb-sxm5", sequences=count, target=100).candidates[0] for count in (1, 48))
    assert (easy.meets_target, hard.meets_target) == (True, False)
    assert "each of 48 users" in hard.reasons[-1]


def test_other_ranks_fill_the_memory_where_no_batch_is_said() -> None:
    searched = plan(gpu="h100-80gb-sxm5", rank="cost-per-token").candidates[0]
    said = plan(gpu="h100-80gb-sxm5", rank="cost-per-token", sequences=4).candidates[0]
    assert speed(said).load.sequences == 4
    assert speed(searched).load.sequences > 100


def test_a_small_job_has_no_large_batch() -> None:
    found = plan(gpu="h100-80gb-sxm5", rank="time", job_tokens=10_000, output_tokens=1000).candidates[0]
    assert speed(found).load.sequences == 10
    assert found.job_hours(10_000) == pytest.approx(10_000 / speed(found).decode_tokens_per_second / 3600)


def test_time_takes_the_fastest_and_cost_per_token_the_cheapest_token() -> None:
    by_price, by_cost, by_time = (plan(rank=rank).chosen for rank in ("price", "cost-per-token", "time"))
    prices = [one.offer.usd_per_hour for one in (by_price, by_cost, by_time) if one and one.offer]
    assert len(set(prices)) == 3
    assert prices == sorted(prices)


def test_what_soong_cannot_rent_is_shown_and_not_recommended() -> None:
    offers = [
        offer("h100-80gb-sxm5", 1.0, cloud="elsewhere", launchable=False),
        offer("h100-80gb-sxm5", 2.0),
    ]
    found = make_plan(Request(model="llama-3.1-8b"), offers=offers, allow_network=False)
    assert found.chosen is found.candidates[1]
    assert found.better_elsewhere is found.candidates[0]
    alone = make_plan(Request(model="llama-3.1-8b"), offers=offers[:1], allow_network=False)
    assert alone.choice == 0
    assert alone.better_elsewhere is None


def test_lengths_alone_open_a_context_that_holds_them() -> None:
    assert plan(input_tokens=20_000, output_tokens=1000).workload.context_tokens == 21_000
    assert plan(input_tokens=100).workload.context_tokens == 8192


@pytest.mark.parametrize(
    "options",
    [
        {"target": 0},
        {"target": "fast"},
        {"target": True},
        {"rank": "best"},
        {"job_tokens": 0},
        {"job_tokens": "much"},
        {"job_tokens": "1e99"},
        {"input_tokens": 0},
        {"context": 1000, "input_tokens": 900, "output_tokens": 101},
        {"context": 1000, "input_tokens": 1000},
    ],
    ids=str,
)
def test_nonsense_is_refused_in_words(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        plan(**options)


def test_a_job_counts_in_thousands_as_prices_do() -> None:
    words = {"1M": 10**6, "250k": 250_000, "2.5B": 2_500_000_000, 7: 7, "1,000": 1000}
    assert {word: read_request({"model": "m", "job_tokens": word}).job_tokens for word in words} == words


def test_the_json_tells_speed_cost_front_and_job() -> None:
    document = plan_document(plan(rank="time", target="40/s"))
    chosen = document["candidates"][document["choice"]]
    assert set(chosen["throughput"]) == {
        "prefill_tokens_per_second",
        "decode_tokens_per_second_per_user",
        "decode_tokens_per_second",
        "time_to_first_token_seconds",
        "sequences",
        "input_tokens",
        "output_tokens",
        "requests",
        "burst_seconds",
        "low_factor",
        "high_factor",
        "bound",
        "basis",
    }
    assert chosen["job"]["usd"] == pytest.approx(chosen["job"]["hours"] * chosen["offer"]["usd_per_hour"])
    assert chosen["meets_target"] is True
    assert document["choice"] in document["front"]
    assert document["rank"] == "time"
    assert document["load"]["target_tokens_per_second_per_user"] == 40
    assert document["alternatives"] is None
