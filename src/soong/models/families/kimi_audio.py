"""Kimi-Audio: Whisper large v3, four frames side by side, a small adaptor, Qwen2; the speaking half is not served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

WHISPER_LARGE_V3 = _towers.Sizes(hidden=1280, inner=5120, depth=32, part="audio")
MEL_BINS, POSITIONS = 128, 1500
"""The repository keeps the encoder's own config in a folder of that name: vLLM 0.33 `models/kimi_audio.py`."""

ADAPTOR_INPUT = 5120


def read(config: Config) -> Architecture:
    """The architecture of a Kimi-Audio config, whose text sizes stand at top level."""
    text = _multimodal.read_text(config, config, prefix="language_model.model", model_type="qwen2")
    towers = [*_ear(), *_adaptor(config, text.hidden_size)]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _ear() -> list[Weight]:
    width, layer = WHISPER_LARGE_V3.hidden, replace(_towers.WHISPER, key_bias=True)
    return [
        *_towers.convolution("audio_tower.conv1", (width, MEL_BINS, 3), "audio"),
        *_towers.convolution("audio_tower.conv2", (width, width, 3), "audio"),
        _towers.table("audio_tower.embed_positions", (POSITIONS, width), "audio"),
        *_towers.encoder("audio_tower.layers.{}", layer, WHISPER_LARGE_V3),
        *_towers.norm("audio_tower.layer_norm", width, "audio"),
    ]


def _adaptor(config: Config, text_size: int) -> list[Weight]:
    heard = config.integer("kimia_adaptor_input_dim", default=ADAPTOR_INPUT, least=1)
    path = "multi_modal_projector.vq_adaptor_layers"
    return [
        *_towers.linear(f"{path}_0", text_size, heard, "projector"),
        *_towers.linear(f"{path}_3", text_size, text_size, "projector"),
        *_towers.norm(f"{path}_4", text_size, "projector"),
    ]
