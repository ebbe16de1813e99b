"""MiniCPM-V and MiniCPM-o: SigLIP, a resampler of learned queries, and for sounds a Whisper encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

LANGUAGE_MODELS = {"2.0": "minicpm", "2.5": "llama", "2.6": "qwen2", "4.0": "llama", "4.5": "qwen3"}
"""By the repository's `version`: vLLM 0.32 `models/minicpmv.py` _SUPPORT_VERSION."""

SIDE_PATCHES = 70
"""The resampler's table of positions: 980 pixels in patches of 14."""

VIDEO_POSITIONS = 36000
"""Seconds that the 3D resampler tells apart: `models/minicpmv.py` Resampler4_5."""

POOLED_WIDTHS = 2


def read(config: Config) -> Architecture:
    """The architecture of a MiniCPM-V or MiniCPM-o config.

    Source: vLLM 0.32 `models/minicpmv.py`, `models/minicpmo.py`, `models/idefics2_vision_model.py`.
    """
    version = _version(config)
    text = _multimodal.read_text(
        config, config, prefix="llm.model", model_type=LANGUAGE_MODELS.get(version, "qwen3")
    )
    towers = [
        *_tower(config, config.section("vision_config")),
        *_resampler(config, text.hidden_size),
        *(_ear(config.section("audio_config"), text.hidden_size) if _hears(config) else ()),
    ]
    model = _multimodal.joined(config, text, towers, head="llm.lm_head")
    positions = SIDE_PATCHES**2 + (VIDEO_POSITIONS if version == "4.5" else 0)
    tables = 2 * positions * text.hidden_size
    return replace(
        model,
        rotary_bytes=model.rotary_bytes + tables,
        early_rotary_bytes=model.early_rotary_bytes + tables,
        tower_tables_bytes=tables,
    )


def _version(config: Config) -> str:
    if "version" in config:
        return f"{float(config.number('version', 0)):.1f}"
    first = config.integer("hidden_size", default=0) == 2304 and config.integer("query_num", default=0) == 64
    return "2.0" if first else "2.5"


def _hears(config: Config) -> bool:
    return config.text("model_type") == "minicpmo" and config.flag("init_audio", default=True)


def _tower(config: Config, vision: Config) -> list[Weight]:
    """Defaults of transformers `SiglipVisionConfig`; some models leave the last layer out."""
    size = _towers.sizes(vision, hidden=768, inner=3072, depth=12, heads=12)
    served = size.depth - config.flag("drop_vision_last_layer")
    return [
        *_towers.convolution(
            "vpm.embeddings.patch_embedding", _towers.patches(vision, size.hidden, patch=16)
        ),
        _towers.table(
            "vpm.embeddings.position_embedding", (_towers.grid(vision, image=224, patch=16), size.hidden)
        ),
        *_towers.encoder("vpm.encoder.layers.{}", _towers.CLIP, size, served=served),
        *_towers.norm("vpm.post_layernorm", size.hidden),
    ]


def _resampler(config: Config, text_size: int) -> list[Weight]:
    """Learned queries look at the patches; every GPU holds all of it."""
    width = config.section("vision_config").integer("hidden_size", default=768, least=1)
    weights = [
        _towers.table(
            "resampler.query", (config.integer("query_num", default=64, least=1), text_size), "projector"
        ),
        _towers.table("resampler.proj", (text_size, text_size), "projector"),
        _towers.table("resampler.attn.in_proj_weight", (3 * text_size, text_size), "projector"),
        _towers.vector("resampler.attn.in_proj_bias", 3 * text_size, "projector"),
        *_towers.linear("resampler.attn.out_proj", text_size, text_size, "projector"),
    ]
    if width != text_size:
        weights += _towers.linear("resampler.kv_proj", text_size, width, "projector", bias=False)
    for name in ("ln_q", "ln_kv", "ln_post"):
        weights += _towers.norm(f"resampler.{name}", text_size, "projector")
    return weights


def _ear(audio: Config, text_size: int) -> list[Weight]:
    """Whisper's encoder as transformers runs it, whole on every GPU, and a projector of two matrices."""
    size = _towers.audio_sizes(audio)
    positions = audio.integer("max_source_positions", default=1500, least=1)
    return [
        *_towers.audio_tower("apm", audio, split=False),
        _towers.table("apm.embed_positions", (positions, size.hidden), "audio"),
        *_towers.norm("apm.layer_norm", size.hidden, "audio"),
        *_towers.two_linears(
            "audio_projection_layer",
            size.inner // 4,
            text_size,
            text_size,
            split=False,
            names=("linear1", "linear2"),
        ),
    ]
