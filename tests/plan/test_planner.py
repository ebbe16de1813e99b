"""Plans: the choice, the reasons, the flags."""

from __future__ import annotations

from typing import Any

import pytest

import soong
from soong.errors import NotFoundError, UsageError
from soong.offers.offer import Offer
from soong.plan.planner import make_plan
from soong.plan.request import Request, read_request


def plan(model: str = "llama-3.1-8b", **options: Any) -> Any:
    return soong.plan_model(model, allow_network=False, **options)


def offer(gpu: str, usd_per_hour: float, count: int = 1) -> Offer:
    return Offer(
        cloud="c",
        instance_type=f"{count}x-{gpu}",
        gpu=gpu,
        gpu_count=count,
        usd_per_hour=usd_per_hour,
        as_of="2026-11-01",
        source="a test",
    )


def test_the_choice_is_the_cheapest_that_fits_not_the_smallest() -> None:
    offers = [offer("a10-24gb", 3.0), offer("h100-80gb-sxm5", 2.0), offer("a100-40gb-pcie", 2.5)]
    chosen = make_plan(Request(model="mistral-7b"), offers=offers).chosen
    assert chosen is not None
    assert chosen.gpu.id == "h100-80gb-sxm5"


def test_the_choice_equals_a_search_over_everything() -> None:
    for model in ("mistral-7b", "qwen3-32b", "deepseek-r1-70b", "gpt-oss-120b"):
        found = plan(model)
        fitting = [one for one in found.candidates if one.verdict == "fits" and one.offer]
        best = min((one.offer.usd_per_hour for one in fitting), default=None)
        chosen = found.chosen
        assert (chosen.offer.usd_per_hour if chosen else None) == best


def test_a_larger_workload_never_needs_less() -> None:
    needs = [
        plan(gpu="h100-80gb-sxm5", engine="vllm", context=context, sequences=sequences)
        .candidates[0]
        .footprint.need_bytes
        for context, sequences in ((2048, 1), (8192, 1), (8192, 4), (32768, 4))
    ]
    assert needs == sorted(needs)


def test_the_headroom_is_the_specifications() -> None:
    for candidate in plan("qwen2.5-coder-32b-int4").candidates:
        if candidate.verdict == "fits":
            assert candidate.footprint.need_bytes * 1.1 <= candidate.footprint.total_bytes


def test_no_verdict_rests_inside_the_error_of_the_figure() -> None:
    for model in ("mistral-7b", "llama-3.1-70b", "gemma-3-27b"):
        for engine in ("vllm", "sglang"):
            for candidate in plan(model, engine=engine).candidates:
                if candidate.verdict == "fits":
                    assert candidate.footprint.free_bytes >= candidate.footprint.uncertainty_bytes


def test_a_raised_fraction_is_in_the_command() -> None:
    candidate = plan(gpu="a10-24gb").candidates[0]
    assert candidate.starts
    assert "--mem-fraction-static" in candidate.engine_argv
    assert any("memory fraction" in reason for reason in candidate.reasons)


def test_a_given_fraction_is_left_alone() -> None:
    candidate = plan(gpu="a10-24gb", memory_fraction=0.5).candidates[0]
    assert candidate.footprint.memory_fraction == pytest.approx(0.5)
    assert candidate.verdict == "too-small"


def test_a_fixed_pool_has_its_tokens_on_any_card() -> None:
    small = plan("llama-3.1-70b", engine="vllm", gpu="l4-24gb", kv_cache_memory="10GiB").candidates[0]
    assert small.verdict == "too-small"
    assert small.footprint.kv_pool_tokens == 10 * 2**30 // (80 * 2 * 8 * 128 * 2 * 16) * 16


def test_tensor_parallel_divides_the_weights() -> None:
    one, eight = (
        plan("llama-3.1-70b", quantization="bf16", gpu="h100-80gb-sxm5", gpu_count=count).candidates[0]
        for count in (1, 8)
    )
    assert one.footprint.weights_bytes / eight.footprint.weights_bytes == pytest.approx(8, rel=0.02)


def test_heads_that_do_not_divide_leave_gpus_idle_and_say_so() -> None:
    candidate = plan("qwen2.5-7b", gpu="a100-80gb-sxm4", gpu_count=8).candidates[0]
    assert candidate.tensor_parallel == 4
    assert any("uses 4 of 8" in reason for reason in candidate.reasons)


def test_pipeline_stages_need_a_gpu_each() -> None:
    found = plan("llama-3.1-8b", pipeline_parallel=2)
    assert found.candidates
    assert all(candidate.gpu_count >= 2 for candidate in found.candidates)


def test_an_asked_split_that_cannot_be_is_unsupported() -> None:
    candidate = plan("qwen2.5-7b", gpu="a100-80gb-sxm4", gpu_count=8, tensor_parallel=8).candidates[0]
    assert candidate.verdict == "unsupported"
    assert "28 attention heads" in candidate.reasons[0]


@pytest.mark.parametrize(
    "options",
    [
        {"context": 0},
        {"context": -1},
        {"context": True},
        {"context": "8k k"},
        {"sequences": 0},
        {"sequences": 1.5},
        {"gpu_memory": "-1GiB"},
        {"gpu_memory": float("nan")},
        {"memory_fraction": 0},
        {"memory_fraction": "most"},
        {"kv_dtype": "int3"},
        {"tensor_parallel": 0},
        {"engine_version": "latest"},
        {"max_price": "free"},
        {"unknown": 1},
        {"gpu": ["h100"]},
        {"enforce_eager": "yes"},
        {"gpu": "h100-80gb-sxm5", "gpu_count": 2, "tensor_parallel": 4},
    ],
    ids=str,
)
def test_nonsense_is_refused_in_words(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        plan(**options)


def test_a_context_beyond_the_models_limit_is_refused_as_the_engine_does() -> None:
    found = plan("llama-2-7b", context="32k")
    assert {candidate.verdict for candidate in found.candidates} == {"unsupported"}
    assert "own limit is 4,096" in found.candidates[0].reasons[0]


def test_an_unknown_gpu_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="no GPU `h900`"):
        plan(gpu="h900")


def test_numbers_and_words_mean_the_same() -> None:
    words = read_request(
        {"model": "m", "context": "32k", "gpu_memory": "80GiB", "max_price": "$2.50", "hours": "90m"}
    )
    numbers = read_request(
        {"model": "m", "context": 32768, "gpu_memory": 80 * 2**30, "max_price": 2.5, "hours": 1.5}
    )
    assert words == numbers
