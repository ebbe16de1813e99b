"""What vLLM's pool holds of a workload, and whether one full sequence fits it at all.

Source: vLLM 0.33 `v1/core/kv_cache_utils.py` get_kv_cache_capacity, get_max_concurrency_for_kv_cache_config and
_check_enough_kv_cache_memory; 0.10 get_kv_cache_config.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines._vllm_pool import DEFAULT_BLOCK_TOKENS

if TYPE_CHECKING:
    from soong.memory.engines._vllm_pool import Pool
    from soong.memory.footprint import Workload
    from soong.memory.kv_cache import LayerKind

GIB = 1 << 30


class Held(NamedTuple):
    """A pool of so many blocks, under the rules of a version; in_flight_tokens: of the batches under way."""

    pool: Pool
    rules: dict[str, Any]
    blocks: int
    in_flight_tokens: int


class Sized(NamedTuple):
    """What the pool holds of a workload."""

    per_sequence: int
    tokens: int
    concurrency: float
    workload_bytes: int
    sequences: int | None


def size(held: Held, workload: Workload) -> Sized:
    """Tokens and concurrency as the engine prints them, and what the workload takes."""
    pool, blocks = held.pool, held.blocks
    if not pool.groups:
        return Sized(0, 0, 0.0, 0, None)
    per_sequence = pool.blocks_per_sequence(workload.context_tokens, held.in_flight_tokens)
    concurrency = blocks / per_sequence
    if held.rules["tokens_from_concurrency"]:
        tokens = int(concurrency * workload.context_tokens)
    else:
        groups = pool.group_count(with_states=held.rules["state_groups_counted"])
        tokens = blocks // groups * min(group.block_tokens for group in pool.groups)
    filled = per_sequence * workload.sequences
    if workload.usual_tokens is not None and workload.sequences > 1:
        usual = pool.blocks_per_sequence(workload.tokens_each, held.in_flight_tokens)
        filled = max(per_sequence, usual * workload.sequences)
    return Sized(
        per_sequence,
        tokens,
        concurrency,
        (filled + 1) * pool.bytes_per_block,  # workload_bytes
        (blocks - 1) // per_sequence if blocks else 0,  # sequences
    )


def short_of_pool(
    held: Held, workload: Workload, pool_bytes: int, kinds: tuple[LayerKind, ...], blocks_per_sequence: int
) -> int:
    """Bytes of pool that one sequence lacks, one block being kept back; not above 0 where it has enough.

    Before pools of groups, a sliding layer was asked for its window here, though every token was kept for it
    afterwards (0.10 get_kv_cache_config).
    """
    if not held.rules["hybrid_pools"] and any(kind.window for kind in kinds):
        return _asked_of_old_pool(held, workload, kinds) - max(pool_bytes, 0)
    if not held.pool.groups:
        return 0
    return (blocks_per_sequence + 1 - held.blocks) * held.pool.bytes_per_block


def _asked_of_old_pool(held: Held, workload: Workload, kinds: tuple[LayerKind, ...]) -> int:
    asked = 0
    for kind in kinds:
        kept = workload.context_tokens
        if kind.window:
            kept = min(kind.window - 1 + held.in_flight_tokens, kept)
        blocks = -(-kept // DEFAULT_BLOCK_TOKENS) + bool(kind.window)
        asked += kind.layers * (kind.state_bytes or kind.token_bytes * DEFAULT_BLOCK_TOKENS * blocks)
    return asked


def refusal_of_pool(workload: Workload, pool_bytes: int, short: int) -> str:
    """Why the pool is too small for one sequence, or nothing."""
    if short <= 0:
        return ""
    return (
        f"to serve one request of {workload.context_tokens} tokens {(pool_bytes + short) / GIB:.2f} GiB of KV "
        f"cache is needed, the available KV cache memory is {pool_bytes / GIB:.2f} GiB"
    )


def longest_context(pool: Pool, blocks: int, in_flight: int, limit: int) -> int | None:
    """The longest single sequence that the pool holds, at most the model's limit; 0 when it holds none."""
    if not pool.groups:
        return limit
    usable = blocks - 1
    if pool.uniform_block_tokens:
        return max(0, min(limit, usable * pool.uniform_block_tokens))
    if pool.blocks_per_sequence(limit, in_flight) <= usable:
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if pool.blocks_per_sequence(middle, in_flight) <= usable:
            low = middle
        else:
            high = middle
    return low
