"""MiniCPM3: latent attention, but engines cache its keys and values unrolled, head by head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import AttentionCache
from soong.models.families import _common, _mla, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a MiniCPM3 config.

    Source: vLLM 0.33 `models/minicpm3.py`: values are padded to the size of keys, and every head is cached.
    """
    base = _common.read_base(config, tied_by_default=True)
    sizes = _mla.read_latent(_with_value_dim(config))
    layers = tuple(range(base.layers))
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_mla.latent_attention(f"{body}.self_attn", sizes, layers=layers),
        *_parts.gated_mlp(
            f"{body}.mlp",
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            layers=layers,
        ),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    key_dim = sizes.nope_dim + sizes.rope_dim
    caches = (AttentionCache(layers=base.layers, kv_heads=sizes.heads, key_dim=key_dim, value_dim=key_dim),)
    return _common.architecture(config, base, heads=sizes.heads, weights=weights, caches=caches)


def _with_value_dim(config: Config) -> Config:
    """The config with the value size that MiniCPM3 leaves out: hidden size over heads."""
    if "v_head_dim" in config:
        return config
    value_dim = config.integer("hidden_size", least=1) // config.integer("num_attention_heads", least=1)
    return type(config)({**config.values, "v_head_dim": value_dim}, config.address)
