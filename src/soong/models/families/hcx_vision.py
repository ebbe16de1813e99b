"""HyperCLOVA X SEED Vision: Qwen2.5-VL's tower, one matrix, HyperCLOVA X."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers, qwen_vl

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

OUT_HIDDEN = 3584
"""transformers `configuration_qwen2_5_vl.py` out_hidden_size."""


def read(config: Config) -> Architecture:
    """The architecture of a HyperCLOVA X vision config. Source: vLLM 0.33 `models/hyperclovax_vision_v2.py`."""
    section, vision = _multimodal.text_section(config), config.section("vision_config")
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", "hyperclovax")
    )
    seen = vision.integer("out_hidden_size", default=OUT_HIDDEN, least=1)
    towers = [
        *qwen_vl.tower_2_5("visual", vision),
        *_towers.linear("mm_projector", text.hidden_size, seen, "projector"),
    ]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")
