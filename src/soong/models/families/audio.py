"""Language models that hear through a Whisper encoder: Qwen2-Audio and Voxtral."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a Qwen2-Audio or Voxtral config.

    Source of the shapes: transformers `modeling_qwen2_audio.py`, `modeling_voxtral.py`; of their sharding:
    vLLM `qwen2_audio.py`, `voxtral.py`.
    """
    section = _multimodal.text_section(config)
    default = "qwen2" if config.text("model_type") == "qwen2_audio" else "llama"
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", default)
    )
    audio = config.section("audio_config")
    size = _towers.audio_sizes(audio)
    positions = audio.integer("max_source_positions", default=1500)
    towers = [
        *_towers.audio_tower("audio_tower", audio, split=default != "qwen2"),
        _towers.table("audio_tower.embed_positions", (positions, size.hidden), "audio"),
        *_towers.norm("audio_tower.layer_norm", size.hidden, "audio"),
        *_projector(default, size, text.hidden_size),
    ]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _projector(text_kind: str, size: _towers.Sizes, text_size: int) -> list[Weight]:
    """One matrix in Qwen2-Audio; two in Voxtral, which stacks frames up to the encoder's inner width."""
    if text_kind == "qwen2":
        return _towers.linear("multi_modal_projector.linear", text_size, size.hidden, "projector")
    return _towers.two_linears(
        "multi_modal_projector", size.inner, text_size, text_size, bias=False, split=False
    )
