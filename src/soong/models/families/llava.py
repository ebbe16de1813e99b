"""LLaVA and its like: a CLIP, SigLIP or Pixtral tower, a projector of two matrices, any language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.config_json import LARGEST
from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_PIXTRAL = _towers.Layer(
    attention="attention.",
    out="o_proj",
    mlp="feed_forward.",
    up=("gate_proj", "up_proj"),
    down="down_proj",
    norms=("attention_norm", "ffn_norm"),
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
    norm_bias=False,
)
# vLLM 0.33 `interns1_vit.py` keeps the attention in plain modules and divides the MLP.
_INTERN = _towers.Layer(
    attention="attention.",
    out="projection_layer",
    norms=("layernorm_before", "layernorm_after"),
    scales=("lambda_1", "lambda_2"),
    split=False,
)


def read(config: Config) -> Architecture:
    """The architecture of a LLaVA-like config.

    Source of the shapes: transformers `modeling_llava.py`, `modeling_llava_next.py`, `modeling_mistral3.py`,
    `modeling_internvl.py`; of their sharding and of the layers that are left out: vLLM `llava.py`,
    `mistral3.py`, `interns1.py`.
    """
    if "text_config" not in config and config.text("model_type") == "llava":
        return _first_llava(config)
    section = _multimodal.text_section(config)
    kind = config.text("model_type")
    default = "mistral" if kind == "mistral3" else "llama"
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", default)
    )
    weights = _weights(config, kind, text.hidden_size)
    return _multimodal.joined(config, text, weights, head="language_model.lm_head")


def _first_llava(config: Config) -> Architecture:
    """LLaVA as its authors publish it: the decoder's sizes at top level, the tower by its repository's name.

    Source: SGLang 0.5.23 `models/llava.py`; the tower is CLIP ViT-L/14 at 336 pixels in all of LLaVA 1.5.
    """
    names = config.texts("architectures")
    kind = next((word for word in ("qwen2", "mistral") if names and word[:4] in names[0].lower()), "llama")
    text = _multimodal.read_text(config, config, prefix="model", model_type=kind)
    vision = type(config)(
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
        },
        "vision_config",
    )
    weights = [
        *tower("model.vision_tower.vision_tower", config, vision),
        *_towers.two_linears(
            "model.mm_projector", 1024, text.hidden_size, text.hidden_size, split=False, names=("0", "2")
        ),
    ]
    return _multimodal.joined(config, text, weights)


def _weights(config: Config, kind: str, text_size: int) -> list[Weight]:
    vision = config.section("vision_config")
    if kind in {"internvl", "interns1"}:
        return _intern(config, vision, text_size)
    projector = "multi_modal_projector"
    width = vision.integer("hidden_size", default=1024, least=1)
    bias = config.flag("multimodal_projector_bias", default=kind != "mistral3")
    weights = tower("vision_tower", config, vision)
    if kind == "mistral3":
        merged = width * config.integer("spatial_merge_size", default=2, least=1) ** 2
        weights += _towers.norm(f"{projector}.norm", width, "projector", bias=False)
        # A plain layer in vLLM's model class, which quantization never reaches.
        weights.append(_parts.matrix(f"{projector}.patch_merger.merging_layer", (width, merged), "projector"))
    else:
        listed = config.values.get("vision_feature_layer")
        width *= len(listed) if isinstance(listed, list) else 1
    weights += _towers.two_linears(
        projector,
        width,
        text_size,
        text_size,
        bias=bias,
        split=kind not in {"llava_next_video", "llava_onevision"},
    )
    if kind in {"llava_next", "llava_onevision"}:
        weights.append(_towers.vector("image_newline", text_size, "projector"))
    return weights


def tower(prefix: str, config: Config, vision: Config) -> list[Weight]:
    """The vision tower, of which an engine loads only the layers up to the deepest that is used."""
    kind = vision.text("model_type", "clip_vision_model")
    if kind != "pixtral":
        deepest = _deepest(config, vision, 24 if "num_hidden_layers" in vision else 12)
        return _towers.image_text_tower(
            f"{prefix}.vision_model", vision, kind=kind, deepest=deepest, post_norm=False
        )
    size = _towers.sizes(vision, hidden=1024, inner=4096, depth=24, heads=16)
    return [
        *_towers.convolution(
            f"{prefix}.patch_conv", _towers.patches(vision, size.hidden, patch=16), bias=False
        ),
        *_towers.norm(f"{prefix}.ln_pre", size.hidden, bias=False),
        *_towers.encoder(
            f"{prefix}.transformer.layers.{{}}", _PIXTRAL, size, served=_deepest(config, vision, size.depth)
        ),
    ]


def _deepest(config: Config, vision: Config, default_depth: int) -> int:
    """How many layers vLLM loads: `_get_num_hidden_layers` of its `llava.py`; -1 names the last layer."""
    total = _towers.depth(vision, "num_hidden_layers", default=default_depth)
    key = "vision_feature_layer"
    if isinstance(config.values.get(key), list):
        picked = config.integers(key)
    else:
        picked = (config.integer(key, default=-2, least=-LARGEST),)
    return max((total + layer + 1 if layer < 0 else layer for layer in picked), default=total)


def _intern(config: Config, vision: Config, text_size: int) -> list[Weight]:
    """InternVL's tower; defaults of transformers `InternVLVisionConfig`."""
    size = _towers.sizes(vision, hidden=1024, inner=4096, depth=24, heads=16)
    hidden = size.hidden
    bias = vision.flag("attention_bias", default=False)
    layer = msgspec.structs.replace(
        _INTERN, qkv_bias=bias, norm_bias=vision.text("norm_type", "layer_norm") == "layer_norm"
    )
    prefix = "vision_tower"
    side = 1 / _towers.ratio(config, "downsample_ratio", 0.5)
    merged = int(hidden * side * side)
    weights = [
        *_towers.convolution(
            f"{prefix}.embeddings.patch_embeddings.projection", _towers.patches(vision, hidden)
        ),
        _towers.table(f"{prefix}.embeddings.cls_token", (1, 1, hidden)),
        _towers.table(
            f"{prefix}.embeddings.position_embeddings",
            (1, _towers.grid(vision, image=448, patch=14) + 1, hidden),
        ),
        *_towers.encoder(f"{prefix}.encoder.layer.{{}}", layer, size),
        *_towers.norm("multi_modal_projector.layer_norm", merged, "projector"),
        *_towers.two_linears("multi_modal_projector", merged, text_size, text_size, split=False),
    ]
    if vision.flag("use_qk_norm"):
        layers = tuple(range(size.depth))
        path = f"{prefix}.encoder.layer.{{}}.attention"
        weights += [_towers.vector(f"{path}.{name}", hidden, layers=layers) for name in ("q_norm", "k_norm")]
    return weights
