"""Kimi-Linear and the text part of Kimi-K3: three layers of Kimi Delta Attention to one of latent attention.

K3 adds a full-rank output gate, routed experts on a narrower width, and attention over earlier residuals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong.models.architecture import StateCache, StateTensor
from soong.models.families import _blocks, _common, _mla, _moe, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


FAST_HEAD_DIM = 128

LEAST_EXPERT_WIDTH = 256
"""What vLLM's kernels want of each GPU's part of an expert: 0.33 `models/kimi_k3/nvidia/model.py` KimiMoE."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Kimi-Linear config.

    Source: vLLM 0.33 `models/kimi_k3/nvidia/` (model.py, kda.py, mla.py); transformers
    `modeling_kimi_linear.py`.
    """
    base = _common.read_base(config)
    linear = config.section("linear_attn_config")
    delta = _blocks.numbered((layer - 1 for layer in linear.integers("kda_layers")), base.layers)
    layers = tuple(range(base.layers))
    latent = _blocks.others(layers, delta)
    sizes = _mla.read_latent(config)
    mixture = _moe.read_mixture(config, balanced=True)
    dense, sparse = _moe.sparse_layers(config, base.layers) if mixture.experts else (layers, ())
    body = f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *delta_attention(f"{body}.self_attn", linear, base.hidden_size, layers=delta),
        *_mla.latent_attention(f"{body}.self_attn", sizes, layers=latent),
        *_latent_gate(f"{body}.self_attn.g_proj", config, sizes, latent),
        *_parts.gated_mlp(
            f"{body}.mlp",
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            layers=dense,
        ),
        *(_experts(f"{body}.block_sparse_moe", config, mixture, base.hidden_size, sparse) if sparse else ()),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_residuals(prefix, config, base.hidden_size, layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    return _common.architecture(
        config,
        base,
        heads=sizes.heads,
        weights=weights,
        caches=_caches(linear, sizes, len(delta), len(latent)),
        experts=mixture.experts,
        experts_per_token=mixture.per_token,
    )


def delta_attention(prefix: str, linear: Config, hidden_size: int, *, layers: Layers) -> list[Weight]:
    """KDA: q, k, v with short convolutions, a forget gate of low rank, an output gate of low or full rank.

    The engine keeps the convolutions in float32 (vLLM 0.33 `kda.py`), a few megabytes in all.
    """
    if not layers:
        return []
    heads, dim = linear.integer("num_heads", least=1), linear.integer("head_dim", least=1)
    kernel = linear.integer("short_conv_kernel_size", default=4)
    width = heads * dim
    weights: list[Weight] = []
    for name in ("q", "k", "v"):
        weights += _parts.linear(
            f"{prefix}.{name}_proj", width, hidden_size, "attention", "column", layers=layers
        )
        conv = f"{prefix}.{name}_conv1d"
        weights.append(
            _parts.matrix(conv, (width, 1, kernel), "state", "column", layers=layers, dtype="float32")
        )
    for name in ("f",) if linear.flag("use_full_rank_gate") else ("f", "g"):
        weights += _parts.linear(
            f"{prefix}.{name}_a_proj", dim, hidden_size, "attention", "replicated", layers=layers
        )
        weights += _parts.linear(f"{prefix}.{name}_b_proj", width, dim, "attention", "column", layers=layers)
    if linear.flag("use_full_rank_gate"):
        weights += _parts.linear(f"{prefix}.g_proj", width, hidden_size, "attention", "column", layers=layers)
    return [
        *weights,
        *_parts.linear(f"{prefix}.b_proj", heads, hidden_size, "attention", "column", layers=layers),
        _parts.vector(f"{prefix}.A_log", heads, "state", "column", layers=layers, dtype="float32"),
        _parts.vector(f"{prefix}.dt_bias", width, "state", "column", layers=layers, dtype="float32"),
        *_parts.norm(f"{prefix}.o_norm", dim, layers=layers),
        *_parts.linear(f"{prefix}.o_proj", hidden_size, width, "attention", "row", layers=layers),
    ]


def _latent_gate(path: str, config: Config, sizes: _mla.Latent, layers: Layers) -> list[Weight]:
    if not config.flag("mla_use_output_gate"):
        return []
    out_size = sizes.heads * sizes.value_dim
    return _parts.linear(path, out_size, sizes.hidden_size, "attention", "column", layers=layers)


def _experts(
    prefix: str, config: Config, sizes: _moe.Mixture, hidden_size: int, layers: Layers
) -> list[Weight]:
    narrow = config.integer("routed_expert_hidden_size", default=0)
    weights = _moe.mixture(
        prefix, sizes, hidden_size, layers=layers, expert_hidden_size=narrow, names=("w1", "w3", "w2")
    )
    least = config.integer("min_moe_intermediate_per_partition", default=LEAST_EXPERT_WIDTH)
    weights = [
        msgspec.structs.replace(weight, least=least) if weight.copies > 1 else weight for weight in weights
    ]
    if not narrow:
        return weights
    down, up = f"{prefix}.routed_expert_down_proj", f"{prefix}.routed_expert_up_proj"
    latent = _parts.linear(down, narrow, hidden_size, "experts", "replicated", layers=layers)
    latent += _parts.linear(up, hidden_size, narrow, "experts", "replicated", layers=layers)
    # Never packed: SGLang 0.5.23 `kimi_k3.py` latent_quant_config, and the sum of K3's published files.
    weights += [msgspec.structs.replace(weight, linear=False) for weight in latent]
    if config.flag("latent_moe_use_norm"):
        weights += _parts.norm(f"{prefix}.routed_expert_norm", narrow, layers=layers)
    return weights


def _residuals(prefix: str, config: Config, hidden_size: int, layers: Layers) -> list[Weight]:
    """K3's attention over residuals of earlier blocks: a norm and a vector before each half of a layer."""
    if "attn_res_block_size" not in config:
        return []
    body = f"{prefix}.layers.{{}}"
    weights: list[Weight] = []
    for name in ("self_attention_res", "mlp_res"):
        weights += _parts.norm(f"{body}.{name}_norm", hidden_size, layers=layers)
        weights.append(_parts.matrix(f"{body}.{name}_proj", (1, hidden_size), "attention", layers=layers))
    weights += _parts.norm(f"{prefix}.output_attn_res_norm", hidden_size)
    weights.append(_parts.matrix(f"{prefix}.output_attn_res_proj", (1, hidden_size), "attention"))
    return weights


def state_kind(linear: Config) -> Literal["kda", "kda-bounded"]:
    """Which kernels may run it: vLLM 0.32 `models/kimi_k3/nvidia/kda.py` resolve_kda_prefill_backend."""
    fast = linear.integer("head_dim", least=1) == FAST_HEAD_DIM
    return "kda-bounded" if fast and linear.values.get("gate_lower_bound") is not None else "kda"


def _caches(linear: Config, sizes: _mla.Latent, delta: int, latent: int) -> tuple[Cache, ...]:
    """KDA keeps its recurrent state in float32 by default (vLLM 0.33 `mamba_utils.py` `kda_state_dtype`)."""
    caches: list[Cache] = [_mla.latent_cache(sizes, latent)] if latent else []
    if delta:
        heads, dim = linear.integer("num_heads", least=1), linear.integer("head_dim", least=1)
        past = linear.integer("short_conv_kernel_size", default=4, least=1) - 1
        tensors = (
            StateTensor(name="conv", shape=(past, 3 * heads * dim), split=1),
            StateTensor(name="recurrent", shape=(heads, dim, dim), dtype="float32"),
        )
        caches.append(StateCache(kind=state_kind(linear), layers=delta, tensors=tensors))
    return tuple(caches)
