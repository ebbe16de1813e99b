"""Ling and the mixtures built like it: Sarvam, Param2. A fused projection, norms of heads, a float32 router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _decoder, _moe, _parts, moe
from soong.models.families._decoder import Build
from soong.models.families.moe import Mix

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

QKV = ("attention.query_key_value",) * 3
HEAD_NORMS = ("attention.query_layernorm", "attention.key_layernorm")
LING = Build(
    embed="word_embeddings",
    qkv=QKV,
    out="attention.dense",
    out_bias="use_bias",
    mlp_bias="use_bias",
    head_norm="head",
    head_norm_names=HEAD_NORMS,
    head_norm_switch="use_qk_norm",
)
MIX = Mix(correction="gate.expert_bias")


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a mixture that is built like Ling. Source: vLLM 0.33 `models/bailing_moe.py`."""
    decoder = _decoder.open_decoder(config, build_of(config), prefix)
    mix = mix_of(config)
    sizes = moe.read_experts(config, mix)
    dense, sparse = _moe.sparse_layers(config, decoder.base.layers)
    weights: list[Weight] = [
        *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, dense),
        *moe.mixture_weights(decoder, mix, sizes, sparse),
    ]
    return _decoder.assemble(
        decoder,
        feed_forward=weights,
        extra=_norm_biases(decoder),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
        intermediate_size=max(decoder.base.intermediate_size if dense else 0, sizes.width),
    )


def build_of(config: Config) -> Build:
    """The decoder of a Ling config."""
    biased = config.flag("use_bias") or config.flag("use_qkv_bias")
    return replace(LING, qkv_bias=biased)


def mix_of(config: Config) -> Mix:
    """The mixture; a shared expert has a size of its own in newer configs, times their number."""
    balanced = config.flag("moe_router_enable_expert_bias")
    return replace(
        MIX,
        correction=MIX.correction if balanced else "",
        precise=config.text("router_dtype") == "fp32",
        # Param2 states the size of all its shared experts together: vLLM 0.32 `models/param2moe.py`.
        shared_count="" if config.text("model_type") == "param2moe" else "num_shared_experts",
        shared_width="moe_shared_expert_intermediate_size",
    )


def _norm_biases(decoder: _decoder.Decoder) -> list[Weight]:
    """The norms of heads are LayerNorms unless the config asks for RMSNorm."""
    config = decoder.config
    if not config.flag("use_qk_norm") or config.flag("use_rmsnorm", default=True):
        return []
    return [
        _parts.vector(f"{decoder.body}.{name}.bias", decoder.heads.size, "norm", layers=decoder.layers)
        for name in HEAD_NORMS
    ]
