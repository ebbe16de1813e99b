"""DBRX: sixteen experts in every layer, LayerNorms, sizes in nested sections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.config_json import Config
from soong.models.families import _decoder, moe
from soong.models.families._decoder import Build
from soong.models.families.moe import Mix

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

BUILD = Build(
    root="transformer",
    body="blocks.{}",
    embed="wte",
    final_norm="norm_f",
    qkv=("norm_attn_norm.attn.Wqkv",) * 3,
    qkv_bias=False,
    out="norm_attn_norm.attn.out_proj",
    out_bias=False,
    norms=("norm_attn_norm.norm_1", "norm_attn_norm.norm_2"),
    window_rule="none",
)
MIX = Mix(
    path="ffn",
    gate="router.layer",
    experts="experts.mlp",
    names=("w1", "v1", "w2"),
    width=("ffn_hidden_size",),
)


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a DBRX config. Source: vLLM 0.32 `models/dbrx.py`, transformers `configuration_dbrx.py`."""
    attention, experts = config.section("attn_config"), config.section("ffn_config")
    values = {
        "ffn_hidden_size": 3584,
        "num_experts": experts.integer("moe_num_experts", default=4, least=1),
        "num_experts_per_tok": experts.integer("moe_top_k", default=1, least=1),
        "num_key_value_heads": attention.integer("kv_n_heads", default=1, least=1),
        **experts.values,
        **config.values,
    }
    decoder = _decoder.open_decoder(Config(values, config.address), BUILD, prefix)
    sizes = moe.read_experts(decoder.config, MIX)
    return _decoder.assemble(
        decoder,
        feed_forward=moe.mixture_weights(decoder, MIX, sizes, decoder.layers),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
        intermediate_size=sizes.width,
    )
