"""Inkling: relative positions, short convolutions beside attention and MLP, experts and sinks that every token uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from soong.models.architecture import AttentionCache, Weight
from soong.models.families import _blocks, _common, _draft, _parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.models.architecture import Architecture, Cache
    from soong.models.config_json import Config

Layers = tuple[int, ...]

GATE_ROWS = 8
"""Rows of the gate are filled up to a multiple of this (`InklingGate`)."""


class _Attention(Struct, frozen=True):
    """One kind of attention layer. extent: how far back its positions reach. window: 0 where it sees everything."""

    heads: int
    kv_heads: int
    head_dim: int
    extent: int
    window: int


def read(config: Config, prefix: str = "model.llm") -> Architecture:
    """The architecture of an Inkling text config; what it leaves unsaid is as in vLLM's configuration class.

    Source: vLLM 0.32 `models/inkling/configs.py`, `nvidia/model.py`, `nvidia/attention.py`, `nvidia/moe.py`.
    """
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    local = _blocks.numbered(config.integers("local_layer_ids"), base.layers)
    dense = layers[: config.integer("dense_mlp_idx", default=0)]
    kinds = [
        (kind, chosen)
        for kind, chosen in (
            (_full(config), _blocks.others(layers, local)),
            (_local(config), local),
        )
        if chosen
    ]
    body = f"{prefix}.layers.{{}}"
    weights = [
        Weight(path=f"{prefix}.embed", shape=(base.vocab_size, base.hidden_size), part="embedding"),
        *_norms(config, prefix, base.hidden_size, layers),
        *_dense(config, f"{body}.mlp", base, dense),
        *_mixture(config, f"{body}.mlp", base.hidden_size, _blocks.others(layers, dense)),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied, path=f"{prefix}.unembed"),
    ]
    weights += _convolutions(config, body, base.hidden_size, layers)
    for kind, chosen in kinds:
        weights += _attention(config, f"{body}.attn", base.hidden_size, kind, chosen)
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", least=1),
        weights=tuple(weights),
        caches=tuple(
            cache
            for kind, chosen in kinds
            for cache in _caches(kind, len(chosen), _kernel(config), base.hidden_size)
        ),
        experts=config.integer("n_routed_experts", default=0),
        experts_per_token=config.integer("num_experts_per_tok", default=1),
        intermediate_size=_widths(config)[0],
    )


def draft_weights(config: Config, count: int, local: Sequence[int]) -> list[Weight]:
    """The layers that predict further tokens, all with dense MLPs: vLLM 0.32 `models/inkling/nvidia/mtp.py`.

    Args:
        config: the text section.
        count: of these layers.
        local: the numbers of those with a window.
    """
    base, prefix = _common.read_base(config), "model.mtp.layers.{}"
    body, layers = f"{prefix}.transformer_block", tuple(range(count))
    windowed = _blocks.numbered(local, count)
    weights = [
        *_parts.linear(
            f"{prefix}.input_proj", base.hidden_size, 2 * base.hidden_size, "mtp", "replicated", layers=layers
        ),
        *_dense(config, f"{body}.mlp", base, layers),
        *_convolutions(config, body, base.hidden_size, layers),
    ]
    for name in ("hidden_norm", "embed_norm", "transformer_block.attn_norm", "transformer_block.mlp_norm"):
        weights += _parts.norm(f"{prefix}.{name}", base.hidden_size, layers=layers)
    for kind, chosen in ((_full(config), _blocks.others(layers, windowed)), (_local(config), windowed)):
        if chosen:
            weights += _attention(config, f"{body}.attn", base.hidden_size, kind, chosen)
    return _draft.draft(weights)


def _convolutions(config: Config, body: str, hidden_size: int, layers: Layers) -> list[Weight]:
    shape = (hidden_size, 1, _kernel(config))
    return [
        _parts.matrix(f"{body}.{name}", shape, "state", "column", layers=layers)
        for name in ("attn_sconv", "mlp_sconv")
    ]


def _full(config: Config) -> _Attention:
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    return _Attention(heads, kv_heads, head_dim, config.integer("rel_extent", default=1024, least=1), 0)


def _local(config: Config) -> _Attention:
    full = _full(config)
    window = config.integer("sliding_window_size", default=512, least=1)
    return _Attention(
        config.integer("swa_num_attention_heads", default=full.heads, least=1),
        config.integer("swa_num_key_value_heads", default=full.kv_heads, least=1),
        config.integer("swa_head_dim", default=full.head_dim, least=1),
        window,
        window,
    )


def _kernel(config: Config) -> int:
    return config.integer("sconv_kernel_size", "conv_kernel_size", default=4, least=2)


def _widths(config: Config) -> tuple[int, int]:
    """The width of dense MLPs and of an expert, which the two ways of writing this config name differently."""
    width = config.integer("intermediate_size", least=1)
    if "moe_intermediate_size" in config and "dense_intermediate_size" not in config:
        return width, config.integer("moe_intermediate_size", least=1)
    return config.integer("dense_intermediate_size", default=width, least=1), width


def _norms(config: Config, prefix: str, hidden_size: int, layers: Layers) -> list[Weight]:
    weights = _parts.norm(f"{prefix}.norm", hidden_size)
    if config.flag("use_embed_norm"):
        weights += _parts.norm(f"{prefix}.embed_norm", hidden_size)
    for name in ("attn_norm", "mlp_norm"):
        weights += _parts.norm(f"{prefix}.layers.{{}}.{name}", hidden_size, layers=layers)
    return weights


def _attention(
    config: Config, prefix: str, hidden_size: int, kind: _Attention, layers: Layers
) -> list[Weight]:
    positions = config.integer("d_rel", default=16, least=1)
    width = kind.kv_heads * kind.head_dim
    weights = _parts.grouped_attention(
        prefix,
        hidden_size=hidden_size,
        heads=kind.heads,
        kv_heads=kind.kv_heads,
        head_dim=kind.head_dim,
        layers=layers,
        names=("wq_du", "wk_dv", "wv_dv", "wo_ud"),
    )
    weights += _parts.linear(
        f"{prefix}.wr_du", positions * kind.heads, hidden_size, "attention", "column", layers=layers
    )
    weights.append(
        _parts.matrix(f"{prefix}.rel_logits_proj.proj", (positions, kind.extent), "attention", layers=layers)
    )
    for name in ("k_sconv", "v_sconv"):
        shape = (width, 1, _kernel(config))
        weights.append(
            _parts.matrix(f"{prefix}.{name}", shape, "state", "kv", layers=layers, heads=kind.kv_heads)
        )
    for name in ("q_norm", "k_norm"):
        weights += _parts.norm(f"{prefix}.{name}", kind.head_dim, layers=layers)
    return weights


def _dense(config: Config, prefix: str, base: _common.Base, layers: Layers) -> list[Weight]:
    if not layers:
        return []
    width = _widths(config)[0]
    weights = [
        *_parts.linear(f"{prefix}.w13_dn", 2 * width, base.hidden_size, "mlp", "column", layers=layers),
        *_parts.linear(f"{prefix}.w2_md", base.hidden_size, width, "mlp", "row", layers=layers),
    ]
    if config.flag("use_global_scale"):
        weights.append(_parts.vector(f"{prefix}.global_scale", 1, "mlp", layers=layers))
    return weights


def _mixture(config: Config, prefix: str, hidden_size: int, layers: Layers) -> list[Weight]:
    """Experts, what chooses them, and the sinks, which no quantization method touches."""
    if not layers:
        return []
    count, sinks = (config.integer(key, least=1) for key in ("n_routed_experts", "n_shared_experts"))
    width = _widths(config)[1]
    weights = [
        *_parts.router(f"{prefix}.gate", count + sinks, hidden_size, layers=layers),
        *_parts.experts(
            f"{prefix}.experts",
            count=count,
            per_token=config.integer("num_experts_per_tok", default=1, least=1),
            hidden_size=hidden_size,
            intermediate_size=width,
            layers=layers,
        ),
    ]
    filled = -(count + sinks) % GATE_ROWS
    if filled:
        rows = _parts.matrix(f"{prefix}.gate.padding", (filled, hidden_size), "router", layers=layers)
        weights.append(replace(rows, stored=False))
    for name, size in (("bias", count * config.flag("use_gate_bias")), ("global_scale", 1)):
        if size and (name == "bias" or config.flag("use_global_scale")):
            weights.append(
                _parts.vector(f"{prefix}.gate.{name}", size, "router", layers=layers, dtype="float32")
            )
    sink = f"{prefix}.shared_experts"
    wide, narrow = (2 * sinks * width, hidden_size), (hidden_size, sinks * width)
    weights.append(_parts.matrix(f"{sink}.w13_weight", wide, "mlp", "column", layers=layers))
    weights.append(_parts.matrix(f"{sink}.w2_weight", narrow, "mlp", "row", layers=layers))
    return weights


def _caches(kind: _Attention, layers: int, kernel: int, hidden_size: int) -> tuple[Cache, ...]:
    """Keys and values, and the four streams that convolutions look back on, packed by key-value heads."""
    streams = 2 * kind.head_dim + 2 * (hidden_size // kind.kv_heads)
    return (
        AttentionCache(
            layers=layers,
            kv_heads=kind.kv_heads,
            key_dim=kind.head_dim,
            value_dim=kind.head_dim,
            window=kind.window,
        ),
        AttentionCache(
            layers=layers, kv_heads=kind.kv_heads, key_dim=streams, value_dim=0, window=kernel, streams=True
        ),
    )
