"""DeepSeek V1 to V3.2 and the models built like them: Kimi-K2, GLM-4.7-Flash, GLM-5.

V1 has plain attention, V2 and later latent attention, V3.2 and GLM-5 a sparse-attention indexer on top of it.
V3 and later carry multi-token-prediction layers after the last decoder layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.families import _common, _draft, _mla, _moe, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config
    from soong.models.families._common import Base

Layers = tuple[int, ...]

BALANCED_TYPES = frozenset({"axk1", "AXK1", "glm4_moe_lite", "glm_moe_dsa", "hy_v4", "sarvam_mla"})
"""Model types whose router always has a balancing bias; the others say so with `topk_method`."""

PRECISE_TYPES = frozenset({"glm4_moe_lite"})
"""Model types whose router vLLM keeps in float32: 0.33 `models/glm4_moe_lite.py`."""

EXTRA_NORMS: dict[str, tuple[str, ...]] = {
    "axk1": ("post_mlp_layernorm",),
    "AXK1": ("post_mlp_layernorm",),
    "pangu_ultra_moe": ("pre_mlp_layernorm", "post_mlp_layernorm"),
}
"""Norms beside the usual two: vLLM 0.32 `models/AXK1.py`, `models/openpangu.py`."""

SHARED_ENDS_TYPES = frozenset({"glm_moe_dsa"})
"""Model types whose draft layers use the model's own embedding and head: zai-org/GLM-5 holds 753,864,139,008
numbers, which leaves no room for copies; DeepSeek-V3 and zai-org/GLM-4.7-Flash have them."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a DeepSeek-like config.

    Source: vLLM 0.33 `models/deepseek_v2.py`, `deepseek_v32/`, `glm4_moe_lite.py`, `deepseek_mtp.py`;
    transformers `modeling_deepseek_v3.py`, `modeling_glm_moe_dsa.py`.
    """
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    drafts = tuple(range(base.layers, base.layers + _draft_layers(config)))
    balanced = config.text("topk_method") == "noaux_tc" or config.text("model_type") in BALANCED_TYPES
    sizes = _moe.read_mixture(config, balanced=balanced)
    precise = config.text("model_type") in PRECISE_TYPES
    dense, sparse = _mlp_layers(config, base.layers, sizes.experts)
    attention, caches, heads = _attention(config, prefix, base, layers, drafts)
    body = f"{prefix}.layers.{{}}"
    weights = [
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *attention,
        *_feed_forward(f"{body}.mlp", base, sizes, dense, sparse, precise=precise),
        *_norms(body, base.hidden_size, layers),
        *_extra_norms(config, body, base.hidden_size, layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    ]
    if drafts:
        moe = _feed_forward(f"{body}.mlp", base, sizes, (), drafts, precise=precise) if sizes.experts else ()
        weights += _draft.draft(
            [*moe, *_norms(body, base.hidden_size, drafts), *_draft_ends(config, body, base, drafts)]
        )
    return _common.architecture(
        config,
        base,
        heads=heads,
        weights=tuple(weights),
        caches=caches,
        experts=sizes.experts,
        experts_per_token=sizes.per_token,
        mtp_layers=len(drafts),
    )


def _draft_layers(config: Config) -> int:
    count = config.integer("num_nextn_predict_layers", default=0)
    if count > config.layers():
        raise ConfigError(
            f"`{config.where('num_nextn_predict_layers')}` is {count:,}, which no real model has"
        )
    return count


def _mlp_layers(config: Config, layers: int, experts: int) -> tuple[Layers, Layers]:
    kinds = config.texts("mlp_layer_types")
    if not experts:
        return tuple(range(layers)), ()
    if len(kinds) < layers:
        return _moe.sparse_layers(config, layers)
    dense = tuple(layer for layer in range(layers) if kinds[layer] != "sparse")
    return dense, tuple(layer for layer in range(layers) if kinds[layer] == "sparse")


def _attention(
    config: Config, prefix: str, base: Base, layers: Layers, drafts: Layers
) -> tuple[list[Weight], tuple[Cache, ...], int]:
    """The attention of decoder and draft layers, what it caches, and the number of query heads."""
    path = f"{prefix}.layers.{{}}.self_attn"
    if "kv_lora_rank" not in config:
        return _plain_attention(config, path, base, layers)
    sizes = _mla.read_latent(config)
    indexer = _mla.read_indexer(config)
    weights = _mla.latent_attention(path, sizes, layers=layers)
    weights += _draft.draft(_mla.latent_attention(path, sizes, layers=drafts)) if drafts else []
    if indexer is None:
        return weights, (_mla.latent_cache(sizes, base.layers),), sizes.heads
    own = _indexed_layers(config, base.layers)
    weights += _mla.indexer_weights(f"{path}.indexer", indexer, sizes, layers=own)
    if drafts:
        weights += _draft.draft(_mla.indexer_weights(f"{path}.indexer", indexer, sizes, layers=drafts))
    return (
        weights,
        (_mla.latent_cache(sizes, base.layers, indexer=indexer, indexer_layers=len(own)),),
        sizes.heads,
    )


def _plain_attention(
    config: Config, path: str, base: Base, layers: Layers
) -> tuple[list[Weight], tuple[Cache, ...], int]:
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    bias = config.flag("attention_bias")
    weights = _parts.grouped_attention(
        path,
        hidden_size=base.hidden_size,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        layers=layers,
        bias=bias,
        out_bias=bias,
    )
    return (
        weights,
        (AttentionCache(layers=base.layers, kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim),),
        heads,
    )


def _indexed_layers(config: Config, layers: int) -> Layers:
    """The layers with an indexer of their own; the others use the choice of the layer before.

    Source: vLLM 0.33 `models/deepseek_v32/attention.py`: `index_topk_pattern`, else one layer in
    `index_topk_freq` counted from `index_skip_topk_offset`; `indexer_types` says the same in words.
    """
    pattern = config.values.get("index_topk_pattern")
    if isinstance(pattern, str | list) and len(pattern) >= layers:
        return tuple(layer for layer in range(layers) if pattern[layer] != "S")
    every = config.integer("index_topk_freq", default=1, least=1)
    offset = config.integer("index_skip_topk_offset", default=2)
    return tuple(layer for layer in range(layers) if max(layer - offset + 1, 0) % every == 0)


def _feed_forward(
    path: str, base: Base, sizes: _moe.Mixture, dense: Layers, sparse: Layers, *, precise: bool = False
) -> list[Weight]:
    weights: list[Weight] = []
    if dense:
        weights += _parts.gated_mlp(
            path, hidden_size=base.hidden_size, intermediate_size=base.intermediate_size, layers=dense
        )
    if sparse:
        weights += _moe.mixture(path, sizes, base.hidden_size, layers=sparse, precise=precise)
    return weights


def _norms(body: str, hidden_size: int, layers: Layers) -> list[Weight]:
    return [
        *_parts.norm(f"{body}.input_layernorm", hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", hidden_size, layers=layers),
    ]


def _extra_norms(config: Config, body: str, hidden_size: int, layers: Layers) -> list[Weight]:
    weights = []
    for name in EXTRA_NORMS.get(config.text("model_type"), ()):
        weights += _parts.norm(f"{body}.{name}", hidden_size, layers=layers)
    return weights


def _draft_ends(config: Config, body: str, base: Base, layers: Layers) -> list[Weight]:
    """What joins a draft layer to the model."""
    hidden_size, vocab_size = base.hidden_size, base.vocab_size
    weights = [
        *_parts.norm(f"{body}.enorm", hidden_size, layers=layers),
        *_parts.norm(f"{body}.hnorm", hidden_size, layers=layers),
        # The published FP8 totals count it in 16 bits: quantization leaves it alone.
        _parts.matrix(f"{body}.eh_proj", (hidden_size, 2 * hidden_size), "mtp", layers=layers),
        *_parts.norm(f"{body}.shared_head.norm", hidden_size, layers=layers),
    ]
    if config.text("model_type") not in SHARED_ENDS_TYPES:
        weights += [
            _parts.matrix(f"{body}.{name}", (vocab_size, hidden_size), "mtp", "vocab", layers=layers)
            for name in ("embed_tokens", "shared_head.head")
        ]
    return weights
