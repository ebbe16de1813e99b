"""Gemma 3n: a convolutional eye and a conformer ear before a language model with inputs per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

MOBILENET_NUMBERS = 294_126_912
"""Parameters of `mobilenetv5_300m_enc`, the one tower that Gemma 3n uses: counted in vLLM 0.32's own model."""


def read(config: Config) -> Architecture:
    """The architecture of a Gemma 3n config.

    Source: vLLM 0.32 `models/gemma3n_mm.py`, transformers `modeling_gemma3n.py`.
    """
    text = _multimodal.read_text(
        config, _multimodal.text_section(config), prefix="model.language_model", model_type="gemma3n_text"
    )
    vision, audio = config.section("vision_config"), config.section("audio_config")
    towers = [
        _towers.table("model.vision_tower.timm_model", (MOBILENET_NUMBERS,)),
        *_audio(audio),
        *_embedder("model.embed_vision", vision, 2048, text.hidden_size),
        *_embedder("model.embed_audio", audio, 1536, text.hidden_size),
    ]
    return _multimodal.joined(config, text, towers)


def _embedder(path: str, section: Config, width: int, text_size: int) -> list[Weight]:
    """Tokens of a tower's own vocabulary, two norms and a projection; `width` is the class's default."""
    width = section.integer("hidden_size", default=width, least=1)
    rows = section.integer("vocab_size", default=128, least=1)
    return [
        _parts.matrix(f"{path}.embedding", (rows, width), "projector", "vocab"),
        *_parts.norm(f"{path}.hard_embedding_norm", width),
        *_parts.norm(f"{path}.soft_embedding_norm", width),
        *_towers.linear(f"{path}.embedding_projection", text_size, width, "projector", "row", bias=False),
    ]


def _audio(audio: Config) -> list[Weight]:
    """A conformer behind two strided convolutions, whole on every GPU."""
    path, width = "model.audio_tower", audio.integer("hidden_size", default=1536, least=1)
    first, second = _towers.positive(audio, "sscp_conv_channel_size", (128, 32))[:2]
    bins = audio.integer("input_feat_size", default=128, least=1) // 4
    layers = tuple(range(_towers.depth(audio, "conf_num_hidden_layers", default=12)))
    heads = audio.integer("conf_num_attention_heads", default=8, least=1)
    kernel = audio.integer("conf_conv_kernel_size", default=5, least=1)
    body = f"{path}.conformer.{{}}"
    weights = [
        *_towers.convolution(
            f"{path}.subsample_conv_projection.conv_0.conv", (first, 1, 3, 3), "audio", bias=False
        ),
        *_towers.convolution(
            f"{path}.subsample_conv_projection.conv_1.conv", (second, first, 3, 3), "audio", bias=False
        ),
        _towers.vector(f"{path}.subsample_conv_projection.conv_0.norm", first, "audio"),
        _towers.vector(f"{path}.subsample_conv_projection.conv_1.norm", second, "audio"),
        *_towers.linear(
            f"{path}.subsample_conv_projection.input_proj_linear", width, second * bins, "audio", bias=False
        ),
        *_towers.convolution(
            f"{body}.lconv1d.depthwise_conv1d", (width, 1, kernel), "audio", bias=False, layers=layers
        ),
        _towers.vector(f"{body}.attention.attn.per_dim_scale", width // heads, "audio", layers=layers),
    ]
    for name, rows, columns in _matrices(width):
        weights += _towers.linear(f"{body}.{name}", rows, columns, "audio", layers=layers, bias=False)
    return weights + [_towers.vector(f"{body}.{name}", width, "audio", layers=layers) for name in _NORMS]


def _matrices(width: int) -> list[tuple[str, int, int]]:
    """The matrices of one conformer layer: name, output, input."""
    attention = (
        "attn.relative_position_embedding.pos_proj",
        "attn.q_proj",
        "attn.k_proj",
        "attn.v_proj",
        "post",
    )
    return [
        *((f"ffw_layer_{end}.ffw_layer_1", 4 * width, width) for end in ("start", "end")),
        *((f"ffw_layer_{end}.ffw_layer_2", width, 4 * width) for end in ("start", "end")),
        *((f"attention.{name}", width, width) for name in attention),
        ("lconv1d.linear_start", 2 * width, width),
        ("lconv1d.linear_end", width, width),
    ]


_NORMS = (
    "ffw_layer_start.pre_layer_norm",
    "ffw_layer_start.post_layer_norm",
    "attention.pre_attn_norm",
    "attention.post_norm",
    "lconv1d.pre_layer_norm",
    "lconv1d.conv_norm",
    "ffw_layer_end.pre_layer_norm",
    "ffw_layer_end.post_layer_norm",
    "norm",
)
