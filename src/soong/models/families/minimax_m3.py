"""MiniMax-M3, text part: block-sparse attention chosen by an indexer with a key cache of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.families import _decoder, _parts
from soong.models.families._decoder import Build, Decoder, Layers
from soong.models.families.moe import Mix, mixture_weights, read_experts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

BUILD = Build(
    qkv_bias=False, out_bias=False, head_norm="head", defaults={"head_dim": 128, "num_key_value_heads": 4}
)
MIX = Mix(
    path="block_sparse_moe",
    names=("w1", "w3", "w2"),
    width=("intermediate_size",),
    correction="e_score_correction_bias",
    shared_count="n_shared_experts",
)


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a MiniMax-M3 text config.

    Source: vLLM 0.33 `models/minimax_m3/nvidia/model.py`, `common/indexer.py`; transformers
    `modeling_minimax_m3_vl.py`.
    """
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    sizes = read_experts(config, MIX)
    sparse = _marked(decoder, config, "moe_layer_freq")
    dense = tuple(layer for layer in decoder.layers if layer not in set(sparse))
    width = config.integer("dense_intermediate_size", default=decoder.base.intermediate_size)
    indexer = config.section("sparse_attention_config")
    indexed = _marked(decoder, indexer, "sparse_attention_freq") if indexer.values else ()
    caches = _decoder.window_caches(decoder)
    if indexed:
        size = indexer.integer("sparse_index_dim", least=1)
        caches += (AttentionCache(layers=len(indexed), kv_heads=1, key_dim=size, value_dim=0),)
    return _decoder.assemble(
        replace(decoder, base=decoder.base._replace(intermediate_size=width)),
        feed_forward=[
            *_decoder.mlp_weights(decoder, width, dense),
            *mixture_weights(decoder, MIX, sizes, sparse),
        ],
        extra=_indexer_weights(decoder, indexer, indexed),
        caches=caches,
        experts=sizes.count,
        experts_per_token=sizes.per_token,
    )


def _marked(decoder: Decoder, section: Config, key: str) -> Layers:
    """The layers that a list of numbers marks; all of them where there is no list."""
    marks = section.integers(key)
    if not marks:
        return decoder.layers
    if len(marks) < len(decoder.layers):
        raise ConfigError(f"`{section.where(key)}` names {len(marks)} of {len(decoder.layers)} layers")
    return tuple(layer for layer in decoder.layers if marks[layer])


def _indexer_weights(decoder: Decoder, indexer: Config, layers: Layers) -> list[Weight]:
    """Queries of the indexer are divided like key heads; its one key stands whole on every GPU."""
    if not layers:
        return []
    path, hidden_size = f"{decoder.body}.self_attn", decoder.base.hidden_size
    heads, size = indexer.integer("sparse_num_index_heads", least=1), indexer.integer("sparse_index_dim", least=1)
    linear = _parts.linear
    return [
        *linear(f"{path}.index_q_proj", heads * size, hidden_size, "attention", "kv", layers=layers, heads=heads),
        *linear(f"{path}.index_k_proj", size, hidden_size, "attention", "replicated", layers=layers),
        *_parts.norm(f"{path}.index_q_norm", size, layers=layers),
        *_parts.norm(f"{path}.index_k_norm", size, layers=layers),
    ]
