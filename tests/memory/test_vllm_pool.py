"""Pools, digit for digit, against what vLLM's own planning code computed for real models."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from soong.memory.engines._vllm_pool import PoolRules, build_pool
from soong.memory.kv_cache import LayerKind

POOLS = tomllib.loads((Path(__file__).parents[1] / "golden" / "vllm_pools.toml").read_text())["pool"]
BATCHED_TOKENS, BATCHES_IN_FLIGHT = 8192, 2


def kinds_of(case: dict[str, Any]) -> tuple[LayerKind, ...]:
    return tuple(
        LayerKind(
            name=name,
            layers=layers,
            token_bytes=token_bytes,
            window=window,
            state_bytes=state_bytes,
            state_kind=state_kind,
        )
        for name, layers, token_bytes, window, state_bytes, state_kind in case["kinds"]
    )


@pytest.mark.parametrize("case", POOLS, ids=lambda case: f"{case['model']}-tp{case['tensor_parallel']}")
def test_blocks_tokens_and_concurrency(case: dict[str, Any]) -> None:
    latent_block = 64 if case["cache_type"].startswith("fp8") else 16
    pool = build_pool(kinds_of(case), PoolRules(True, 1.5, 2, 1, latent_block))
    blocks = case["pool_bytes"] // pool.bytes_per_block
    per_sequence = pool.blocks_per_sequence(case["context_tokens"], BATCHES_IN_FLIGHT * BATCHED_TOKENS)
    concurrency = blocks / per_sequence
    assert blocks == case["blocks"]
    assert int(concurrency * case["context_tokens"]) == case["tokens"]
    assert concurrency == pytest.approx(case["concurrency"], abs=1e-5)


def test_without_groups_a_sliding_layer_keeps_every_token() -> None:
    kinds = (LayerKind("sliding", 20, 1024, window=512), LayerKind("full", 4, 1024))
    pool = build_pool(kinds, PoolRules(False, 1.25, 1, 0, 16))
    assert pool.bytes_per_block == 24 * 16 * 1024
    assert pool.blocks_per_sequence(32_000, 8192) == 2000


def test_a_model_without_cache_has_an_empty_pool() -> None:
    assert build_pool((), PoolRules(True, 1.5, 1, 0, 16)).groups == ()


@pytest.mark.parametrize("batches", [1, 2])
def test_an_encoders_keys_are_kept_for_one_batch_however_many_are_under_way(batches: int) -> None:
    """vLLM's CrossAttentionSpec admits by `max_num_encoder_input_tokens`: 8,192 tokens are 512 blocks of 16."""
    kinds = (LayerKind("full", 4, 1024), LayerKind("cross", 4, 1024))
    pool = build_pool(kinds, PoolRules(True, 1.5, 2, 1, 16, in_flight_batches=batches))
    own = -(-448 // 16)
    assert pool.blocks_per_sequence(448, batches * BATCHED_TOKENS) == own + 512
