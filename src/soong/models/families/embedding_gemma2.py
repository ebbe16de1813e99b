"""EmbeddingGemma 2: Gemma 4's layers without a head, each with an input of its own made from the first embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _blocks, _common, _multimodal, _parts, _towers, gemma_vision

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def read(config: Config, prefix: str = "") -> Architecture:
    """The architecture of an EmbeddingGemma 2 config, whole or, with a prefix, of its text section.

    Source: vLLM 0.32 `models/embedding_gemma2.py`, which keeps no cache.
    """
    if prefix:
        return _text(config, prefix)
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="language_model", model_type="embedding_gemma2_text")
    return _multimodal.joined(config, text, gemma_vision.towers_of_gemma_4(config, text.hidden_size))


def _text(config: Config, prefix: str) -> Architecture:
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    body, hidden = f"{prefix}.layers.{{}}", base.hidden_size
    own = config.integer("hidden_size_per_layer_input", default=hidden, least=1)
    weights = [
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, hidden),
        *_attention(config, f"{body}.self_attn", base.layers),
        *_blocks.gated_mlp(f"{body}.mlp", config, layers),
        *_parts.linear(
            f"{prefix}.ple.per_layer_model_projection", own * base.layers, hidden, "other", "column"
        ),
        *_parts.norm(f"{prefix}.ple.per_layer_projection_norm", own),
        *_parts.norm(f"{prefix}.norm", hidden),
        *_towers.linear(
            f"{prefix}.embedding_projection",
            config.integer("embedding_dim", default=768, least=1),
            hidden,
            "other",
            bias=False,
        ),
    ]
    for name in NORMS:
        weights += _parts.norm(f"{body}.{name}", hidden, layers=layers)
    gate, back = f"{body}.ple_block.per_layer_input_gate", f"{body}.ple_block.per_layer_projection"
    weights += _parts.linear(gate, own, hidden, "other", "replicated", layers=layers)
    weights += _parts.linear(back, hidden, own, "other", "replicated", layers=layers)
    weights += _parts.norm(f"{body}.ple_block.post_per_layer_input_norm", hidden, layers=layers)
    heads = config.integer("num_attention_heads", least=1)
    return _common.architecture(config, base, heads=heads, weights=tuple(weights), caches=())


def _attention(config: Config, prefix: str, layers: int) -> list[Weight]:
    """Full layers may have other heads, which a config saved by transformers 5 lists layer by layer."""
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    groups: dict[tuple[int, int], list[int]] = {}
    saved = config.section("per_layer_config")
    for layer in range(layers):
        key = next((key for key in (str(layer), f"{layer:02}", f"{layer:03}") if key in saved), str(layer))
        listed = saved.section(key)
        kind = (
            listed.integer("num_key_value_heads", default=kv_heads, least=1),
            listed.integer("head_dim", default=head_dim, least=1),
        )
        groups.setdefault(kind, []).append(layer)
    weights: list[Weight] = []
    for (kv, size), numbers in groups.items():
        weights += _parts.grouped_attention(
            prefix,
            hidden_size=config.integer("hidden_size", least=1),
            heads=heads,
            kv_heads=kv,
            head_dim=size,
            layers=tuple(numbers),
        )
        for name in ("q_norm", "k_norm"):
            weights += _parts.norm(f"{prefix}.{name}", size, layers=tuple(numbers))
    return weights
