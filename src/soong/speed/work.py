"""What one forward pass of a model asks of a GPU: bytes to read, numbers to multiply, kernels to start, bytes to send.

Nothing here knows how fast a GPU is. Weights are taken tensor by tensor with the format that the repository gives each
(`soong.models.quantization`) and the share that tensor parallelism leaves a GPU (`soong.memory.dividing`); what a
sequence's past costs comes from the kinds of cache layers (`soong.memory.kv_cache`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong.memory.dividing import is_routed, local_sides
from soong.memory.kv_cache import layer_kinds, resolve_kv_dtype
from soong.models.answers import keeps_nothing
from soong.models.architecture import AttentionCache, LatentCache
from soong.models.quantization.formats import checkpoint_matrix_bytes
from soong.models.quantization.matching import fused
from soong.models.quantization.quantization import TOWERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.memory.footprint import ServedModel
    from soong.memory.kv_cache import LayerKind
    from soong.models.architecture import Architecture, Weight
    from soong.models.quantization import Format

Storage = Literal["16-bit", "fp8", "int8", "nvfp4", "mxfp4", "int4-only", "int8-only", "gguf"]
"""How a matrix is stored, as far as kernels differ. `-only`: weights alone are packed, the GPU multiplies 16 bits."""

_STORAGES: dict[str, Storage] = {
    "fp8_tensor": "fp8", "fp8_channel": "fp8", "fp8_block": "fp8", "mxfp8": "fp8", "int8_channel": "int8",
    "nvfp4": "nvfp4", "mxfp4": "mxfp4", "bnb_4bit": "int4-only", "bnb_8bit": "int8-only", "mlx": "int4-only",
    "torchao": "int4-only",
}  # fmt: skip

BYTES_16_BIT = 2
FLOPS_PER_WEIGHT = 2
"""A multiplication and an addition."""

SPARSE_TOP_TOKENS = 2048
"""Tokens that sparse MLA attends to, `index_topk` of DeepSeek-V3.2's and GLM-5's config.json."""

MLA_PREFILL_DIMS = (192, 128)
"""Numbers of a query and of a value head once latents are unpacked, as prefill does: DeepSeek-V2 and -V3 config.json,
qk_nope_head_dim + qk_rope_head_dim and v_head_dim."""

RECURRENT_FLOPS_PER_STATE = 8
"""Decay, outer product, correction and read-out of a recurrent state: two operations each for every number of it
(Gated Delta Networks, arXiv 2412.06464, equation 10)."""

LOGIT_PASSES = 5
"""Logits are written in 16 bits, read, written and read in 32 by the sampler: 2 + 2 + 4 + 4 bytes and one more pass for
the maximum (vLLM 0.33 `v1/sample/sampler.py`), in units of 4 bytes."""

NORM_PASSES = 8
"""16-bit passes over the hidden state for each layer's two norms with their residuals: read, add, write, scale."""


class Matrices(msgspec.Struct, frozen=True, gc=False):
    """All matrices of one storage, on one GPU.

    weights_bytes: read once a pass. flops_per_token, moved_bytes_per_token: for each token of the pass.
    """

    storage: Storage
    weights_bytes: float
    flops_per_token: float
    moved_bytes_per_token: float


class Past(msgspec.Struct, frozen=True, gc=False):
    """What attention to the past costs, for one token generated, in all layers of one kind on one GPU.

    bytes_per_token, flops_per_token: for each token attended to. prefill_flops_per_token: the same while a prompt is
    read, where MLA unpacks. window: most tokens attended to; 0: all. ratio: tokens that share one entry.
    is_latent: queries meet latent vectors, which kernels of their own serve.
    """

    bytes_per_token: float
    flops_per_token: float
    prefill_flops_per_token: float
    window: int
    ratio: int = 1
    is_latent: bool = False


class Work(msgspec.Struct, frozen=True, gc=False):
    """One GPU's share of a pass.

    dense: matrices that every token meets. head: those that only tokens with a successor meet. experts: routed ones,
    flops and moved bytes for the few that a token meets, bytes of all.
    states_bytes: of one sequence's recurrent states, read or written once; state_flops: of one token through them.
    logits_bytes: of one row, as often as the sampler passes over it.
    passed_bytes_per_token: hidden states between kernels. reduced_bytes_per_token: hidden state that the GPUs add up.
    products, products_apart, norms, expert_layers, attention_layers, state_layers, layers: kernels to start; products
    with what engines fuse counted once, or each apart.
    """

    dense: tuple[Matrices, ...]
    head: tuple[Matrices, ...]
    experts: tuple[Matrices, ...]
    expert_count: int
    experts_per_token: int
    pasts: tuple[Past, ...]
    states_bytes: float
    state_flops: float
    logits_bytes: float
    passed_bytes_per_token: float
    reduced_bytes_per_token: float
    reductions: int
    products: int
    products_apart: int
    norms: int
    expert_layers: int
    attention_layers: int
    state_layers: int
    layers: int


MOST_KEPT = 4096
_kept: dict[tuple[str, int, str, bool], Work] = {}


def work_of(
    served: ServedModel, *, tensor_parallel: int, kv_dtype: str = "auto", expert_parallel: bool = False
) -> Work:
    """The work of one of `tensor_parallel` GPUs for one pass; remembered by the model's key.

    Args:
        served: the model and its format.
        tensor_parallel: GPUs that each layer is divided among.
        kv_dtype: of the cache, as `Workload.kv_dtype` spells it.
        expert_parallel: the GPUs share the routed experts out whole; what a pass touches of them is taken to be spread
            evenly.
    """
    key = (served.key, tensor_parallel, kv_dtype, expert_parallel)
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        found = _kept[key] = _gathered(served, tensor_parallel, kv_dtype, apart=expert_parallel)
    return found


def _gathered(served: ServedModel, tensor_parallel: int, kv_dtype: str, *, apart: bool) -> Work:
    architecture = served.architecture
    weights = [weight for weight in architecture.served_weights() if weight.part not in {*TOWERS, "mtp"}]
    kinds = _kinds(served, tensor_parallel, kv_dtype)
    layers = 1 + max((max(weight.layers, default=0) for weight in weights), default=0)
    tied = all(weight.part != "lm_head" for weight in weights)
    parts: dict[str, list[Weight]] = {"dense": [], "head": [], "experts": [], "": []}
    for weight in weights:
        parts[_place(weight, tied=tied)].append(weight)
    expert_layers = {layer for weight in parts["experts"] for layer in weight.layers}
    recurrent = [kind for kind in kinds if kind.name == "state"]
    attending = [kind for kind in kinds if kind.name not in {"state", "indexer", "compressed"}]
    return Work(
        dense=_matrices(parts["dense"], served, tensor_parallel),
        head=_matrices(parts["head"], served, tensor_parallel),
        experts=_matrices(parts["experts"], served, tensor_parallel, apart=apart),
        expert_count=max((weight.copies for weight in parts["experts"]), default=0),
        experts_per_token=architecture.experts_per_token,
        pasts=_within_a_text(architecture, layers, tensor_parallel)
        if keeps_nothing(architecture)
        else tuple(_past(kind, architecture, tensor_parallel) for kind in kinds if kind.name != "state"),
        states_bytes=float(sum(kind.layers * kind.state_bytes for kind in recurrent)),
        state_flops=RECURRENT_FLOPS_PER_STATE
        * sum(kind.layers * kind.state_bytes for kind in recurrent)
        / 4,  # kept in float32
        logits_bytes=4.0 * LOGIT_PASSES * architecture.vocab_size,
        passed_bytes_per_token=float(NORM_PASSES * BYTES_16_BIT * architecture.hidden_size * layers)
        + _quantising_bytes(parts["dense"], served, tensor_parallel),
        reduced_bytes_per_token=float(BYTES_16_BIT * architecture.hidden_size),
        reductions=2 * layers,
        products=_products(parts["dense"], together=True) + 1,
        products_apart=_products(parts["dense"], together=False) + 1,
        norms=sum(max(1, len(weight.layers)) for weight in weights if weight.part == "norm"),
        expert_layers=len(expert_layers),
        attention_layers=sum(kind.layers for kind in attending),
        state_layers=sum(kind.layers for kind in recurrent),
        layers=layers,
    )


def _place(weight: Weight, *, tied: bool) -> str:
    """Where a weight is met; nowhere for tables that are only looked up, and vectors, which weigh nothing."""
    if weight.part == "embedding":
        # A tied embedding is the output projection too; other tables (per layer, positions) are rows to look up.
        return "head" if tied and weight.path.rpartition(".")[2] in _TOKEN_TABLES else ""
    if weight.part == "lm_head":
        return "head"
    if len(weight.shape) < 2:
        return ""
    return "experts" if weight.part == "experts" and weight.active_copies else "dense"


_TOKEN_TABLES = {
    "embed_tokens",
    "wte",
    "word_embeddings",
    "tok_embeddings",
    "embedding",
    "embeddings",
    "embed_in",
}


def _matrices(
    found: list[Weight], served: ServedModel, tensor_parallel: int, *, apart: bool = False
) -> tuple[Matrices, ...]:
    """The matrices by storage. apart: routed ones stand whole, some on each GPU; its share is an even one."""
    sums: dict[Storage, list[float]] = {}
    for weight in found:
        whole = apart and is_routed(weight)
        rows, columns = local_sides(weight, 1 if whole else tensor_parallel)
        part = tensor_parallel if whole else 1
        active = (weight.copies if weight.active_copies is None else weight.active_copies) / part
        for form, layers in served.quantization.spread(weight):
            one_bytes = (
                float(rows * columns * BYTES_16_BIT)
                if form is None
                else checkpoint_matrix_bytes(form, rows, columns)
            )
            total = sums.setdefault(_storage(form, served.quantization.method), [0.0, 0.0, 0.0])
            total[0] += one_bytes * layers * weight.copies / part
            total[1] += FLOPS_PER_WEIGHT * rows * columns * layers * active
            total[2] += BYTES_16_BIT * (rows + columns) * layers * active
    return tuple(Matrices(storage, *total) for storage, total in sums.items())


QUANTISING_BYTES = 3
"""A number entering an FP8, INT8 or FP4 product is read in 16 bits and written in 8 or fewer first."""


def _quantising_bytes(found: list[Weight], served: ServedModel, tensor_parallel: int) -> float:
    """What is moved for one token to quantise what goes into dense products; those that engines fuse share it."""
    entering: dict[str, float] = {}
    for weight in found:
        columns = local_sides(weight, tensor_parallel)[1]
        for form, layers in served.quantization.spread(weight):
            if _storage(form, served.quantization.method) in ENTERED_QUANTISED:
                entering[fused(weight.path)] = float(columns * layers)
    return QUANTISING_BYTES * sum(entering.values())


ENTERED_QUANTISED = {"fp8", "int8", "nvfp4"}


def _storage(form: Format | None, method: str) -> Storage:
    if method == "gguf":
        return "gguf"
    if form is None:
        return "16-bit"
    return _STORAGES.get(form.kind) or ("int8-only" if form.bits >= 8 else "int4-only")


def _products(found: list[Weight], *, together: bool) -> int:
    """Matrix products of a pass; `together`: those that engines fuse counted once."""
    names: dict[str, set[int]] = {}
    for weight in found:
        if weight.linear or weight.part == "router":
            name = fused(weight.path) if together else weight.path
            names.setdefault(name, set()).update(weight.layers or (0,))
    return sum(len(layers) for layers in names.values())


def _kinds(served: ServedModel, tensor_parallel: int, kv_dtype: str) -> tuple[LayerKind, ...]:
    """The kinds of cache layers; layers without a cache of their own read another layer's, so they count here."""
    architecture = served.architecture
    own = "bfloat16" if architecture.dtype == "float32" else architecture.dtype
    reading = msgspec.structs.replace(architecture, caches=tuple(_all_reading(architecture)))
    return layer_kinds(
        reading,
        tensor_parallel=tensor_parallel,
        kv_dtype=resolve_kv_dtype(kv_dtype, served.kv_dtype or served.quantization.kv_cache_dtype, own),
    )


def _all_reading(architecture: Architecture) -> Iterator[object]:
    for cache in architecture.caches:
        if isinstance(cache, AttentionCache) and cache.idle_layers:
            yield msgspec.structs.replace(cache, layers=cache.layers + cache.idle_layers, idle_layers=0)
        else:
            yield cache


def _within_a_text(architecture: Architecture, layers: int, tensor_parallel: int) -> tuple[Past, ...]:
    """An encoder's attention, which keeps nothing: each token meets all of its text, a decoder's only those before it.

    A prompt is taken to attend to half of itself on average, hence twice.
    """
    flops = 2.0 * FLOPS_PER_WEIGHT * 2 * architecture.hidden_size * layers / tensor_parallel
    return (Past(0.0, flops, flops, 0),)


def _past(kind: LayerKind, architecture: Architecture, tensor_parallel: int) -> Past:
    """The cost of one kind of layers: every query head meets every token kept, a product for score and one for sum.

    MLA decodes with queries turned into the latent space, so a head's score and sum are as wide as the latent vector.
    """
    heads = max(1, architecture.attention_heads // tensor_parallel)
    name, layers = kind.name, kind.layers
    if name in {"indexer", "compressed"} and kind.shape:
        # An indexer's few narrow heads over keys of its own: 64 of 128 numbers in DeepSeek-V3.2.
        flops = FLOPS_PER_WEIGHT * 64 * kind.shape[1] / tensor_parallel * layers / kind.ratio
        return Past(layers * kind.token_bytes / kind.ratio, flops, flops, 0, is_latent=True)
    if name in {"latent", "sliding-latent", "compressed"}:
        latent = max((c.latent_dim for c in architecture.caches if isinstance(c, LatentCache)), default=512)
        width = kind.shape[1] if kind.shape else latent + 64
        flops = float(FLOPS_PER_WEIGHT * heads * (width + latent) * layers)
        prefill = float(FLOPS_PER_WEIGHT * heads * sum(MLA_PREFILL_DIMS) * layers)
        sparse = any(isinstance(c, LatentCache) and c.indexer_layers for c in architecture.caches)
        window = SPARSE_TOP_TOKENS if sparse and not kind.window else kind.window
        ratio = kind.ratio
        return Past(
            layers * kind.token_bytes / ratio, flops / ratio, prefill / ratio, window, ratio, is_latent=True
        )
    flops = float(FLOPS_PER_WEIGHT * heads * (kind.shape[1] + kind.shape[2]) * layers)
    return Past(float(layers * kind.token_bytes), flops, flops, kind.window)
