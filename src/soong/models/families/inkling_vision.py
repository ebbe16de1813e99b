"""Inkling with its towers: patches through a few folding linears, sounds through a table."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.families import _multimodal, _towers, inkling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

CHANNEL_STEP = 64
"""Channels of a fold are a multiple of this."""


class _Fold(NamedTuple):
    """How far frames, rows and columns are folded into channels by then."""

    frames: int
    edge: int
    channels: int

    @property
    def numbers(self) -> int:
        """Of the picture, in one cell."""
        return self.frames * self.edge**2


def read(config: Config) -> Architecture:
    """The architecture of an Inkling config; towers without a `decoder_dmodel` are not built.

    Source: vLLM 0.32 `models/inkling/common/towers.py`, `nvidia/model.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="model.llm", model_type="inkling_text")
    towers: list[Weight] = []
    for key, tower in (("vision_config", _vision), ("audio_config", _audio)):
        own = config.section(key)
        if own.values.get("decoder_dmodel"):
            towers += tower(own)
    drafts = config.section("mtp_config")
    count = drafts.integer("num_nextn_predict_layers", default=0)
    if count:
        towers += inkling.draft_weights(section, count, drafts.integers("local_layer_ids"))
    return replace(_multimodal.joined(config, text, towers), mtp_layers=count)


def _audio(audio: Config) -> list[Weight]:
    width = audio.integer("decoder_dmodel", least=1)
    rows = audio.integer("n_mel_bins", least=1) * audio.integer("mel_vocab_size", least=1)
    weights = [_towers.table("model.audio.encoder", (rows, width), part="audio")]
    if audio.flag("use_audio_norm"):
        weights += _towers.norm("model.audio.final_norm", width, bias=False, part="audio")
    return weights


def _vision(vision: Config) -> list[Weight]:
    width, count = vision.integer("decoder_dmodel", least=1), vision.integer("n_layers", least=1)
    path = "model.visual.layers"
    weights: list[Weight] = []
    for number, (start, end) in enumerate(pairwise(_folds(vision, count))):
        folded = start.channels * (end.numbers // start.numbers)
        last = number == count - 1
        out = width if last else end.channels
        weights += _towers.linear(f"{path}.linear_{number}", out, folded, "vision", bias=False)
        if not last:
            weights += _towers.norm(f"{path}.norm_{number}", out, bias=False)
    if vision.flag("use_vision_norm"):
        weights += _towers.norm("model.visual.final_norm", width, bias=False)
    return weights


def _folds(vision: Config, count: int) -> list[_Fold]:
    """The folds between `count` linears: those whose sizes come nearest to even steps (`plan_out_scales`)."""
    edge, frames = vision.integer("patch_size", least=2), vision.integer("temporal_patch_size", least=1)
    colours = vision.integer("n_channels", default=_towers.COLOURS, least=1)
    known = [_Fold(1, 1, colours)]
    for factor in _factors(edge):
        known.append(_fold(1, known[-1].edge * factor, colours))
    for factor in _factors(frames):
        known.append(_fold(known[-1].frames * factor, edge, colours))
    if count >= len(known):
        raise ConfigError(
            f"`{vision.where('n_layers')}` is {count}, more than patches of {edge} can be folded"
        )
    sizes = [math.log(fold.numbers) for fold in known]
    steps = [math.log(edge**2 * frames * colours) * step / count for step in range(count + 1)]

    def distance(chosen: Sequence[int]) -> float:
        return sum(abs(sizes[index] - step) for index, step in zip(chosen, steps, strict=True))

    nearest = min(combinations(range(len(known)), count + 1), key=distance)
    return [known[0], *(known[index] for index in nearest[1:-1]), known[-1]]


def _fold(frames: int, edge: int, colours: int) -> _Fold:
    channels = edge**2 * colours * frames
    return _Fold(frames, edge, -(-channels // CHANNEL_STEP) * CHANNEL_STEP)


def _factors(number: int) -> list[int]:
    """Prime factors, largest first."""
    found, factor = list[int](), 2
    while factor * factor <= number:
        if number % factor:
            factor += 1
        else:
            found.append(factor)
            number //= factor
    return sorted([*found, number] if number > 1 else found, reverse=True)
