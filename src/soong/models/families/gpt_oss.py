"""gpt-oss: biases everywhere, a sink per head, and experts that stand fused in one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import Weight
from soong.models.families import _decoder, _parts
from soong.models.families._decoder import Build, Decoder

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

BUILD = Build(
    window_every=2,
    defaults={"attention_bias": True, "head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128},
)


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a gpt-oss config.

    Source: transformers `modeling_gpt_oss.py`, vLLM 0.33 `models/gpt_oss.py`.
    """
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    count = config.integer("num_local_experts", least=1)
    per_token = config.integer("num_experts_per_tok", "experts_per_token", least=1)
    layers, body = decoder.layers, decoder.body
    sinks = _parts.vector(
        f"{body}.self_attn.sinks", decoder.heads.query, "attention", "column", layers=layers
    )
    return _decoder.assemble(
        decoder,
        feed_forward=[
            *_parts.router(f"{body}.mlp.router", count, decoder.base.hidden_size, layers=layers, bias=True),
            *_experts(decoder, count, per_token),
        ],
        extra=[sinks],
        experts=count,
        experts_per_token=per_token,
    )


def _experts(decoder: Decoder, count: int, per_token: int) -> list[Weight]:
    hidden_size, width = decoder.base.hidden_size, decoder.base.intermediate_size
    prefix = f"{decoder.body}.mlp.experts"
    gate_up, down = "gate_up_proj", "down_proj"
    weights = _parts.experts(
        prefix,
        count=count,
        per_token=per_token,
        hidden_size=hidden_size,
        intermediate_size=width,
        layers=decoder.layers,
        names=(gate_up, gate_up, down),
    )
    biases = ((gate_up, width, "column"), (gate_up, width, "column"), (down, hidden_size, "replicated"))
    weights += (
        Weight(
            path=f"{prefix}.0.{name}.bias",
            shape=(size,),
            part="experts",
            shard="column" if shard == "column" else "replicated",
            layers=decoder.layers,
            copies=count,
            active_copies=per_token,
        )
        for name, size, shard in biases
    )
    return weights
