"""MiniCPM-V 4.6 and 4.7: SigLIP, a merger of patches within the tower and one behind it, and Qwen3.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

MERGED = 4
"""Patches of a window, two by two."""


def read(config: Config) -> Architecture:
    """The architecture of a MiniCPM-V 4.6 config. Source: vLLM 0.32 `models/minicpmv4_6.py`, `minicpmv4_7.py`."""
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config,
        section,
        prefix="model.language_model",
        model_type=section.text("model_type", "qwen3_5_text"),
    )
    vision = config.section("vision_config")
    towers = [*_tower(config, vision), *_merger(config, vision, text.hidden_size)]
    return _multimodal.joined(config, text, towers)


def _tower(config: Config, vision: Config) -> list[Weight]:
    """Defaults of transformers `SiglipVisionConfig`."""
    size = _towers.sizes(vision, hidden=768, inner=3072, depth=12, heads=12)
    hidden, path = size.hidden, "vit_merger"
    served = size.depth - config.flag("drop_vision_last_layer")
    wide, inner = MERGED * hidden, MERGED * size.inner
    return [
        *_towers.convolution("vpm.embeddings.patch_embedding", _towers.patches(vision, hidden, patch=16)),
        _towers.table(
            "vpm.embeddings.position_embedding", (_towers.grid(vision, image=224, patch=16), hidden)
        ),
        *_towers.encoder("vpm.encoder.layers.{}", _towers.CLIP, size, served=served),
        *_towers.norm("vpm.post_layernorm", hidden),
        *_towers.linear(f"{path}.self_attn.qkv_proj", 3 * hidden, hidden, "vision", "column"),
        *_towers.linear(f"{path}.self_attn.out_proj", hidden, hidden, "vision", "row"),
        *_towers.norm(f"{path}.layer_norm1", hidden),
        *_towers.norm(f"{path}.pre_norm", wide),
        *_towers.linear(f"{path}.linear_1", inner, wide, "vision"),
        *_towers.linear(f"{path}.linear_2", hidden, inner, "vision"),
    ]


def _merger(config: Config, vision: Config, text_size: int) -> list[Weight]:
    """One step or more, of which the last reaches the width of words."""
    hidden = vision.integer("hidden_size", default=768, least=1)
    kernel = _towers.positive(config, "merge_kernel_size", (2, 2))
    wide = hidden * kernel[0] * kernel[-1]
    steps = _towers.depth(config, "merger_times", default=1)
    weights = []
    for step in range(steps):
        path, out = f"merger.mlp.{step}", text_size if step == steps - 1 else hidden
        weights += _towers.norm(f"{path}.pre_norm", wide, "projector")
        weights += _towers.two_linears(path, wide, wide, out, split=False)
    return weights
