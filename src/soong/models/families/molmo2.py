"""Molmo 2: SigLIP up to the layers that are looked at, pooled by attention, before a Qwen3 or an Olmo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.config_json import LARGEST
from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_BLOCK = _towers.Layer(
    attention="attention.",
    qkv=("wq", "wk", "wv"),
    out="wo",
    mlp="feed_forward.",
    up=("w1",),
    down="w2",
    norms=("attention_norm", "ffn_norm"),
)


def read(config: Config) -> Architecture:
    """The architecture of a Molmo 2 config. Source: vLLM 0.32 `models/molmo2.py`."""
    section = _multimodal.text_section(config)
    kind = "olmo2" if section.flag("norm_after") else "qwen3"
    text = _multimodal.read_text(config, section, prefix="model.transformer", model_type=kind)
    added = section.integer("additional_vocab_size", default=0)
    embedded = tuple(
        replace(weight, shape=(weight.shape[0] + added, weight.shape[1]))
        if weight.part == "embedding"
        else weight
        for weight in text.weights
    )
    towers = [
        *_tower(config.section("vit_config"), config.section("adapter_config")),
        *_adapter(config.section("adapter_config"), text.hidden_size),
    ]
    return _multimodal.joined(config, replace(text, weights=embedded), towers)


def _tower(vision: Config, adapter: Config) -> list[Weight]:
    """Defaults of the authors' `Molmo2VitConfig`."""
    size = _towers.sizes(vision, hidden=1152, inner=4304, depth=27, heads=16)
    path = "model.vision_backbone.image_vit"
    pixels = _towers.COLOURS * _towers.edge(vision, "image_patch_size", 14) ** 2
    positions = vision.integer("image_num_pos", default=577, least=1)
    return [
        _towers.table(f"{path}.positional_embedding", (positions, size.hidden)),
        *_towers.linear(f"{path}.patch_embedding", size.hidden, pixels, "vision"),
        *_towers.encoder(
            f"{path}.transformer.resblocks.{{}}", _BLOCK, size, served=_deepest(adapter, size.depth)
        ),
    ]


def _deepest(adapter: Config, depth: int) -> int:
    """How many layers are loaded: up to the last that the adapter looks at."""
    looked = _looked_at(adapter)
    return max((layer % depth if layer < 0 else layer for layer in looked), default=depth - 1) + 1


def _looked_at(adapter: Config) -> tuple[int, ...]:
    stated = adapter.values.get("vit_layers")
    listed = stated if isinstance(stated, list) else [-3, -9]
    return tuple(layer for layer in listed if isinstance(layer, int) and abs(layer) < LARGEST)


def _adapter(adapter: Config, text_size: int) -> list[Weight]:
    """Attention over the patches of a window, then a gated MLP; defaults of the authors' `Molmo2AdapterConfig`."""
    hidden = adapter.integer("hidden_size", default=1152, least=1)
    width = adapter.integer("num_attention_heads", default=16, least=1) * adapter.integer(
        "head_dim", default=72, least=1
    )
    wide = hidden * max(1, len(_looked_at(adapter)))
    pool, path = "model.vision_backbone.image_pooling_2d", "model.vision_backbone.image_projector"
    inner = adapter.integer("intermediate_size", default=18944, least=1)
    weights = []
    for name in ("wq", "wk", "wv"):
        weights += _towers.linear(f"{pool}.{name}", width, wide, "projector", "column")
    weights += _towers.linear(f"{pool}.wo", hidden, width, "projector", "row")
    for name in ("w1", "w3"):
        weights += _parts.linear(f"{path}.{name}", inner, hidden, "projector", "column")
    return [*weights, *_parts.linear(f"{path}.w2", text_size, inner, "projector", "row")]
