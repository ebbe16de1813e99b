"""Language models that hear through a Whisper-like encoder: Qwen2-Audio, Voxtral, Audio Flamingo 3, GLM-ASR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

TEXT_KINDS = {"qwen2_audio": "qwen2", "audioflamingo3": "qwen2", "musicflamingo": "qwen2"}
"""What the text section is where it does not say; Llama else."""

TEXT_SIZES = {
    "voxtral": {
        "vocab_size": 131072,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 30,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "head_dim": 128,
    },
    "glmasr": {
        "vocab_size": 59264,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
    },
}
"""What the whole model's class assumes of its text section: transformers 5 `configuration_voxtral.py`,
`configuration_glmasr.py`."""

_GLM = _towers.Layer(out="o_proj", norms=("input_layernorm", "post_attention_layernorm"))


def read(config: Config) -> Architecture:
    """The architecture of a config with a Whisper-like encoder.

    Source of the shapes: transformers `modeling_qwen2_audio.py`, `modeling_voxtral.py`,
    `modeling_audioflamingo3.py`, `modeling_glmasr.py`; of their sharding: vLLM `qwen2_audio.py`, `voxtral.py`,
    `audioflamingo3.py`, `glmasr.py`.
    """
    section, kind = _multimodal.text_section(config), config.text("model_type")
    text = _multimodal.read_text(
        config,
        section,
        prefix="language_model.model",
        model_type=section.text("model_type", TEXT_KINDS.get(kind, "llama")),
        defaults=TEXT_SIZES.get(kind),
    )
    audio = config.section("audio_config")
    size = _towers.audio_sizes(audio)
    heard = _glm_encoder(audio, size) if kind == "glmasr" else _whisper(audio, size, split=kind == "voxtral")
    towers = [*heard, *_projector(config, kind, size, text.hidden_size)]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _whisper(audio: Config, size: _towers.Sizes, *, split: bool) -> list[Weight]:
    positions = audio.integer("max_source_positions", default=1500)
    return [
        *_towers.audio_tower("audio_tower", audio, split=split),
        _towers.table("audio_tower.embed_positions", (positions, size.hidden), "audio"),
        *_towers.norm("audio_tower.layer_norm", size.hidden, "audio"),
    ]


def _glm_encoder(audio: Config, size: _towers.Sizes) -> list[Weight]:
    """Whisper's convolutions before layers that turn half of each head: transformers `modeling_glmasr.py`."""
    bins = audio.integer("num_mel_bins", default=128, least=1)
    return [
        *_towers.convolution("audio_tower.conv1", (size.hidden, bins, 3), "audio"),
        *_towers.convolution("audio_tower.conv2", (size.hidden, size.hidden, 3), "audio"),
        *_towers.encoder("audio_tower.layers.{}", _GLM, size),
        *_towers.norm("audio_tower.norm", size.hidden, "audio"),
    ]


def _projector(config: Config, kind: str, size: _towers.Sizes, text_size: int) -> list[Weight]:
    """One matrix in Qwen2-Audio; two in the others; Voxtral and GLM-ASR stack frames up to the inner width."""
    path = "multi_modal_projector"
    if kind == "qwen2_audio":
        return _towers.linear(f"{path}.linear", text_size, size.hidden, "projector")
    if kind == "glmasr":
        return _towers.two_linears(path, size.inner, 2 * text_size, text_size)
    if kind == "voxtral":
        return _towers.two_linears(path, size.inner, text_size, text_size, bias=False, split=False)
    bias = config.flag("projector_bias", default=True)
    return _towers.two_linears(path, size.hidden, text_size, text_size, bias=bias, split=False)
