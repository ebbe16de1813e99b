"""InternVL as its authors publish it (the `-hf` conversions are read with LLaVA's kin)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


NVLM_ADDED_HEADS = 7
"""So that eight GPUs can share them: vLLM 0.32 `models/nvlm_d.py` _init_vision_model."""


def read(config: Config) -> Architecture:
    """The architecture of an InternVL-Chat config.

    Source of the shapes and their sharding: vLLM `internvl.py`, `intern_vit.py`; its kin `nvlm_d.py`, `h2ovl.py`,
    `skyworkr1v.py`.
    """
    section = _multimodal.text_section(config, "llm_config", "text_config")
    text = _multimodal.read_text(config, section, prefix="language_model.model")
    towers = _tower(config, config.section("vision_config"), text.hidden_size)
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    """Defaults are InternViT-300M's, which all but the largest InternVL models carry.

    InternViT-6B has 25 heads, which no even number of GPUs divides, so that each holds its attention whole; NVLM adds
    seven of zeros.
    """
    size = _towers.sizes(vision, hidden=1024, inner=4096, depth=24, heads=16)
    hidden, prefix = size.hidden, "vision_model"
    heads = vision.integer("num_attention_heads", default=16, least=1)
    padded = config.text("model_type") == "NVLM_D"
    if padded:
        width = (heads + NVLM_ADDED_HEADS) * size.head_dim
        size = msgspec.structs.replace(size, attention_size=width)
    layer = _towers.Layer(
        attention="attn.",
        qkv=("qkv",),
        out="proj",
        norms=("norm1", "norm2"),
        scales=("ls1", "ls2"),
        split=padded or heads % 2 == 0,
        qkv_bias=vision.flag("qkv_bias", default=True),
        norm_bias=vision.text("norm_type", "layer_norm") == "layer_norm",
    )
    merged = int(hidden / _towers.ratio(config, "downsample_ratio", 0.5) ** 2)
    positions = _towers.grid(vision, image=448, patch=14) + 1
    layers = tuple(range(size.depth)) if vision.flag("qk_normalization") else ()
    return [
        *_towers.convolution(f"{prefix}.embeddings.patch_embedding", _towers.patches(vision, hidden)),
        _towers.table(f"{prefix}.embeddings.class_embedding", (1, 1, hidden)),
        _towers.table(f"{prefix}.embeddings.position_embedding", (1, positions, hidden)),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", layer, size),
        *(
            _towers.vector(
                f"{prefix}.encoder.layers.{{}}.attn.{name}", size.attention_size or hidden, layers=layers
            )
            for name in ("q_norm", "k_norm")
            if layers
        ),
        *_towers.norm("mlp1.0", merged, "projector"),
        *_projector(config, merged, text_size, padded=padded),
    ]


def _projector(config: Config, merged: int, text_size: int, *, padded: bool) -> list[Weight]:
    middle = text_size
    if padded:
        middle = _multimodal.text_section(config, "llm_config", "text_config").integer(
            "intermediate_size", least=1
        )
    return _towers.two_linears(
        "mlp1", merged, middle, text_size, bias=not padded, split=False, names=("1", "3")
    )
