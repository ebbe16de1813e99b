"""The text part of Muse-Glimmer: gated attention, mostly in a sliding window, norms around both halves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import AttentionCache
from soong.models.families import _blocks, _common, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache
    from soong.models.config_json import Config

NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Muse-Glimmer text config; the norms of queries and keys have no weights.

    Source: vLLM 0.33 `models/muse_glimmer.py`, transformers `modeling_muse_glimmer.py`.
    """
    base = _common.read_base(config)
    heads, _, head_dim = _common.attention_sizes(config)
    layers = tuple(range(base.layers))
    body = f"{prefix}.layers.{{}}"
    width = heads * head_dim
    gate = f"{body}.self_attn.gate_proj"
    weights = [
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_blocks.attention_weights(f"{body}.self_attn", config, layers),
        *_parts.linear(gate, width, base.hidden_size, "attention", "column", layers=layers),
        *_blocks.gated_mlp(f"{body}.mlp", config, layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    ]
    for name in NORMS:
        weights += _parts.norm(f"{body}.{name}", base.hidden_size, layers=layers)
    return _common.architecture(
        config, base, heads=heads, weights=tuple(weights), caches=_caches(config, base.layers)
    )


def _caches(config: Config, layers: int) -> tuple[Cache, ...]:
    _, kv_heads, head_dim = _common.attention_sizes(config)
    kinds = _blocks.named_layers(config, "layer_types", layers=layers)
    sliding = kinds.count("sliding_attention")
    window = config.integer("sliding_window", default=0)
    return tuple(
        AttentionCache(layers=count, kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim, window=size)
        for count, size in ((layers - sliding, 0), (sliding, window))
        if count
    )
