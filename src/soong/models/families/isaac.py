"""Isaac: a SigLIP 2 tower over patches of any shape, neighbours folded together, and Qwen3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

POSITIONS = 256
WIDENED = 4


def read(config: Config) -> Architecture:
    """The architecture of an Isaac config, whose text sizes stand at top level or in a section of their own.

    Source: vLLM 0.33 `models/isaac.py`, `transformers_utils/configs/isaac.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="language_model.model", model_type="qwen3")
    towers = _tower(config, config.section("vision_config"), text.hidden_size)
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    size = _towers.sizes(vision, hidden=768, inner=3072, depth=12, heads=12)
    path, hidden = "vision_embedding.transformer", size.hidden
    numbers = _towers.COLOURS * _towers.edge(vision, "patch_size", 16) ** 2
    positions = vision.integer("num_patches", default=POSITIONS, least=1)
    side = vision.integer(
        "pixel_shuffle_scale_factor",
        default=config.integer("pixel_shuffle_scale", default=1, least=1),
        least=1,
    )
    wide = WIDENED * hidden
    return [
        *_parts.linear(
            f"{path}.embeddings.patch_embedding", hidden, numbers, "vision", "replicated", bias=True
        ),
        _towers.table(f"{path}.embeddings.position_embedding", (positions, hidden)),
        *_towers.encoder(f"{path}.encoder.layers.{{}}", _towers.CLIP, size),
        *_towers.norm(f"{path}.post_layernorm", hidden),
        *_parts.linear(
            "vision_embedding.linear_fc1", wide * side**2, hidden * side**2, "projector", "column"
        ),
        *_parts.linear("vision_embedding.linear_fc2", text_size, wide * side**2, "projector", "row"),
    ]
