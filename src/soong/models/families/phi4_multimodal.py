"""Phi-4-multimodal: Phi-4-mini with a SigLIP tower and a conformer whose sizes stand in its code, not its config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

SIGLIP = _towers.Sizes(hidden=1152, inner=4304, depth=27)
"""vLLM 0.32 `models/phi4mm.py` get_navit_vision_model; its last layer is left out."""

SIDE_PATCHES, PATCH = 32, 14
EXPORTED_POSITIONS, POSITION_HEADS = 500, 16


def read(config: Config) -> Architecture:
    """The architecture of a Phi-4-multimodal config. Source: vLLM 0.32 `models/phi4mm.py`, `phi4mm_audio.py`."""
    text = _multimodal.read_text(config, config, prefix="model", model_type="phi3")
    towers = [*_eye(text.hidden_size), *_ear(config, text.hidden_size)]
    return _multimodal.joined(config, text, towers)


def _eye(text_size: int) -> list[Weight]:
    path = "model.embed_tokens_extend.image_embed"
    hidden = SIGLIP.hidden
    return [
        _towers.table(f"{path}.glb_GN", (1, 1, hidden)),
        _towers.table(f"{path}.sub_GN", (1, 1, 1, hidden)),
        *_towers.convolution(
            f"{path}.img_processor.embeddings.patch_embedding", (hidden, _towers.COLOURS, PATCH, PATCH)
        ),
        _towers.table(f"{path}.img_processor.embeddings.position_embedding", (SIDE_PATCHES**2, hidden)),
        *_towers.encoder(
            f"{path}.img_processor.encoder.layers.{{}}", _towers.CLIP, SIGLIP, served=SIGLIP.depth - 1
        ),
        *_towers.two_linears(
            f"{path}.img_projection", hidden, text_size, text_size, split=False, names=("0", "2")
        ),
    ]


def _ear(config: Config, text_size: int) -> list[Weight]:
    """A conformer behind eightfold thinned frames, and a projector for speech alone and one for it beside images."""
    audio = config.section("audio_processor").section("config")
    width = audio.integer("attention_dim", default=1024, least=1)
    inner = audio.integer("linear_units", default=1536, least=1)
    bins = audio.integer("input_size", default=80, least=1)
    kernel = audio.integer("kernel_size", default=3, least=1)
    layers = tuple(range(_towers.depth(audio, "num_blocks", default=24)))
    root = "model.embed_tokens_extend.audio_embed"
    body = f"{root}.encoder.encoders.{{}}"
    weights = [*_frames(f"{root}.encoder.embed", width, bins)]
    weights.append(
        _towers.table(
            f"{root}.encoder.relative_attention_bias_layer.bias_values",
            (2 * EXPORTED_POSITIONS, POSITION_HEADS),
            "audio",
        )
    )
    for name in ("feed_forward_in", "feed_forward_out"):
        weights += _towers.norm(f"{body}.{name}.layer_norm", width, "audio", layers=layers)
        weights += _towers.linear(f"{body}.{name}.net.0.linear", 2 * inner, width, "audio", layers=layers)
        weights += _towers.linear(f"{body}.{name}.net.2", width, inner, "audio", layers=layers)
    for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
        weights += _towers.linear(f"{body}.self_attn.{name}", width, width, "audio", layers=layers)
    weights += _convolutions(f"{body}.conv", width, kernel, layers)
    for name in ("layer_norm_att", "layer_norm", "conv.layer_norm"):
        weights += _towers.norm(f"{body}.{name}", width, "audio", layers=layers)
    for name in ("audio_projection.speech", "audio_projection.vision"):
        weights += _towers.two_linears(
            f"{root}.{name}", width, text_size, text_size, split=False, names=("0", "2")
        )
    return weights


def _frames(path: str, width: int, bins: int) -> list[Weight]:
    """Three strided convolutions, two of them by channel, and a matrix: `phi4mm_utils.py` NemoConvSubsampling."""
    thinned = -(-bins // 8)
    weights = _towers.linear(f"{path}.out", width, width * thinned, "audio")
    for name in ("conv.0", "conv.2", "conv.5"):
        weights += _towers.convolution(f"{path}.{name}", (width, 1, 3, 3), "audio")
    for name in ("conv.3", "conv.6"):
        weights += _towers.convolution(f"{path}.{name}", (width, width, 1, 1), "audio")
    for name in ("global_mean", "global_invstd"):
        weights.append(_towers.vector(f"{path}.{name}", bins, "audio"))
    return weights


def _convolutions(path: str, width: int, kernel: int, layers: tuple[int, ...]) -> list[Weight]:
    return [
        _towers.table(f"{path}.glu.b1", (1, width, 1), "audio", layers=layers),
        _towers.table(f"{path}.glu.b2", (1, width, 1), "audio", layers=layers),
        *_towers.convolution(f"{path}.glu.ext_pw_conv_1d", (2 * width, width, 1), "audio", layers=layers),
        *_towers.convolution(f"{path}.ext_pw_conv_1d", (width, width, 1), "audio", layers=layers),
        *_towers.convolution(f"{path}.dw_sep_conv_1d.dw_conv", (width, 1, kernel), "audio", layers=layers),
        *_towers.convolution(f"{path}.dw_sep_conv_1d.pw_conv", (width, width, 1), "audio", layers=layers),
    ]
