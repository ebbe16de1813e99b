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


def test_a_hybrid_is_started_with_fewer_sequences_than_vllm_s_default() -> None:
    """A log of Qwen3.8-27B-FP8 on an H100, vLLM 0.27.1: the default, 1,024, does not start; 256 do."""
    wish: dict[str, Any] = {"engine": "vllm", "engine_version": "0.27.1", "gpu": "h100-80gb-sxm5"}
    candidate = plan("qwen3.8-27b", **wish).candidates[0]
    argv = candidate.engine_argv
    assert candidate.verdict == "fits"
    assert 256 <= int(argv[argv.index("--max-num-seqs") + 1]) < 694
    assert plan("qwen3.8-27b", max_num_seqs=1024, **wish).candidates[0].verdict == "too-small"


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
        {"gpu_memory": "1"},
        {"gpu_memory": 1000},
        {"gpu_memory": "1023MiB"},
        {"cloud": ","},
        {"cloud": " , ,"},
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


@pytest.mark.parametrize("engine", ["sglang", "vllm", "llama.cpp"])
def test_the_smallest_gpu_is_too_small_and_no_error(engine: str) -> None:
    found = plan("qwen3-235b-a22b", gpu_memory="1GiB", engine=engine)
    assert [one.verdict for one in found.candidates] == ["too-small"]


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


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_sequences_of_a_stated_length_take_that_length_and_not_the_context(engine: str) -> None:
    """By the engines' own blocks, with the context's one sequence as the least."""
    stated = {"gpu": "gh200", "engine": engine, "context": 32768, "sequences": 8, "kv_cache_memory": "60GiB"}
    full = _workload_bytes(**stated)
    usual = _workload_bytes(**stated, input_tokens=4000, output_tokens=300)
    as_context = _workload_bytes(**{**stated, "context": 4304})
    alone = _workload_bytes(**{**stated, "sequences": 1})
    assert usual < full / 7
    assert usual == pytest.approx(as_context, rel=0.01)
    assert _workload_bytes(**stated, input_tokens=400, output_tokens=30) == alone


def _workload_bytes(**options: Any) -> int:
    footprint = plan("qwen3-32b", **options).candidates[0].footprint
    assert footprint is not None
    return int(footprint.workload_kv_bytes)


def test_lengths_decide_the_machine_and_not_the_catalogues_context() -> None:
    lengths = {"input_tokens": 4000, "output_tokens": 300, "sequences": 8}
    said, short = plan("qwen3-32b", **lengths), plan("qwen3-32b", **lengths, context=4300)
    assert said.chosen is not None
    assert short.chosen is not None
    assert said.chosen.name == short.chosen.name
    assert said.workload.context_tokens == 32768


def test_more_sequences_than_the_pool_holds_are_told_by_their_length() -> None:
    found = plan("qwen3-32b", gpu="gh200", input_tokens=4000, output_tokens=300, sequences=200).candidates[0]
    assert found.verdict == "tight"
    assert "200 sequences of 4,300 tokens" in " ".join(found.reasons)


@pytest.mark.parametrize("word", ["rtx4090", "p4d.24xlarge"])
def test_a_named_machine_has_the_price_of_whoever_rents_it(word: str) -> None:
    found = plan("llama-3.1-8b", gpu=word)
    assert found.chosen is not None
    assert found.chosen.offer is not None
    assert not found.chosen.offer.launchable


def test_a_named_machine_of_the_usual_clouds_keeps_their_price() -> None:
    for gpu in ("h100-80gb-sxm5", "gpu_1x_a10"):
        offer = plan("llama-3.1-8b", gpu=gpu).candidates[0].offer
        assert offer is not None
        assert offer.cloud == "lambda"
