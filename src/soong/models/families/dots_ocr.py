"""dots.ocr: a Qwen2 decoder behind a tower of gated blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.config_json import Config
from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight


def read(config: Config) -> Architecture:
    """The architecture of a dots.ocr config.

    Source of the shapes and their sharding: vLLM `dots_ocr.py`, `configs/dotsocr.py`.
    """
    # vLLM's own configuration class keeps the window whatever `use_sliding_window` says: `configs/dotsocr.py`.
    section = Config({**config.values, "use_sliding_window": True, "max_window_layers": 0}, config.address)
    text = _multimodal.read_text(config, section, prefix="model", model_type="dots_ocr")
    return _multimodal.joined(config, text, _tower("vision_tower", config.section("vision_config")))


def _tower(prefix: str, vision: Config) -> list[Weight]:
    width = vision.integer("embed_dim", default=1536, least=1)
    size = _towers.Sizes(
        hidden=width,
        inner=vision.integer("intermediate_size", default=4224, least=1),
        depth=_towers.depth(vision, "num_hidden_layers", default=42),
    )
    bias = vision.flag("use_bias")
    layer = _towers.Layer(
        attention="attn.",
        qkv=("qkv",),
        out="proj",
        up=("fc1", "fc3"),
        norms=("norm1", "norm2"),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        norm_bias=False,
    )
    merged = width * vision.integer("spatial_merge_size", default=2, least=1) ** 2
    out = vision.integer("hidden_size", default=1536, least=1)
    weights = [
        *_towers.convolution(f"{prefix}.patch_embed.patchifier.proj", _towers.patches(vision, width)),
        *_towers.norm(f"{prefix}.patch_embed.patchifier.norm", width, bias=False),
        *_towers.encoder(f"{prefix}.blocks.{{}}", layer, size),
        *_towers.norm(f"{prefix}.merger.ln_q", width, "projector"),
        *_towers.two_linears(f"{prefix}.merger", merged, merged, out, names=("mlp.0", "mlp.2")),
    ]
    if vision.flag("post_norm", default=True):
        weights += _towers.norm(f"{prefix}.post_trunk_norm", width, bias=False)
    return weights
