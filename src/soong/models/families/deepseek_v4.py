"""DeepSeek-V4: one latent key-value head, a short window, and a compressed past that an indexer chooses from.

Layers differ in `compress_ratios`: 0 keeps the window alone, 4 compresses softly and has an indexer, 128
compresses hard and reads all of it. Hyper-connections carry several residual streams. `deepseek_ref` is the
same build in the words of the reference code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.architecture import CompressedCache
from soong.models.families import _common, _draft, _parts
from soong.models.rotary import rotary_table_bytes

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Part, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]

FLOAT32_TIMES = 2
"""Tables of positions are in float32: one for compressed layers, one for those with a window alone."""

INDEXED_RATIO = 4
"""Layers of this ratio have an indexer and overlapping windows, hence a compressor of twice the width.

Source: vLLM 0.33 `models/deepseek_v4/attention.py`, `compressor.py`.
"""


def read(config: Config, prefix: str = "") -> Architecture:
    """The architecture of a DeepSeek-V4 config, in the checkpoint's own tensor names.

    Source: vLLM 0.33 `models/deepseek_v4/` (attention.py, compressor.py, nvidia/model.py, nvidia/mtp.py);
    transformers `modeling_deepseek_v4.py`.
    """
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    drafts = tuple(range(config.integer("num_nextn_predict_layers", default=0)))
    if len(drafts) > base.layers:
        raise ConfigError(
            f"`{config.where('num_nextn_predict_layers')}` is {len(drafts):,}, which no real model has"
        )
    ratios = _ratios(config, base.layers)
    hashed = min(config.integer("num_hash_layers", default=0), base.layers)
    dot = f"{prefix}." if prefix else ""
    weights = [
        _parts.embedding(f"{dot}embed", base.vocab_size, base.hidden_size),
        *_layer(f"{dot}layers.{{}}", config, layers, hashed),
        *_compressors(f"{dot}layers.{{}}.attn", config, ratios),
        *_parts.norm(f"{dot}norm", base.hidden_size),
        *_stream_head(dot, config),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied, path=f"{dot}head"),
    ]
    if drafts:
        weights += _draft.draft(
            [*_layer(f"{dot}mtp.{{}}", config, drafts, 0), *_draft_ends(f"{dot}mtp.{{}}", config, drafts)]
        )
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", least=1),
        weights=tuple(weights),
        caches=_caches(config, ratios),
        intermediate_size=config.integer("moe_intermediate_size", least=1),
        experts=config.integer("n_routed_experts"),
        experts_per_token=config.integer("num_experts_per_tok"),
        mtp_layers=len(drafts),
        rotary_bytes=(1 + (0 in ratios)) * FLOAT32_TIMES * rotary_table_bytes(config),
    )


def _ratios(config: Config, layers: int) -> tuple[int, ...]:
    ratios = config.integers("compress_ratios")
    if len(ratios) < layers:
        raise ConfigError(f"`{config.where('compress_ratios')}` names {len(ratios)} of {layers} layers")
    return ratios[:layers]


def _layer(body: str, config: Config, layers: Layers, hashed: int) -> list[Weight]:
    """One decoder or draft layer without its compressor."""
    hidden_size = config.integer("hidden_size", least=1)
    return [
        *_attention(f"{body}.attn", config, layers),
        *_experts(f"{body}.ffn", config, layers, hashed),
        *_parts.norm(f"{body}.attn_norm", hidden_size, layers=layers),
        *_parts.norm(f"{body}.ffn_norm", hidden_size, layers=layers),
        *_streams(body, config, layers),
    ]


def _attention(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    hidden_size = config.integer("hidden_size", least=1)
    heads, dim = config.integer("num_attention_heads", least=1), config.integer("head_dim", least=1)
    query_rank = config.integer("q_lora_rank", least=1)
    groups, rank = config.integer("o_groups", least=1), config.integer("o_lora_rank", least=1)
    part: Part = "attention"
    return [
        *_parts.linear(f"{prefix}.wq_a", query_rank, hidden_size, part, "replicated", layers=layers),
        *_parts.norm(f"{prefix}.q_norm", query_rank, layers=layers),
        *_parts.linear(f"{prefix}.wq_b", heads * dim, query_rank, part, "column", layers=layers),
        *_parts.linear(f"{prefix}.wkv", dim, hidden_size, part, "replicated", layers=layers),
        *_parts.norm(f"{prefix}.kv_norm", dim, layers=layers),
        *_parts.linear(f"{prefix}.wo_a", groups * rank, heads * dim // groups, part, "column", layers=layers),
        *_parts.linear(f"{prefix}.wo_b", hidden_size, groups * rank, part, "row", layers=layers),
        _parts.vector(f"{prefix}.attn_sink", heads, part, "column", layers=layers, dtype="float32"),
    ]


def _experts(prefix: str, config: Config, layers: Layers, hashed: int) -> list[Weight]:
    """The first `hashed` layers look experts up by token, the others route by score with a balancing bias."""
    hidden_size, wide = (
        config.integer("hidden_size", least=1),
        config.integer("moe_intermediate_size", least=1),
    )
    count, per_token = (
        config.integer("n_routed_experts", least=1),
        config.integer("num_experts_per_tok", least=1),
    )
    shared = wide * config.integer("n_shared_experts", default=0)
    weights = _parts.router(f"{prefix}.gate", count, hidden_size, layers=layers)
    if hashed:
        # A table of expert numbers: int32 in the engine, which is as wide as float32.
        table = (config.integer("vocab_size", least=1), per_token)
        weights.append(
            _parts.matrix(f"{prefix}.gate.tid2eid", table, "router", layers=layers[:hashed], dtype="float32")
        )
    if layers[hashed:]:
        bias = f"{prefix}.gate.bias"
        weights.append(_parts.vector(bias, count, "router", layers=layers[hashed:], dtype="float32"))
    weights += _parts.experts(
        f"{prefix}.experts",
        count=count,
        per_token=per_token,
        hidden_size=hidden_size,
        intermediate_size=wide,
        layers=layers,
        names=("w1", "w3", "w2"),
    )
    if shared:
        # Named as in vLLM's class, which is what quantization configs are matched with; w1, w3, w2 in the checkpoint.
        weights += _parts.gated_mlp(
            f"{prefix}.shared_experts", hidden_size=hidden_size, intermediate_size=shared, layers=layers
        )
    return weights


def _streams(body: str, config: Config, layers: Layers) -> list[Weight]:
    """Hyper-connections: how the residual streams mix before and after each half of a layer."""
    streams = config.integer("hc_mult", least=1)
    mixes = (2 + streams) * streams
    width = streams * config.integer("hidden_size", least=1)
    shapes: dict[str, tuple[int, ...]] = {"fn": (mixes, width), "base": (mixes,), "scale": (3,)}
    return [
        _parts.matrix(f"{body}.hc_{half}_{name}", shape, "other", layers=layers, dtype="float32")
        for half in ("attn", "ffn")
        for name, shape in shapes.items()
    ]


def _stream_head(prefix: str, config: Config, layers: Layers = ()) -> list[Weight]:
    streams = config.integer("hc_mult", least=1)
    width = streams * config.integer("hidden_size", least=1)
    shapes: dict[str, tuple[int, ...]] = {"fn": (streams, width), "base": (streams,), "scale": (1,)}
    return [
        _parts.matrix(f"{prefix}hc_head_{name}", shape, "other", layers=layers, dtype="float32")
        for name, shape in shapes.items()
    ]


def _compressors(prefix: str, config: Config, ratios: tuple[int, ...]) -> list[Weight]:
    dim, index_dim = config.integer("head_dim", least=1), config.integer("index_head_dim", default=0)
    weights: list[Weight] = []
    for ratio in sorted(set(ratios) - {0}):
        layers = tuple(layer for layer, own in enumerate(ratios) if own == ratio)
        weights += _compressor(f"{prefix}.compressor", config, ratio, dim, layers)
        if ratio == INDEXED_RATIO:
            weights += _indexer(f"{prefix}.indexer", config, layers)
            weights += _compressor(f"{prefix}.indexer.compressor", config, ratio, index_dim, layers)
    return weights


def _compressor(prefix: str, config: Config, ratio: int, dim: int, layers: Layers) -> list[Weight]:
    """Engines keep it unquantised, and its position table in float32."""
    hidden_size = config.integer("hidden_size", least=1)
    width = 2 * dim if ratio == INDEXED_RATIO else dim
    return [
        _parts.matrix(f"{prefix}.ape", (ratio, width), "attention", layers=layers, dtype="float32"),
        _parts.matrix(f"{prefix}.wkv", (width, hidden_size), "attention", layers=layers),
        _parts.matrix(f"{prefix}.wgate", (width, hidden_size), "attention", layers=layers),
        *_parts.norm(f"{prefix}.norm", dim, layers=layers),
    ]


def _indexer(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    hidden_size, rank = config.integer("hidden_size", least=1), config.integer("q_lora_rank", least=1)
    heads, dim = config.integer("index_n_heads", least=1), config.integer("index_head_dim", least=1)
    return [
        *_parts.linear(f"{prefix}.wq_b", heads * dim, rank, "attention", "replicated", layers=layers),
        _parts.matrix(f"{prefix}.weights_proj", (heads, hidden_size), "attention", layers=layers),
    ]


def _draft_ends(body: str, config: Config, layers: Layers) -> list[Weight]:
    """What joins a draft layer to the model.

    DeepSeek's base checkpoints repeat the embedding and the head in it, those with FP4 experts do not: the
    published totals of V4-Flash and V4-Pro (158,069,433,298 and 861,608,274,846) leave no room for them.
    """
    hidden_size, vocab_size = config.integer("hidden_size", least=1), config.integer("vocab_size", least=1)
    weights = _stream_head(f"{body}.", config, layers)
    for name in ("enorm", "hnorm", "norm"):
        weights += _parts.norm(f"{body}.{name}", hidden_size, layers=layers)
    for name in ("e_proj", "h_proj"):
        weights += _parts.linear(
            f"{body}.{name}", hidden_size, hidden_size, "mtp", "replicated", layers=layers
        )
    for name in () if config.text("expert_dtype") == "fp4" else ("emb.tok_emb", "head"):
        weights.append(
            _parts.matrix(f"{body}.{name}", (vocab_size, hidden_size), "mtp", "vocab", layers=layers)
        )
    return weights


def _caches(config: Config, ratios: tuple[int, ...]) -> tuple[CompressedCache, ...]:
    """One cache for each ratio; vectors of window and past hold `head_dim` numbers, rope included."""
    rope_dim = config.integer("qk_rope_head_dim")
    latent_dim = config.integer("head_dim", least=1) - rope_dim
    if latent_dim < 0:
        raise ConfigError(f"`{config.where('qk_rope_head_dim')}` is larger than the head size")
    return tuple(
        CompressedCache(
            layers=ratios.count(ratio),
            latent_dim=latent_dim,
            rope_dim=rope_dim,
            window=config.integer("sliding_window", default=0),
            ratio=ratio,
            indexer_dim=config.integer("index_head_dim", default=0) if ratio == INDEXED_RATIO else 0,
        )
        for ratio in sorted(set(ratios))
    )
