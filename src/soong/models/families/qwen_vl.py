"""Qwen's vision-language models, Qwen2-VL to Qwen3.5 and their mixtures of experts, and EXAONE 4.5, built alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.families import _multimodal, _towers
from soong.models.rotary import VIDEO_FACTOR

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_BLOCK = _towers.Layer(attention="attn.", qkv=("qkv",), out="proj", norms=("norm1", "norm2"))
_GATED_BLOCK = _towers.Layer(
    attention="attn.",
    qkv=("qkv",),
    out="proj",
    up=("gate_proj", "up_proj"),
    down="down_proj",
    norms=("norm1", "norm2"),
    norm_bias=False,
)
_BLOCK_3 = _towers.Layer(
    attention="attn.",
    qkv=("qkv",),
    out="proj",
    up=("linear_fc1",),
    down="linear_fc2",
    norms=("norm1", "norm2"),
)


TEXT_ALONE = {"Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"}
"""Classes that leave the tower out, though the config describes one: vLLM 0.33 `models/qwen3_5.py`."""


def read(config: Config) -> Architecture:
    """The architecture of a Qwen vision-language config.

    Source of the shapes: transformers `modeling_qwen2_vl.py`, `modeling_qwen2_5_vl.py`,
    `modeling_qwen3_vl.py`,
    `modeling_qwen3_5.py`; of their sharding: vLLM `qwen2_vl.py`, `qwen2_5_vl.py`, `qwen3_vl.py`.
    """
    section = _multimodal.text_section(config)
    vision = config.section("vision_config")
    kind = config.text("model_type")
    if (
        kind == "opencua"
    ):  # Qwen2.5-VL's tower before a Qwen2 with plain positions: vLLM 0.32 `models/opencua.py`
        text = _multimodal.read_text(config, section, prefix="language_model.model", model_type="qwen2")
        return _multimodal.joined(
            config, text, tower_2_5("vision_tower", vision), head="language_model.lm_head"
        )
    if kind in {"qwen2_vl", "qwen2_5_vl"}:
        text = _multimodal.read_text(config, section, prefix="model", model_type=kind)
        tower = tower_2 if kind == "qwen2_vl" else tower_2_5
        return _multimodal.joined(config, text, tower("visual", vision))
    text = _multimodal.read_text(config, section, prefix="model.language_model")
    if kind == "exaone4_5":
        return _multimodal.joined(config, text, tower_2_5("model.visual", vision))
    names = config.texts("architectures")
    if names and names[0] in TEXT_ALONE:
        return replace(text, name=names[0], model_type=kind)
    deepstack = 3 if kind.startswith("qwen3_vl") else 0
    whole = _multimodal.joined(config, text, tower_3("model.visual", vision, deepstack=deepstack))
    return replace(
        whole,
        early_rotary_bytes=VIDEO_FACTOR * whole.rotary_bytes,  # all of these interleave, said or not
        input_buffer_numbers=deepstack_numbers(vision, deepstack, text.hidden_size),
    )


def deepstack_numbers(vision: Config, levels: int, text_size: int) -> int:
    """What one token takes of the features of several layers: vLLM `qwen3_vl.py` deepstack_input_embeds."""
    if vision.values.get("deepstack_visual_indexes") is not None:
        levels = len(vision.integers("deepstack_visual_indexes"))
    return levels * text_size


def tower_2(prefix: str, vision: Config) -> list[Weight]:
    """Qwen2-VL's tower; here `hidden_size` is the width of the language model."""
    hidden = vision.integer("embed_dim", default=1280, least=1)
    ratio = _towers.ratio(vision, "mlp_ratio", 4)
    size = _towers.Sizes(
        hidden=hidden, inner=int(hidden * ratio), depth=_towers.depth(vision, "depth", default=32)
    )
    return [
        *_towers.convolution(
            f"{prefix}.patch_embed.proj", _towers.patches(vision, hidden, frames=2), bias=False
        ),
        *_towers.encoder(f"{prefix}.blocks.{{}}", _BLOCK, size),
        *_merger(
            f"{prefix}.merger", vision, hidden, vision.integer("hidden_size", default=3584), norm_bias=True
        ),
    ]


def tower_2_5(prefix: str, vision: Config) -> list[Weight]:
    """Qwen2.5-VL's tower, also Qwen2.5-Omni's and EXAONE 4.5's: gated MLPs and RMSNorms."""
    size = _towers.sizes(vision, hidden=3584, inner=3420, depth=32, heads=16)
    out = vision.integer("out_hidden_size", default=3584, least=1)
    blocks = _towers.encoder(f"{prefix}.blocks.{{}}", _GATED_BLOCK, size)
    if vision.text("model_type") == "exaone4_5_vision":
        blocks = _with_shared_keys(blocks, vision, size.hidden)
    return [
        *_towers.convolution(
            f"{prefix}.patch_embed.proj", _towers.patches(vision, size.hidden, frames=2), bias=False
        ),
        *blocks,
        *_merger(f"{prefix}.merger", vision, size.hidden, out, norm_bias=False),
    ]


def _with_shared_keys(blocks: list[Weight], vision: Config, hidden: int) -> list[Weight]:
    """EXAONE 4.5's heads share keys and values: transformers `modeling_exaone4_5.py`, vLLM 0.33 `exaone4_5.py`."""
    heads = vision.integer("num_heads", default=16, least=1)
    shared = vision.integer("num_key_value_heads", default=8, least=1)
    rows = hidden + 2 * shared * (hidden // heads)
    return [
        replace(weight, shape=(rows, *weight.shape[1:])) if ".attn.qkv" in weight.path else weight
        for weight in blocks
    ]


def _merger(prefix: str, vision: Config, hidden: int, out: int, *, norm_bias: bool) -> list[Weight]:
    merged = hidden * vision.integer("spatial_merge_size", default=2, least=1) ** 2
    return [
        *_towers.norm(f"{prefix}.ln_q", hidden, "projector", bias=norm_bias),
        *_towers.two_linears(prefix, merged, merged, out, names=("mlp.0", "mlp.2")),
    ]


def tower_3(prefix: str, vision: Config, *, deepstack: int, omni: bool = False) -> list[Weight]:
    """Qwen3-VL's tower, also Qwen3.5's and Qwen3-Omni's.

    `deepstack`: how many layers feed the language model beside the last, where the config does not list them.
    `omni`: Qwen3-Omni's names of the mergers.
    """
    size = _towers.sizes(vision, hidden=1152, inner=4304, depth=27, heads=16)
    hidden = size.hidden
    positions = vision.integer("num_position_embeddings", default=2304)
    patch = _towers.patches(vision, hidden, frames=2, patch=16)
    if vision.values.get("deepstack_visual_indexes") is not None:
        # No layer can feed the decoder twice.
        deepstack = len(set(vision.integers("deepstack_visual_indexes")) & set(range(size.depth)))
    weights = [
        *_towers.convolution(f"{prefix}.patch_embed.proj", patch),
        _towers.table(f"{prefix}.pos_embed", (positions, hidden)),
        *_towers.encoder(f"{prefix}.blocks.{{}}", _BLOCK_3, size),
        *_merger_3(f"{prefix}.merger", vision, hidden, after_shuffle=False, omni=omni),
    ]
    listed = "merger_list" if omni else "deepstack_merger_list"
    for index in range(deepstack):
        weights += _merger_3(f"{prefix}.{listed}.{index}", vision, hidden, after_shuffle=True, omni=omni)
    return weights


def _merger_3(prefix: str, vision: Config, hidden: int, *, after_shuffle: bool, omni: bool) -> list[Weight]:
    merged = hidden * vision.integer("spatial_merge_size", default=2, least=1) ** 2
    out = vision.integer("out_hidden_size", default=3584, least=1)
    names = ("mlp.0", "mlp.2") if omni else ("linear_fc1", "linear_fc2")
    return [
        *_towers.norm(
            f"{prefix}.{'ln_q' if omni else 'norm'}", merged if after_shuffle else hidden, "projector"
        ),
        *_towers.two_linears(prefix, merged, merged, out, names=names),
    ]
