"""Cohere's models that see: Aya Vision and Command A Vision, SigLIP towers with a gated projector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of an Aya Vision or Command A Vision config.

    Source of the shapes: transformers `modeling_aya_vision.py`, `modeling_cohere2_vision.py`; of their
    sharding: vLLM `cohere2_vision.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", "cohere2")
    )
    vision = config.section("vision_config")
    tower = _towers.image_text_tower("vision_tower.vision_model", vision, kind="siglip_vision_model")
    projector = _projector(config, vision.integer("hidden_size", default=768, least=1), text.hidden_size)
    return _multimodal.joined(config, text, [*tower, *projector], head="language_model.lm_head")


def _projector(config: Config, width: int, text_size: int) -> list[Weight]:
    """Half of `alignment_intermediate_size` gates the other, so the second matrix reads only a half."""
    prefix = "multi_modal_projector"
    merged = width * config.integer("downsample_factor", default=2, least=1) ** 2
    middle = config.integer("alignment_intermediate_size", default=36864, least=2)
    weights = [
        *_towers.linear(f"{prefix}.linear_1", middle, merged, "projector", "column"),
        *_towers.linear(f"{prefix}.linear_2", text_size, middle // 2, "projector", "row"),
    ]
    if config.text("model_type") == "aya_vision":
        weights += _towers.norm(f"{prefix}.layernorm", merged, "projector")
    return weights
