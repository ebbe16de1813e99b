"""Qwen's omni models: the thinker hears, sees and writes; the talker, which speaks, is not served. And Qwen3-ASR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _multimodal, _towers, qwen_vl

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The thinker of a Qwen omni config, which is what vLLM serves.

    Source of the shapes: transformers `modeling_qwen2_5_omni.py`, `modeling_qwen3_omni_moe.py`; of their
    sharding: vLLM `qwen2_5_omni_thinker.py`, `qwen3_omni_moe_thinker.py`. Speech output (talker and
    vocoder) is left out: no engine that serves text loads it.
    """
    thinker = config.section("thinker_config") if "thinker_config" in config else config
    text = _multimodal.read_text(thinker, _multimodal.text_section(thinker), prefix="thinker.model")
    vision, audio = thinker.section("vision_config"), thinker.section("audio_config")
    if config.text("model_type") == "qwen3_asr":  # a thinker without eyes: vLLM 0.33 `qwen3_asr.py`
        heard = _audio_3("thinker.audio_tower", audio)
        return _multimodal.joined(config, text, heard, head="thinker.lm_head")
    if config.text("model_type").startswith("qwen2_5"):
        towers = [
            *qwen_vl.tower_2_5("thinker.visual", vision),
            *_towers.audio_tower("thinker.audio_tower", audio, split=False),
        ]
        towers += _ending_2_5("thinker.audio_tower", audio)
    else:
        towers = qwen_vl.tower_3("thinker.visual", vision, deepstack=3, omni=True)
        towers += _audio_3("thinker.audio_tower", audio)
    whole = _multimodal.joined(config, text, towers, head="thinker.lm_head")
    if config.text("model_type").startswith("qwen2_5"):
        return whole
    return replace(whole, input_buffer_numbers=qwen_vl.deepstack_numbers(vision, 3, text.hidden_size))


def _ending_2_5(prefix: str, audio: Config) -> list[Weight]:
    width = audio.integer("d_model", default=1280, least=1)
    out = audio.integer("output_dim", default=3584, least=1)
    return [
        *_towers.norm(f"{prefix}.ln_post", width, "audio"),
        *_towers.linear(f"{prefix}.proj", out, width, "audio"),
        _towers.table(f"{prefix}.audio_bos_eos_token", (2, out), "audio"),
    ]


def _audio_3(prefix: str, audio: Config) -> list[Weight]:
    """Qwen3-Omni's audio encoder: three strided 2-D convolutions, which leave an eighth of the mel bins."""
    width = audio.integer("d_model", default=1280, least=1)
    channels = audio.integer("downsample_hidden_size", default=480, least=1)
    bins = audio.integer("num_mel_bins", default=128, least=1)
    for _ in range(3):
        bins = (bins + 1) // 2
    out = audio.integer("output_dim", default=3584, least=1)
    layer = _towers.Layer(mlp="", norms=("self_attn_layer_norm", "final_layer_norm"))
    return [
        *_towers.convolution(f"{prefix}.conv2d1", (channels, 1, 3, 3), "audio"),
        *_towers.convolution(f"{prefix}.conv2d2", (channels, channels, 3, 3), "audio"),
        *_towers.convolution(f"{prefix}.conv2d3", (channels, channels, 3, 3), "audio"),
        *_towers.linear(f"{prefix}.conv_out", width, channels * bins, "audio", bias=False),
        *_towers.encoder(f"{prefix}.layers.{{}}", layer, _towers.audio_sizes(audio)),
        *_towers.norm(f"{prefix}.ln_post", width, "audio"),
        *_towers.linear(f"{prefix}.proj1", width, width, "audio"),
        *_towers.linear(f"{prefix}.proj2", out, width, "audio"),
    ]
