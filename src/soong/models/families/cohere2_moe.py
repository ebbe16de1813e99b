"""Cohere's mixture of experts: one norm per layer, sliding layers between full ones, plain MLPs in the first layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _decoder, moe
from soong.models.families._decoder import Build, Decoder
from soong.models.families.moe import Mix

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

BUILD = Build(
    tied=True,
    qkv_bias=False,
    out_bias=False,
    norms=("input_layernorm",),
    defaults={"head_dim": 128, "sliding_window": 4096},
)
MIX = Mix(width=("intermediate_size",), shared_count="num_shared_experts")

WINDOW_EDGE_TOKENS = 1
"""A sliding layer also sees the token at the window's edge: vLLM 0.32 `models/cohere2_moe.py`."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Cohere 2 mixture.

    Source: vLLM 0.32 `models/cohere2_moe.py`, transformers `configuration_cohere2_moe.py`.
    """
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    sizes = moe.read_experts(decoder.config, MIX)
    dense, sparse = _split(decoder)
    width = config.integer("prefix_dense_intermediate_size", default=0) or decoder.base.intermediate_size
    return _decoder.assemble(
        decoder,
        feed_forward=[
            *_decoder.mlp_weights(decoder, width, dense),
            *moe.mixture_weights(decoder, MIX, sizes, sparse),
        ],
        caches=_decoder.grouped_caches((window, decoder.heads) for window in _windows(decoder, len(dense))),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
    )


def _split(decoder: Decoder) -> tuple[_decoder.Layers, _decoder.Layers]:
    """The layers with a plain MLP, and those with experts."""
    layers = decoder.layers
    kinds = _decoder.layer_kinds(decoder.config, "mlp_layer_types", len(layers))
    first = decoder.config.integer("first_k_dense_replace", default=0)
    dense = tuple(layer for layer in layers if (kinds[layer] == "dense" if kinds else layer < first))
    return dense, tuple(layer for layer in layers if layer not in dense)


def _windows(decoder: Decoder, dense: int) -> tuple[int, ...]:
    """Layers without experts count their pattern apart."""
    config, count = decoder.config, len(decoder.layers)
    window = config.integer("sliding_window", default=0)
    kinds = _decoder.layer_kinds(config, "layer_types", count)
    if not window:
        return (0,) * count
    if kinds:
        slides = [kind == "sliding_attention" for kind in kinds]
    else:
        first = config.integer("prefix_dense_sliding_window_pattern", default=1, least=1)
        every = config.integer("sliding_window_pattern", default=4, least=1)
        slides = [(layer + 1) % first != 0 for layer in range(dense)]
        slides += [(layer + 1) % every != 0 for layer in range(count - dense)]
    return tuple((window + WINDOW_EDGE_TOKENS) * slide for slide in slides)
