"""What one token and one sequence leave behind on one GPU, by kind of layer; before any engine's block rules.

Engines agree on the contents of a cache entry and on how tensor parallel splits it. How entries are put into
pages, groups and pools is each engine's own affair (`soong.memory.engines`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong.models.architecture import AttentionCache, CompressedCache, LatentCache

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, StateCache, StateTensor

DTYPE_BYTES: dict[str, int] = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "int8": 1,
}
"""Bytes of one number, by the name that engines and configs give its type."""

KindName = Literal[
    "full", "sliding", "chunked", "cross", "latent", "sliding-latent", "indexer", "compressed", "state"
]

INDEXER_BYTES_PER_SCALE_GROUP = 4
INDEXER_SCALE_GROUP = 128
"""A sparse indexer keeps its key in FP8 with one float32 scale for every 128 numbers.

Source: vLLM 0.33 `v1/attention/backends/mla/indexer.py`, SGLang 0.5.23 `mem_cache/memory_pool.py`
DSATokenToKVPool.
"""


class LayerKind(msgspec.Struct, frozen=True, gc=False):
    """The layers of a model that keep the same cache, on one GPU.

    token_bytes: bytes of one token in one layer; for `compressed`, of one entry, which stands for `ratio`
    tokens.
    window: tokens a sliding layer attends to, or the size of a chunk; 0 for layers that keep everything.
    state_bytes: recurrent state of one sequence in one layer; 0 for attention.
    shape: tells kinds apart that have equal bytes but another layout (head size), which engines do not mix.
    block_tokens: of a page; 0 for the engine's own choice.
    """

    name: KindName
    layers: int
    token_bytes: int
    window: int = 0
    ratio: int = 1
    state_bytes: int = 0
    shape: tuple[int, ...] = ()
    state_kind: str = ""
    block_tokens: int = 0


def resolve_kv_dtype(asked: str, repository_asks: str, model_dtype: str) -> str:
    """The type of keys and values: what the user asks, else the repository, else the model's own."""
    if asked and asked != "auto":
        return asked
    if repository_asks and repository_asks != "auto":
        return repository_asks
    return model_dtype


def layer_kinds(architecture: Architecture, *, tensor_parallel: int, kv_dtype: str) -> tuple[LayerKind, ...]:
    """The kinds of cache layers of a model on one GPU of a tensor-parallel group.

    Args:
        architecture: the model.
        tensor_parallel: GPUs that share each layer.
        kv_dtype: a key of `DTYPE_BYTES`, already resolved.

    Returns:
        Kinds in the order of the architecture's caches, equal ones added up. Key-value heads are divided
        among the GPUs and replicated once the GPUs outnumber them (vLLM 0.33 `config/model.py
        get_num_kv_heads`, SGLang 0.5.23 `configs/model_config.py get_num_kv_heads`); latent vectors stand on
        every GPU.
    """
    kinds: dict[LayerKind, int] = {}
    for cache in architecture.caches:
        for kind in _kinds_of(cache, architecture.dtype, tensor_parallel, kv_dtype):
            alone = msgspec.structs.replace(kind, layers=0)
            kinds[alone] = kinds.get(alone, 0) + kind.layers
    return tuple(msgspec.structs.replace(kind, layers=layers) for kind, layers in kinds.items() if layers)


def _kinds_of(
    cache: AttentionCache | LatentCache | CompressedCache | StateCache,
    model_dtype: str,
    tensor_parallel: int,
    kv_dtype: str,
) -> list[LayerKind]:
    size = DTYPE_BYTES[kv_dtype]
    if isinstance(cache, AttentionCache):
        if cache.streams:
            return [_stream_kind(cache, tensor_parallel)]
        return [_attention_kind(cache, tensor_parallel, size)]
    if isinstance(cache, LatentCache):
        return _latent_kinds(cache, size)
    if isinstance(cache, CompressedCache):
        return _compressed_kinds(cache)
    return [_state_kind(cache, model_dtype, tensor_parallel)]


def _attention_kind(cache: AttentionCache, tensor_parallel: int, size: int) -> LayerKind:
    heads = max(1, cache.kv_heads // tensor_parallel)
    name: KindName = "sliding" if cache.window else "chunked" if cache.chunk else "full"
    name = "cross" if cache.cross else name
    return LayerKind(
        name=name,
        layers=cache.layers,
        token_bytes=heads * (cache.key_dim + cache.value_dim) * size,
        window=cache.window or cache.chunk,
        shape=(heads, cache.key_dim, cache.value_dim),
    )


def _stream_kind(cache: AttentionCache, tensor_parallel: int) -> LayerKind:
    """Pages of a power of two numbers a head, in 16 bits: vLLM 0.32 `models/inkling/nvidia/sconv_swa_attn.py`."""
    heads = max(1, cache.kv_heads // tensor_parallel)
    width = 1 << (cache.key_dim - 1).bit_length()
    return LayerKind(
        name="sliding",
        layers=cache.layers,
        token_bytes=heads * width * DTYPE_BYTES["bfloat16"],
        window=cache.window,
        shape=(heads, width, 0),
        block_tokens=cache.window,
    )


def _latent_kinds(cache: LatentCache, size: int) -> list[LayerKind]:
    width = cache.latent_dim + cache.rope_dim
    token_bytes = width * size
    if cache.indexer_layers and size == 1:
        token_bytes = FP8_SPARSE_LATENT_BYTES
    name: KindName = "sliding-latent" if cache.window else "latent"
    kinds = [
        LayerKind(
            name=name, layers=cache.layers, token_bytes=token_bytes, window=cache.window, shape=(1, width, 0)
        )
    ]
    if cache.indexer_layers:
        kinds.append(
            LayerKind(
                name="indexer",
                layers=cache.indexer_layers,
                token_bytes=indexer_token_bytes(cache.indexer_dim),
                shape=(1, cache.indexer_dim, 0),
            )
        )
    return kinds


FP8_SPARSE_LATENT_BYTES = 656
"""512 FP8 numbers, four float32 scales, 64 bfloat16 rotary numbers: vLLM's `fp8_ds_mla`, SGLang's FP8 DSA
entry.

Source: vLLM 0.33 `v1/attention/backends/mla/flashmla_sparse.py`.
"""

_COMPRESSED_LATENT_BYTES = 584
"""One entry of DeepSeek-V4's cache: 448 FP8 numbers, 64 bfloat16 rotary numbers, 8 bytes of scales.

Source: vLLM 0.33 `model_executor/layers/attention/mla_attention.py`.
"""


def indexer_token_bytes(dim: int) -> int:
    """Bytes of a sparse indexer's key: FP8 with a float32 scale per 128 numbers; 132 for a key of 128."""
    return dim + -(-dim // INDEXER_SCALE_GROUP) * INDEXER_BYTES_PER_SCALE_GROUP


def _compressed_kinds(cache: CompressedCache) -> list[LayerKind]:
    kinds = [
        LayerKind(
            name="sliding-latent",
            layers=cache.layers,
            token_bytes=_COMPRESSED_LATENT_BYTES,
            window=cache.window,
            shape=(1, cache.latent_dim + cache.rope_dim, 0),
        )
    ]
    if cache.ratio:
        kinds.append(
            LayerKind(
                name="compressed",
                layers=cache.layers,
                token_bytes=_COMPRESSED_LATENT_BYTES,
                ratio=cache.ratio,
            )
        )
        if cache.indexer_dim:
            kinds.append(
                LayerKind(
                    name="compressed",
                    layers=cache.layers,
                    token_bytes=indexer_token_bytes(cache.indexer_dim),
                    ratio=cache.ratio,
                    shape=(1, cache.indexer_dim, 0),
                )
            )
    return kinds


def _state_kind(cache: StateCache, model_dtype: str, tensor_parallel: int) -> LayerKind:
    state_bytes = sum(_state_tensor_bytes(tensor, model_dtype, tensor_parallel) for tensor in cache.tensors)
    return LayerKind(
        name="state",
        layers=cache.layers,
        token_bytes=cache.token_bytes,
        state_bytes=state_bytes,
        state_kind=cache.kind,
    )


def _state_tensor_bytes(tensor: StateTensor, model_dtype: str, tensor_parallel: int) -> int:
    elements = 1
    for axis, size in enumerate(tensor.shape):
        elements *= _state_rows(size, tensor.groups, tensor_parallel) if axis == tensor.split else size
    return elements * DTYPE_BYTES[tensor.dtype or model_dtype]


def _state_rows(size: int, groups: int, tensor_parallel: int) -> int:
    """A GPU's part of a divided axis; Mamba-2 groups stay whole, repeated once the GPUs outnumber them."""
    if groups:
        return size // groups * max(1, groups // tensor_parallel)
    return max(1, size // tensor_parallel)


def kv_bytes_per_token(kinds: tuple[LayerKind, ...]) -> int:
    """Bytes that one more token of a long sequence adds on this GPU: layers that keep everything."""
    return sum(
        kind.layers * kind.token_bytes // kind.ratio
        for kind in kinds
        if not kind.window and not kind.state_bytes
    )


def state_bytes_per_sequence(kinds: tuple[LayerKind, ...]) -> int:
    """Bytes of one sequence that stop growing, on this GPU: recurrent states and full windows."""
    windows = sum(kind.layers * kind.token_bytes * kind.window for kind in kinds if kind.window)
    return windows + sum(kind.layers * kind.state_bytes for kind in kinds)
