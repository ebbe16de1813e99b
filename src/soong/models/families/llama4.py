"""Llama 4, text part: experts in every or every other layer, and attention in chunks but for one layer in four."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import AttentionCache
from soong.models.families import _decoder
from soong.models.families._decoder import Build, Decoder, Layers
from soong.models.families.moe import Mix, mixture_weights, read_experts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

BUILD = Build(
    defaults={
        "vocab_size": 202048,
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 8192,
    }
)
MIX = Mix(path="feed_forward", gate="router", width=("intermediate_size",), shared="shared_expert")


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Llama 4 text config.

    Source: transformers `modeling_llama4.py`, `configuration_llama4.py`; vLLM 0.33 `models/llama4.py`.
    """
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    config = decoder.config
    sizes = read_experts(config, MIX)
    sizes = sizes._replace(shared_width=sizes.width)
    sparse = _sparse_layers(decoder)
    dense = tuple(layer for layer in decoder.layers if layer not in set(sparse))
    width = config.integer("intermediate_size_mlp", least=1)
    return _decoder.assemble(
        decoder,
        feed_forward=[
            *_decoder.mlp_weights(decoder, width, dense, path="feed_forward."),
            *mixture_weights(decoder, MIX, sizes, sparse),
        ],
        caches=_caches(decoder),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
        intermediate_size=max(width if dense else 0, sizes.width),
    )


def _sparse_layers(decoder: Decoder) -> Layers:
    config = decoder.config
    if config.values.get("moe_layers") is not None:
        chosen = set(config.integers("moe_layers"))
        return tuple(layer for layer in decoder.layers if layer in chosen)
    step = config.integer("interleave_moe_layer_step", default=1)
    return tuple(layer for layer in decoder.layers if step and (layer + 1) % step == 0)


def _caches(decoder: Decoder) -> tuple[AttentionCache, ...]:
    """Layers with rotary positions attend within their chunk; those without see everything."""
    config, heads, layers = decoder.config, decoder.heads, decoder.base.layers
    chunk = config.integer("attention_chunk_size", default=0)
    rotary = config.integers("no_rope_layers")
    if len(rotary) < layers:
        every = config.integer("no_rope_layer_interval", default=4, least=1)
        rotary = tuple(int((layer + 1) % every != 0) for layer in range(layers))
    chunked = sum(1 for one in rotary[:layers] if one) if chunk else 0
    counts = ((chunked, chunk), (layers - chunked, 0))
    return tuple(
        AttentionCache(layers=count, kv_heads=heads.kv, key_dim=heads.size, value_dim=heads.size, chunk=size)
        for count, size in counts
        if count
    )
