"""Ovis: a tower whose patches become words of a visual vocabulary, which an embedding of its own turns into tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

INDICATORS = 5
"""Words of the visual vocabulary that mark images and are never seen (IMAGE_INDICATOR_IDS)."""

_AIMV2 = _towers.Layer(
    attention="attn.",
    qkv=("qkv",),
    out="proj",
    up=("fc1", "fc3"),
    down="fc2",
    norms=("norm_1", "norm_2"),
    norm_bias=False,
)


def read(config: Config) -> Architecture:
    """The architecture of an Ovis config. Source: vLLM 0.32 `models/ovis.py`, `models/aimv2.py`."""
    section = _multimodal.text_section(config, "llm_config", "text_config")
    text = _multimodal.read_text(config, section, prefix="llm.model")
    visual = config.section("visual_tokenizer_config")
    towers = _tower(visual, visual.section("backbone_config"), text.hidden_size)
    return _multimodal.joined(config, text, towers, head="llm.lm_head")


def _tower(visual: Config, backbone: Config, text_size: int) -> list[Weight]:
    """Defaults of the authors' `AIMv2Config`; a SigLIP tower is read by its own words."""
    size = _towers.sizes(backbone, hidden=1024, inner=2816, depth=24, heads=8)
    words = visual.integer("vocab_size", default=16384, least=INDICATORS + 1)
    stride = visual.integer("hidden_stride", default=1, least=1)
    prefix = "visual_tokenizer"
    if backbone.text("model_type") == "siglip_vision_model":
        tower = _towers.image_text_tower(
            f"{prefix}.backbone.vision_model", backbone, kind="siglip_vision_model"
        )
    else:
        tower = _aimv2(f"{prefix}.backbone", backbone, size)
    return [
        *tower,
        *_towers.linear(
            f"{prefix}.head.0", words - INDICATORS, size.hidden * stride**2, "projector", bias=False
        ),
        *_towers.norm(f"{prefix}.head.1", words - INDICATORS, "projector"),
        _towers.table("vte", (words, text_size), "projector"),
    ]


def _aimv2(prefix: str, backbone: Config, size: _towers.Sizes) -> list[Weight]:
    biased = backbone.flag("use_bias")
    layer = _towers.Layer(
        **{
            name: getattr(_AIMV2, name)
            for name in ("attention", "qkv", "out", "up", "down", "norms", "norm_bias")
        },
        qkv_bias=backbone.flag("qkv_bias"),
        out_bias=biased,
        mlp_bias=biased,
    )
    patches = _towers.grid(backbone, image=224, patch=14)
    return [
        _towers.table(f"{prefix}.preprocessor.pos_embed", (1, patches, size.hidden)),
        *_towers.convolution(
            f"{prefix}.preprocessor.patchifier.proj", _towers.patches(backbone, size.hidden)
        ),
        *_towers.norm(f"{prefix}.preprocessor.patchifier.norm", size.hidden, bias=False),
        *_towers.encoder(f"{prefix}.trunk.blocks.{{}}", layer, size),
    ]
