"""Llama and the many models that share its build: RMSNorm, rotary GQA without biases, SwiGLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import Architecture, AttentionCache
from soong.models.families import _common, _parts

if TYPE_CHECKING:
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a Llama-like config.

    Source of the shapes: transformers `modeling_llama.py`, vLLM `models/llama.py`.
    """
    base = _common.read_base(config)
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    layers = tuple(range(base.layers))
    bias = config.flag("attention_bias")
    mlp_bias = config.flag("mlp_bias")
    prefix = "model.layers.{}"
    weights = (
        _parts.embedding("model.embed_tokens", base.vocab_size, base.hidden_size),
        *_parts.grouped_attention(
            f"{prefix}.self_attn",
            hidden_size=base.hidden_size,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            layers=layers,
            bias=bias,
            out_bias=bias,
        ),
        *_parts.gated_mlp(
            f"{prefix}.mlp",
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            layers=layers,
            bias=mlp_bias,
        ),
        *_parts.norm(f"{prefix}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_parts.norm("model.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    caches = (AttentionCache(layers=base.layers, kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim),)
    return _common.architecture(config, base, heads=heads, weights=weights, caches=caches)
