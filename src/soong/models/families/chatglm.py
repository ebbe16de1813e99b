"""ChatGLM, and GLM-4V, which puts a tower before it and keeps the same model type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers, classic

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_TOWER = _towers.Layer(
    attention="attention.",
    qkv=("query_key_value",),
    out="dense",
    norms=("input_layernorm", "post_attention_layernorm"),
)


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a ChatGLM config, with its tower where it describes one."""
    text = classic.read(config, prefix)
    if "vision_config" not in config:
        return text
    towers = _tower(config, config.section("vision_config"), text.hidden_size)
    return _multimodal.joined(config, text, towers, head="transformer.output_layer")


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    """EVA2-CLIP, a convolution and a gated MLP. Source: vLLM 0.32 `models/glm4v.py` EVA2CLIPModel."""
    size = _towers.sizes(vision)
    hidden, prefix = size.hidden, "transformer.vision"
    wide = config.integer("ffn_hidden_size", least=1)
    path = f"{prefix}.linear_proj"
    return [
        _towers.table(f"{prefix}.boi", (1, 1, text_size), "projector"),
        _towers.table(f"{prefix}.eoi", (1, 1, text_size), "projector"),
        _towers.table(f"{prefix}.patch_embedding.cls_embedding", (1, hidden)),
        *_towers.convolution(f"{prefix}.patch_embedding.proj", _towers.patches(vision, hidden)),
        _towers.table(
            f"{prefix}.patch_embedding.position_embedding", (vision.integer("num_positions", least=1), hidden)
        ),
        *_towers.encoder(f"{prefix}.transformer.layers.{{}}", _TOWER, size),
        *_towers.convolution(f"{prefix}.conv", (text_size, hidden, 2, 2), "projector"),
        *_towers.linear(f"{path}.linear_proj", text_size, text_size, "projector", bias=False),
        *_towers.norm(f"{path}.norm1", text_size, "projector"),
        *_towers.linear(f"{path}.gate_proj", wide, text_size, "projector", "column", bias=False),
        *_towers.linear(f"{path}.dense_h_to_4h", wide, text_size, "projector", "column", bias=False),
        *_towers.linear(f"{path}.dense_4h_to_h", text_size, wide, "projector", "row", bias=False),
    ]
