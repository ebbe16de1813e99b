"""Phi-4 that sees: a SigLIP 2 tower over patches of any shape, its last layer left out, before Phi-4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

POSITIONS = 256


def read(config: Config) -> Architecture:
    """The architecture of a Phi-4 vision config, whose text sizes stand at top level.

    Source: vLLM 0.33 `models/phi4siglip.py`, `models/siglip2.py`.
    """
    text = _multimodal.read_text(config, config, prefix="language_model.model", model_type="phi3")
    vision = config.section("vision_config")
    size = _towers.sizes(vision, hidden=1152, inner=4304, depth=27, heads=16)
    projector = _towers.two_linears("multi_modal_projector", size.hidden, text.hidden_size, text.hidden_size)
    return _multimodal.joined(
        config, text, [*_tower(vision, size), *projector], head="language_model.lm_head"
    )


def _tower(vision: Config, size: _towers.Sizes) -> list[Weight]:
    """The layers up to the last but one, whose output the projector reads."""
    path, hidden = "vision_tower.vision_model", size.hidden
    numbers = _towers.COLOURS * _towers.edge(vision, "patch_size", 16) ** 2
    positions = vision.integer("num_patches", default=POSITIONS, least=1)
    return [
        *_parts.linear(
            f"{path}.embeddings.patch_embedding", hidden, numbers, "vision", "replicated", bias=True
        ),
        _towers.table(f"{path}.embeddings.position_embedding", (positions, hidden)),
        *_towers.encoder(f"{path}.encoder.layers.{{}}", _towers.CLIP, size, served=size.depth - 1),
        *_towers.norm(f"{path}.post_layernorm", hidden, served=False),
    ]
