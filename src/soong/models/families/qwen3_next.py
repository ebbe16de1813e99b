"""Qwen3-Next and the text part of Qwen3.5 to 3.8: three layers of Gated DeltaNet to one of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.families import _blocks, _common, _deltanet, _draft, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Part, Weight
    from soong.models.config_json import Config
    from soong.models.families._common import Base

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Qwen3-Next or Qwen3.5 text config.

    Source: vLLM 0.33 `models/qwen3_next.py`, `qwen3_5.py`, `qwen3_next_mtp.py`; transformers
    `modeling_qwen3_next.py`, `modeling_qwen3_5_moe.py`.
    """
    base = _common.read_base(config)
    linear, full = _split_layers(config, base.layers)
    layers = tuple(range(base.layers))
    drafts = tuple(range(_draft_layers(config, base.layers)))
    body = f"{prefix}.layers.{{}}"
    weights = [
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_attention(f"{body}.self_attn", config, full),
        *_feed_forward(f"{body}.mlp", config, base, layers),
        *_norms(body, base.hidden_size, layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    ]
    caches: list[Cache] = []
    if full:
        _, kv_heads, head_dim = _common.attention_sizes(config)
        caches.append(
            AttentionCache(layers=len(full), kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim)
        )
    if linear:
        sizes = _deltanet.read_delta(config)
        fused = config.text("model_type") == "qwen3_next"
        weights += _deltanet.delta_weights(f"{body}.linear_attn", sizes, layers=linear, fused=fused)
        caches.append(_deltanet.delta_cache(sizes, len(linear)))
    if drafts:
        weights += _draft.draft(_draft_weights(config, base, drafts))
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", least=1),
        weights=tuple(weights),
        caches=tuple(caches),
        intermediate_size=base.intermediate_size or config.integer("moe_intermediate_size", default=0),
        experts=config.integer("num_experts", default=0),
        experts_per_token=config.integer("num_experts_per_tok", default=0),
        mtp_layers=len(drafts),
    )


def _split_layers(config: Config, layers: int) -> tuple[Layers, Layers]:
    """The layers with linear and with full attention."""
    kinds = config.texts("layer_types")
    if kinds and len(kinds) < layers:
        raise ConfigError(f"`{config.where('layer_types')}` names {len(kinds)} of {layers} layers")
    every = config.integer("full_attention_interval", default=4, least=1)
    full = {
        layer
        for layer in range(layers)
        if (kinds[layer] != "linear_attention" if kinds else (layer + 1) % every == 0)
    }
    return tuple(layer for layer in range(layers) if layer not in full), tuple(sorted(full))


def _draft_layers(config: Config, layers: int) -> int:
    """Qwen3-Next's config is silent about the one draft layer that its checkpoints hold."""
    silent = 1 if config.text("model_type") == "qwen3_next" else 0
    count = config.integer("mtp_num_hidden_layers", "num_nextn_predict_layers", default=silent)
    if count > layers:
        raise ConfigError(f"`{config.where('mtp_num_hidden_layers')}` is {count:,}, which no real model has")
    return count


def _attention(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    """Grouped attention whose query projection also yields a gate for every output."""
    if not layers:
        return []
    hidden_size = config.integer("hidden_size", least=1)
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    gates = 2 if config.flag("attn_output_gate", default=True) else 1
    kv_size, bias = kv_heads * head_dim, config.flag("attention_bias")
    part: Part = "attention"
    return [
        *_parts.linear(
            f"{prefix}.q_proj",
            gates * heads * head_dim,
            hidden_size,
            part,
            "column",
            layers=layers,
            bias=bias,
        ),
        *_parts.linear(
            f"{prefix}.k_proj", kv_size, hidden_size, part, "kv", layers=layers, bias=bias, heads=kv_heads
        ),
        *_parts.linear(
            f"{prefix}.v_proj", kv_size, hidden_size, part, "kv", layers=layers, bias=bias, heads=kv_heads
        ),
        *_parts.linear(
            f"{prefix}.o_proj", hidden_size, heads * head_dim, part, "row", layers=layers, bias=bias
        ),
        *_parts.norm(f"{prefix}.q_norm", head_dim, layers=layers),
        *_parts.norm(f"{prefix}.k_norm", head_dim, layers=layers),
    ]


def _feed_forward(prefix: str, config: Config, base: Base, layers: Layers) -> list[Weight]:
    if not config.integer("num_experts", default=0):
        return _dense(prefix, base, layers)
    every = config.integer("decoder_sparse_step", default=1, least=1)
    plain = set(config.integers("mlp_only_layers"))
    sparse = tuple(layer for layer in layers if layer not in plain and (layer + 1) % every == 0)
    dense = _blocks.others(layers, sparse)
    return [*(_dense(prefix, base, dense) if dense else ()), *_mixture(prefix, config, sparse)]


def _dense(prefix: str, base: Base, layers: Layers) -> list[Weight]:
    return _parts.gated_mlp(
        prefix, hidden_size=base.hidden_size, intermediate_size=base.intermediate_size, layers=layers
    )


def _mixture(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    """Routed experts and one shared expert with a gate of its own."""
    if not layers:
        return []
    hidden_size, count = config.integer("hidden_size", least=1), config.integer("num_experts", least=1)
    shared = config.integer("shared_expert_intermediate_size", default=0)
    weights = [
        *_parts.router(f"{prefix}.gate", count, hidden_size, layers=layers),
        *_parts.experts(
            f"{prefix}.experts",
            count=count,
            per_token=config.integer("num_experts_per_tok", least=1),
            hidden_size=hidden_size,
            intermediate_size=config.integer("moe_intermediate_size", least=1),
            layers=layers,
        ),
    ]
    if shared:
        path = f"{prefix}.shared_expert"
        weights += _parts.gated_mlp(path, hidden_size=hidden_size, intermediate_size=shared, layers=layers)
        weights.append(_parts.matrix(f"{path}_gate", (1, hidden_size), "router", layers=layers))
    return weights


def _norms(body: str, hidden_size: int, layers: Layers) -> list[Weight]:
    return [
        *_parts.norm(f"{body}.input_layernorm", hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", hidden_size, layers=layers),
    ]


def _draft_weights(config: Config, base: Base, layers: Layers) -> list[Weight]:
    """Draft layers have full attention; the matrix before them joins the embedding to the hidden state."""
    body, hidden_size = "mtp.layers.{}", base.hidden_size
    moe = config.integer("num_experts", default=0)
    weights = [
        *_parts.linear("mtp.fc", hidden_size, 2 * hidden_size, "mtp", "replicated"),
        *_attention(f"{body}.self_attn", config, layers),
        *(_mixture(f"{body}.mlp", config, layers) if moe else _dense(f"{body}.mlp", base, layers)),
        *_norms(body, hidden_size, layers),
    ]
    for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        weights += _parts.norm(f"mtp.{name}", hidden_size)
    if config.flag("mtp_use_dedicated_embeddings"):
        weights.append(_parts.embedding("mtp.embed_tokens", base.vocab_size, hidden_size))
    return weights
