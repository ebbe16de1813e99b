"""Bamba: Mamba-2 with attention in a few layers, a gated MLP in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _blocks, _common, _mamba, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Bamba config. Source: transformers `modeling_bamba.py`."""
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    full = _blocks.numbered(config.integers("attn_layer_indices"), base.layers)
    mamba = _blocks.others(layers, full)
    sizes = _blocks.ibm_mamba2(config)
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_mamba.mamba2_weights(f"{body}.mamba", sizes, layers=mamba),
        *_blocks.attention_weights(f"{body}.self_attn", config, full),
        *_blocks.gated_mlp(f"{body}.feed_forward", config, layers, bias=config.flag("mlp_bias")),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.pre_ff_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.final_layernorm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    caches = (*_blocks.attention_caches(config, len(full)), _mamba.mamba2_cache(sizes, len(mamba)))
    heads = config.integer("num_attention_heads", default=0)
    return _common.architecture(config, base, heads=heads, weights=weights, caches=caches)
