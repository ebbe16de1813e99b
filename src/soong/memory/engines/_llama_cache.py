"""llama.cpp's caches: how many cells each kind of layer gets, and what a cell takes.

Every layer keeps keys and values for the whole context; sliding layers for their window and one micro batch
(`src/llama-kv-cache-iswa.cpp`); MLA keeps one vector and no values (`src/llama-kv-cache.cpp`, has_v); a sparse
indexer one key (`src/llama-kv-cache-dsa.cpp`); recurrent layers one float32 state per slot
(`src/llama-memory-recurrent.cpp`). All of it is allocated at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.models.architecture import AttentionCache, CompressedCache, LatentCache
from soong.models.gguf import GGML_TYPES
from soong.models.gguf_architecture import WINDOW_IGNORED

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, StateCache

CELL_STEP_TOKENS = 256
"""`src/llama-context.cpp`: the context of a slot is padded to 256 cells; so is a window."""

STATE_NUMBER_BYTES = 4
"""`src/llama-model.cpp` create_memory: recurrent_type_r and _s are F32."""

ALSO_WITHOUT_WINDOWS = frozenset({"mixtral", "starcoder2", "phi3small", "qwen2_moe", "qwen3_moe", "mistral3"})
"""Model types of Hugging Face whose window `src/models/` does not read, beside those of GGUF files."""

_TYPES = {name: (block, size) for name, block, size in GGML_TYPES.values()}


class CacheKind(NamedTuple):
    """Layers with the same cache. token_bytes: of one cell in one layer; window: 0 where all tokens are kept.

    ratio: tokens that share a cell. state_bytes: of one slot, for recurrent layers. numbers: keys and values of a
    cell, before any packing.
    """

    layers: int
    token_bytes: int = 0
    window: int = 0
    ratio: int = 1
    state_bytes: int = 0
    numbers: int = 0


def row_bytes(type_name: str, numbers: int) -> int:
    """Bytes of a row of numbers in a ggml type; a broken block counts whole."""
    block, size = _TYPES[type_name]
    return -(-numbers // block) * size


def padded(tokens: int) -> int:
    """The cells that so many tokens get."""
    return -(-tokens // CELL_STEP_TOKENS) * CELL_STEP_TOKENS


def cells(kind: CacheKind, context_tokens: int, micro_batch_tokens: int) -> int:
    """Cells of one slot in one layer.

    Args:
        kind: of the layer.
        context_tokens: of a slot.
        micro_batch_tokens: `--ubatch-size`.
    """
    whole = padded(context_tokens)
    if kind.window:
        return padded(min(whole, kind.window + micro_batch_tokens))
    return -(-whole // kind.ratio)


def slot_bytes(kinds: tuple[CacheKind, ...], context_tokens: int, micro_batch_tokens: int) -> int:
    """Keys and values of one slot, all layers of `kinds`."""
    return sum(
        kind.layers * kind.token_bytes * cells(kind, context_tokens, micro_batch_tokens)
        for kind in kinds
        if kind.token_bytes
    )


def cache_kinds(architecture: Architecture, type_name: str) -> tuple[CacheKind, ...]:
    """The kinds of caches of a model whose keys and values are kept in a ggml type."""
    sliding = architecture.model_type not in WINDOW_IGNORED | ALSO_WITHOUT_WINDOWS
    return tuple(kind for cache in architecture.caches for kind in _kinds(cache, type_name, sliding=sliding))


def _kinds(cache: Cache, type_name: str, *, sliding: bool) -> list[CacheKind]:
    if isinstance(cache, AttentionCache):
        return [_attention(cache, type_name, sliding=sliding)]
    if isinstance(cache, LatentCache):
        return _latent(cache, type_name)
    if isinstance(cache, CompressedCache):
        return _compressed(cache)
    return [_state(cache)]


def _attention(cache: AttentionCache, type_name: str, *, sliding: bool) -> CacheKind:
    keys, values = cache.kv_heads * cache.key_dim, cache.kv_heads * cache.value_dim
    return CacheKind(
        layers=cache.layers,
        token_bytes=row_bytes(type_name, keys) + row_bytes(type_name, values),
        window=(cache.window or cache.chunk) if sliding else 0,
        numbers=keys + values,
    )


def _latent(cache: LatentCache, type_name: str) -> list[CacheKind]:
    width = cache.latent_dim + cache.rope_dim
    kinds = [
        CacheKind(
            layers=cache.layers,
            token_bytes=row_bytes(type_name, width),
            window=cache.window,
            numbers=width,
        )
    ]
    if cache.indexer_layers:
        kinds.append(CacheKind(cache.indexer_layers, row_bytes(type_name, cache.indexer_dim)))
    return kinds


def _compressed(cache: CompressedCache) -> list[CacheKind]:
    """DeepSeek-V4's are BF16 whatever is asked: `src/llama-kv-cache-dsv4.cpp`."""
    width = row_bytes("BF16", cache.latent_dim + cache.rope_dim)
    kinds = [CacheKind(layers=cache.layers, token_bytes=width, window=cache.window)]
    if cache.ratio:
        kinds.append(CacheKind(layers=cache.layers, token_bytes=width, ratio=cache.ratio))
        if cache.indexer_dim:
            indexer = row_bytes("BF16", cache.indexer_dim)
            kinds.append(CacheKind(layers=cache.layers, token_bytes=indexer, ratio=cache.ratio))
    return kinds


def _state(cache: StateCache) -> CacheKind:
    numbers = 0
    for tensor in cache.tensors:
        product = 1
        for size in tensor.shape:
            product *= size
        numbers += product
    return CacheKind(layers=cache.layers, state_bytes=numbers * STATE_NUMBER_BYTES)
