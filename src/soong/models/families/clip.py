"""CLIP and SigLIP, which put images and texts into one space: two towers, of which CLIP's for text keeps a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.families import _common, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Part, Weight
    from soong.models.config_json import Config

CLIP_TEXT = {"hidden": 512, "inner": 2048, "depth": 12, "heads": 8}
SIGLIP_TEXT = {"hidden": 768, "inner": 3072, "depth": 12, "heads": 12}
"""Defaults of transformers `CLIPTextConfig` and `SiglipTextConfig`."""


def read(config: Config) -> Architecture:
    """The architecture of a CLIP or SigLIP config. Source: vLLM 0.33 `models/clip.py`, `models/siglip.py`."""
    clip = config.text("model_type") == "clip"
    text, vision = config.section("text_config"), config.section("vision_config")
    defaults = CLIP_TEXT if clip else SIGLIP_TEXT
    size = _towers.sizes(text, part="other", **defaults)
    heads = text.integer("num_attention_heads", default=defaults["heads"], least=1)
    if size.hidden < heads:
        raise ConfigError(f"`{text.where('num_attention_heads')}` is larger than the hidden size")
    base = _common.Base(
        layers=size.depth,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        vocab_size=text.integer("vocab_size", default=49408 if clip else 32000, least=1),
        tied=True,
    )
    weights = [*_text(text, size, base, clip=clip), *_vision(config, vision, size.hidden, clip=clip)]
    dim = size.hidden // heads
    cache: tuple[Cache, ...] = ()
    if clip:
        cache = (AttentionCache(layers=size.depth, kv_heads=heads, key_dim=dim, value_dim=dim),)
    architecture = _common.architecture(
        config, base, heads=heads, weights=tuple(weights), caches=cache, multimodal=True
    )
    positions: dict[str, Any] = {"rotary_bytes": 0, "early_rotary_bytes": 0}
    limit = text.integer("max_position_embeddings", default=77 if clip else 64)
    return replace(architecture, **positions, context_limit_tokens=limit)


def _text(text: Config, size: _towers.Sizes, base: _common.Base, *, clip: bool) -> list[Weight]:
    rows = text.integer("max_position_embeddings", default=77 if clip else 64, least=1)
    path, hidden = "text_model", size.hidden
    weights = [
        _parts.embedding(f"{path}.embeddings.token_embedding", base.vocab_size, hidden),
        _parts.matrix(f"{path}.embeddings.position_embedding", (rows, hidden), "embedding", "vocab"),
        *_towers.encoder(f"{path}.encoder.layers.{{}}", _towers.CLIP, size),
        *_towers.norm(f"{path}.final_layer_norm", hidden, "norm"),
    ]
    if clip:
        return weights
    out = text.integer("projection_size", default=hidden, least=1)
    return [*weights, *_plain(f"{path}.head", out, hidden, bias=True, part="other")]


def _vision(config: Config, vision: Config, text_size: int, *, clip: bool) -> list[Weight]:
    kind = "clip_vision_model" if clip else "siglip_vision_model"
    tower = _towers.image_text_tower("vision_model", vision, kind=kind)
    # Here the head that pools is what is asked for.
    tower = [replace(weight, served=True) for weight in tower]
    tower = [
        replace(weight, shard=_pooled_shard(weight)) if ".head.mlp." in weight.path else weight
        for weight in tower
    ]
    if not clip:
        return tower
    out = config.integer("projection_dim", default=512, least=1)
    width = vision.integer("hidden_size", default=768, least=1)
    return [
        *tower,
        *_plain("text_projection", out, text_size, bias=False, part="other"),
        *_plain("visual_projection", out, width, bias=False),
    ]


def _pooled_shard(weight: Weight) -> Any:
    if weight.path.endswith("fc2.bias"):
        return "replicated"
    return "row" if weight.path.endswith("fc2") else "column"


def _plain(path: str, rows: int, columns: int, *, bias: bool, part: Part = "projector") -> list[Weight]:
    weights = [_parts.matrix(path, (rows, columns), part)]
    return [*weights, _parts.vector(f"{path}.bias", rows, part)] if bias else weights
