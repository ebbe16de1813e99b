"""Gemma 3n, text part: four streams side by side, inputs per layer, a low-rank side path, shared caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.families import _decoder, _parts
from soong.models.families._decoder import Build, Decoder
from soong.models.families.llama import FOUR_NORMS

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, AttentionCache, Weight
    from soong.models.config_json import Config

BUILD = Build(
    tied=True,
    norms=(*FOUR_NORMS, "post_per_layer_input_norm"),
    head_norm="head",
    window_every=5,
    defaults={
        "vocab_size": 262400,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "sliding_window": 512,
        "max_position_embeddings": 32768,
        "vocab_size_per_layer_input": 262144,
        "hidden_size_per_layer_input": 256,
        "num_kv_shared_layers": 15,
        "altup_num_inputs": 4,
        "laurel_rank": 64,
    },
)
"""Source: transformers `configuration_gemma3n.py`, whose saved sections leave out what equals its defaults."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Gemma 3n text config.

    Source: vLLM 0.32 `models/gemma3n.py`, transformers `modeling_gemma3n.py`.
    """
    widths = _widths(config)
    if widths:
        config = type(config)({**config.values, "intermediate_size": max(widths)}, config.address)
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    first_shared = _first_shared(decoder)
    windows = _decoder.layer_windows(decoder)
    return _decoder.assemble(
        decoder,
        attention=_attention(decoder, first_shared),
        feed_forward=_mlps(decoder, widths),
        extra=[*_streams(decoder), *_layer_inputs(decoder)],
        caches=_caches(decoder, windows, first_shared),
    )


def _caches(decoder: Decoder, windows: tuple[int, ...], first_shared: int) -> tuple[AttentionCache, ...]:
    """Caches of the layers that keep one, with the count of those that read them."""
    kept = _decoder.grouped_caches((window, decoder.heads) for window in windows[:first_shared])
    idle = windows[first_shared:]
    return tuple(replace(cache, idle_layers=idle.count(cache.window)) for cache in kept)


def _widths(config: Config) -> tuple[int, ...]:
    """The size of each layer's MLP where the config lists them."""
    value = config.values.get("intermediate_size")
    return config.integers("intermediate_size") if isinstance(value, list) else ()


def _mlps(decoder: Decoder, widths: tuple[int, ...]) -> list[Weight]:
    layers = decoder.layers
    if not widths:
        return _decoder.mlp_weights(decoder, decoder.base.intermediate_size, layers)
    if len(widths) < len(layers):
        where = decoder.config.where("intermediate_size")
        raise ConfigError(f"`{where}` names {len(widths)} of {len(layers)} layers")
    weights: list[Weight] = []
    for width in sorted(set(widths)):
        own = tuple(layer for layer in layers if widths[layer] == width)
        weights += _decoder.mlp_weights(decoder, width, own)
    return weights


def _first_shared(decoder: Decoder) -> int:
    """The first layer that reads the cache of an earlier one."""
    shared = decoder.config.integer("num_kv_shared_layers", default=0)
    if shared >= decoder.base.layers:
        where = decoder.config.where("num_kv_shared_layers")
        raise ConfigError(f"`{where}` is not below the number of layers")
    return decoder.base.layers - shared


def _attention(decoder: Decoder, first_shared: int) -> list[Weight]:
    """Layers that share a cache have keys and values in the checkpoint, which nothing loads."""
    own = _decoder.attention_weights(decoder, decoder.heads, decoder.layers[:first_shared])
    shared = _decoder.attention_weights(decoder, decoder.heads, decoder.layers[first_shared:])
    idle = ("k_proj", "v_proj", "k_norm")
    return [*own, *(replace(weight, served=not weight.path.endswith(idle)) for weight in shared)]


def _streams(decoder: Decoder) -> list[Weight]:
    """AltUp, which predicts and corrects several copies of the hidden state, and Laurel, the low-rank side path."""
    body, layers, hidden_size = decoder.body, decoder.layers, decoder.base.hidden_size
    inputs = decoder.config.integer("altup_num_inputs", least=1)
    rank = decoder.config.integer("laurel_rank", least=1)
    altup = f"{body}.altup"
    weights = [
        _parts.vector(f"{altup}.correct_output_scale", hidden_size, "other", layers=layers, dtype="float32"),
        _parts.matrix(f"{altup}.correction_coefs", (inputs, inputs), "other", layers=layers),
        _parts.matrix(f"{altup}.prediction_coefs", (inputs**2, inputs), "other", layers=layers),
        _parts.matrix(f"{altup}.modality_router", (inputs, hidden_size), "other", layers=layers),
        *_parts.norm(f"{altup}.router_norm", hidden_size, layers=layers),
        *_parts.linear(f"{body}.laurel.linear_left", rank, hidden_size, "other", "column", layers=layers),
        *_parts.linear(f"{body}.laurel.linear_right", hidden_size, rank, "other", "row", layers=layers),
        *_parts.norm(f"{body}.laurel.post_laurel_norm", hidden_size, layers=layers),
    ]
    for name in ("altup_projections", "altup_unembed_projections"):
        for number in range(inputs - 1):
            path = f"{decoder.root}.{name}.{number}"
            weights += _parts.linear(path, hidden_size, hidden_size, "other", "column")
    return weights


def _layer_inputs(decoder: Decoder) -> list[Weight]:
    """A second embedding gives each layer an input of its own."""
    config, body, root, layers = decoder.config, decoder.body, decoder.root, decoder.layers
    width, hidden_size = config.integer("hidden_size_per_layer_input", least=1), decoder.base.hidden_size
    rows, wide = config.integer("vocab_size_per_layer_input", least=1), width * decoder.base.layers
    linear = _parts.linear
    return [
        _parts.embedding(f"{root}.embed_tokens_per_layer", rows, wide),
        *linear(f"{root}.per_layer_model_projection", wide, hidden_size, "other", "column"),
        *_parts.norm(f"{root}.per_layer_projection_norm", width),
        *linear(f"{body}.per_layer_input_gate", width, hidden_size, "other", "replicated", layers=layers),
        *linear(f"{body}.per_layer_projection", hidden_size, width, "other", "replicated", layers=layers),
    ]
