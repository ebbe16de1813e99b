"""DeepSeek-OCR's eye: Segment Anything's ViT-B, thinned by convolutions, then CLIP-L over its patches.

Source: vLLM 0.32 `models/deepencoder.py` ImageEncoderViT, build_sam_vit_b; `models/deepseek_ocr.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _towers

if TYPE_CHECKING:
    from soong.models.architecture import Weight

SAM = _towers.Sizes(hidden=768, inner=3072, depth=12, head_dim=64)
CLIP_L = _towers.Sizes(hidden=1024, inner=4096, depth=24)
GLOBAL_LAYERS = (2, 5, 8, 11)
SIDE_PATCHES, WINDOW = 64, 14
NECK, MIDDLE, LAST = 256, 512, 1024
CLIP_PATCHES = 256 + 1

_SAM_BLOCK = _towers.Layer(
    attention="attn.",
    qkv=("qkv",),
    out="proj",
    up=("lin1",),
    down="lin2",
    norms=("norm1", "norm2"),
    split=False,
    mlp_split=False,
)
_CLIP_BLOCK = _towers.Layer()


def towers(prefix: str) -> list[Weight]:
    """Both towers; the first runs whole on every GPU."""
    return [*_segmenter(f"{prefix}sam_model"), *_clip(f"{prefix}vision_model")]


def _segmenter(path: str) -> list[Weight]:
    windowed = tuple(layer for layer in range(SAM.depth) if layer not in GLOBAL_LAYERS)
    weights = [
        *_towers.convolution(f"{path}.patch_embed.proj", (SAM.hidden, _towers.COLOURS, 16, 16)),
        _towers.table(f"{path}.pos_embed", (1, SIDE_PATCHES, SIDE_PATCHES, SAM.hidden)),
        *_towers.encoder(f"{path}.blocks.{{}}", _SAM_BLOCK, SAM),
        *_towers.convolution(f"{path}.neck.0", (NECK, SAM.hidden, 1, 1), bias=False),
        *_towers.norm(f"{path}.neck.1", NECK),
        *_towers.convolution(f"{path}.neck.2", (NECK, NECK, 3, 3), bias=False),
        *_towers.norm(f"{path}.neck.3", NECK),
        *_towers.convolution(f"{path}.net_2", (MIDDLE, NECK, 3, 3), bias=False),
        *_towers.convolution(f"{path}.net_3", (LAST, MIDDLE, 3, 3), bias=False),
    ]
    for layers, side in ((windowed, WINDOW), (GLOBAL_LAYERS, SIDE_PATCHES)):
        weights += [
            _towers.table(f"{path}.blocks.{{}}.attn.{name}", (2 * side - 1, SAM.head_dim), layers=layers)
            for name in ("rel_pos_h", "rel_pos_w")
        ]
    return weights


def _clip(path: str) -> list[Weight]:
    hidden = CLIP_L.hidden
    return [
        *_towers.convolution(
            f"{path}.embeddings.patch_embedding", (hidden, _towers.COLOURS, 14, 14), bias=False
        ),
        _towers.vector(f"{path}.embeddings.class_embedding", hidden),
        _towers.table(f"{path}.embeddings.position_embedding", (CLIP_PATCHES, hidden)),
        *_towers.norm(f"{path}.pre_layrnorm", hidden),
        *_towers.encoder(f"{path}.transformer.layers.{{}}", _CLIP_BLOCK, CLIP_L),
    ]
