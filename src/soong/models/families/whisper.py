"""Whisper: an encoder that hears, and a decoder that writes and keeps the encoder's keys and values beside its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.families import _common, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

ENCODER = replace(_towers.WHISPER, key_bias=True)
"""The engine fuses queries, keys and values, so that keys get a bias too."""

CROSS = replace(ENCODER, mlp="", up=(), norms=("encoder_attn_layer_norm",), attention="encoder_attn.")


def read(config: Config) -> Architecture:
    """The architecture of a Whisper config.

    Source: vLLM 0.33 `models/whisper.py`; defaults of transformers `configuration_whisper.py`.
    """
    width = config.integer("d_model", default=384, least=1)
    heads = config.integer("decoder_attention_heads", default=6, least=1)
    if width < heads:
        raise ConfigError(f"`{config.where('decoder_attention_heads')}` is larger than the hidden size")
    base = _common.Base(
        layers=_towers.depth(config, "decoder_layers", default=4),
        hidden_size=width,
        intermediate_size=config.integer("decoder_ffn_dim", default=1536, least=1),
        vocab_size=config.integer("vocab_size", default=51865, least=1),
        tied=config.flag("tie_word_embeddings", default=True),
    )
    weights = (
        *_encoder(config, width),
        *_decoder(config, base),
        *_parts.lm_head(base.vocab_size, width, tied=base.tied, path="proj_out"),
    )
    own = AttentionCache(layers=base.layers, kv_heads=heads, key_dim=width // heads, value_dim=width // heads)
    return _common.architecture(
        config, base, heads=heads, weights=weights, caches=(own, replace(own, cross=True)), multimodal=True
    )


def _encoder(config: Config, width: int) -> list[Weight]:
    path = "model.encoder"
    size = _towers.Sizes(
        hidden=width,
        inner=config.integer("encoder_ffn_dim", default=1536, least=1),
        depth=_towers.depth(config, "encoder_layers", default=4),
        part="audio",
    )
    bins = config.integer("num_mel_bins", default=80, least=1)
    positions = config.integer("max_source_positions", default=1500, least=1)
    return [
        *_towers.convolution(f"{path}.conv1", (width, bins, 3), "audio"),
        *_towers.convolution(f"{path}.conv2", (width, width, 3), "audio"),
        _towers.table(f"{path}.embed_positions", (positions, width), "audio"),
        *_towers.encoder(f"{path}.layers.{{}}", ENCODER, size),
        *_towers.norm(f"{path}.layer_norm", width, "audio"),
    ]


def _decoder(config: Config, base: _common.Base) -> list[Weight]:
    path, width = "model.decoder", base.hidden_size
    size = _towers.Sizes(hidden=width, inner=base.intermediate_size, depth=base.layers, part="other")
    positions = config.integer("max_target_positions", default=448, least=1)
    cross = [
        weight
        for weight in _towers.encoder(f"{path}.layers.{{}}", CROSS, size)
        if not weight.path.endswith(("fc2", "fc2.bias"))
    ]
    return [
        # A plain table, which vLLM neither pads nor divides.
        _towers.table(f"{path}.embed_tokens", (base.vocab_size, width), "embedding"),
        _towers.table(f"{path}.embed_positions", (positions, width), "embedding"),
        *_towers.encoder(f"{path}.layers.{{}}", ENCODER, size),
        *cross,
        *_towers.norm(f"{path}.layer_norm", width, "norm"),
    ]
