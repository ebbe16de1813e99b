"""DeepSeek-VL2 and DeepSeek-OCR: a DeepSeek mixture of experts behind timm's SigLIP, or two towers in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _deepencoder, _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_BLOCK = _towers.Layer(
    attention="attn.", qkv=("qkv",), out="proj", norms=("norm1", "norm2"), split=False, mlp_split=True
)

_TEXT_DEFAULTS = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "moe_intermediate_size": 1407,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 0,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "max_position_embeddings": 2048,
}
"""Source: `DeepseekV2Config` as the model's authors publish it (`configuration_deepseek.py`)."""


def read(config: Config) -> Architecture:
    """The architecture of a DeepSeek-VL2 config.

    Source of the shapes and their sharding: vLLM `deepseek_vl2.py`, `configs/deepseek_vl2.py`; timm's
    attention stands whole on every GPU, its MLPs are divided (patch_vit_for_tp).
    """
    section = _multimodal.text_section(config, "language_config", "text_config")
    defaults = {key: value for key, value in _TEXT_DEFAULTS.items() if key not in section.values}
    text = _multimodal.read_text(
        config,
        section,
        prefix="language.model",
        model_type=section.text("model_type", "deepseek_v2"),
        defaults=defaults,
    )
    projector = config.section("projector_config")
    names = config.texts("architectures")
    name = names[0] if names else "DeepseekVLV2ForCausalLM"
    if name.startswith("DeepseekOCR"):
        tower = _deepencoder.towers("model.")
    else:
        tower = _tower("vision", config.section("vision_config"))
    return _multimodal.joined(
        config, text, [*tower, *_projector(projector)], head="language.lm_head", name=name
    )


def _tower(prefix: str, vision: Config) -> list[Weight]:
    width = vision.integer("width", default=1152, least=1)
    size = _towers.Sizes(
        hidden=width,
        inner=int(width * _towers.ratio(vision, "mlp_ratio", 3.7362)),
        depth=_towers.depth(vision, "layers", default=27),
    )
    positions = _towers.grid(vision, image=384, patch=14)
    pool = f"{prefix}.attn_pool"
    return [
        *_towers.convolution(f"{prefix}.patch_embed.proj", _towers.patches(vision, width)),
        _towers.table(f"{prefix}.pos_embed", (1, positions, width)),
        *_towers.encoder(f"{prefix}.blocks.{{}}", _BLOCK, size),
        *_towers.norm(f"{prefix}.norm", width),
        # timm's pooling head, which the library builds though nobody asks it.
        _towers.table(f"{pool}.latent", (1, 1, width)),
        *_towers.linear(f"{pool}.q", width, width, "vision"),
        *_towers.linear(f"{pool}.kv", 2 * width, width, "vision"),
        *_towers.linear(f"{pool}.proj", width, width, "vision"),
        *_towers.norm(f"{pool}.norm", width),
        *_towers.mlp(f"{pool}.mlp.", _BLOCK, size),
    ]


def _projector(config: Config) -> list[Weight]:
    """Defaults of vLLM's `MlpProjectorConfig`."""
    out = config.integer("n_embed", default=2048, least=1)
    size = config.integer("input_dim", default=1152, least=1)
    weights = [_towers.vector(name, out, "projector") for name in ("image_newline", "view_seperator")]
    if config.text("projector_type", "downsample_mlp_gelu") == "linear":
        return weights + _towers.linear("projector.layers", out, size, "projector")
    merged = size * config.integer("downsample_ratio", default=2, least=1) ** 2
    middle = out * config.integer("mlp_ratio", default=1, least=1)
    depth = _towers.depth(config, "depth", default=2)
    for step in range(1, depth - 1):
        weights += _towers.linear(f"projector.layers.{2 * step}", middle, middle, "projector")
    return weights + _towers.two_linears(
        "projector", merged, middle, out, split=False, names=("layers.0", f"layers.{2 * (depth - 1)}")
    )
