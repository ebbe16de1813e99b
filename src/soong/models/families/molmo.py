"""Molmo: its own decoder with fused projections, and a CLIP tower whose sizes the config does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import AttentionCache, Weight
from soong.models.families import _common, _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

_EXTRA_TOKENS = 128
"""Rows of the second embedding table: `ADDITIONAL_VOCAB_SIZE` in vLLM `molmo.py`."""

_SIZE = _towers.Sizes(hidden=1024, inner=4096, depth=23)
_POSITIONS = 577
_PATCH_EDGE = 14
_POOLED_LAYERS = 2
"""The tower of all Molmo models: `VisionBackboneConfig` and `VIT_LAYERS` in vLLM `molmo.py`."""

_VIT = _towers.Layer(
    attention="attention.",
    qkv=("wq", "wk", "wv"),
    out="wo",
    mlp="feed_forward.",
    up=("w1",),
    down="w2",
    norms=("attention_norm", "ffn_norm"),
)


def read(config: Config) -> Architecture:
    """The architecture of a Molmo config.

    Source of the shapes and their sharding: vLLM `molmo.py`.
    """
    base = _common.read_base(config)
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    weights = (*_decoder(config, base, heads, kv_heads, head_dim), *_backbone(base))
    caches = (AttentionCache(layers=base.layers, kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim),)
    text = _common.architecture(
        config,
        base,
        heads=heads,
        weights=weights,
        caches=caches,
        intermediate_size=base.intermediate_size // 2,
    )
    return _multimodal.joined(config, text, ())


def _decoder(config: Config, base: _common.Base, heads: int, kv_heads: int, head_dim: int) -> list[Weight]:
    prefix, layers = "model.transformer.blocks.{}", tuple(range(base.layers))
    hidden, inner = base.hidden_size, base.intermediate_size // 2
    table = config.integer("embedding_size", default=base.vocab_size, least=1)
    weights = [
        _parts.embedding("model.transformer.wte.embedding", table, hidden),
        _parts.embedding("model.transformer.wte.new_embedding", _EXTRA_TOKENS, hidden),
        # The checkpoint fuses queries, keys and values in att_proj, gate and up in ff_proj.
        *_parts.grouped_attention(
            prefix,
            hidden_size=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            layers=layers,
            bias=config.flag("qkv_bias"),
            names=("att_proj", "att_proj", "att_proj", "attn_out"),
        ),
        *_parts.linear(f"{prefix}.ff_proj", inner, hidden, "mlp", "column", layers=layers),
        *_parts.linear(f"{prefix}.ff_proj", inner, hidden, "mlp", "column", layers=layers),
        *_parts.linear(f"{prefix}.ff_out", hidden, inner, "mlp", "row", layers=layers),
        *_parts.norm(f"{prefix}.attn_norm", hidden, layers=layers),
        *_parts.norm(f"{prefix}.ff_norm", hidden, layers=layers),
        *_parts.norm("model.transformer.ln_f", hidden),
    ]
    if config.flag("attention_layer_norm"):
        weights += _parts.norm(f"{prefix}.q_norm", heads * head_dim, layers=layers)
        weights += _parts.norm(f"{prefix}.k_norm", kv_heads * head_dim, layers=layers)
    if not config.flag("weight_tying"):
        weights += _parts.lm_head(table, hidden, tied=False, path="model.transformer.ff_out")
    return weights


def _backbone(base: _common.Base) -> list[Weight]:
    prefix = "model.vision_backbone"
    width, pooled = _SIZE.hidden, _SIZE.hidden * _POOLED_LAYERS
    inner = base.intermediate_size // 2
    pool = f"{prefix}.image_pooling_2d"
    image = f"{prefix}.image_vit"
    weights = [
        _towers.vector(f"{image}.class_embedding", width),
        _towers.table(f"{image}.positional_embedding", (_POSITIONS, width)),
        *_towers.linear(
            f"{image}.patch_embedding", width, _towers.COLOURS * _PATCH_EDGE**2, "vision", bias=False
        ),
        *_towers.norm(f"{image}.pre_ln", width),
        *_towers.encoder(f"{image}.transformer.resblocks.{{}}", _VIT, _SIZE),
        _towers.table(f"{prefix}.pad_embed", (2, pooled), "projector"),
        *_towers.linear(f"{pool}.wo", width, width, "projector", "row"),
    ]
    for name in ("wq", "wk", "wv"):
        weights += _towers.linear(f"{pool}.{name}", width, pooled, "projector", "column")
    for name in ("w1", "w3"):
        weights += _towers.linear(
            f"{prefix}.image_projector.{name}", inner, width, "projector", "column", bias=False
        )
    weights += _towers.linear(
        f"{prefix}.image_projector.w2", base.hidden_size, inner, "projector", "row", bias=False
    )
    return weights
