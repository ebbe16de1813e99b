"""MiMo-V2-Flash: sliding layers with sinks and heads of their own, values smaller than keys, experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.families import _decoder, _draft, _parts
from soong.models.families._decoder import Build, Decoder, Heads, Layers
from soong.models.families.moe import Mix, mixture_weights, read_experts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

BUILD = Build(out_bias=False, defaults={"head_dim": 192, "num_key_value_heads": 4})
MIX = Mix(correction="gate.e_score_correction_bias", count=("n_routed_experts",), precise=True)

DRAFT_LAYERS = 3
"""vLLM 0.33 `config/speculative.py` _MIMO_V2_FLASH_NUM_MTP_LAYERS: the config is silent about them."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a MiMo-V2 config.

    Source: vLLM 0.33 `models/mimo_v2.py`, `models/mimo_v2_mtp.py`.
    """
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    decoder = replace(decoder, heads=_heads(decoder, "", decoder.heads))
    sliding_heads = _heads(decoder, "swa_", decoder.heads)
    window = config.integer("sliding_window_size", "sliding_window", default=0)
    sliding = _marked(decoder, "hybrid_layer_pattern", "layer_types", "sliding_attention")
    sparse = _marked(decoder, "moe_layer_freq", "mlp_layer_types", "sparse")
    full, dense = _others(decoder.layers, sliding), _others(decoder.layers, sparse)
    sizes = read_experts(config, MIX)
    drafts = tuple(range(_draft_count(decoder)))
    attention = [
        *_attention(decoder, decoder.heads, full, decoder.body, "add_full_attention_sink_bias"),
        *_attention(decoder, sliding_heads, sliding, decoder.body, "add_swa_attention_sink_bias"),
    ]
    chosen = set(sliding)
    return _decoder.assemble(
        decoder,
        attention=attention,
        feed_forward=[
            *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, dense),
            *mixture_weights(decoder, MIX, sizes, sparse),
        ],
        extra=_draft.draft(_draft_weights(decoder, sliding_heads, drafts)),
        caches=_decoder.grouped_caches(
            (window, sliding_heads) if layer in chosen else (0, decoder.heads) for layer in decoder.layers
        ),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
        mtp_layers=len(drafts),
    )


def _draft_count(decoder: Decoder) -> int:
    key = "num_nextn_predict_layers"
    if key not in decoder.config:
        return DRAFT_LAYERS
    return _decoder.draft_layers(decoder.config, key, layers=decoder.base.layers)


def _heads(decoder: Decoder, kind: str, otherwise: Heads) -> Heads:
    """The sizes of one kind of layer; `kind` is the prefix of its keys."""
    config = decoder.config
    return Heads(
        hidden_size=decoder.base.hidden_size,
        query=config.integer(f"{kind}num_attention_heads", default=otherwise.query, least=1),
        kv=config.integer(f"{kind}num_key_value_heads", default=otherwise.kv, least=1),
        size=config.integer(f"{kind}head_dim", default=otherwise.size, least=1),
        value_size=config.integer(f"{kind}v_head_dim", default=otherwise.value_size),
    )


def _marked(decoder: Decoder, key: str, named_key: str, name: str) -> Layers:
    """The layers that a list of ones and zeros marks, or that a list of kinds names."""
    config, layers = decoder.config, decoder.layers
    if key not in config and named_key in config:
        kinds = _decoder.layer_kinds(config, named_key, len(layers))
        return tuple(layer for layer, kind in enumerate(kinds) if kind == name)
    marks = config.integers(key)
    if len(marks) < len(layers):
        raise ConfigError(f"`{config.where(key)}` names {len(marks)} of {len(layers)} layers")
    return tuple(layer for layer in layers if marks[layer])


def _others(layers: Layers, chosen: Layers) -> Layers:
    without = set(chosen)
    return tuple(layer for layer in layers if layer not in without)


def _attention(decoder: Decoder, heads: Heads, layers: Layers, body: str, sinks: str) -> list[Weight]:
    weights = _decoder.attention_weights(decoder, heads, layers, body=body)
    if layers and decoder.config.flag(sinks):
        path = f"{body}.self_attn.attention_sink_bias"
        weights.append(_parts.vector(path, heads.query, "attention", "column", layers=layers))
    return weights


def _draft_weights(decoder: Decoder, heads: Heads, layers: Layers) -> list[Weight]:
    """Dense layers with sliding attention."""
    if not layers:
        return []
    body, hidden_size = f"{decoder.root}.mtp.layers.{{}}", decoder.base.hidden_size
    weights = [
        *_parts.linear(f"{body}.eh_proj", hidden_size, 2 * hidden_size, "mtp", "replicated", layers=layers),
        *_attention(decoder, heads, layers, body, "add_swa_attention_sink_bias"),
        *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, layers, body=body),
    ]
    for name in ("enorm", "hnorm", "input_layernorm", "pre_mlp_layernorm", "final_layernorm"):
        weights += _parts.norm(f"{body}.{name}", hidden_size, layers=layers)
    return weights
