"""HRM-Text: two small stacks of layers, a slow and a fast one, that take turns over the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _common, _decoder, _parts
from soong.models.families._decoder import Build

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

BUILD = Build(norms=(), final_norm="", mlp_bias="mlp_bias")
STACKS = ("L_module", "H_module")


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of an HRM-Text config.

    Source: vLLM 0.33 `models/hrm_text.py`: queries, keys and values with a gate of the queries' size before them; each
    pass over a layer has a cache of its own, which `num_hidden_layers` counts.
    """
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    heads, hidden = decoder.heads, decoder.base.hidden_size
    layers = tuple(range(config.integer("num_layers_per_stack", default=16, least=1)))
    weights: list[Weight] = [
        _parts.embedding(f"{prefix}.embed_tokens", decoder.base.vocab_size, hidden),
        _parts.vector(f"{prefix}.z_L_init", hidden, "other"),
    ]
    for stack in STACKS:
        body = f"{prefix}.{stack}.layers.{{}}"
        weights += _decoder.attention_weights(decoder, heads, layers, body=body)
        weights += _parts.linear(
            f"{body}.self_attn.gate_proj",
            heads.query * heads.size,
            hidden,
            "attention",
            "column",
            layers=layers,
        )
        weights += _decoder.mlp_weights(decoder, decoder.base.intermediate_size, layers, body=body)
    weights += _parts.lm_head(decoder.base.vocab_size, hidden, tied=decoder.base.tied)
    return _common.architecture(
        config,
        decoder.base,
        heads=heads.query,
        weights=tuple(weights),
        caches=_decoder.grouped_caches((0, heads) for _ in decoder.layers),
    )
