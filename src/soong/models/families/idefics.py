"""Idefics3 and SmolVLM: SigLIP without its head, and one matrix that folds patches into a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of an Idefics3 or SmolVLM config.

    Source of the shapes: transformers `modeling_idefics3.py`, `modeling_smolvlm.py`; of their sharding: vLLM
    `idefics3.py`, `idefics2_vision_model.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="model.text_model", model_type=section.text("model_type", "llama")
    )
    return _multimodal.joined(config, text, _tower(config, config.section("vision_config"), text.hidden_size))


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    """Defaults of transformers `Idefics3VisionConfig`."""
    size = _towers.sizes(vision, hidden=1152, inner=3072, depth=12, heads=16)
    hidden, prefix = size.hidden, "model.vision_model"
    folded = hidden * config.integer("scale_factor", default=2, least=1) ** 2
    return [
        *_towers.convolution(
            f"{prefix}.embeddings.patch_embedding", _towers.patches(vision, hidden, patch=32)
        ),
        _towers.table(
            f"{prefix}.embeddings.position_embedding", (_towers.grid(vision, image=224, patch=32), hidden)
        ),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", _towers.CLIP, size),
        *_towers.norm(f"{prefix}.post_layernorm", hidden),
        *_parts.linear(
            "model.connector.modality_projection.proj", text_size, folded, "projector", "replicated"
        ),
    ]
