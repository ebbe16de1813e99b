"""SGLang's pools: bytes of a token in all layers, sliding-window and state pools, requests at once.

Read beside SGLang 0.5.23 `model_executor/pool_configurator.py` and `mem_cache/kv_cache_configurator.py`; earlier
versions held the same in `model_executor/model_runner.py` (`profile_max_num_token`, `set_num_token_hybrid`) and
`model_runner_kv_cache_mixin.py`. What moved between versions is in data/engines.toml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from msgspec import Struct
from msgspec.structs import replace

from soong.models.architecture import AttentionCache, LatentCache, StateCache, StateTensor

if TYPE_CHECKING:
    from soong.memory.engines._facts import Facts
    from soong.memory.footprint import EngineSettings
    from soong.memory.kv_cache import LayerKind
    from soong.models.architecture import Architecture, Cache

GIB = 1 << 30

INDEXER = ".indexer."

MOST_REQUESTS, FEWEST_REQUESTS, REQUESTS_PER_CONTEXT = 4096, 2048, 512
"""`resolve_max_num_reqs`."""

COMPRESSED_REQUESTS = 256
COMPRESSED_PAGE, COMPRESSED_ALIGNMENT_BYTES = 256, 576
COMPRESSED_SLIDING_SHARE = 0.1
STATE_FLOAT_BYTES = 4
SHORT_RING, LONG_RING, LONG_RATIO, SHORT_RATIO = 8, 128, 128, 4
"""DeepSeek-V4 (`DSV4PoolConfigurator`, `mem_cache/deepseek_v4_memory_pool.py`): requests, page, the multiple that a
page's bytes are padded to, the sliding pool's share, and the rings of compression in progress, in float32."""


FLOAT32_STATES = {"ssm", "recurrent"}
"""States that SGLang keeps in float32 where the config names no type (`configs/mamba_utils.py mamba2_state_dtype`)."""


def as_kept(architecture: Architecture, rules: dict[str, Any]) -> Architecture:
    """The architecture with its caches as SGLang keeps them: idle layers have one, states are in float32."""
    caches = tuple(_as_kept(cache) for cache in architecture.caches)
    kept = architecture if caches == architecture.caches else replace(architecture, caches=caches)
    return _with_all_indexers(kept) if rules["indexers_in_all_layers"] else kept


def _with_all_indexers(architecture: Architecture) -> Architecture:
    """Sparse attention where layers that reuse another's choice had an indexer, and room for its keys, like all others.

    Source: SGLang 0.5.16 and 0.5.17 `models/deepseek_v2.py`, `model_executor/pool_configurator.py`, beside 0.5.18.
    """
    every = max((cache.layers for cache in architecture.caches if _shares_choices(cache)), default=0)
    if not every:
        return architecture
    caches = (
        replace(cache, indexer_layers=cache.layers) if _shares_choices(cache) else cache
        for cache in architecture.caches
    )
    weights = (
        replace(weight, layers=tuple(range(every))) if weight.served and INDEXER in weight.path else weight
        for weight in architecture.weights
    )
    return replace(architecture, caches=tuple(caches), weights=tuple(weights))


def _shares_choices(cache: Cache) -> TypeGuard[LatentCache]:
    return isinstance(cache, LatentCache) and 0 < cache.indexer_layers < cache.layers


def _as_kept(cache: Cache) -> Cache:
    if isinstance(cache, AttentionCache) and cache.streams:
        seen = StateTensor(name="conv", shape=(cache.window - 1, cache.kv_heads * cache.key_dim), split=1)
        return StateCache(kind="shortconv", layers=cache.layers, tensors=(seen,))
    if isinstance(cache, AttentionCache) and cache.idle_layers:
        return replace(cache, layers=cache.layers + cache.idle_layers, idle_layers=0)
    if isinstance(cache, StateCache):
        tensors = (
            replace(tensor, dtype="float32") if tensor.name in FLOAT32_STATES and not tensor.dtype else tensor
            for tensor in cache.tensors
        )
        return replace(cache, tensors=tuple(tensors))
    return cache


class Cell(Struct, frozen=True, gc=False):
    """What a pool is counted in.

    token_bytes: of one token in all layers, sliding ones by their share; not whole for that reason.
    full_bytes: the part that a long sequence grows by. sliding_bytes: of one token, in sliding layers.
    sliding_share: tokens of the sliding pool per token of the full one; 0 where there is one pool.
    window_tokens: of the sliding layers that have a pool of their own; 0 without one.
    ring_row_bytes: of compression in progress, for one row of all layers; rows go by requests, not by tokens.
    """

    token_bytes: float
    sliding_share: float
    window_tokens: int
    ring_row_bytes: int


def cell_of(facts: Facts, rules: dict[str, Any]) -> Cell:
    """The cell of a model on one GPU.

    Only the architectures that SGLang lists keep a smaller pool for sliding layers (`is_hybrid_swa_model`); all others
    keep every token in every layer, whatever their window.
    """
    if any(kind.name == "compressed" for kind in facts.kinds):
        return _compressed_cell(facts)
    sliding = sum(kind.layers * kind.token_bytes for kind in facts.kinds if kind.window)
    full = sum(kind.layers * kind.token_bytes for kind in facts.kinds if not kind.window)
    if not sliding or facts.name not in rules["sliding_pool_architectures"]:
        return Cell(full + sliding, 0, 0, 0)
    share = rules["swa_full_tokens_ratio"] if full else 1.0
    window = max(kind.window for kind in facts.kinds)
    return Cell(full + share * sliding, share, window, 0)


def _compressed_cell(facts: Facts) -> Cell:
    short = _layers_of(facts, SHORT_RATIO)
    total = 0.0
    window = 0
    for kind in facts.kinds:
        if kind.name != "compressed":
            window = max(window, kind.window)
            total += COMPRESSED_SLIDING_SHARE * kind.layers * _padded(kind.token_bytes, 1)
        elif kind.shape:
            total += kind.layers * kind.token_bytes / kind.ratio
            total += COMPRESSED_SLIDING_SHARE * _ring_bytes(kind.layers, kind.shape[1])
        else:
            total += kind.layers * _padded(kind.token_bytes, kind.ratio) / kind.ratio
    width = next((kind.shape[1] for kind in facts.kinds if kind.name == "sliding-latent"), 0)
    total += COMPRESSED_SLIDING_SHARE * _ring_bytes(short, width)
    row = 2 * width * STATE_FLOAT_BYTES * _layers_of(facts, LONG_RATIO)
    return Cell(total, COMPRESSED_SLIDING_SHARE, window, row)


def fixed_bytes(cell: Cell, settings: EngineSettings) -> int:
    """What the pool gives up whatever its tokens: a ring for every request (`_get_c128_state_fixed_bytes`)."""
    rows = ((settings.max_num_seqs or COMPRESSED_REQUESTS) + 1) * LONG_RING + LONG_RING + 1
    return -(-rows // LONG_RATIO) * LONG_RATIO * cell.ring_row_bytes


def _layers_of(facts: Facts, ratio: int) -> int:
    kinds = (kind for kind in facts.kinds if kind.name == "compressed" and not kind.shape)
    return sum(kind.layers for kind in kinds if kind.ratio == ratio)


def _padded(entry_bytes: int, ratio: int) -> float:
    """Bytes of an entry with its part of the page's padding."""
    entries = COMPRESSED_PAGE // ratio
    page = -(-entry_bytes * entries // COMPRESSED_ALIGNMENT_BYTES) * COMPRESSED_ALIGNMENT_BYTES
    return page / entries


def _ring_bytes(layers: int, width: int) -> float:
    return layers * SHORT_RING / COMPRESSED_PAGE * 4 * width * STATE_FLOAT_BYTES


def pool_tokens(cell: Cell, pool_bytes: int, page: int, settings: EngineSettings) -> int:
    """Tokens of a pool: whole pages of whole cells (`calculate_pool_sizes`)."""
    return int(max(pool_bytes - fixed_bytes(cell, settings), 0) // cell.token_bytes) // page * page


def sliding_pool_too_small(cell: Cell, tokens: int, page: int) -> bool:
    """Whether the sliding pool would hold no request (`validate_swa_pool_size`)."""
    return (
        bool(cell.window_tokens)
        and int(tokens * cell.sliding_share) // page * page <= cell.window_tokens + page
    )


def state_slots(rest_bytes: int, state_bytes: int, rules: dict[str, Any]) -> int:
    """Slots of recurrent state that share the memory with keys and values (`_handle_max_mamba_cache`)."""
    if not state_bytes or rest_bytes <= 0:
        return 0
    ratio = rules["mamba_full_memory_ratio"]
    budget = rest_bytes / GIB * ratio / (1 + ratio) * GIB
    return max(int((budget - rules["state_padding_slots"] * state_bytes) // state_bytes), 0)


def slots_per_request(kinds: tuple[LayerKind, ...], rules: dict[str, Any]) -> int:
    """Slots that one running request takes with the prefix cache (`_calculate_mamba_ratio`).

    Short convolutions keep no snapshots for the cache (`supports_mamba_cache_extra_buffer`).
    """
    short = all(kind.state_kind == "shortconv" for kind in kinds if kind.state_bytes)
    return int(rules["state_slots_without_snapshots"] if short else rules["state_slots_per_request"])


def requests(
    tokens: int,
    slots: int | None,
    context_tokens: int,
    settings: EngineSettings,
    *,
    for_each: int,
    compressed: bool,
) -> int:
    """How many requests may run at once (`resolve_max_num_reqs`).

    Args:
        tokens: of the pool. slots: of recurrent state; None for models without.
        context_tokens: the context length. settings: for the flag. for_each: slots of one request.
        compressed: DeepSeek-V4, whose override sets its own number.
    """
    found = settings.max_num_seqs or (
        COMPRESSED_REQUESTS if compressed else _usual_requests(tokens, context_tokens)
    )
    half = tokens // 2
    found = min(found, half)
    return found if slots is None else min(found, slots // for_each)


def _usual_requests(tokens: int, context_tokens: int) -> int:
    estimated = int(tokens / (context_tokens or 1) * REQUESTS_PER_CONTEXT)
    if estimated < FEWEST_REQUESTS:
        return FEWEST_REQUESTS
    return min(estimated, MOST_REQUESTS)
