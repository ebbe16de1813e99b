"""Qwen's omni models: the thinker hears, sees and writes; the talker, which speaks, is not served. And Qwen3-ASR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _multimodal, _towers, qwen_vl
from soong.models.rotary import VIDEO_FACTOR

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
    section = _multimodal.text_section(thinker)
    if thinker is not config and config.text("model_type") == "qwen2_5_omni":
        # The outermost class does not know the word, so that the text section's own class decides: tied.
        tied = section.flag("tie_word_embeddings", default=True)
        section = type(config)({**section.values, "tie_word_embeddings": tied}, section.address)
        thinker = type(config)(
            {key: value for key, value in thinker.values.items() if key != "tie_word_embeddings"},
            thinker.address,
        )
    text = _multimodal.read_text(thinker, section, prefix="thinker.model")
    vision, audio = thinker.section("vision_config"), thinker.section("audio_config")
    if config.text("model_type") == "qwen3_asr":  # a thinker without eyes: vLLM 0.33 `qwen3_asr.py`
        heard = _audio_3("thinker.audio_tower", audio)
        return _with_positions(_multimodal.joined(config, text, heard, head="thinker.lm_head"), audio, text)
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
    whole = replace(whole, input_buffer_numbers=qwen_vl.deepstack_numbers(vision, 3, text.hidden_size))
    # Unlike Qwen3-VL's, its table reaches four times as far: vLLM 0.33 `qwen3_omni_moe_thinker.py`.
    return _with_positions(whole, audio, replace(text, rotary_bytes=VIDEO_FACTOR * text.rotary_bytes))


def _with_positions(whole: Architecture, audio: Config, text: Architecture) -> Architecture:
    """With the table of sines that Qwen3's audio encoder keeps in float32."""
    width = audio.integer("d_model", default=1280, least=1)
    sines = 4 * width * audio.integer("max_source_positions", default=1500)
    return replace(
        whole,
        rotary_bytes=text.rotary_bytes + sines,
        early_rotary_bytes=whole.early_rotary_bytes + sines,
        tower_tables_bytes=sines,
    )


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
    heads = audio.integer("encoder_attention_heads", default=20, least=1)
    layers = _towers.encoder(f"{prefix}.layers.{{}}", layer, _towers.audio_sizes(audio))
    return [
        *_towers.convolution(f"{prefix}.conv2d1", (channels, 1, 3, 3), "audio"),
        *_towers.convolution(f"{prefix}.conv2d2", (channels, channels, 3, 3), "audio"),
        *_towers.convolution(f"{prefix}.conv2d3", (channels, channels, 3, 3), "audio"),
        *_towers.linear(f"{prefix}.conv_out", width, channels * bins, "audio", bias=False),
        *(replace(weight, whole_unless=heads, linear=False) for weight in layers),
        *_towers.norm(f"{prefix}.ln_post", width, "audio"),
        *_towers.linear(f"{prefix}.proj1", width, width, "audio"),
        *_towers.linear(f"{prefix}.proj2", out, width, "audio"),
    ]
