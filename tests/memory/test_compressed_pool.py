"""DeepSeek-V4's pool, held against what vLLM 0.32's own planner makes of its two published configs on an H100 80GB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.gpus.catalogue import find_gpu
from soong.memory import engines
from soong.memory.engines._vllm_pool import PoolRules, build_pool
from soong.memory.footprint import EngineSettings, Workload
from soong.memory.kv_cache import layer_kinds
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.resolve import resolve
from soong.plan.candidates import served_model

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

POOL_BYTES, IN_FLIGHT_TOKENS = 40 << 30, 2 * 8192


def deepseek_v4(ratios: list[int]) -> Architecture:
    """A model with DeepSeek-V4's caches; the sizes of its matrices play no part."""
    return read_architecture(
        Config(
            {
                "model_type": "deepseek_v4",
                "hidden_size": 4096,
                "num_hidden_layers": len(ratios),
                "num_attention_heads": 64,
                "head_dim": 512,
                "qk_rope_head_dim": 64,
                "q_lora_rank": 1024,
                "o_lora_rank": 1024,
                "o_groups": 8,
                "index_n_heads": 64,
                "index_head_dim": 128,
                "index_topk": 512,
                "n_routed_experts": 256,
                "n_shared_experts": 1,
                "num_experts_per_tok": 6,
                "moe_intermediate_size": 2048,
                "vocab_size": 129280,
                "sliding_window": 128,
                "hc_mult": 4,
                "compress_ratios": ratios,
            }
        )
    )


FLASH = [0, 0, *[4, 128] * 20, 4]
PRO = [128, 128, *[4, 128] * 29, 4]


@pytest.mark.parametrize(
    ("ratios", "block_bytes", "tokens"),
    [
        (FLASH, 1_002_240, {4096: 104_231, 8192: 104_355, 32768: 206_197}),
        (PRO, 1_435_968, {4096: 72_747, 8192: 72_834, 32768: 143_914}),
    ],
    ids=["flash", "pro"],
)
def test_windows_entries_and_states_share_a_pool(
    ratios: list[int], block_bytes: int, tokens: dict[int, int]
) -> None:
    kinds = layer_kinds(deepseek_v4(ratios), tensor_parallel=8, kv_dtype="bfloat16")
    pool = build_pool(kinds, PoolRules(True, 1.5, 2, 1, 16, 1))
    blocks = POOL_BYTES // pool.bytes_per_block
    assert pool.bytes_per_block == block_bytes
    assert {
        context: int(blocks / pool.blocks_per_sequence(context, IN_FLIGHT_TOKENS) * context)
        for context in tokens
    } == tokens


@pytest.mark.parametrize(
    ("pool_gib", "context", "in_flight_tokens", "printed"),
    [
        (32.08, 4096, 8192, 90_841),
        (32.08, 131_072, 8192, 1_247_687),
        (32.08, 262_144, 8192, 2_175_276),
        (29.07, 4096, 16384, 82_301),
    ],
)
def test_groups_counted_by_their_bytes_before_0_26(
    pool_gib: float, context: int, in_flight_tokens: int, printed: int
) -> None:
    """Start-up logs of 0.22 and 0.23 on two H200."""
    kinds = layer_kinds(deepseek_v4(FLASH), tensor_parallel=2, kv_dtype="fp8")
    pool = build_pool(kinds, PoolRules(True, 1.5, 2, 1, 16, 1, 1, pages_by_bytes=True))
    blocks = int(pool_gib * 2**30) // pool.bytes_per_block
    tokens = blocks / pool.blocks_per_sequence(context, in_flight_tokens) * context
    assert tokens == pytest.approx(printed, rel=0.0005)


@pytest.mark.parametrize(
    ("version", "ranks", "kv_dtype", "pool_bytes", "context", "batch_tokens", "tokens", "within"),
    [
        ("0.22.0", 2, "fp8", int(32.08 * 2**30), 131_072, 8192, 1_247_687, 5e-4),
        ("0.25.1", 2, "fp8", int(29.07 * 2**30), 4096, 16384, 82_301, 5e-4),
        ("0.32.0", 8, "bfloat16", POOL_BYTES, 32_768, 8192, 206_197, 0),
    ],
)
def test_which_versions_count_groups_by_their_bytes(
    version: str,
    ranks: int,
    kv_dtype: str,
    pool_bytes: int,
    context: int,
    batch_tokens: int,
    tokens: int,
    within: float,
) -> None:
    """The same figures by the engine's version: logs of 0.22 and 0.23, and 0.32's own planner."""
    model = served_model(resolve("deepseek-v4-flash", allow_network=False))
    assert model is not None
    settings = EngineSettings(
        name="vllm",
        version=version,
        tensor_parallel=ranks,
        kv_cache_memory_bytes=pool_bytes,
        max_num_batched_tokens=batch_tokens,
    )
    load = Workload(context_tokens=context, kv_dtype=kv_dtype)
    found = engines.footprint(model, find_gpu("h200-141gb-sxm5"), load, settings)
    assert found.kv_pool_tokens == pytest.approx(tokens, rel=within)
