"""MOSS-Transcribe-Diarize: Whisper's encoder, four of its frames merged into one, before a Qwen3 decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a MOSS-Transcribe-Diarize config.

    Source: vLLM 0.32 `models/moss_transcribe_diarize.py`, `transformers_utils/configs/moss_transcribe_diarize.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="language_model.model", model_type="qwen3")
    audio = config.section("audio_config")
    width = _towers.audio_sizes(audio).hidden
    frames = config.integer("audio_merge_size", default=4, least=1)
    merged = config.integer("adaptor_input_dim", default=width * frames, least=1)
    tower, adaptor = "whisper_encoder", "vq_adaptor.layers"
    positions = audio.integer("max_source_positions", default=1500, least=1)
    towers = [
        *_towers.audio_tower(tower, audio),
        _towers.table(f"{tower}.embed_positions", (positions, width), "audio"),
        *_towers.norm(f"{tower}.layer_norm", width, "audio"),
        *_towers.linear(f"{adaptor}.0", text.hidden_size, merged, "projector"),
        *_towers.linear(f"{adaptor}.2", text.hidden_size, text.hidden_size, "projector"),
        *_towers.norm(f"{adaptor}.3", text.hidden_size, "projector"),
    ]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")
