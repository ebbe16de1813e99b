"""Ultravox: a Whisper encoder and a projector in front of any language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of an Ultravox config whose text section states the language model's sizes.

    Source of the shapes and their sharding: vLLM `ultravox.py`, `whisper.py`, `configs/ultravox.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", "llama")
    )
    audio = config.section("audio_config")
    size = _towers.audio_sizes(audio)
    towers = [
        *_towers.audio_tower("audio_tower", audio),
        _towers.table(
            "audio_tower.embed_positions",
            (audio.integer("max_source_positions", default=1500), size.hidden),
            "audio",
        ),
        *_towers.norm("audio_tower.layer_norm", size.hidden, "audio"),
        *_projector(config, size.hidden, text.hidden_size),
    ]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _projector(config: Config, audio_size: int, text_size: int) -> list[Weight]:
    """The feed-forward projector; `projector_ln_mid` came with version 0.5."""
    stacked = audio_size * config.integer("stack_factor", default=8, least=1)
    hidden = config.integer("hidden_size", default=4096, least=1)
    middle = hidden // 2 if config.text("projector_act", "swiglu") == "swiglu" else hidden
    prefix = "multi_modal_projector"
    early = config.flag("projector_ln_mid")
    return [
        *_towers.norm(f"{prefix}.ln_pre", stacked, "projector", bias=False),
        *_towers.linear(f"{prefix}.linear_1", hidden, stacked, "projector", bias=False),
        *_towers.linear(f"{prefix}.linear_2", text_size, middle, "projector", bias=False),
        *_towers.norm(
            f"{prefix}.{'ln_mid' if early else 'ln_post'}",
            middle if early else text_size,
            "projector",
            bias=False,
        ),
    ]
