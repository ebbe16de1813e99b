"""Ling 2.5 and Ring-linear: lightning attention in most layers, MLA in one of each group, Ling's mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import StateCache, StateTensor
from soong.models.families import _common, _decoder, _mla, _moe, _parts, bailing, moe

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Ling 2.5 config. Source: vLLM 0.32 `models/bailing_moe_linear.py`."""
    decoder = _decoder.open_decoder(config, bailing.build_of(config), prefix)
    every = config.integer("layer_group_size", default=1, least=1)
    full = tuple(layer for layer in decoder.layers if (layer + 1) % every == 0)
    linear = tuple(layer for layer in decoder.layers if (layer + 1) % every)
    latent = _mla.read_latent(config)
    mix = bailing.mix_of(config)
    sizes = moe.read_experts(config, mix)
    dense, sparse = _moe.sparse_layers(config, decoder.base.layers)
    return _decoder.assemble(
        decoder,
        attention=[
            *_lightning(decoder, linear),
            *_mla.latent_attention(f"{decoder.body}.attention", latent, layers=full),
        ],
        feed_forward=[
            *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, dense),
            *moe.mixture_weights(decoder, mix, sizes, sparse),
        ],
        caches=_caches(config, latent, full, linear),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
        intermediate_size=max(decoder.base.intermediate_size if dense else 0, sizes.width),
        rotary_bytes=_rotary_bytes(config, decoder.heads.size, latent.rope_dim),
        early_rotary_bytes=_rotary_bytes(config, decoder.heads.size, latent.rope_dim),
    )


def _lightning(decoder: _decoder.Decoder, layers: Layers) -> list[Weight]:
    """As many key and value heads as query heads, a gate and its norm."""
    if not layers:
        return []
    heads, hidden_size = decoder.heads, decoder.base.hidden_size
    path, width = f"{decoder.body}.attention", heads.query * heads.size
    normed = decoder.config.flag("use_qk_norm")
    return [
        *_parts.linear(
            f"{path}.query_key_value", 3 * width, hidden_size, "attention", "column", layers=layers
        ),
        *(
            _parts.vector(f"{path}.{name}", heads.size, "norm", layers=layers)
            for name in ("query_layernorm", "key_layernorm")
            if normed
        ),
        *_parts.linear(f"{path}.g_proj", width, hidden_size, "attention", "column", layers=layers),
        _parts.vector(f"{path}.g_norm", width, "norm", "column", layers=layers),
        *_parts.linear(f"{path}.dense", hidden_size, width, "attention", "row", layers=layers),
    ]


def _caches(config: Config, latent: _mla.Latent, full: Layers, linear: Layers) -> tuple[Cache, ...]:
    heads, _, size = _common.attention_sizes(config)
    caches: tuple[Cache, ...] = (_mla.latent_cache(latent, len(full)),) if full else ()
    if linear:
        state = StateTensor(name="recurrent", shape=(heads, size, size))
        caches = (*caches, StateCache(kind="lightning", layers=len(linear), tensors=(state,)))
    return caches


def _rotary_bytes(config: Config, head_size: int, rope_size: int) -> int:
    """A table for each kind of layer, of half a head and of MLA's rotated part."""
    positions = _common.context_limit(config) or 0
    rotated = int(head_size * config.number("partial_rotary_factor", 1.0))
    return 2 * positions * (rotated + rope_size)
