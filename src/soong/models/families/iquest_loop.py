"""IQuest-LoopCoder: Llama's layers run several times; every later pass sees a short window beside the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _decoder, _parts
from soong.models.families.llama import LLAMA

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

PASSES = 2
WINDOW_TOKENS = 64
"""What vLLM assumes where the config is silent: 0.33 `models/iquest_loopcoder.py` LoopCoderAttention."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of an IQuest-LoopCoder config.

    Source: vLLM 0.33 `models/iquest_loopcoder.py`: each pass has a cache of its own, only the first a full one, and a
    gate per layer and head mixes the two.
    """
    decoder = _decoder.open_decoder(config, replace(LLAMA, window_rule="none"), prefix)
    heads, layers = decoder.heads, decoder.base.layers
    passes = config.integer("loop_num", default=PASSES, least=1)
    window = config.integer("loop_window_size", default=WINDOW_TOKENS, least=1)
    windows = [0] * layers + [window] * (layers * (passes - 1))
    gate = _parts.linear(
        f"{prefix}.gate_projections.{{}}.gate_proj",
        heads.query,
        heads.size,
        "attention",
        "column",
        layers=decoder.layers,
        bias=True,
    )
    return _decoder.assemble(
        decoder,
        extra=[replace(weight, linear=False) for weight in gate],
        caches=_decoder.grouped_caches((own, heads) for own in windows),
    )
