"""Moonshot's models that see: Kimi-VL (MoonViT), Kimi K2.5 to K2.7 and K3 (MoonViT-3D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


def read(config: Config) -> Architecture:
    """The architecture of a Kimi config with a vision tower.

    Source of the shapes and their sharding: vLLM `kimi_vl.py`, `moonvit.py`, `kimi_k25_vit.py`,
    `configs/kimi_k3.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="language_model.model")
    vision = config.section("vision_config")
    if config.text("model_type") == "kimi_vl":
        towers = _kimi_vl(vision, text.hidden_size)
    else:
        towers = tower_k(vision, text.hidden_size, plain=config.text("model_type") == "kimi_k3")
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _kimi_vl(vision: Config, text_size: int) -> list[Weight]:
    size = _towers.sizes(vision, hidden=1152, inner=4304, depth=27, heads=16)
    merged = size.hidden * _merged(vision)
    return [
        *_moonvit(vision, size, plain=False),
        *_towers.norm("multi_modal_projector.pre_norm", size.hidden, "projector"),
        *_towers.two_linears("multi_modal_projector", merged, merged, text_size, split=False),
    ]


def tower_k(vision: Config, text_size: int, *, plain: bool) -> list[Weight]:
    """The tower of Kimi K2.5 and later; `plain` takes K3's defaults, without biases and with RMSNorms."""
    hidden = vision.integer("vt_hidden_size", default=1024 if plain else 1152, least=1)
    size = _towers.Sizes(
        hidden=hidden,
        inner=vision.integer("vt_intermediate_size", default=4096 if plain else 4304, least=1),
        depth=_towers.depth(vision, "vt_num_hidden_layers", default=27),
        attention_size=vision.integer("qkv_hidden_size", default=1536 if plain else hidden, least=1),
    )
    projector = vision.integer("mm_hidden_size", default=hidden, least=1)
    merged = projector * _merged(vision)
    heads = vision.integer("vt_num_attention_heads", default=12 if plain else 16, least=1)
    weights = _towers.whole_unless(heads, _moonvit(vision, size, plain=plain))
    kind = vision.text("mm_projector_type", "patchmergerv2" if plain else "patchmerger")
    if kind == "patchmergerv2":
        weights += _towers.two_linears(
            "mm_projector", merged, merged, text_size, bias=False, split=False, names=("proj.0", "proj.2")
        )
        weights += _towers.norm("mm_projector.post_norm", text_size, "projector", bias=False)
    else:
        weights += _towers.norm("mm_projector.pre_norm", projector, "projector")
        weights += _towers.two_linears(
            "mm_projector", merged, merged, text_size, split=False, names=("proj.0", "proj.2")
        )
    return weights


def _merged(vision: Config) -> int:
    """Patches that become one token."""
    kernel = _towers.positive(vision, "merge_kernel_size", (2, 2))
    return kernel[0] * kernel[-1]


def _moonvit(vision: Config, size: _towers.Sizes, *, plain: bool) -> list[Weight]:
    prefix = "vision_tower"
    norm_bias = vision.text("norm_type", "rmsnorm" if plain else "layernorm") != "rmsnorm"
    attention_bias = vision.flag("attn_bias", default=not plain)
    layer = _towers.Layer(
        attention="",
        qkv=("wqkv",),
        out="wo",
        up=("fc0",),
        down="fc1",
        norms=("norm0", "norm1"),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=vision.flag("linear_bias", default=not plain),
        norm_bias=norm_bias,
    )
    rows = vision.integer("init_pos_emb_height", default=64, least=1)
    columns = vision.integer("init_pos_emb_width", default=64, least=1)
    return [
        *_towers.convolution(
            f"{prefix}.patch_embed.proj",
            _towers.patches(vision, size.hidden),
            bias=vision.flag("patch_embed_proj_bias", default=not plain),
        ),
        _towers.table(f"{prefix}.patch_embed.pos_emb", (rows, columns, size.hidden)),
        *_towers.encoder(f"{prefix}.encoder.blocks.{{}}", layer, size),
        *_towers.norm(f"{prefix}.encoder.final_layernorm", size.hidden, bias=norm_bias),
    ]
