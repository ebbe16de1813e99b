"""Qwen's experiment after 3.8: Qwen3.5's layers in hyper-connections, a sparse indexer, a table of n-grams.

The table of n-grams, a third of the checkpoint, stays in the computer's memory and is looked up from there (vLLM 0.32
`models/qwen4_exp/common/ngram_embedding.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.architecture import StateCache, StateTensor
from soong.models.families import _multimodal, _parts, qwen3_next, qwen_vl

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]

PICKED_SPARE = 4
"""Rows that the indexer's list of picked tokens has beyond its budget, in int32."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a qwen4_exp config. Source: vLLM 0.32 `models/qwen4_exp/nvidia/model.py`."""
    if "text_config" not in config:
        return _text(config, prefix)
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="model.language_model", model_type="qwen4_exp_text")
    vision = config.section("vision_config")
    whole = _multimodal.joined(config, text, qwen_vl.tower_3("model.visual", vision, deepstack=0))
    return replace(whole, input_buffer_numbers=text.input_buffer_numbers)


def _text(config: Config, prefix: str) -> Architecture:
    plain = qwen3_next.read(config, prefix)
    body, hidden_size = f"{prefix}.layers.{{}}", plain.hidden_size
    layers = tuple(range(config.layers()))
    full = next((w.layers for w in plain.weights if w.path == f"{body}.self_attn.o_proj"), ())
    full = full if "indexer_n_heads" in config else ()  # without the word vLLM runs them as plain attention
    hashed = tuple(layer - 1 for layer in config.integers("ple_layer_ids") if 1 <= layer <= len(layers))
    kept = (weight for weight in plain.weights if not _is_replaced(weight.path, prefix))
    picked = 2 * len(full) * (config.integer("indexer_budget", default=2048, least=1) + PICKED_SPARE)
    streams = config.integer("hc_count", default=4, least=1)
    return replace(
        plain,
        weights=(
            *kept,
            *_connections(body, config, layers),
            *_mixer(f"{prefix}.hyper_connection_mixer", config, hidden_size),
            *_indexer(f"{body}.self_attn.indexer", config, full),
            *_ngrams(f"{body}.ple", config, hashed),
        ),
        caches=(
            *plain.caches,
            *_ngram_state(config, streams * hidden_size, len(full) if hashed else 0),
            *_pooled_keys(config, len(full)),
        ),
        input_buffer_numbers=picked,
    )


def _is_replaced(path: str, prefix: str) -> bool:
    """Norms before blocks, whose part hyper-connections play."""
    return path.endswith(("input_layernorm", "post_attention_layernorm")) or path == f"{prefix}.norm"


def _connections(body: str, config: Config, layers: Layers) -> list[Weight]:
    """How each block reads from the streams and writes to them."""
    streams = config.integer("hc_count", default=4, least=1)
    rank = config.integer("hc_lowrank", default=320, least=1)
    wide = streams * config.integer("hidden_size", least=1)
    weights = []
    for name in ("attn_hyper_connection", "mlp_hyper_connection"):
        path = f"{body}.{name}"
        weights += _parts.norm(f"{path}.hc_norm", wide, layers=layers)
        down = (rank + streams * streams, wide)
        weights.append(_parts.matrix(f"{path}.input_mix_weight_down", down, "other", layers=layers))
        weights.append(_parts.matrix(f"{path}.input_mix_weight_up", (wide, rank), "other", layers=layers))
    return weights


def _mixer(path: str, config: Config, hidden_size: int) -> list[Weight]:
    wide = config.integer("hc_count", default=4, least=1) * hidden_size
    rank = config.integer("hc_lowrank", default=320, least=1)
    return [
        *_parts.norm(f"{path}.hc_norm", wide),
        _parts.matrix(f"{path}.input_mix_weight_down", (rank, wide), "other"),
        _parts.matrix(f"{path}.input_mix_weight_up", (wide, rank), "other"),
    ]


def _indexer(path: str, config: Config, layers: Layers) -> list[Weight]:
    """Its queries and its key, which every GPU computes, and their norms."""
    size = config.integer("indexer_head_dim", default=128, least=1)
    rows = size * (
        config.integer("indexer_n_heads", default=4, least=1)
        + config.integer("indexer_kv_heads", default=1, least=1)
    )
    hidden_size = config.integer("hidden_size", least=1)
    return [
        *_parts.linear(f"{path}.qk_proj", rows, hidden_size, "attention", "replicated", layers=layers),
        *_parts.norm(f"{path}.q_layernorm", size, layers=layers),
        *_parts.norm(f"{path}.k_layernorm", size, layers=layers),
    ]


def _ngrams(path: str, config: Config, layers: Layers) -> list[Weight]:
    """The table, its projection to each stream's key and one value, three norms and a short convolution."""
    if not layers:
        return []
    hidden_size = config.integer("hidden_size", least=1)
    streams = config.integer("hc_count", default=4, least=1)
    wide, embedded = streams * hidden_size, config.integer("ple_embed_dim", default=hidden_size, least=1)
    heads = config.integer("heads_per_ngram", default=8, least=1) * (
        config.integer("ngram_size", default=3, least=2) - 1
    )
    table = (config.integer("ngram_vocab_size_base", default=0) * heads, embedded // heads)
    kernel = config.integer("ple_conv_kernel_size", default=4, least=1)
    weights = [
        replace(
            _parts.matrix(f"{path}.ple_embedding.ngram_embedding", table, "embedding", layers=layers),
            served=False,
        ),
        *_parts.linear(f"{path}.kv_proj", wide + hidden_size, embedded, "other", "replicated", layers=layers),
        _parts.matrix(f"{path}.conv1d", (wide, 1, kernel), "other", layers=layers),
    ]
    for name in ("norm_key", "norm_query", "norm_conv"):
        weights += _parts.norm(f"{path}.{name}", wide, layers=layers)
    return weights


def _ngram_state(config: Config, width: int, layers: int) -> tuple[StateCache, ...]:
    """The last inputs of the convolution, which steps over as many tokens as an n-gram has.

    One layer has it, but its group of blocks is as large as that of the attention layers.
    """
    if not layers:
        return ()
    steps = config.integer("ple_conv_kernel_size", default=4, least=1) - 1
    rows = steps * config.integer("ngram_size", default=3, least=1)
    state = StateTensor(name="conv", shape=(rows, width), split=-1)
    return (StateCache(kind="shortconv", layers=layers, tensors=(state,)),)


def _pooled_keys(config: Config, layers: int) -> tuple[StateCache, ...]:
    """The indexer's keys in 16 bits, one for a few tokens, and the plain ones that are next."""
    if not layers:
        return ()
    size = config.integer("indexer_head_dim", default=128, least=1) * config.integer(
        "indexer_kv_heads", default=1, least=1
    )
    pooled = config.integer("indexer_compress_ratio", default=4, least=1)
    ring = StateTensor(name="next", shape=(pooled, size), split=-1)
    return (StateCache(kind="ring", layers=layers, tensors=(ring,), token_bytes=2 * size // pooled),)
