"""Falcon-H1: attention and Mamba-2 side by side in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _blocks, _common, _mamba, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Falcon-H1 config.

    Source: vLLM 0.33 `models/falcon_h1.py`, transformers `modeling_falcon_h1.py`.
    """
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    width = config.integer("mamba_d_ssm", default=0)
    sizes = _blocks.ibm_mamba2(config, width=width, norm=config.flag("mamba_rms_norm"))
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_mamba.mamba2_weights(f"{body}.mamba", sizes, layers=layers),
        *_blocks.attention_weights(f"{body}.self_attn", config, layers),
        *_blocks.gated_mlp(f"{body}.feed_forward", config, layers, bias=config.flag("mlp_bias")),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.pre_ff_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.final_layernorm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    caches = (*_blocks.attention_caches(config, base.layers), _mamba.mamba2_cache(sizes, base.layers))
    heads = config.integer("num_attention_heads", least=1)
    return _common.architecture(config, base, heads=heads, weights=weights, caches=caches)
