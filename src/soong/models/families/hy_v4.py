"""Hunyuan 4: sparse MLA with sinks and an output gate, in hyper-connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _parts, deepseek

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

DEFAULT_STREAMS = 4


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Hunyuan 4 config. Source: vLLM 0.32 `models/hy_v4/nvidia/`."""
    plain = deepseek.read(_with_pattern(config), prefix)
    layers = tuple(range(config.layers()))
    body, hidden_size = f"{prefix}.layers.{{}}", plain.hidden_size
    width = plain.attention_heads * config.integer("v_head_dim", least=1)
    gate = _parts.linear(
        f"{body}.self_attn.linear_gate", width, hidden_size, "attention", "column", layers=layers
    )
    sink = _parts.vector(
        f"{body}.self_attn.learnable_sink_param",
        plain.attention_heads,
        "attention",
        "column",
        layers=layers,
        dtype="float32",
    )
    return replace(
        plain,
        weights=(
            *map(_with_precise_router, plain.weights),
            *gate,
            sink,
            *_connections(config, prefix, hidden_size, layers),
        ),
    )


def _with_pattern(config: Config) -> Config:
    """The config with its list of indexers as DeepSeek writes it."""
    kinds = config.texts("indexer_types")
    if not kinds:
        return config
    pattern = ["F" if kind == "full" else "S" for kind in kinds]
    return type(config)({**config.values, "index_topk_pattern": pattern}, config.address)


def _with_precise_router(weight: Weight) -> Weight:
    return replace(weight, dtype="float32") if weight.part == "router" else weight


def _connections(config: Config, prefix: str, hidden_size: int, layers: tuple[int, ...]) -> list[Weight]:
    """What mixes the streams before and after each block, in float32."""
    streams = config.integer("hc_mult", default=DEFAULT_STREAMS, least=1)
    weights: list[Weight] = []
    for name in ("hc_attn_layer", "hc_mlp_layer"):
        path = f"{prefix}.layers.{{}}.{name}.hc_pre"
        weights += _mix(path, "hc", (2 * streams, streams * hidden_size), 2, layers)
    return [
        *weights,
        *_mix(f"{prefix}.hc_head", "hc_head", (streams, streams * hidden_size), 1, ()),
    ]


def _mix(
    path: str, name: str, shape: tuple[int, int], scales: int, layers: tuple[int, ...]
) -> tuple[Weight, Weight, Weight]:
    return (
        _parts.matrix(f"{path}.{name}_fn", shape, "other", layers=layers, dtype="float32"),
        _parts.vector(f"{path}.{name}_base", shape[0], "other", layers=layers, dtype="float32"),
        _parts.vector(f"{path}.{name}_scale", scales, "other", layers=layers, dtype="float32"),
    )
