"""Step-3: a large CLIP-like tower whose patches two convolutions thin out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a Step-3 config. Source: vLLM 0.32 `models/step3_vl.py`."""
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="model", model_type="step3_text")
    towers = _tower(config, config.section("vision_config"), text.hidden_size)
    return _multimodal.joined(config, text, towers)


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    """Defaults of vLLM's `Step3VisionEncoderConfig`."""
    size = _towers.sizes(vision, hidden=1792, inner=3072, depth=63, heads=16)
    hidden, prefix = size.hidden, "vision_model"
    positions = _towers.grid(vision, image=728, patch=14) + 1
    thinned = vision.integer("output_hidden_size", default=4096, least=1)
    return [
        _towers.table(f"{prefix}.embeddings.class_embedding", (1, hidden)),
        *_towers.convolution(f"{prefix}.embeddings.patch_embedding", _towers.patches(vision, hidden)),
        _towers.table(f"{prefix}.embeddings.position_embedding", (positions, hidden)),
        *_towers.encoder(f"{prefix}.transformer.layers.{{}}", _towers.CLIP, size),
        *_towers.convolution("vit_downsampler", (thinned, hidden, 2, 2), "projector"),
        *_towers.convolution("vit_downsampler2", (2 * thinned, thinned, 3, 3), "projector"),
        *_towers.linear(
            "vit_large_projector", text_size, 2 * thinned, "projector", bias=config.flag("projector_bias")
        ),
    ]
