"""NVIDIA's Nemotron vision models: a C-RADIO tower, four patches folded into a token, Nemotron-H or Llama."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

TIMM_SIZES = {
    "vit_small_patch16_224": (384, 12, 1536),
    "vit_base_patch16_224": (768, 12, 3072),
    "vit_large_patch16_224": (1024, 24, 4096),
    "vit_huge_patch16_224": (1280, 32, 5120),
}
"""Hidden size, layers and inner size: vLLM 0.32 `transformers_utils/configs/radio.py` VIT_TIMM_DIM_BY_NAME."""

LARGEST_IMAGE = 2048
"""Pixels of an edge that the table of positions reaches (cpe_max_size)."""


def read(config: Config) -> Architecture:
    """The architecture of a Nemotron Nano VL config.

    Source: vLLM 0.32 `models/nano_nemotron_vl.py`, `models/nemotron_vl.py`, `models/radio.py`.
    """
    section = _multimodal.text_section(config, "llm_config", "text_config")
    text = _multimodal.read_text(
        config,
        section,
        prefix="language_model.backbone" if _is_hybrid(section) else "language_model.model",
    )
    towers = _tower(config, config.section("vision_config"), text.hidden_size, hybrid=_is_hybrid(section))
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _is_hybrid(section: Config) -> bool:
    return section.text("model_type") == "nemotron_h"


def _tower(config: Config, vision: Config, text_size: int, *, hybrid: bool) -> list[Weight]:
    """Beside the Llama the tower runs as the authors' own code, whole on every GPU."""
    arguments = vision.section("args")
    name = arguments.text("model")
    if name not in TIMM_SIZES:
        raise ConfigError(f"`{arguments.where('model')}` names the tower `{name}`, whose sizes are not known")
    hidden, depth, inner = TIMM_SIZES[name]
    side = ceil(arguments.integer("cpe_max_size", default=LARGEST_IMAGE, least=1) / _patch(vision))
    layer = _towers.Layer(
        attention="attn.",
        qkv=("qkv",),
        out="proj",
        norms=("norm1", "norm2"),
        scales=("ls1", "ls2") if hybrid else (),
        split=hybrid,
        mlp_split=hybrid,
    )
    path = "vision_model.radio_model.model"
    return [
        _towers.table(f"{path}.patch_generator.pos_embed", (1, side * side, hidden)),
        _towers.table(f"{path}.patch_generator.embedder", (hidden, _towers.COLOURS * _patch(vision) ** 2)),
        _towers.table(f"{path}.patch_generator.cls_token.token", (_class_tokens(arguments), hidden)),
        *_towers.encoder(
            f"{path}.blocks.{{}}", layer, _towers.Sizes(hidden=hidden, inner=inner, depth=depth)
        ),
        *_projector(config, hidden, text_size, hybrid=hybrid),
    ]


def _patch(vision: Config) -> int:
    return _towers.edge(vision, "patch_size", 16)


def _class_tokens(arguments: Config) -> int:
    """A token for each teacher, or one; registers fill them up to a multiple."""
    stated = arguments.values.get("teachers")
    teachers = stated if isinstance(stated, list) else []
    names = {str(teacher.get("name")) for teacher in teachers if isinstance(teacher, dict)}
    tokens = max(1, len(names)) if arguments.flag("cls_token_per_teacher") else 1
    multiple = arguments.integer("register_multiple", default=0)
    return tokens + (multiple - tokens % multiple if multiple else 0)


def _projector(config: Config, hidden: int, text_size: int, *, hybrid: bool) -> list[Weight]:
    merged = int(hidden / _towers.ratio(config, "downsample_ratio", 0.5) ** 2)
    middle = config.integer("projector_hidden_size", default=text_size, least=1)
    return [
        *_towers.norm("mlp1.0", merged, "projector", bias=not hybrid),
        *_parts.linear("mlp1.1", middle, merged, "projector", "replicated", bias=not hybrid),
        *_parts.linear("mlp1.3", text_size, middle, "projector", "replicated", bias=not hybrid),
    ]
