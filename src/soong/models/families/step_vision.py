"""Step-3.7: StepFun's mixture of experts behind a perception encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_LAYER = _towers.Layer(
    attention="attn.",
    qkv=("in_proj",),
    up=("c_fc",),
    down="c_proj",
    norms=("ln_1", "ln_2"),
    scales=("ls_1.gamma", "ls_2.gamma"),
)


def read(config: Config) -> Architecture:
    """The architecture of a Step-3.7 config.

    Source of the shapes: transformers `modeling_step3p7.py` and its `Step3p7VisionConfig`, whose defaults
    stand in for what a file leaves out; of their sharding: vLLM `step_vl.py`.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="model", model_type="step3p7_text")
    return _multimodal.joined(config, text, _tower(config, config.section("vision_config"), text.hidden_size))


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    hidden = vision.integer("width", "hidden_size", default=1536, least=1)
    size = _towers.Sizes(
        hidden=hidden,
        inner=int(hidden * _towers.ratio(vision, "mlp_ratio", 8960 / 1536)),
        depth=_towers.depth(vision, "layers", "num_hidden_layers", default=47),
    )
    prefix = "vision_model"
    return [
        *_towers.convolution(f"{prefix}.conv1", _towers.patches(vision, hidden), bias=False),
        _towers.table(f"{prefix}.positional_embedding", (_towers.grid(vision, image=728, patch=14), hidden)),
        *_towers.norm(f"{prefix}.ln_pre", hidden),
        *_towers.encoder(f"{prefix}.transformer.resblocks.{{}}", _LAYER, size),
        *_towers.convolution(f"{prefix}.vit_downsampler1", (2 * hidden, hidden, 3, 3)),
        *_towers.convolution(f"{prefix}.vit_downsampler2", (4 * hidden, 2 * hidden, 3, 3)),
        *_towers.linear(
            "vit_large_projector",
            text_size,
            4 * hidden,
            "projector",
            "column",
            bias=config.flag("projector_bias"),
        ),
    ]
