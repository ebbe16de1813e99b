"""Step-3's language model: queries through a shared rank, one key-value head, a mixture in most layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.families import _common, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Step-3 text config. Source: vLLM 0.32 `models/step3_text.py`."""
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    sparse = _sparse_layers(config, base.layers)
    dense = tuple(layer for layer in layers if layer not in sparse)
    heads = config.integer("num_attention_heads", least=1)
    kv_heads = config.integer("num_attention_groups", default=1, least=1)
    size = config.integer("head_dim", default=0) or base.hidden_size // heads
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_attention(f"{body}.self_attn", config, layers, (heads, kv_heads, size)),
        *_parts.gated_mlp(
            f"{body}.mlp",
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            layers=dense,
        ),
        *_mixture(body, config, sparse),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    return _common.architecture(
        config,
        base,
        heads=heads,
        weights=weights,
        caches=(AttentionCache(layers=base.layers, kv_heads=kv_heads, key_dim=size, value_dim=size),),
        experts=config.integer("moe_num_experts", default=0),
        experts_per_token=config.integer("moe_top_k", default=0),
    )


def _sparse_layers(config: Config, layers: int) -> Layers:
    """The layers with experts: a list of numbers or a text of them; all but the first where nothing is said."""
    listed = config.values.get("moe_layers_enum")
    if listed is None:
        return tuple(range(1, layers))
    try:
        numbers = (
            [int(word) for word in listed.split(",")]
            if isinstance(listed, str)
            else config.integers("moe_layers_enum")
        )
    except ValueError:
        raise ConfigError(f"`{config.where('moe_layers_enum')}` must be a list of layers") from None
    return tuple(sorted({number for number in numbers if 0 <= number < layers}))


def _attention(path: str, config: Config, layers: Layers, sizes: tuple[int, int, int]) -> list[Weight]:
    """The first projections stand whole on every GPU; only the queries' second one is divided."""
    heads, kv_heads, size = sizes
    hidden_size = config.integer("hidden_size", least=1)
    rank = config.integer("share_q_dim", default=heads * size)
    weights = []
    for name, rows in (("q_proj", rank), ("k_proj", kv_heads * size), ("v_proj", kv_heads * size)):
        weights += _parts.linear(
            f"{path}.{name}", rows, hidden_size, "attention", "replicated", layers=layers
        )
    return [
        *weights,
        *_parts.norm(f"{path}.inter_norm", rank, layers=layers),
        *_parts.linear(f"{path}.wq", heads * size, rank, "attention", "column", layers=layers),
        *_parts.linear(f"{path}.o_proj", hidden_size, heads * size, "attention", "row", layers=layers),
    ]


def _mixture(body: str, config: Config, layers: Layers) -> list[Weight]:
    if not layers:
        return []
    hidden_size = config.integer("hidden_size", least=1)
    count = config.integer("moe_num_experts", least=1)
    return [
        *_parts.router(f"{body}.moe.gate", count, hidden_size, layers=layers),
        *_parts.experts(
            f"{body}.moe.experts",
            count=count,
            per_token=config.integer("moe_top_k", least=1),
            hidden_size=hidden_size,
            intermediate_size=config.integer("moe_intermediate_size", least=1),
            layers=layers,
        ),
        *_parts.gated_mlp(
            f"{body}.share_expert",
            hidden_size=hidden_size,
            intermediate_size=config.integer("share_expert_dim", least=1),
            layers=layers,
        ),
    ]
