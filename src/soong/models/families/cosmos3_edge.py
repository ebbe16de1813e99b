"""Cosmos3-Edge: a decoder with ungated MLPs, and the SigLIP 2 tower before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import AttentionCache
from soong.models.families import _blocks, _common, _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config, prefix: str = "") -> Architecture:
    """The architecture of a Cosmos3-Edge config, whole or, with a prefix, of its text section.

    Source: vLLM 0.32 `models/cosmos3_edge.py`, `transformers_utils/configs/cosmos3_edge.py`.
    """
    if prefix:
        return _text(config, prefix)
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="model.language_model", model_type="cosmos3_edge_text"
    )
    return _multimodal.joined(config, text, _tower(config))


def _text(config: Config, prefix: str) -> Architecture:
    base = _common.read_base(config)
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    layers = tuple(range(base.layers))
    body = f"{prefix}.layers.{{}}"
    biased = config.flag("mlp_bias")
    weights = [
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_blocks.attention_weights(f"{body}.self_attn", config, layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    ]
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights += _parts.norm(f"{body}.{name}", base.hidden_size, layers=layers)
    up, down = f"{body}.mlp.up_proj", f"{body}.mlp.down_proj"
    inner, hidden = base.intermediate_size, base.hidden_size
    weights += _parts.linear(up, inner, hidden, "mlp", "column", layers=layers, bias=biased)
    weights += _parts.linear(down, hidden, inner, "mlp", "row", layers=layers, bias=biased)
    cache = AttentionCache(layers=base.layers, kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim)
    return _common.architecture(config, base, heads=heads, weights=tuple(weights), caches=(cache,))


def _tower(config: Config) -> list[Weight]:
    vision, projector = config.section("vision_config"), config.section("projector_config")
    size = _towers.sizes(vision, hidden=1152, inner=4304, depth=27, heads=16)
    patch = _towers.edge(vision, "patch_size", 16)
    prefix, merger = "model.vision_tower.vision_model", "model.projector"
    width = projector.integer("input_hidden_size", default=1024, least=1)
    merged = width * projector.integer("spatial_merge_size", default=2, least=1) ** 2
    return [
        *_towers.linear(
            f"{prefix}.embeddings.patch_embedding", size.hidden, _towers.COLOURS * patch**2, "vision"
        ),
        _towers.table(
            f"{prefix}.embeddings.position_embedding",
            (vision.integer("num_patches", default=256, least=1), size.hidden),
        ),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", _towers.CLIP, size),
        *_towers.norm(f"{prefix}.post_layernorm", size.hidden),
        *_towers.norm(
            f"{merger}.norm", merged if projector.flag("use_postshuffle_norm") else width, "projector"
        ),
        *_towers.two_linears(
            merger,
            merged,
            projector.integer("merger_intermediate_size", default=11520, least=1),
            projector.integer("out_hidden_size", default=1024, least=1),
            names=("linear_fc1", "linear_fc2"),
        ),
    ]
