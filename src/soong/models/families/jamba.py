"""Jamba: Mamba-1 with attention every few layers, routed experts in every other layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _blocks, _common, _mamba, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Jamba config.

    Source: vLLM 0.33 `models/jamba.py`, transformers `modeling_jamba.py`.
    """
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    full = _every(config, "attn_layer", base.layers, period=8, offset=4)
    mamba = _blocks.others(layers, full)
    count = config.integer("num_experts", default=16)
    sparse = _every(config, "expert_layer", base.layers, period=2, offset=1) if count > 1 else ()
    dense = _blocks.others(layers, sparse)
    sizes = _mamba_sizes(config)
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_mamba.mamba1_weights(f"{body}.mamba", sizes, layers=mamba),
        *_blocks.attention_weights(f"{body}.self_attn", config, full, bias=False),
        *_blocks.gated_mlp(f"{body}.feed_forward", config, dense),
        *_experts(f"{body}.feed_forward", config, count, sparse),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.pre_ff_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.final_layernorm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", default=0),
        weights=weights,
        caches=(*_blocks.attention_caches(config, len(full)), _mamba.mamba1_cache(sizes, len(mamba))),
        experts=count if sparse else 0,
        experts_per_token=config.integer("num_experts_per_tok", default=2) if sparse else 0,
    )


def _every(config: Config, name: str, layers: int, *, period: int, offset: int) -> Layers:
    """The layers that come once in a period; the defaults are those of the family's configuration class."""
    period = config.integer(f"{name}_period", default=period, least=1)
    offset = config.integer(f"{name}_offset", default=offset)
    return tuple(layer for layer in range(layers) if layer % period == offset % period)


def _mamba_sizes(config: Config) -> _mamba.Mamba1:
    hidden_size = config.integer("hidden_size", least=1)
    automatic = config.values.get("mamba_dt_rank", "auto") == "auto"
    return _mamba.Mamba1(
        hidden_size=hidden_size,
        width=config.integer("mamba_expand", default=2, least=1) * hidden_size,
        state_size=config.integer("mamba_d_state", default=16, least=1),
        rank=-(-hidden_size // 16) if automatic else config.integer("mamba_dt_rank", least=1),
        kernel=config.integer("mamba_d_conv", default=4, least=1),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        bias=config.flag("mamba_proj_bias"),
        norms=True,
    )


def _experts(prefix: str, config: Config, count: int, layers: Layers) -> list[Weight]:
    if not layers:
        return []
    hidden_size = config.integer("hidden_size", least=1)
    return [
        *_parts.router(f"{prefix}.router", count, hidden_size, layers=layers),
        *_parts.experts(
            f"{prefix}.experts",
            count=count,
            per_token=config.integer("num_experts_per_tok", default=2, least=1),
            hidden_size=hidden_size,
            intermediate_size=config.integer("intermediate_size", least=1),
            layers=layers,
        ),
    ]
