"""LongCat-Flash: two latent attentions and two MLPs in each layer, experts beside them, some of which do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _common, _mla, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]

HALVES = (0, 1)
"""Each layer has two of everything but the mixture."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a LongCat-Flash config. Source: vLLM 0.32 `models/longcat_flash.py`."""
    base = _common.Base(
        layers=config.layers("num_layers", "num_hidden_layers"),
        hidden_size=config.integer("hidden_size", least=1),
        intermediate_size=config.integer("ffn_hidden_size", "intermediate_size", least=1),
        vocab_size=config.integer("vocab_size", least=1),
        tied=config.flag("tie_word_embeddings"),
    )
    layers = tuple(range(base.layers))
    sizes = _mla.read_latent(config)
    body = f"{prefix}.layers.{{}}"
    weights: list[Weight] = [_parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size)]
    for half in HALVES:
        weights += _mla.latent_attention(f"{body}.self_attn.{half}", sizes, layers=layers)
        weights += _parts.gated_mlp(
            f"{body}.mlps.{half}",
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            layers=layers,
        )
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights += _parts.norm(f"{body}.{name}.{half}", base.hidden_size, layers=layers)
    weights += _mixture(f"{body}.mlp", config, layers)
    weights += _ngrams(f"{prefix}.ngram_embeddings", config, base)
    weights += _parts.norm(f"{prefix}.norm", base.hidden_size)
    weights += _parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied)
    cache = _mla.latent_cache(sizes, len(HALVES) * base.layers)
    return replace(
        _common.architecture(config, base, heads=sizes.heads, weights=tuple(weights), caches=(cache,)),
        experts=config.integer("n_routed_experts", least=1),
        experts_per_token=config.integer("moe_topk", least=1),
    )


def _ngrams(path: str, config: Config, base: _common.Base) -> list[Weight]:
    """One long table for all n-grams and what widens each of its rows: vLLM 0.33 `models/longcat_flash_ngram.py`.

    Each of the tables in it has two rows more than the one before, so that their hashes differ.
    """
    if "ngram_vocab_size_ratio" not in config:
        return []
    splits = config.integer("emb_split_num", least=1)
    count = splits * (config.integer("emb_neighbor_num", least=2) - 1)
    rows = int(config.number("ngram_vocab_size_ratio", 1) * base.vocab_size)
    total = sum(rows + 2 * place + 1 for place in range(count))
    width = base.hidden_size // count
    return [
        _parts.matrix(f"{path}.oe_embedder", (total, width), "embedding", "vocab"),
        _parts.matrix(f"{path}.oe_projection", (count, width, base.hidden_size), "embedding"),
    ]


def _mixture(path: str, config: Config, layers: Layers) -> list[Weight]:
    """The router counts the experts that do nothing, too."""
    hidden_size = config.integer("hidden_size", least=1)
    count = config.integer("n_routed_experts", least=1)
    routed = count + config.integer("zero_expert_num", default=0)
    return [
        _parts.matrix(
            f"{path}.router.classifier", (routed, hidden_size), "router", layers=layers, dtype="float32"
        ),
        _parts.vector(
            f"{path}.router.e_score_correction_bias", routed, "router", layers=layers, dtype="float32"
        ),
        *_parts.experts(
            f"{path}.experts",
            count=count,
            per_token=config.integer("moe_topk", least=1),
            hidden_size=hidden_size,
            intermediate_size=config.integer("expert_ffn_hidden_size", "moe_intermediate_size", least=1),
            layers=layers,
        ),
    ]
