"""BLIP-2: a vision transformer and a query transformer before OPT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _qformer, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

OPT_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "ffn_dim": 3072,
    "num_attention_heads": 12,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
"""transformers `configuration_opt.py`."""

_LAYER = _towers.Layer(qkv=("qkv",), out="projection")

QUERIES = 32


def read(config: Config) -> Architecture:
    """The architecture of a BLIP-2 config.

    Source: vLLM 0.33 `models/blip2.py`, `models/blip.py`; defaults of transformers `configuration_blip_2.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config,
        section,
        prefix="language_model.model.decoder",
        model_type=section.text("model_type", "opt"),
        defaults=OPT_DEFAULTS,
    )
    former = config.section("qformer_config")
    width = _qformer.width_of(former)
    queries = config.integer("num_query_tokens", default=QUERIES, least=1)
    towers = [
        _towers.table("query_tokens", (1, queries, width), "projector"),
        *_tower(config.section("vision_config")),
        *_qformer.query_transformer("qformer", former),
        *_towers.linear("language_projection", text.hidden_size, width, "projector"),
    ]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _tower(vision: Config) -> list[Weight]:
    size = _towers.sizes(vision, hidden=1408, inner=6144, depth=39, heads=16)
    path, hidden = "vision_model", size.hidden
    positions = _towers.grid(vision, image=224, patch=14) + 1
    return [
        _towers.table(f"{path}.embeddings.class_embedding", (1, 1, hidden)),
        _towers.table(f"{path}.embeddings.position_embedding", (1, positions, hidden)),
        *_towers.convolution(f"{path}.embeddings.patch_embedding", _towers.patches(vision, hidden)),
        *_towers.encoder(f"{path}.encoder.layers.{{}}", _LAYER, size),
        *_towers.norm(f"{path}.post_layernorm", hidden),
    ]
