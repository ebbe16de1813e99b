"""Granite 4: Mamba-2 or attention in each layer, a gated MLP in all, routed experts in the larger models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _blocks, _common, _mamba, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Granite 4 config.

    Source: vLLM 0.33 `models/granitemoehybrid.py`, transformers `modeling_granitemoehybrid.py`.
    """
    base = _common.read_base(config, tied_by_default=True)
    kinds = _blocks.named_layers(config, "layer_types", "layers_block_type", layers=base.layers)
    kinds = kinds or ("mamba",) * base.layers
    layers = tuple(range(base.layers))
    mamba = tuple(layer for layer in layers if kinds[layer] in _blocks.RECURRENT_WORDS)
    full = _blocks.others(layers, mamba)
    body = f"{prefix}.layers.{{}}"
    weights = [
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_blocks.attention_weights(f"{body}.self_attn", config, full),
        *_experts(f"{body}.block_sparse_moe", config, layers),
        *_shared_mlp(f"{body}.shared_mlp", config, layers),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    ]
    caches: tuple[Cache, ...] = _blocks.attention_caches(config, len(full))
    if mamba:
        sizes = _blocks.ibm_mamba2(config)
        weights += _mamba.mamba2_weights(f"{body}.mamba", sizes, layers=mamba)
        caches = (*caches, _mamba.mamba2_cache(sizes, len(mamba)))
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", default=0),
        weights=tuple(weights),
        caches=caches,
        intermediate_size=max(base.intermediate_size, config.integer("shared_intermediate_size", default=0)),
        experts=config.integer("num_local_experts", default=0),
        experts_per_token=config.integer("num_experts_per_tok", default=0),
    )


def _experts(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    count = config.integer("num_local_experts", default=0)
    if not count:
        return []
    hidden_size = config.integer("hidden_size", least=1)
    return [
        *_parts.router(f"{prefix}.router.layer", count, hidden_size, layers=layers),
        *_parts.experts(
            f"{prefix}.experts",
            count=count,
            per_token=config.integer("num_experts_per_tok", least=1),
            hidden_size=hidden_size,
            intermediate_size=config.integer("intermediate_size", least=1),
            layers=layers,
        ),
    ]


def _shared_mlp(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    wide = config.integer("shared_intermediate_size", default=0)
    if not wide:
        return []
    hidden_size = config.integer("hidden_size", least=1)
    return [
        *_parts.linear(f"{prefix}.input_linear", 2 * wide, hidden_size, "mlp", "column", layers=layers),
        *_parts.linear(f"{prefix}.output_linear", hidden_size, wide, "mlp", "row", layers=layers),
    ]
