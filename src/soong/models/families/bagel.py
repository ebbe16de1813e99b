"""BAGEL as far as it reads images: a Qwen2 decoder behind a SigLIP tower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.config_json import Config
from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

STATED_LAYERS, STORED_LAYERS = 27, 26
"""What the published config says of its tower, and what the checkpoint has: vLLM 0.32 `models/bagel.py`."""

POSITION_BYTES = 4
"""Of a number in the table of patch positions that vLLM makes itself."""


def read(config: Config) -> Architecture:
    """The architecture of a BAGEL config; what draws images is not loaded.

    Source: vLLM 0.32 `models/bagel.py`, `transformers_utils/configs/bagel.py`.
    """
    section = _multimodal.text_section(config, "llm_config", "text_config")
    text = _multimodal.read_text(config, section, prefix="language_model.model", model_type="qwen2")
    vision = config.section("vit_config")
    layers = vision.integer("num_hidden_layers", default=12, least=1)
    kept = STORED_LAYERS if layers == STATED_LAYERS else layers
    own = {**vision.values, "num_hidden_layers": kept, "vision_use_head": False}
    width = vision.integer("hidden_size", default=768, least=1)
    towers = [
        *_towers.image_text_tower(
            "vit_model.vision_model", Config(own, vision.address), kind="siglip_vision_model"
        ),
        *_towers.two_linears("connector", width, text.hidden_size, text.hidden_size, names=("fc1", "fc2")),
    ]
    model = _multimodal.joined(config, text, towers, head="language_model.lm_head")
    side = config.integer("vit_max_num_patch_per_side", default=70, least=1)
    positions = side**2 * text.hidden_size * POSITION_BYTES
    return replace(
        model,
        rotary_bytes=model.rotary_bytes + positions,
        early_rotary_bytes=model.early_rotary_bytes + positions,
    )
