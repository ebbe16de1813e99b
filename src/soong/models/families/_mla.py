"""Multi-head latent attention: keys and values pass through a low rank, and only that vector is cached.

Source of the shapes and splits: vLLM 0.33 `models/deepseek_v2.py` (`DeepseekV2MLAAttention`, `Indexer`) and
transformers `modeling_deepseek_v3.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.models.architecture import LatentCache
from soong.models.families import _parts

if TYPE_CHECKING:
    from soong.models.architecture import Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


class Latent(NamedTuple):
    """The sizes of latent attention; `query_rank` is 0 where queries are projected directly."""

    hidden_size: int
    heads: int
    query_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    bias: bool


def read_latent(config: Config) -> Latent:
    """The latent attention that a config describes."""
    return Latent(
        hidden_size=config.integer("hidden_size", least=1),
        heads=config.integer("num_attention_heads", least=1),
        query_rank=config.integer("q_lora_rank", default=0),
        kv_rank=config.integer("kv_lora_rank", least=1),
        nope_dim=config.integer("qk_nope_head_dim"),
        rope_dim=config.integer("qk_rope_head_dim"),
        value_dim=config.integer("v_head_dim", least=1),
        bias=config.flag("attention_bias"),
    )


def latent_attention(prefix: str, sizes: Latent, *, layers: Layers) -> list[Weight]:
    """Projections down to the ranks, which every GPU holds, and up to the heads, which are divided."""
    hidden_size, heads = sizes.hidden_size, sizes.heads
    return [
        *_queries(prefix, sizes, layers=layers),
        *_parts.linear(
            f"{prefix}.kv_a_proj_with_mqa",
            sizes.kv_rank + sizes.rope_dim,
            hidden_size,
            "attention",
            "replicated",
            layers=layers,
            bias=sizes.bias,
        ),
        *_parts.norm(f"{prefix}.kv_a_layernorm", sizes.kv_rank, layers=layers),
        *_parts.linear(
            f"{prefix}.kv_b_proj",
            heads * (sizes.nope_dim + sizes.value_dim),
            sizes.kv_rank,
            "attention",
            "column",
            layers=layers,
        ),
        *_parts.linear(
            f"{prefix}.o_proj",
            hidden_size,
            heads * sizes.value_dim,
            "attention",
            "row",
            layers=layers,
            bias=sizes.bias,
        ),
    ]


def _queries(prefix: str, sizes: Latent, *, layers: Layers) -> list[Weight]:
    out_size = sizes.heads * (sizes.nope_dim + sizes.rope_dim)
    rank = sizes.query_rank
    if not rank:
        return _parts.linear(
            f"{prefix}.q_proj", out_size, sizes.hidden_size, "attention", "column", layers=layers
        )
    return [
        *_parts.linear(
            f"{prefix}.q_a_proj",
            rank,
            sizes.hidden_size,
            "attention",
            "replicated",
            layers=layers,
            bias=sizes.bias,
        ),
        *_parts.norm(f"{prefix}.q_a_layernorm", rank, layers=layers),
        *_parts.linear(f"{prefix}.q_b_proj", out_size, rank, "attention", "column", layers=layers),
    ]


class Indexer(NamedTuple):
    """The sparse-attention indexer of DSA: a small scorer that picks the tokens a layer attends to."""

    heads: int
    head_dim: int


def read_indexer(config: Config) -> Indexer | None:
    """The indexer, or None where attention is dense."""
    if "index_topk" not in config:
        return None
    return Indexer(config.integer("index_n_heads", least=1), config.integer("index_head_dim", least=1))


def indexer_weights(prefix: str, indexer: Indexer, sizes: Latent, *, layers: Layers) -> list[Weight]:
    """The indexer's weights; every GPU holds all of them.

    `wk` and `weights_proj` are not marked as linear: vLLM fuses them into one 16-bit matrix whatever the
    checkpoint's format (0.33 `deepseek_v32/attention.py`), and keeps the key norm in float32.
    """
    heads, dim = indexer
    return [
        *_parts.linear(
            f"{prefix}.wq_b", heads * dim, sizes.query_rank, "attention", "replicated", layers=layers
        ),
        _parts.matrix(f"{prefix}.wk", (dim, sizes.hidden_size), "attention", layers=layers),
        _parts.matrix(f"{prefix}.weights_proj", (heads, sizes.hidden_size), "attention", layers=layers),
        _parts.vector(f"{prefix}.k_norm", dim, "norm", layers=layers, dtype="float32"),
        _parts.vector(f"{prefix}.k_norm.bias", dim, "norm", layers=layers, dtype="float32"),
    ]


def latent_cache(
    sizes: Latent, layers: int, *, indexer: Indexer | None = None, indexer_layers: int = 0, window: int = 0
) -> LatentCache:
    """One latent vector per token and layer, and the indexer's key where a layer has one."""
    return LatentCache(
        layers=layers,
        latent_dim=sizes.kv_rank,
        rope_dim=sizes.rope_dim,
        indexer_layers=indexer_layers,
        indexer_dim=indexer.head_dim if indexer else 0,
        window=window,
    )
