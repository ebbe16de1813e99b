"""LFM2-VL: an LFM2 decoder behind a SigLIP 2 tower that takes images of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of an LFM2-VL config.

    Source: vLLM 0.32 `models/lfm2_vl.py`, `lfm2_siglip2.py`; transformers `configuration_lfm2_vl.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="model.language_model", model_type=section.text("model_type", "lfm2")
    )
    vision = config.section("vision_config")
    weights = [*_tower(config, vision), *_projector(config, vision, text.hidden_size)]
    return _multimodal.joined(config, text, weights)


def _sizes(vision: Config) -> _towers.Sizes:
    """Defaults of transformers `Siglip2VisionConfig`."""
    return _towers.sizes(vision, hidden=768, inner=3072, depth=12, heads=12)


def _tower(config: Config, vision: Config) -> list[Weight]:
    """Patches enter flattened, positions are stretched from a fixed square; layers after the chosen one stay out."""
    size, prefix = _sizes(vision), "model.vision_tower.vision_model"
    numbers = vision.integer("patch_size", default=16, least=1) ** 2 * _towers.COLOURS
    layer = config.integer("vision_feature_layer", default=-1, least=-size.depth)
    loaded = size.depth + layer + 1 if layer < 0 else layer
    positions = vision.integer("num_patches", default=256, least=1)
    return [
        *_towers.linear(f"{prefix}.embeddings.patch_embedding", size.hidden, numbers, "vision"),
        _towers.table(f"{prefix}.embeddings.position_embedding", (positions, size.hidden)),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", _towers.CLIP, size, served=loaded),
        *_towers.norm(f"{prefix}.post_layernorm", size.hidden, served=loaded == size.depth),
    ]


def _projector(config: Config, vision: Config, text_size: int) -> list[Weight]:
    merged = _sizes(vision).hidden * config.integer("downsample_factor", default=2, least=1) ** 2
    inner = config.integer("projector_hidden_size", default=2560, least=1)
    path, bias = "model.multi_modal_projector", config.flag("projector_bias", default=True)
    weights = _towers.two_linears(path, merged, inner, text_size, bias=bias, split=False)
    if config.flag("projector_use_layernorm", default=True):
        weights += _towers.norm(f"{path}.layer_norm", merged, "projector")
    return weights
