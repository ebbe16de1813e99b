"""MiniMax-Text-01 and MiniMax-M1: seven layers of lightning attention to one of softmax, experts in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import StateCache, StateTensor
from soong.models.families import _blocks, _common, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a MiniMax-Text-01 or MiniMax-M1 config.

    Source: transformers `modeling_minimax.py`; vLLM up to 0.23 `models/minimax_text_01.py`, dropped since.
    """
    base = _common.read_base(config)
    kinds = config.integers("attn_type_list")
    layers = tuple(range(base.layers))
    lightning = tuple(layer for layer in layers if layer < len(kinds) and kinds[layer] == 0)
    full = _blocks.others(layers, lightning)
    count = config.integer("num_local_experts", default=1, least=1)
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_lightning_attention(f"{body}.self_attn", config, lightning),
        *_blocks.attention_weights(f"{body}.self_attn", config, full, bias=False),
        *_experts(body, config, count, layers),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", least=1),
        weights=weights,
        caches=_caches(config, len(full), len(lightning)),
        experts=count if count > 1 else 0,
        experts_per_token=config.integer("num_experts_per_tok", default=2) if count > 1 else 0,
    )


def _lightning_attention(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    if not layers:
        return []
    hidden_size = config.integer("hidden_size", least=1)
    heads, _, head_dim = _common.attention_sizes(config)
    width = heads * head_dim
    return [
        *_parts.linear(f"{prefix}.qkv_proj", 3 * width, hidden_size, "attention", "column", layers=layers),
        *_parts.linear(f"{prefix}.output_gate", width, hidden_size, "attention", "column", layers=layers),
        *_parts.linear(f"{prefix}.out_proj", hidden_size, width, "attention", "row", layers=layers),
        _parts.vector(f"{prefix}.norm", width, "norm", "column", layers=layers),
    ]


def _experts(body: str, config: Config, count: int, layers: Layers) -> list[Weight]:
    hidden_size, wide = config.integer("hidden_size", least=1), config.integer("intermediate_size", least=1)
    if count == 1:
        return _parts.gated_mlp(f"{body}.mlp", hidden_size=hidden_size, intermediate_size=wide, layers=layers)
    path = f"{body}.block_sparse_moe"
    weights = [
        *_parts.router(f"{path}.gate", count, hidden_size, layers=layers),
        *_parts.experts(
            f"{path}.experts",
            count=count,
            per_token=config.integer("num_experts_per_tok", default=2, least=1),
            hidden_size=hidden_size,
            intermediate_size=wide,
            layers=layers,
            names=("w1", "w3", "w2"),
        ),
    ]
    shared = config.integer("shared_intermediate_size", default=0)
    if shared:
        weights += _parts.gated_mlp(
            f"{body}.shared_mlp", hidden_size=hidden_size, intermediate_size=shared, layers=layers
        )
        weights.append(_parts.matrix(f"{body}.coefficient", (1, hidden_size), "router", layers=layers))
    return weights


def _caches(config: Config, full: int, lightning: int) -> tuple[Cache, ...]:
    caches = _blocks.attention_caches(config, full)
    if not lightning:
        return caches
    heads, _, head_dim = _common.attention_sizes(config)
    tensor = StateTensor(name="recurrent", shape=(heads, head_dim, head_dim))
    return (*caches, StateCache(kind="lightning", layers=lightning, tensors=(tensor,)))
