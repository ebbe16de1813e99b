"""Granite Speech: Granite behind a conformer and a small query transformer that turns sounds into tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _qformer, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a Granite Speech config. Source: vLLM 0.32 `models/granite_speech.py`."""
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", "granite")
    )
    encoder, projector = config.section("encoder_config"), config.section("projector_config")
    towers = [*_conformer(encoder), *_projector(config, projector, text.hidden_size)]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _conformer(encoder: Config) -> list[Weight]:
    """Defaults of transformers `GraniteSpeechEncoderConfig`; batch norms keep two running means beside."""
    hidden = encoder.integer("hidden_dim", default=1024, least=1)
    layers = tuple(range(_towers.depth(encoder, "num_layers", default=10)))
    out = encoder.integer("output_dim", default=42, least=1)
    heads = encoder.integer("num_heads", default=8, least=1) * encoder.integer(
        "dim_head", default=128, least=1
    )
    middle = hidden * encoder.integer("conv_expansion_factor", default=2, least=1)
    kernel = encoder.integer("conv_kernel_size", default=15, least=1)
    body = "encoder.layers.{}"
    positions = 2 * encoder.integer("max_pos_emb", default=512, least=1) + 1
    weights = [
        *_towers.linear(
            "encoder.input_linear", hidden, encoder.integer("input_dim", default=160, least=1), "audio"
        ),
        *_towers.norm(f"{body}.attn.pre_norm", hidden, "audio", layers=layers),
        *_towers.linear(f"{body}.attn.to_q", heads, hidden, "audio", layers=layers, bias=False),
        *_towers.linear(f"{body}.attn.to_kv", 2 * heads, hidden, "audio", layers=layers, bias=False),
        *_towers.linear(f"{body}.attn.to_out", hidden, heads, "audio", layers=layers),
        _towers.table(
            f"{body}.attn.rel_pos_emb",
            (positions, encoder.integer("dim_head", default=128, least=1)),
            "audio",
            layers=layers,
        ),
        *_towers.norm(f"{body}.conv.norm", hidden, "audio", layers=layers),
        *_towers.convolution(f"{body}.conv.up_conv", (2 * middle, hidden, 1), "audio", layers=layers),
        *_towers.convolution(
            f"{body}.conv.depth_conv.conv", (middle, 1, kernel), "audio", bias=False, layers=layers
        ),
        *_towers.norm(f"{body}.conv.batch_norm", middle, "audio", layers=layers),
        *_towers.convolution(f"{body}.conv.down_conv", (hidden, middle, 1), "audio", layers=layers),
        *_towers.norm(f"{body}.post_norm", hidden, "audio", layers=layers),
    ]
    inner = hidden * encoder.integer("feedforward_mult", default=4, least=1)
    for name in ("ff1", "ff2"):
        weights += _towers.norm(f"{body}.{name}.pre_norm", hidden, "audio", layers=layers)
        weights += _towers.linear(f"{body}.{name}.up_proj", inner, hidden, "audio", "column", layers=layers)
        weights += _towers.linear(f"{body}.{name}.down_proj", hidden, inner, "audio", "row", layers=layers)
    weights += _towers.linear("encoder.out", out, hidden, "audio", "column")
    return [*weights, *_towers.linear("encoder.out_mid", hidden, out, "audio", "row")]


def _projector(config: Config, section: Config, text_size: int) -> list[Weight]:
    """A query transformer over short windows of sound."""
    hidden = _qformer.width_of(section)
    window = config.integer("window_size", default=15, least=1)
    queries = window // config.integer("downsample_rate", default=5, least=1)
    return [
        _towers.table("projector.query", (1, queries, hidden), "projector"),
        *_qformer.query_transformer("projector.qformer", section),
        *_towers.linear("projector.linear", text_size, hidden, "projector"),
    ]
