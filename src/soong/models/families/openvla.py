"""OpenVLA: two towers, DINOv2 and SigLIP, whose patches Llama reads side by side and answers with motions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

DINO = _towers.Sizes(hidden=1024, inner=4096, depth=24)
SIGLIP = _towers.Sizes(hidden=1152, inner=4304, depth=27)
"""The two towers that every OpenVLA has: timm's `vit_large_patch14_reg4_dinov2`, `vit_so400m_patch14_siglip_224`."""

REGISTERS = 4
PATCHES, PATCH_EDGE = 256, 14
"""An image of 224 pixels in patches of 14."""


def read(config: Config) -> Architecture:
    """The architecture of an OpenVLA config. Source: vLLM 0.33 `models/openvla.py`; its towers stand whole."""
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", "llama")
    )
    towers = [*_dino(), *_siglip(), *_projector(DINO.hidden + SIGLIP.hidden, text.hidden_size)]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _layer(*scales: str) -> _towers.Layer:
    return _towers.Layer(
        attention="attn.",
        qkv=("qkv",),
        out="proj",
        norms=("norm1", "norm2"),
        scales=scales,
        split=False,
        mlp_split=False,
    )


def _dino() -> list[Weight]:
    path, hidden = "vision_backbone.dinov2_featurizer", DINO.hidden
    return [
        _towers.table(f"{path}.cls_token", (1, 1, hidden)),
        _towers.table(f"{path}.reg_token", (1, REGISTERS, hidden)),
        *_start(path, hidden),
        *_towers.encoder(f"{path}.blocks.{{}}", _layer("ls1.gamma", "ls2.gamma"), DINO),
        *_towers.norm(f"{path}.norm", hidden),
    ]


def _siglip() -> list[Weight]:
    """With the head that pools, which the library builds though nobody asks it."""
    path, hidden = "vision_backbone.siglip_featurizer", SIGLIP.hidden
    pool = f"{path}.attn_pool"
    return [
        *_start(path, hidden),
        *_towers.encoder(f"{path}.blocks.{{}}", _layer(), SIGLIP),
        *_towers.norm(f"{path}.norm", hidden),
        _towers.table(f"{pool}.latent", (1, 1, hidden)),
        *_towers.linear(f"{pool}.q", hidden, hidden, "vision"),
        *_towers.linear(f"{pool}.kv", 2 * hidden, hidden, "vision"),
        *_towers.linear(f"{pool}.proj", hidden, hidden, "vision"),
        *_towers.norm(f"{pool}.norm", hidden),
        *_towers.mlp(f"{pool}.mlp.", _layer(), SIGLIP),
    ]


def _start(path: str, hidden: int) -> list[Weight]:
    return [
        _towers.table(f"{path}.pos_embed", (1, PATCHES, hidden)),
        *_towers.convolution(f"{path}.patch_embed.proj", (hidden, _towers.COLOURS, PATCH_EDGE, PATCH_EDGE)),
    ]


def _projector(width: int, text_size: int) -> list[Weight]:
    return [
        *_parts.linear("projector.fc1", 4 * width, width, "projector", "column", bias=True),
        *_parts.linear("projector.fc2", text_size, 4 * width, "projector", "row", bias=True),
        *_parts.linear("projector.fc3", text_size, text_size, "projector", "replicated", bias=True),
    ]
