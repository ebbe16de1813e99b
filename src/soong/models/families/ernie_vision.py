"""ERNIE-4.5-VL: a mixture with experts of their own for words and for patches, and a resampler of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

LISTED = ("moe_num_experts", "moe_intermediate_size", "moe_layer_start_index", "moe_layer_end_index")
"""Keys that state a number for words and one for patches."""

_BLOCK = _towers.Layer(attention="attn.", qkv=("qkv",), out="proj", norms=("norm1", "norm2"))


def read(config: Config) -> Architecture:
    """The architecture of an ERNIE-4.5-VL config. Source: vLLM 0.32 `models/ernie45_vl.py`, `ernie45_vl_moe.py`."""
    section = _multimodal.text_section(config)
    words, patches = _half(section, 0), _half(section, 1)
    text = _multimodal.read_text(words, words, prefix="model", model_type="ernie4_5_moe")
    vision = config.section("vision_config")
    weights = [*_patch_experts(text, patches), *_tower(config, vision, text.hidden_size)]
    model = _multimodal.joined(config, text, weights)
    tables = text.rotary_bytes * section.layers()  # each layer keeps its own: vLLM 0.32 `ernie45_vl_rope.py`
    return replace(model, rotary_bytes=tables, early_rotary_bytes=tables)


def _half(config: Config, place: int) -> Config:
    """The config as one kind of token sees it."""
    halves = {
        key: value[place]
        for key in LISTED
        if isinstance(value := config.values.get(key), list) and len(value) > place
    }
    return type(config)({**config.values, **halves}, config.address)


def _patch_experts(text: Architecture, patches: Config) -> list[Weight]:
    """The experts of patches stand in the layers of those of words, beside a router of their own."""
    layers = next((weight.layers for weight in text.weights if weight.part == "experts"), ())
    count = patches.integer("moe_num_experts", least=1)
    body = "model.layers.{}.mlp"
    return [
        _parts.matrix(
            f"{body}.vision_experts_gate", (count, text.hidden_size), "router", layers=layers, dtype="float32"
        ),
        _parts.vector(f"{body}.moe_statics.vision_bias", count, "router", layers=layers, dtype="float32"),
        *_parts.experts(
            f"{body}.vision_experts",
            count=count,
            per_token=0,  # of a patch, not of a generated word
            hidden_size=text.hidden_size,
            intermediate_size=patches.integer("moe_intermediate_size", least=1),
            layers=layers,
        ),
    ]


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    hidden = vision.integer("hidden_size", "embed_dim", default=1280, least=1)
    size = _towers.Sizes(
        hidden=hidden,
        inner=int(hidden * _towers.ratio(vision, "mlp_ratio", 4.0)),
        depth=_towers.depth(vision, "depth", default=32),
    )
    colours = vision.integer("in_channels", "in_chans", default=_towers.COLOURS, least=1)
    side = _towers.edge(vision, "patch_size", 14)
    return [
        _towers.table("vision_model.patch_embed.proj", (hidden, colours * side**2)),
        *_towers.encoder("vision_model.blocks.{}", _BLOCK, size),
        *_towers.norm("vision_model.ln", hidden),
        *_resampler(config, hidden, text_size),
    ]


def _resampler(config: Config, hidden: int, text_size: int) -> list[Weight]:
    """Patches side by side, then frames, then down to the width of words; each matrix is divided by columns."""
    path = "model.resampler_model"
    merged = hidden * config.integer("spatial_conv_size", default=2, least=1) ** 2
    frames = config.integer("temporal_conv_size", default=2, least=1)
    matrices = [("spatial_linear.0", merged, merged), ("spatial_linear.2", merged, merged)]
    if config.flag("use_temporal_conv", default=True):
        matrices += [("temporal_linear.0", merged, merged * frames), ("temporal_linear.2", merged, merged)]
    matrices.append(("mlp", text_size, merged))
    weights = [
        weight
        for name, rows, columns in matrices
        for weight in _towers.linear(f"{path}.{name}", rows, columns, "projector", "column")
    ]
    for name, *_ in matrices:
        if name.endswith(".2"):
            weights += _towers.norm(f"{path}.{name[:-1]}3", merged, "projector")
    return [*weights, *_towers.norm(f"{path}.after_norm", text_size, "projector", bias=False)]
