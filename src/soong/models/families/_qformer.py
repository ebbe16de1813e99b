"""BLIP-2's query transformer: a few learned questions that attend to what a tower saw or heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _towers

if TYPE_CHECKING:
    from soong.models.architecture import Weight
    from soong.models.config_json import Config


def width_of(section: Config) -> int:
    """The query transformer's hidden size."""
    return section.integer("hidden_size", default=768, least=1)


def query_transformer(path: str, section: Config) -> list[Weight]:
    """Its weights, whole on every GPU; defaults of transformers `Blip2QFormerConfig`.

    Source: vLLM 0.33 `models/blip2.py` Blip2QFormerModel.
    """
    hidden = width_of(section)
    inner = section.integer("intermediate_size", default=3072, least=1)
    layers = tuple(range(_towers.depth(section, "num_hidden_layers", default=12)))
    every = section.integer("cross_attention_frequency", default=2, least=1)
    crossed = tuple(layer for layer in layers if layer % every == 0)
    width = section.integer("encoder_hidden_size", default=1408, least=1)
    body = f"{path}.encoder.layer.{{}}"
    return [
        *_towers.norm(f"{path}.layernorm", hidden, "projector"),
        *_attention(f"{body}.attention", hidden, hidden, layers),
        *_attention(f"{body}.crossattention", hidden, width, crossed),
        *_towers.linear(f"{body}.intermediate_query.dense", inner, hidden, "projector", layers=layers),
        *_towers.linear(f"{body}.output_query.dense", hidden, inner, "projector", layers=layers),
        *_towers.norm(f"{body}.output_query.LayerNorm", hidden, "projector", layers=layers),
    ]


def _attention(path: str, hidden: int, width: int, layers: tuple[int, ...]) -> list[Weight]:
    """Queries from `hidden`, keys and values from `width` numbers."""
    return [
        *_towers.linear(f"{path}.attention.query", hidden, hidden, "projector", layers=layers),
        *_towers.linear(f"{path}.attention.key", hidden, width, "projector", layers=layers),
        *_towers.linear(f"{path}.attention.value", hidden, width, "projector", layers=layers),
        *_towers.linear(f"{path}.output.dense", hidden, hidden, "projector", layers=layers),
        *_towers.norm(f"{path}.output.LayerNorm", hidden, "projector", layers=layers),
    ]
