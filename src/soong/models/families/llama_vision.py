"""Meta's Llama that sees: Llama 4 and Llama 3.2 Vision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.architecture import AttentionCache
from soong.models.config_json import Config
from soong.models.families import _common, _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight

_LLAMA_4 = _towers.Layer(out="o_proj", norms=("input_layernorm", "post_attention_layernorm"))
_MLLAMA = _towers.Layer(
    out="o_proj", norms=("input_layernorm", "post_attention_layernorm"), qkv_bias=False, out_bias=False
)

LLAMA_4_TOWER = Config(
    {
        "hidden_size": 1408,
        "intermediate_size": 5632,
        "num_hidden_layers": 34,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projector_input_dim": 4096,
        "projector_output_dim": 4096,
        "vision_output_dim": 4096,
    },
    "vision_config",
)
"""The one tower of all published Llama 4 models, for configs cut down to their text section.
Source: config.json of meta-llama/Llama-4-Scout-17B-16E-Instruct."""


def read(config: Config) -> Architecture:
    """The architecture of a multimodal Llama config.

    Source of the shapes: transformers `modeling_llama4.py`, `modeling_mllama.py`; of their sharding: vLLM
    `mllama4.py`.
    """
    if config.text("model_type") == "mllama":
        return _read_mllama(config)
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="language_model.model", model_type="llama4_text")
    if "vision_config" in config:
        tower = tower_4(config.section("vision_config"), text.hidden_size)
    else:
        tower = _unsaid_tower_4(text.hidden_size)
    return _multimodal.joined(config, text, tower, head="language_model.lm_head")


def _unsaid_tower_4(text_size: int) -> list[Weight]:
    """What the files hold where the config does not say, and what an engine builds then: its class's defaults."""
    held = tower_4(LLAMA_4_TOWER, text_size)
    built = tower_4(Config({"vision_output_dim": 7680}, "vision_config"), text_size)
    return [
        *(replace(weight, served=False) for weight in held),
        *(replace(weight, stored=False) for weight in built),
    ]


def tower_4(vision: Config, text_size: int) -> list[Weight]:
    """Llama 4's tower; defaults of transformers `Llama4VisionConfig`."""
    size = _towers.sizes(vision, hidden=768, inner=5632, depth=34, heads=16)
    hidden, prefix = size.hidden, "vision_model"
    patch = _towers.edge(vision, "patch_size", 14)
    positions = _towers.grid(vision, image=448, patch=14) + 1
    middle = vision.integer("projector_input_dim", default=4096, least=1)
    out = vision.integer("projector_output_dim", default=4096, least=1)
    colours = vision.integer("num_channels", default=_towers.COLOURS, least=1)
    return [
        *_towers.linear(
            f"{prefix}.patch_embedding.linear", hidden, colours * patch**2, "vision", "column", bias=False
        ),
        _towers.vector(f"{prefix}.class_embedding", hidden),
        _towers.table(f"{prefix}.positional_embedding_vlm", (positions, hidden)),
        *_towers.norm(f"{prefix}.layernorm_pre", hidden),
        *_towers.norm(f"{prefix}.layernorm_post", hidden),
        *_towers.encoder(f"{prefix}.model.layers.{{}}", _LLAMA_4, size),
        *_towers.linear(
            f"{prefix}.vision_adapter.mlp.fc1", middle, size.inner, "projector", "column", bias=False
        ),
        *_towers.linear(f"{prefix}.vision_adapter.mlp.fc2", out, middle, "projector", "row", bias=False),
        *_towers.linear(
            "multi_modal_projector.linear_1",
            text_size,
            vision.integer("vision_output_dim", default=4096, least=1),
            "projector",
            "column",
            bias=False,
        ),
    ]


def _read_mllama(config: Config) -> Architecture:
    section = _multimodal.text_section(config)
    vision = config.section("vision_config")
    base = _common.read_base(section)
    heads, kv_heads, head_dim = _common.attention_sizes(section)
    listed = set(section.integers("cross_attention_layers"))
    cross = tuple(layer for layer in range(base.layers) if layer in listed)
    own = tuple(layer for layer in range(base.layers) if layer not in listed)
    weights = [
        *_mllama_decoder(section, base, own, cross),
        *_mllama_tower(vision),
        *_towers.linear(
            "multi_modal_projector",
            base.hidden_size,
            vision.integer("vision_output_dim", default=7680, least=1),
            "projector",
        ),
    ]
    text = _common.architecture(
        section,
        base,
        heads=heads,
        weights=tuple(weights),
        caches=(
            AttentionCache(
                layers=len(own),
                kv_heads=kv_heads,
                key_dim=head_dim,
                value_dim=head_dim,
                idle_layers=base.layers - len(own),
            ),
        ),
    )
    return _multimodal.joined(config, text, ())


_IMAGE_TOKENS = 8
"""Rows beyond the vocabulary that Llama 3.2 Vision's embedding holds: transformers `modeling_mllama.py`."""


def _mllama_decoder(
    section: Config, base: _common.Base, own: tuple[int, ...], cross: tuple[int, ...]
) -> list[Weight]:
    heads, kv_heads, head_dim = _common.attention_sizes(section)
    prefix, everywhere = "language_model.model.layers.{}", tuple(range(base.layers))
    weights = [
        _parts.embedding(
            "language_model.model.embed_tokens", base.vocab_size + _IMAGE_TOKENS, base.hidden_size
        ),
        *_parts.gated_mlp(
            f"{prefix}.mlp",
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            layers=everywhere,
        ),
        *_parts.norm(f"{prefix}.input_layernorm", base.hidden_size, layers=everywhere),
        *_parts.norm(f"{prefix}.post_attention_layernorm", base.hidden_size, layers=everywhere),
        *_parts.norm("language_model.model.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied, path="language_model.lm_head"),
    ]
    for name, layers in (("self_attn", own), ("cross_attn", cross)):
        if layers:
            weights += _parts.grouped_attention(
                f"{prefix}.{name}",
                hidden_size=base.hidden_size,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                layers=layers,
            )
    if cross:
        weights += [
            _parts.vector(f"{prefix}.cross_attn.{name}", head_dim, "norm", layers=cross)
            for name in ("q_norm", "k_norm")
        ]
        weights += [
            _parts.vector(f"{prefix}.{name}", 1, "other", layers=cross)
            for name in ("cross_attn_attn_gate", "cross_attn_mlp_gate")
        ]
    return weights


_PUBLISHED_ASPECT_RATIOS = 8
"""Aspect ratios of four tiles, which the published models list."""


def _aspect_ratios(vision: Config) -> int:
    listed = vision.values.get("supported_aspect_ratios")
    return len(listed) if isinstance(listed, list) and listed else _PUBLISHED_ASPECT_RATIOS


def _mllama_tower(vision: Config) -> list[Weight]:
    """Llama 3.2's local and global transformer; defaults of transformers `MllamaVisionConfig`."""
    hidden = vision.integer("hidden_size", default=1280, least=1)
    inner = vision.integer("intermediate_size", default=5120, least=1)
    local = _towers.Sizes(
        hidden=hidden, inner=inner, depth=_towers.depth(vision, "num_hidden_layers", default=32)
    )
    wide = _towers.Sizes(
        hidden=hidden, inner=inner, depth=_towers.depth(vision, "num_global_layers", default=8)
    )
    tiles = vision.integer("max_num_tiles", default=4, least=1)
    ratios = _aspect_ratios(vision) + 1
    positions = _towers.grid(vision, image=448, patch=14) + 1
    prefix = "vision_model"
    tile_tables = ("pre_tile_positional_embedding", "post_tile_positional_embedding")
    return [
        *_towers.convolution(f"{prefix}.patch_embedding", _towers.patches(vision, hidden), bias=False),
        _towers.vector(f"{prefix}.class_embedding", hidden),
        _towers.vector(f"{prefix}.gated_positional_embedding.gate", 1),
        _towers.table(f"{prefix}.gated_positional_embedding.embedding", (positions, hidden)),
        _towers.table(
            f"{prefix}.gated_positional_embedding.tile_embedding", (ratios, tiles * positions * hidden)
        ),
        *(_towers.vector(f"{prefix}.{name}.gate", 1) for name in tile_tables),
        *(_towers.table(f"{prefix}.{name}.embedding", (ratios, tiles * hidden)) for name in tile_tables),
        *_towers.norm(f"{prefix}.layernorm_pre", hidden),
        *_towers.norm(f"{prefix}.layernorm_post", hidden),
        *_towers.encoder(f"{prefix}.transformer.layers.{{}}", _MLLAMA, local),
        *_towers.encoder(f"{prefix}.global_transformer.layers.{{}}", _MLLAMA, wide),
        *(
            _towers.vector(
                f"{prefix}.global_transformer.layers.{{}}.{name}", 1, layers=tuple(range(wide.depth))
            )
            for name in ("gate_attn", "gate_ffn")
        ),
    ]
