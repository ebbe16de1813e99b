"""A model as llama.cpp's graph sees it: widths per layer, read from its weights and caches.

Weights are named as in a GGUF file or as on Hugging Face; what a matrix is for is told by its name, its part and how
tensor parallel would split it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from soong.memory.engines._llama_graph import Layer, Shape
from soong.models.architecture import AttentionCache, CompressedCache, LatentCache, StateCache

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight

PARALLEL = frozenset({"cohere", "cohere2", "command-r", "phi2", "phi", "gpt_neox", "gptneox", "falcon"})
"""Attention and MLP read the same norm: `src/models/command-r.cpp` and the others."""

PLAIN_START = frozenset({"olmo2", "olmo3", "exaone4"})
"""Norms stand after attention and MLP alone: `src/models/olmo2.cpp`."""

LLAMA4 = frozenset({"llama4", "llama4_text"})

SAME_IN_A_ROW = 2
"""A third equal layer finds the same holes as the second and adds nothing."""

MOST_LAYERS = 12

_STATE_OUT = re.compile(r".*(ssm_out|shortconv\.out_proj|(mamba|mixer|linear_attn|conv)\.out_proj)")
_JOINED_QKV = re.compile(r".*(qkv_proj|query_key_value|attn_qkv|Wqkv|W_pack|c_attn)")
_QUERY = re.compile(r".*(q_proj|attn_q|wq|q_b_proj|attn_q_b)")
_QUERY_RANK = re.compile(r".*(q_a_proj|attn_q_a)")
_SHARED = re.compile(r".*(shared|shexp)")
_JOINED_MLP = re.compile(r".*(gate_up_proj|dense_h_to_4h|input_linear)")


def read_shape(architecture: Architecture) -> Shape:
    """The widths of a model's layers, repeats left out."""
    kind = architecture.model_type
    return Shape(
        hidden_size=architecture.hidden_size,
        vocab_size=architecture.vocab_size,
        layers=_without_repeats(_layers(architecture)),
        parallel=kind in PARALLEL,
        plain_start=kind in PLAIN_START,
        weighted_before=kind in LLAMA4,
    )


def _without_repeats(layers: list[Layer]) -> tuple[Layer, ...]:
    kept: list[Layer] = []
    for layer in layers:
        if len(kept) < MOST_LAYERS - 1 and kept[-SAME_IN_A_ROW:] != [layer] * SAME_IN_A_ROW:
            kept.append(layer)
    return (*kept, layers[-1]) if layers else (Layer(), Layer())


def _layers(architecture: Architecture) -> list[Layer]:
    held: dict[int, list[Weight]] = {}
    for weight in architecture.served_weights():
        if weight.part in {"attention", "mlp", "experts", "state", "router", "other"}:
            for number in weight.layers:
                held.setdefault(number, []).append(weight)
    known: dict[tuple[int, ...], Layer] = {}
    layers = []
    for number in sorted(held):
        key = tuple(map(id, held[number]))
        if key not in known:
            known[key] = _layer(architecture, held[number])
        layers.append(known[key])
    return layers


def _layer(architecture: Architecture, weights: list[Weight]) -> Layer:
    state_out = next((w for w in weights if len(w.shape) == 2 and _STATE_OUT.fullmatch(w.path)), None)
    out = next(
        (w for w in weights if w.part == "attention" and w.shard == "row" and w is not state_out and _big(w)),
        None,
    )
    fields: dict[str, object] = {}
    if out is not None:
        fields |= _attention(architecture, weights, out)
    if state_out is not None:
        fields["state"] = _state(architecture, state_out)
    return Layer(**{**fields, **_mlp(architecture, weights)})  # type: ignore[arg-type]


def _big(weight: Weight) -> bool:
    return len(weight.shape) == 2 and min(weight.shape) > 1


def _attention(architecture: Architecture, weights: list[Weight], out: Weight) -> dict[str, object]:
    caches = architecture.caches
    heads = architecture.attention_heads
    latent = next((cache for cache in caches if isinstance(cache, LatentCache)), None)
    rows = max((w.shape[0] for w in weights if _QUERY.fullmatch(w.path) and _big(w)), default=0)
    if latent is not None and heads:
        size = rows // heads - latent.rope_dim
        rank = max((w.shape[0] for w in weights if _QUERY_RANK.fullmatch(w.path) and _big(w)), default=0)
        value = out.shape[1] // heads
        return {"heads": heads, "latent": (heads, latent.latent_dim, latent.rope_dim, size, value, rank)}
    attending = [cache for cache in caches if isinstance(cache, AttentionCache)]
    if not attending or not heads:
        return _opaque(caches, heads)
    cache = next((one for one in attending if heads * one.value_dim == out.shape[1]), attending[0])
    fused = any(w.part == "attention" and _JOINED_QKV.fullmatch(w.path) for w in weights)
    return {
        "heads": heads,
        "query_width": heads * cache.key_dim,
        "query_rows": heads * cache.key_dim if fused else rows or heads * cache.key_dim,
        "key_width": cache.kv_heads * cache.key_dim,
        "value_width": cache.kv_heads * cache.value_dim,
        "attended_width": heads * cache.value_dim,
        "fused": fused,
    }


def _opaque(caches: tuple[object, ...], heads: int) -> dict[str, object]:
    """Compressed latent attention (DeepSeek-V4): queries as wide as heads × the latent vector."""
    cache = next((one for one in caches if isinstance(one, CompressedCache)), None)
    if cache is None:
        return {}
    width = cache.latent_dim + cache.rope_dim
    return {
        "heads": heads, "query_width": heads * width, "query_rows": heads * width, "key_width": width,
        "attended_width": heads * width,
    }  # fmt: skip


def _state(architecture: Architecture, out: Weight) -> tuple[int, int, int, str]:
    """Convolution width, inner width and the numbers of one sequence's state."""
    inner = out.shape[1]
    cache = next((one for one in architecture.caches if isinstance(one, StateCache)), None)
    if cache is None:
        return inner, inner, 0, "mamba2"
    sizes = {"conv": 0, "state": 0}
    for tensor in cache.tensors:
        product = 1
        for size in tensor.shape:
            product *= size
        sizes["conv" if tensor.name.startswith("conv") else "state"] += product
    kernel = next((t.shape[0] for t in cache.tensors if t.name == "conv" and len(t.shape) == 2), 0)
    taps = kernel or next((k for k in (3, 2) if not sizes["conv"] % (k * inner // (inner or 1))), 3)
    return sizes["conv"] // max(1, taps) or inner, inner, sizes["state"], cache.kind


def _mlp(architecture: Architecture, weights: list[Weight]) -> dict[str, object]:
    downs = [w for w in weights if w.part == "mlp" and w.shard == "row" and _big(w)]
    ups = [w for w in weights if w.part == "mlp" and w.shard == "column" and _big(w)]
    experts = [w for w in weights if w.part == "experts" and w.shard == "row" and _big(w)]
    expert_ups = [w for w in weights if w.part == "experts" and w.shard == "column" and _big(w)]
    dense = [w for w in downs if not _SHARED.match(w.path)] if experts else downs
    width = max((w.shape[1] for w in dense), default=0)
    joined = any(_JOINED_MLP.fullmatch(w.path) for w in ups) or any(w.shape[0] == 2 * width for w in ups)
    gated = len(expert_ups if experts else ups) > 1
    found: dict[str, object] = {"mlp_width": 0 if experts else width, "joined": joined and not experts}
    if experts:
        found |= {
            "experts": architecture.experts,
            "experts_per_token": architecture.experts_per_token,
            "expert_width": max(w.shape[1] for w in experts),
            "shared_width": sum(w.shape[1] for w in downs if _SHARED.match(w.path)),
        }
    return {**found, "gated": gated or joined}
