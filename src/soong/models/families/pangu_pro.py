"""openPangu Pro MoE V2: learned sinks of keys and values in every layer, values smaller than keys, four norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _decoder, _moe, _parts
from soong.models.families._decoder import Build, Heads
from soong.models.families.moe import Mix, mixture_weights, read_experts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

SANDWICH = ("pre_mlp_layernorm", "post_mlp_layernorm")
MIX = Mix(correction="gate.e_score_correction_bias", shared_count="n_shared_experts")
BUILD = Build(qkv=("self_attn.qkv_proj",) * 3, qkv_bias=False, out_bias=False)


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of an openPangu Pro MoE V2 config. Source: vLLM 0.33 `models/openpangu.py`."""
    sandwich = SANDWICH if config.flag("sandwich_norm") else ()
    decoder = _decoder.open_decoder(config, replace(BUILD, norms=(*BUILD.norms, *sandwich)), prefix)
    rotated, plain = config.integer("qk_rope_dim", default=0), config.integer("qk_nope_dim", default=0)
    heads = decoder.heads
    if rotated + plain:
        values = config.integer("v_channels", default=heads.size)
        heads = replace(heads, size=rotated + plain, value_size=values)
    decoder = replace(decoder, heads=heads)
    mix = MIX if config.flag("router_enable_expert_bias") else replace(MIX, correction="")
    sizes = read_experts(decoder.config, mix)
    dense, sparse = _moe.sparse_layers(config, decoder.base.layers)
    return _decoder.assemble(
        decoder,
        feed_forward=[
            *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, dense),
            *mixture_weights(decoder, mix, sizes, sparse),
        ],
        extra=_sinks(decoder, heads),
        caches=_decoder.grouped_caches((0, heads) for _ in decoder.layers),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
    )


def _sinks(decoder: _decoder.Decoder, heads: Heads) -> list[Weight]:
    """Keys and values that no token wrote, and the norm of the true keys: OpenPanguSinkAttention."""
    count, body = decoder.config.integer("param_sink_number", default=0), f"{decoder.body}.self_attn"
    weights = [_parts.vector(f"{body}.k_layernorm", heads.size, "norm", layers=decoder.layers)]
    if not count:
        return weights
    named = {"param_sink_key": heads.size}
    if decoder.config.flag("param_sink_with_value"):
        named["param_sink_value"] = heads.values
    for name, size in named.items():
        shape = (heads.kv * size, count)
        weights.append(
            _parts.matrix(f"{body}.{name}", shape, "attention", "kv", layers=decoder.layers, heads=heads.kv)
        )
    return weights
