"""MiniMax-M3 with its vision tower: CLIP's layers on 3-D patches, a projector, a merger of four tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a MiniMax-M3 vision config.

    Source of the shapes: transformers `modeling_minimax_m3_vl.py`; of their sharding: vLLM
    `minimax_m3/common/vision_tower.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="language_model.model", model_type="minimax_m3")
    towers = _tower(config, config.section("vision_config"), text.hidden_size)
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    size = _towers.sizes(vision, hidden=1280, inner=5120, depth=32, heads=16)
    prefix = "vision_tower.vision_model"
    compression = vision.section("img_token_compression_config")
    colours = vision.integer("num_channels", default=_towers.COLOURS, least=1)
    frames = compression.integer("temporal_patch_size", default=2, least=1)
    patch = _towers.edge(vision, "patch_size", 14)
    middle = config.integer("projector_hidden_size", default=text_size, least=1)
    merged = text_size * compression.integer("spatial_merge_size", default=2, least=1) ** 2
    bias = config.flag("multimodal_projector_bias", default=True)
    return [
        *_towers.convolution(
            f"{prefix}.embeddings.patch_embedding", (size.hidden, colours, frames, patch, patch), bias=False
        ),
        *_towers.norm(f"{prefix}.pre_layrnorm", size.hidden),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", _towers.CLIP, size),
        *_towers.two_linears("multi_modal_projector", size.hidden, middle, text_size, bias=bias),
        *_towers.two_linears(
            "patch_merge_mlp", merged, middle, text_size, bias=config.flag("patch_merge_bias", default=True)
        ),
    ]
