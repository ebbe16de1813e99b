"""GLM-4.1V, GLM-4.5V and GLM-OCR: gated blocks, a convolution that merges four patches, a gated projector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.families import _multimodal, _towers
from soong.models.families._text_defaults import text_defaults

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a GLM vision config.

    Source of the shapes: transformers `modeling_glm4v.py`, `modeling_glm4v_moe.py`; of their sharding: vLLM
    `glm4_1v.py`.
    """
    section = _multimodal.text_section(config)
    default = "glm4_moe" if config.text("model_type") == "glm4v_moe" else "glm4"
    kind = section.text("model_type", default)
    assumed = text_defaults().get(kind, {})
    heads = section.integer("num_attention_heads", default=assumed.get("num_attention_heads"), least=1)
    width = section.integer("hidden_size", default=assumed.get("hidden_size"), least=1)
    text = _multimodal.read_text(
        config,
        section,
        prefix="model.language_model",
        model_type=kind,
        # Glm4vTextConfig has no head size of its own, unlike Glm4Config.
        defaults={
            **assumed,
            "head_dim": max(1, width // heads),
            **({"attention_bias": False} if config.text("model_type") == "glm_ocr" else {}),
        },
    )
    vision = config.section("vision_config")
    if config.text("model_type") == "glm_ocr":
        return _multimodal.joined(config, text, reader_tower("model.visual", vision, section))
    return _multimodal.joined(config, text, _tower("model.visual", vision))


def _block(*, qkv_bias: bool, bias: bool) -> _towers.Layer:
    """A layer of both towers. bias: of the projections after attention and of the MLP."""
    return _towers.Layer(
        attention="attn.",
        qkv=("qkv",),
        out="proj",
        up=("gate_proj", "up_proj"),
        down="down_proj",
        norms=("norm1", "norm2"),
        qkv_bias=qkv_bias,
        out_bias=bias,
        mlp_bias=bias,
        norm_bias=False,
    )


def _tower(prefix: str, vision: Config) -> list[Weight]:
    """Defaults of transformers `Glm4vVisionConfig`; its `intermediate_size` is the projector's."""
    hidden = vision.integer("hidden_size", default=1536, least=1)
    out = vision.integer("out_hidden_size", default=4096, least=1)
    wide = vision.integer("intermediate_size", default=13696, least=1)
    merge = vision.integer("spatial_merge_size", default=2, least=1)
    bias = vision.flag("attention_bias", default=False)
    layer = _block(qkv_bias=bias, bias=False)
    size = _towers.Sizes(hidden=hidden, inner=out, depth=_towers.depth(vision, "depth", default=24))
    projector = _towers.Sizes(hidden=out, inner=wide, depth=1, part="projector")
    return [
        *_towers.convolution(f"{prefix}.patch_embed.proj", _towers.patches(vision, hidden, frames=2)),
        _towers.table(
            f"{prefix}.embeddings.position_embedding", (_towers.grid(vision, image=336, patch=14), hidden)
        ),
        *_towers.norm(f"{prefix}.post_conv_layernorm", hidden, bias=False),
        *_towers.encoder(f"{prefix}.blocks.{{}}", layer, size),
        *_towers.norm(f"{prefix}.post_layernorm", hidden, bias=False),
        *_towers.convolution(f"{prefix}.downsample", (out, hidden, merge, merge)),
        *_towers.linear(f"{prefix}.merger.proj", out, out, "projector", "column", bias=False),
        *_towers.norm(f"{prefix}.merger.post_projection_norm", out, "projector"),
        *_towers.mlp(f"{prefix}.merger.", layer, projector),
    ]


def reader_tower(prefix: str, vision: Config, section: Config) -> list[Weight]:
    """GLM-OCR's tower: no table of positions, and a projector as wide as the language model's layers.

    Source: transformers `modeling_glm_ocr.py`; vLLM 0.33 `glm_ocr.py`.
    """
    hidden = vision.integer("hidden_size", default=1024, least=1)
    inner = vision.integer("intermediate_size", default=4096, least=1)
    out = vision.integer("out_hidden_size", default=1536, least=1)
    wide = section.integer("intermediate_size", default=4096, least=1)
    merge = vision.integer("spatial_merge_size", default=2, least=1)
    heads = vision.integer("num_heads", default=16, least=1)
    bias = vision.flag("attention_bias", default=True)
    layer = _block(qkv_bias=bias, bias=bias)
    size = _towers.Sizes(hidden=hidden, inner=inner, depth=_towers.depth(vision, "depth", default=24))
    projector = _towers.Sizes(hidden=out, inner=wide, depth=1, part="projector")
    layers = tuple(range(size.depth))
    return [
        *_towers.convolution(f"{prefix}.patch_embed.proj", _towers.patches(vision, hidden, frames=2)),
        *_towers.encoder(f"{prefix}.blocks.{{}}", layer, size),
        *(
            _towers.vector(f"{prefix}.blocks.{{}}.attn.{name}", hidden // heads, "vision", layers=layers)
            for name in ("q_norm", "k_norm")
        ),
        *_towers.norm(f"{prefix}.post_layernorm", hidden, bias=False),
        *_towers.convolution(f"{prefix}.downsample", (out, hidden, merge, merge)),
        *_towers.linear(f"{prefix}.merger.proj", out, out, "projector", "column", bias=False),
        *_towers.norm(f"{prefix}.merger.post_projection_norm", out, "projector"),
        *_towers.mlp(f"{prefix}.merger.", msgspec.structs.replace(layer, mlp="", mlp_bias=False), projector),
    ]
