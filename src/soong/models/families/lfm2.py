"""LFM2 and LFM2-MoE: gated short convolutions with attention in some layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.architecture import StateCache, StateTensor
from soong.models.families import _blocks, _common, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of an LFM2 config.

    Source: vLLM 0.33 `models/lfm2.py`, `lfm2_moe.py`, `layers/mamba/short_conv.py`; transformers
    `modeling_lfm2.py`.
    """
    tied = config.flag("tie_embedding", default=config.flag("tie_word_embeddings", default=True))
    base = replace(_common.read_base(config), tied=tied, intermediate_size=_intermediate_size(config))
    layers = tuple(range(base.layers))
    full = _attention_layers(config, base.layers)
    conv = _blocks.others(layers, full)
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_convolution(f"{body}.conv", config, conv),
        *_attention(f"{body}.self_attn", config, full),
        *_feed_forward(f"{body}.feed_forward", config, base, layers),
        *_parts.norm(f"{body}.operator_norm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.ffn_norm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.embedding_norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", least=1),
        weights=weights,
        caches=_caches(config, len(full), len(conv)),
        experts=config.integer("num_experts", default=0),
        experts_per_token=config.integer("num_experts_per_tok", default=0) if "num_experts" in config else 0,
    )


def _intermediate_size(config: Config) -> int:
    """The MLP's width: two thirds of the stated one, rounded up to a multiple, unless the config says not to.

    Source: vLLM 0.33 `models/lfm2.py` `Lfm2MLP`. LFM2-MoE states the width itself.
    """
    wide = config.integer("block_ff_dim", "intermediate_size", least=1)
    if config.text("model_type") == "lfm2_moe" or not config.flag("block_auto_adjust_ff_dim", default=True):
        return wide
    multiple = config.integer("block_multiple_of", default=256, least=1)
    wide = int(config.number("block_ffn_dim_multiplier", 1.0) * (2 * wide // 3))
    return -(-wide // multiple) * multiple


def _attention_layers(config: Config, layers: int) -> Layers:
    kinds = _blocks.named_layers(config, "layer_types", layers=layers)
    if kinds:
        return _blocks.layers_of(kinds, "full_attention")
    if "full_attn_idxs" not in config:
        return tuple(range(layers))
    return _blocks.numbered(config.integers("full_attn_idxs"), layers)


def _convolution(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    """A gate before, a convolution over a few tokens, a gate after."""
    if not layers:
        return []
    size, bias = config.integer("hidden_size", least=1), config.flag("conv_bias")
    kernel = config.integer("conv_L_cache", default=3, least=1)
    weights = [
        *_parts.linear(f"{prefix}.in_proj", 3 * size, size, "attention", "column", layers=layers, bias=bias),
        _parts.matrix(f"{prefix}.conv", (size, 1, kernel), "state", "column", layers=layers),
        *_parts.linear(f"{prefix}.out_proj", size, size, "attention", "row", layers=layers, bias=bias),
    ]
    if bias:
        weights.append(_parts.vector(f"{prefix}.conv.bias", size, "state", "column", layers=layers))
    return weights


def _attention(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    if not layers:
        return []
    _, _, head_dim = _common.attention_sizes(config)
    return [
        *_blocks.attention_weights(prefix, config, layers, bias=False, out="out_proj"),
        *_parts.norm(f"{prefix}.q_layernorm", head_dim, layers=layers),
        *_parts.norm(f"{prefix}.k_layernorm", head_dim, layers=layers),
    ]


def _feed_forward(prefix: str, config: Config, base: _common.Base, layers: Layers) -> list[Weight]:
    """A gated MLP, or experts after the first `num_dense_layers`."""
    count = config.integer("num_experts", default=0)
    first = min(config.integer("num_dense_layers", default=0), base.layers) if count else base.layers
    dense, sparse = layers[:first], layers[first:]
    weights: list[Weight] = []
    if dense:
        wide, size = base.intermediate_size, base.hidden_size
        weights += _parts.linear(f"{prefix}.w1", wide, size, "mlp", "column", layers=dense)
        weights += _parts.linear(f"{prefix}.w3", wide, size, "mlp", "column", layers=dense)
        weights += _parts.linear(f"{prefix}.w2", size, wide, "mlp", "row", layers=dense)
    if sparse:
        weights += _experts(prefix, config, count, sparse)
    return weights


def _experts(prefix: str, config: Config, count: int, layers: Layers) -> list[Weight]:
    hidden_size = config.integer("hidden_size", least=1)
    weights = [
        *_parts.router(f"{prefix}.gate", count, hidden_size, layers=layers),
        *_parts.experts(
            f"{prefix}.experts",
            count=count,
            per_token=config.integer("num_experts_per_tok", least=1),
            hidden_size=hidden_size,
            intermediate_size=config.integer("moe_intermediate_size", least=1),
            layers=layers,
            names=("w1", "w3", "w2"),
        ),
    ]
    if config.flag("use_expert_bias", default=True):
        weights.append(
            _parts.vector(f"{prefix}.expert_bias", count, "router", layers=layers, dtype="float32")
        )
    return weights


def _caches(config: Config, full: int, conv: int) -> tuple[Cache, ...]:
    caches = _blocks.attention_caches(config, full)
    if not conv:
        return caches
    past = config.integer("conv_L_cache", default=3, least=1) - 1
    tensor = StateTensor(name="conv", shape=(past, config.integer("hidden_size", least=1)), split=1)
    return (*caches, StateCache(kind="shortconv", layers=conv, tensors=(tensor,)))
