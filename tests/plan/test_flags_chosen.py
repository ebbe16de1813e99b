"""Flags that nobody named: sequences at once, pools in tokens, and what a verdict says where they do not help."""

from __future__ import annotations

from typing import Any

import pytest

import soong
from soong.models.architecture import StateCache
from soong.models.catalogue import all_models
from soong.models.resolve import resolve
from soong.plan.explain import explain

GIB = 1 << 30
KV_BYTES_OF_QWEN3_8B = 36 * 2 * 8 * 128 * 2


def plan(model: str, **options: Any) -> Any:
    return soong.plan_model(model, allow_network=False, **options).candidates[0]


def flag(candidate: Any, name: str) -> str | None:
    argv = candidate.engine_argv
    return argv[argv.index(name) + 1] if name in argv else None


def hybrids() -> list[str]:
    found = []
    for model in all_models():
        architecture = resolve(model.id, allow_network=False).architecture
        if architecture and any(isinstance(cache, StateCache) for cache in architecture.caches):
            found.append(model.id)
    return found


def test_pools_that_lend_nothing_to_each_other_are_asked_apart() -> None:
    """SGLang 0.5.23 `_handle_max_mamba_cache` divides what is left; `fits` needs both parts."""
    models, fitting = hybrids(), 0
    assert len(models) >= 15
    for model in models:
        for context, sequences in ((4096, 64), (16384, 24), (32768, 6)):
            found = plan(
                model,
                engine="sglang",
                gpu="h200-141gb-sxm5",
                gpu_count=4,
                context=context,
                sequences=sequences,
            )
            if found.verdict == "fits":
                fitting += 1
                assert found.footprint.max_sequences >= sequences, (model, context)
                assert found.footprint.kv_pool_tokens >= context * sequences, (model, context)
    assert fitting


def test_a_raised_fraction_is_raised_until_each_pool_holds_its_part() -> None:
    wish: dict[str, Any] = {"engine": "sglang", "gpu": "h100-80gb-sxm5", "gpu_count": 1, "context": 40_000}
    found = plan("qwen3.5-27b", sequences=4, **wish)
    assert found.verdict == "fits"
    assert found.footprint.kv_pool_tokens >= 160_000
    assert plan("qwen3.5-27b", sequences=4, memory_fraction=0.8, **wish).verdict == "tight"


def test_a_pool_in_bytes_is_a_limit_of_tokens_for_sglang() -> None:
    found = plan("qwen3-8b", engine="sglang", gpu="h100-80gb-sxm5", kv_cache_memory="10GiB", context=8192)
    assert flag(found, "--max-total-tokens") == str(10 * GIB // KV_BYTES_OF_QWEN3_8B)
    assert flag(found, "--mem-fraction-static") is None


@pytest.mark.parametrize(("model", "pool_gib"), [("qwen3-8b", 58), ("qwen3.5-27b", 10)])
def test_the_fraction_in_the_command_allows_the_pool_that_was_asked(model: str, pool_gib: int) -> None:
    wish: dict[str, Any] = {"engine": "sglang", "gpu": "h100-80gb-sxm5", "gpu_count": 1, "context": 8192}
    found = plan(model, kv_cache_memory=f"{pool_gib}GiB", **wish)
    fraction = flag(found, "--mem-fraction-static")
    assert found.starts
    assert fraction is not None
    allowed = plan(model, memory_fraction=float(fraction), **wish).footprint
    assert allowed.kv_pool_bytes + allowed.state_bytes >= pool_gib * GIB
    if found.footprint.state_bytes:
        slots = int(flag(found, "--max-mamba-cache-size") or 0)
        assert found.footprint.state_bytes % (slots + 1) == 0


def test_a_fraction_beside_a_pool_in_bytes_still_bounds_it_for_sglang() -> None:
    """`_apply_token_constraints`: a limit above what was measured is not taken."""
    wish: dict[str, Any] = {"engine": "sglang", "gpu": "h100-80gb-sxm5", "context": 8192}
    both = plan("qwen3-8b", kv_cache_memory="60GiB", memory_fraction=0.5, **wish)
    alone = plan("qwen3-8b", memory_fraction=0.5, **wish)
    assert both.footprint.kv_pool_tokens == alone.footprint.kv_pool_tokens


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"model": "qwen3-8b", "gpu": "h100-80gb-sxm5", "sequences": 2000}, "2000"),
        ({"model": "qwen3-8b", "gpu": "h100-80gb-sxm5", "sequences": 1024}, None),
        ({"model": "qwen2.5-7b", "gpu": "rtx4090-24gb", "sequences": 300}, "300"),
        ({"model": "qwen2.5-7b", "gpu": "rtx4090-24gb", "sequences": 256}, None),
    ],
)
def test_more_sequences_than_vllm_s_default_are_in_the_command(
    wish: dict[str, Any], told: str | None
) -> None:
    """vLLM 0.33 `engine/arg_utils.py get_batch_defaults`: 1,024 on an H100, 256 on smaller cards."""
    found = plan(engine="vllm", context=128, **wish)
    assert found.verdict == "fits"
    assert flag(found, "--max-num-seqs") == told
    assert found.footprint.max_sequences >= wish["sequences"]


def test_more_requests_than_sglang_s_own_pool_of_them_are_in_the_command() -> None:
    """`resolve_max_num_reqs`: at most 4,096 by itself."""
    found = plan("qwen3-8b", engine="sglang", gpu="h100-80gb-sxm5", context=64, sequences=5000)
    assert flag(found, "--max-running-requests") == "5000"
    assert found.footprint.max_sequences == 5000


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_fewer_named_sequences_than_asked_are_never_a_fit(engine: str) -> None:
    found = plan("qwen3-8b", engine=engine, gpu="h100-80gb-sxm5", context=128, sequences=2000, max_num_seqs=8)
    assert found.verdict == "tight"
    assert found.footprint.max_sequences == 8
    assert found.reasons[0] == "runs 8 of 2,000 sequences at once; the others wait"


def test_more_memory_never_makes_a_hybrid_worse() -> None:
    order = {"too-small": 0, "tight": 1, "fits": 2}
    verdicts = [
        plan("qwen3.5-9b", engine="vllm", gpu="rtx4090-24gb", gpu_memory=f"{size}GiB").verdict
        for size in range(18, 60, 2)
    ]
    assert [order[one] for one in verdicts] == sorted(order[one] for one in verdicts)
    assert set(verdicts) == set(order)


def test_a_hybrid_on_a_small_card_starts_with_sequences_that_surely_have_a_block() -> None:
    found = plan("qwen3.5-9b", engine="vllm", gpu="rtx4090-24gb")
    told = int(flag(found, "--max-num-seqs") or 0)
    assert found.starts
    assert found.footprint.starts
    assert 0 < told <= found.footprint.startable_sequences
    asked = plan("qwen3.5-9b", engine="vllm", gpu="rtx4090-24gb", sequences=20)
    assert int(flag(asked, "--max-num-seqs") or 0) >= 20
    named = plan("qwen3.5-9b", engine="vllm", gpu="rtx4090-24gb", max_num_seqs=256)
    assert named.verdict == "too-small"


def test_within_the_error_is_said_only_where_it_is() -> None:
    found = plan("llama-3.1-70b", engine="vllm", gpu="a40-48gb")
    assert found.verdict == "tight"
    assert found.reasons[0].startswith("a second start has more")
    eager = plan("llama-3.1-70b", engine="vllm", gpu="a40-48gb", enforce_eager=True)
    assert not any("a second start" in reason for reason in eager.reasons)


def test_a_whole_card_is_never_free() -> None:
    found = plan("qwen3-8b", engine="vllm", gpu="h100-80gb-sxm5", memory_fraction=1)
    assert found.verdict == "too-small"
    assert "free memory at start" in found.reasons[0]


def test_the_sum_of_kimi_s_experts_says_what_makes_it_twice_a_share() -> None:
    """vLLM `models/kimi_k3/nvidia/model.py`: 1,024 columns on eight GPUs stay 256 wide, not 128."""
    lines = explained("kimi-linear-48b-a3b", engine="vllm", gpu="h100-80gb-sxm5", gpu_count=8)
    told = [line for line in lines if "experts.0" in line]
    assert len(told) == 3
    assert all(line.endswith("each share filled up to 256") for line in told)
    four = explained("kimi-linear-48b-a3b", engine="vllm", gpu="h100-80gb-sxm5", gpu_count=4)
    assert not any("filled up" in line for line in four)


def test_explained_parts_are_those_of_the_sequences_that_are_told() -> None:
    """Eight sequences: graphs of 1, 2, 4, 8 and 16 tokens, and full ones up to 8 (`_set_cudagraph_sizes`)."""
    lines = explained("qwen3-8b", engine="vllm", gpu="l40s-48gb", max_num_seqs=8)
    captures = next(line for line in lines if "captures:" in line)
    assert "bytes, 9 of them for 36 layers; a full set of 102 takes" in captures
    told = flag(plan("qwen3.5-9b", engine="vllm", gpu="rtx4090-24gb"), "--max-num-seqs")
    lines = explained("qwen3.5-9b", engine="vllm", gpu="rtx4090-24gb")
    assert any("sampler:" in line and f" {told} sequences × vocabulary" in line for line in lines)


def explained(model: str, **options: Any) -> list[str]:
    found = soong.plan_model(model, allow_network=False, **options)
    return list(explain(found, found.candidates[0]))
