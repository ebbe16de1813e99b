"""Llama-Nemotron (DeciLM): a Llama pruned by search, where each layer has its own heads and width, or neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.config_json import Config
from soong.models.families import _decoder
from soong.models.families._decoder import Decoder, Heads, Layers
from soong.models.families.llama import LLAMA

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight

WIDTH_STEP = 256
"""Widths are rounded up to it: vLLM 0.33 `models/nemotron_nas.py` `_ffn_mult_to_intermediate_size`."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a config with `block_configs`.

    Source: vLLM 0.33 `models/nemotron_nas.py`.
    """
    decoder = _decoder.open_decoder(config, LLAMA, prefix)
    blocks = _blocks(config, decoder.base.layers)
    by_kv: dict[int, list[int]] = {}
    by_width: dict[int, list[int]] = {}
    for layer, block in enumerate(blocks):
        kv_heads, width = _kv_heads(block, decoder.heads.query), _width(block, decoder.base.hidden_size)
        if kv_heads:
            by_kv.setdefault(kv_heads, []).append(layer)
        if width:
            by_width.setdefault(width, []).append(layer)
    attention: list[Weight] = []
    for kv_heads, layers in by_kv.items():
        attention += _decoder.attention_weights(decoder, _heads(decoder, kv_heads), tuple(layers))
    feed_forward: list[Weight] = []
    for width, layers in by_width.items():
        feed_forward += _decoder.mlp_weights(decoder, width, tuple(layers))
    attended = _numbers(by_kv)
    return _decoder.assemble(
        _without_norms(decoder),
        attention=attention,
        feed_forward=feed_forward,
        extra=_norms(decoder, attended, _numbers(by_width)),
        caches=_decoder.grouped_caches(
            (0, _heads(decoder, kv_heads)) for kv_heads, layers in by_kv.items() for _ in layers
        ),
        intermediate_size=max(by_width, default=0),
    )


def _blocks(config: Config, layers: int) -> list[Config]:
    blocks = config.values.get("block_configs")
    if (
        not isinstance(blocks, list)
        or len(blocks) < layers
        or not all(isinstance(one, dict) for one in blocks)
    ):
        raise ConfigError(
            f"`{config.where('block_configs')}` must list a block for each of the {layers} layers"
        )
    return [
        Config(block, config.where(f"block_configs[{layer}]")) for layer, block in enumerate(blocks[:layers])
    ]


def _kv_heads(block: Config, query: int) -> int:
    attention = block.section("attention")
    if attention.flag("no_op"):
        return 0
    _refuse_linear(attention)
    return max(1, query // attention.integer("n_heads_in_group", least=1))


def _width(block: Config, hidden_size: int) -> int:
    part = block.section("ffn")
    if part.flag("no_op"):
        return 0
    _refuse_linear(part)
    given = part.integer("intermediate_size", default=0)
    inner = given or int(2 * part.number("ffn_mult", 1.0) * hidden_size / 3)
    return inner if given else -(-inner // WIDTH_STEP) * WIDTH_STEP


def _refuse_linear(part: Config) -> None:
    if part.flag("replace_with_linear"):
        raise ConfigError(f"`{part.where('replace_with_linear')}` is set, which no engine serves")


def _heads(decoder: Decoder, kv_heads: int) -> Heads:
    own = decoder.heads
    return Heads(hidden_size=own.hidden_size, query=own.query, kv=kv_heads, size=own.size)


def _numbers(groups: dict[int, list[int]]) -> Layers:
    return tuple(sorted(layer for layers in groups.values() for layer in layers))


def _without_norms(decoder: Decoder) -> Decoder:
    from msgspec.structs import replace

    return replace(decoder, build=replace(decoder.build, norms=()))


def _norms(decoder: Decoder, attended: Layers, wide: Layers) -> list[Weight]:
    """A norm stands only before what is there."""
    from soong.models.families import _parts

    weights: list[Weight] = []
    for name, layers in zip(decoder.build.norms, (attended, wide), strict=True):
        if layers:
            weights += _parts.norm(f"{decoder.body}.{name}", decoder.base.hidden_size, layers=layers)
    return weights
