"""Keye: SigLIP with rotary positions and a table of packed ones, four patches to a token, and Qwen3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

PACKED_POSITIONS = 32768
"""vLLM 0.32 `models/keye.py` KeyeVisionEmbeddings packing_position_embedding."""


def read(config: Config) -> Architecture:
    """The architecture of a Keye config. Source: vLLM 0.32 `models/keye.py`."""
    text = _multimodal.read_text(config, config, prefix="model", model_type="qwen3")
    merged_norm = config.text("model_type") == "KeyeVL1_5"
    tower = _tower(config.section("vision_config"), text.hidden_size, merged_norm=merged_norm)
    return _multimodal.joined(config, text, tower)


def _tower(vision: Config, text_size: int, *, merged_norm: bool) -> list[Weight]:
    """Defaults of the authors' `KeyeVisionConfig`; version 1.5 norms four patches at once."""
    size = _towers.sizes(vision, hidden=1152, inner=4304, depth=27, heads=16)
    hidden, prefix = size.hidden, "visual.vision_model"
    merged = hidden * vision.integer("spatial_merge_size", default=2, least=1) ** 2
    return [
        *_towers.convolution(f"{prefix}.embeddings.patch_embedding", _towers.patches(vision, hidden)),
        _towers.table(
            f"{prefix}.embeddings.position_embedding", (_towers.grid(vision, image=384, patch=14), hidden)
        ),
        _towers.table(f"{prefix}.embeddings.packing_position_embedding", (PACKED_POSITIONS, hidden)),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", _towers.CLIP, size),
        *_towers.norm(f"{prefix}.post_layernorm", hidden),
        *_towers.norm("mlp_AR.pre_norm", merged if merged_norm else hidden, "projector"),
        *_towers.two_linears("mlp_AR", merged, merged, text_size),
    ]
