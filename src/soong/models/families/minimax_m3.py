"""MiniMax-M3, text part: block-sparse attention chosen by an indexer with a key cache of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.config_json import MOST_LAYERS, Config
from soong.models.families import _decoder, _parts
from soong.models.families._decoder import Build, Decoder, Layers
from soong.models.families.moe import Mix, mixture_weights, read_experts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight

BUILD = Build(
    qkv_bias=False, out_bias=False, head_norm="head", defaults={"head_dim": 128, "num_key_value_heads": 4}
)
MIX = Mix(
    path="block_sparse_moe",
    names=("w1", "w3", "w2"),
    width=("intermediate_size",),
    correction="e_score_correction_bias",
    shared_count="n_shared_experts",
    precise=True,
)


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a MiniMax-M3 text config.

    Source: vLLM 0.33 `models/minimax_m3/nvidia/model.py`, `common/indexer.py`; transformers
    `modeling_minimax_m3_vl.py`.
    """
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    sizes = read_experts(config, MIX)
    sparse = _marked(decoder, config, "moe_layer_freq", "mlp_layer_types", "sparse")
    dense = tuple(layer for layer in decoder.layers if layer not in set(sparse))
    width = config.integer("dense_intermediate_size", default=decoder.base.intermediate_size)
    indexer = _indexer(config)
    indexed = _marked(decoder, indexer, "sparse_attention_freq", "layer_types", "minimax_m3_sparse")
    caches = _decoder.window_caches(decoder)
    if indexed:
        size = indexer.integer("sparse_index_dim", least=1)
        caches += (AttentionCache(layers=len(indexed), kv_heads=1, key_dim=size, value_dim=0),)
    return _decoder.assemble(
        replace(decoder, base=replace(decoder.base, intermediate_size=width)),
        feed_forward=[
            *_decoder.mlp_weights(decoder, width, dense),
            *mixture_weights(decoder, MIX, sizes, sparse),
        ],
        extra=_indexer_weights(decoder, indexer, indexed),
        caches=caches,
        experts=sizes.number,
        experts_per_token=sizes.per_token,
    )


def _indexer(config: Config) -> Config:
    """The indexer's section, or the same facts under the names that transformers 5 saves them with."""
    if "sparse_attention_config" in config:
        return config.section("sparse_attention_config")
    names = {"sparse_num_index_heads": "index_n_heads", "sparse_index_dim": "index_head_dim"}
    values = {name: config.values.get(saved) for name, saved in names.items()}
    return Config(
        {**values, "layer_types": config.values.get("layer_types", ["full_attention"] * MOST_LAYERS)}
    )


def _marked(decoder: Decoder, section: Config, key: str, named_key: str, name: str) -> Layers:
    """The layers that a list of ones and zeros marks, or that a list of kinds names; all where neither is there."""
    layers = decoder.layers
    if key not in section and named_key in section:
        kinds = _decoder.layer_kinds(section, named_key, len(layers))
        return tuple(layer for layer, kind in enumerate(kinds) if kind == name)
    marks = section.integers(key)
    if marks and len(marks) < len(layers):
        raise ConfigError(f"`{section.where(key)}` names {len(marks)} of {len(layers)} layers")
    return tuple(layer for layer in layers if marks[layer]) if marks else layers


def _indexer_weights(decoder: Decoder, indexer: Config, layers: Layers) -> list[Weight]:
    """Queries of the indexer are divided like key heads; its one key stands whole on every GPU."""
    if not layers:
        return []
    path, hidden_size = f"{decoder.body}.self_attn", decoder.base.hidden_size
    heads, size = (
        indexer.integer("sparse_num_index_heads", least=1),
        indexer.integer("sparse_index_dim", least=1),
    )
    linear = _parts.linear
    return [
        *linear(
            f"{path}.index_q_proj", heads * size, hidden_size, "attention", "kv", layers=layers, heads=heads
        ),
        *linear(f"{path}.index_k_proj", size, hidden_size, "attention", "replicated", layers=layers),
        *_parts.norm(f"{path}.index_q_norm", size, layers=layers),
        *_parts.norm(f"{path}.index_k_norm", size, layers=layers),
    ]
