"""Gemma 4, text part: wider heads in global layers, shared caches, per-layer embeddings, experts beside the MLP."""

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
    norms=FOUR_NORMS,
    head_norm="head",
    window_every=6,
    defaults={
        "vocab_size": 262144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": 512,
        "max_position_embeddings": 131072,
        "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262144,
    },
)


WITHOUT_OWN_INPUTS = replace(BUILD, defaults={**BUILD.defaults, "hidden_size_per_layer_input": 0})
BUILDS = {
    "diffusion_gemma_text": WITHOUT_OWN_INPUTS,
    "gemma4_unified_text": replace(
        WITHOUT_OWN_INPUTS, defaults={**WITHOUT_OWN_INPUTS.defaults, "sliding_window": 1024}
    ),
}
"""Types whose configuration class departs from Gemma 4's: transformers 5 `configuration_gemma4_unified.py` and kin."""


class _Kind(_decoder.Heads, frozen=True, kw_only=True):
    """One kind of layer. `shared`: its keys and values come from an earlier layer. `reused`: values are the keys."""

    shared: bool
    reused: bool


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Gemma 4 text config.

    Source: transformers `modeling_gemma4.py`, `configuration_gemma4.py`; vLLM 0.33 `models/gemma4.py`.
    """
    decoder = _decoder.open_decoder(config, BUILDS.get(config.text("model_type"), BUILD), prefix)
    windows = _windows(decoder)
    first_shared = decoder.base.layers - _shared_layers(decoder)
    kinds = _kinds(decoder, windows, first_shared)
    experts = decoder.config.integer("num_experts", default=0)
    per_token = decoder.config.integer("top_k_experts", default=0)
    return _decoder.assemble(
        decoder,
        attention=_attention(decoder, kinds),
        feed_forward=[*_mlps(decoder, first_shared), *_experts(decoder, experts, per_token)],
        extra=_extra(decoder),
        caches=_caches(windows, kinds),
        experts=experts,
        experts_per_token=per_token,
    )


def _caches(windows: tuple[int, ...], kinds: list[_Kind]) -> tuple[AttentionCache, ...]:
    """Caches of the layers that keep one, with the count of those that read them."""
    layers = list(zip(windows, kinds, strict=True))
    kept = _decoder.grouped_caches((window, kind) for window, kind in layers if not kind.shared)
    shared = _decoder.grouped_caches((window, kind) for window, kind in layers if kind.shared)
    idle = {replace(cache, layers=0): cache.layers for cache in shared}
    return tuple(replace(cache, idle_layers=idle.get(replace(cache, layers=0), 0)) for cache in kept)


def _windows(decoder: Decoder) -> tuple[int, ...]:
    """The last layer is always a global one."""
    return (*_decoder.layer_windows(decoder)[:-1], 0)


def _shared_layers(decoder: Decoder) -> int:
    count = decoder.config.integer("num_kv_shared_layers", default=0)
    if count >= decoder.base.layers:
        raise ConfigError(
            f"`{decoder.config.where('num_kv_shared_layers')}` is not below the number of layers"
        )
    return count


def _kinds(decoder: Decoder, windows: tuple[int, ...], first_shared: int) -> list[_Kind]:
    config, own = decoder.config, decoder.heads
    reused = config.flag("attention_k_eq_v")
    last = _saved_layer(config, len(windows) - 1)
    global_kv = last.integer("num_key_value_heads", default=own.kv, least=1)
    if reused:
        global_kv = config.integer("num_global_key_value_heads", default=global_kv, least=1)
    global_size = last.integer("head_dim", default=config.integer("global_head_dim", least=1), least=1)
    return [
        _Kind(
            hidden_size=own.hidden_size,
            query=own.query,
            kv=own.kv if window else global_kv,
            size=own.size if window else global_size,
            shared=layer >= first_shared,
            reused=reused and not window,
        )
        for layer, window in enumerate(windows)
    ]


def _saved_layer(config: Config, layer: int) -> Config:
    """What a config saved by transformers 5 says of one layer; the keys are padded with zeros."""
    layers = config.section("per_layer_config")
    for key in (str(layer), f"{layer:02}", f"{layer:03}"):
        if key in layers:
            return layers.section(key)
    return layers.section(str(layer))


def _attention(decoder: Decoder, kinds: list[_Kind]) -> list[Weight]:
    groups: dict[_Kind, list[int]] = {}
    for layer, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(layer)
    weights: list[Weight] = []
    for kind, layers in groups.items():
        whole = _decoder.attention_weights(decoder, kind, tuple(layers))
        weights += [weight for one in whole if (weight := _adapted(one, kind)) is not None]
    return weights


def _adapted(weight: Weight, kind: _Kind) -> Weight | None:
    """Keys and values of a layer that shares a cache are in the checkpoint, unused; values that are keys are not."""
    name = weight.path.removesuffix(".bias").rpartition(".")[2]
    if kind.reused and name == "v_proj":
        return None if kind.shared else replace(weight, stored=False)
    return replace(weight, served=False) if kind.shared and name in {"k_proj", "v_proj", "k_norm"} else weight


def _mlps(decoder: Decoder, first_shared: int) -> list[Weight]:
    """MLPs; in the smallest models those of layers with a shared cache are twice as wide."""
    width, layers = decoder.base.intermediate_size, decoder.layers
    if not decoder.config.flag("use_double_wide_mlp") or first_shared == len(layers):
        return _decoder.mlp_weights(decoder, width, layers)
    return [
        *_decoder.mlp_weights(decoder, width, layers[:first_shared]),
        *_decoder.mlp_weights(decoder, 2 * width, layers[first_shared:]),
    ]


def _experts(decoder: Decoder, count: int, per_token: int) -> list[Weight]:
    """Router and experts, which work beside the MLP with norms of their own."""
    if not count:
        return []
    body, layers, hidden_size = decoder.body, decoder.layers, decoder.base.hidden_size
    width = decoder.config.integer("moe_intermediate_size", "expert_intermediate_size", least=1)
    weights = [
        *_parts.router(f"{body}.router.proj", count, hidden_size, layers=layers),
        _parts.vector(f"{body}.router.scale", hidden_size, "router", layers=layers),
        _parts.vector(f"{body}.router.per_expert_scale", count, "router", layers=layers),
        *_parts.experts(
            f"{body}.experts",
            count=count,
            per_token=per_token,
            hidden_size=hidden_size,
            intermediate_size=width,
            layers=layers,
        ),
    ]
    for name in (
        "post_feedforward_layernorm_1",
        "post_feedforward_layernorm_2",
        "pre_feedforward_layernorm_2",
    ):
        weights += _parts.norm(f"{body}.{name}", hidden_size, layers=layers)
    return weights


def _extra(decoder: Decoder) -> list[Weight]:
    """A scale per layer and, in the small models, a second embedding that gives each layer its own input."""
    body, root, layers = decoder.body, decoder.root, decoder.layers
    weights = [_parts.vector(f"{body}.layer_scalar", 1, "other", layers=layers)]
    width, hidden_size = (
        decoder.config.integer("hidden_size_per_layer_input", default=0),
        decoder.base.hidden_size,
    )
    if not width:
        return weights
    rows = decoder.config.integer("vocab_size_per_layer_input", least=1)
    all_layers = width * decoder.base.layers
    linear = _parts.linear
    return [
        *weights,
        _parts.embedding(f"{root}.embed_tokens_per_layer", rows, all_layers),
        *linear(f"{root}.per_layer_model_projection", all_layers, hidden_size, "other", "column"),
        *_parts.norm(f"{root}.per_layer_projection_norm", width),
        *linear(f"{body}.per_layer_input_gate", width, hidden_size, "other", "replicated", layers=layers),
        *linear(f"{body}.per_layer_projection", hidden_size, width, "other", "replicated", layers=layers),
        *_parts.norm(f"{body}.post_per_layer_input_norm", hidden_size, layers=layers),
    ]
