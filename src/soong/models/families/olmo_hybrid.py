"""Olmo hybrid: three layers of Gated DeltaNet to one of attention, whose norms stand behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _blocks, _common, _deltanet, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]

PERIOD = 4
"""One attention layer in four where the config lists none: transformers `configuration_olmo_hybrid.py`."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of an Olmo hybrid config. Source: vLLM 0.32 `models/olmo_hybrid.py`."""
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    kinds = _blocks.named_layers(config, "layer_types", layers=base.layers)
    full = tuple(
        layer
        for layer in layers
        if (kinds[layer] == "full_attention" if kinds else (layer + 1) % PERIOD == 0)
    )
    linear = _blocks.others(layers, full)
    sizes = _deltanet.read_delta(config)
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_blocks.attention_weights(f"{body}.self_attn", config, full),
        *_head_norms(f"{body}.self_attn", config, full),
        *_delta_weights(f"{body}.linear_attn", sizes, linear),
        *_blocks.gated_mlp(f"{body}.mlp", config, layers),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=linear),
        *_parts.norm(f"{body}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_feedforward_layernorm", base.hidden_size, layers=full),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    caches: tuple[Cache, ...] = _blocks.attention_caches(config, len(full))
    if linear:
        caches = (*caches, _deltanet.delta_cache(sizes, len(linear)))
    heads = config.integer("num_attention_heads", least=1)
    return _common.architecture(config, base, heads=heads, weights=weights, caches=caches)


def _head_norms(path: str, config: Config, layers: Layers) -> list[Weight]:
    """One norm over all query heads and one over all key heads, whole on every GPU."""
    if not layers:
        return []
    heads, kv_heads, size = _common.attention_sizes(config)
    return [
        *_parts.norm(f"{path}.q_norm", heads * size, layers=layers),
        *_parts.norm(f"{path}.k_norm", kv_heads * size, layers=layers),
    ]


def _delta_weights(path: str, sizes: _deltanet.Delta, layers: Layers) -> list[Weight]:
    """Every projection by itself; all in the model's own type."""
    if not layers:
        return []
    rows = {
        "q_proj": sizes.key_width,
        "k_proj": sizes.key_width,
        "v_proj": sizes.value_width,
        "g_proj": sizes.value_width,
        "b_proj": sizes.value_heads,
        "a_proj": sizes.value_heads,
    }
    weights: list[Weight] = []
    for name, size in rows.items():
        weights += _parts.linear(
            f"{path}.{name}", size, sizes.hidden_size, "attention", "column", layers=layers
        )
    for name, size in (("q", sizes.key_width), ("k", sizes.key_width), ("v", sizes.value_width)):
        conv = (size, 1, sizes.kernel)
        weights.append(_parts.matrix(f"{path}.{name}_conv1d", conv, "state", "column", layers=layers))
    for name in ("dt_bias", "A_log"):
        weights.append(_parts.vector(f"{path}.{name}", sizes.value_heads, "state", "column", layers=layers))
    return [
        *weights,
        *_parts.norm(f"{path}.o_norm", sizes.value_dim, layers=layers),
        *_parts.linear(
            f"{path}.o_proj", sizes.hidden_size, sizes.value_width, "attention", "row", layers=layers
        ),
    ]
