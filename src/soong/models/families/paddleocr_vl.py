"""PaddleOCR-VL: a SigLIP tower, a projector that merges four patches, and ERNIE 4.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.config_json import Config
from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight

DEFAULTS = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
DEFAULTS |= {"image_size": 384, "patch_size": 14}

PACKED_POSITIONS = 32768


def read(config: Config) -> Architecture:
    """The architecture of a PaddleOCR-VL config, whose language model may stand at its top.

    Source: transformers `modeling_paddleocr_vl.py`; vLLM 0.33 `paddleocr_vl.py`, which leaves out the pooling head and
    the table of packed positions that the files of PaddlePaddle/PaddleOCR-VL hold.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="model", model_type="ernie4_5")
    vision = config.section("vision_config")
    vision = Config({**DEFAULTS, **vision.values}, vision.address)
    tower = _towers.image_text_tower("visual.vision_model", vision, kind="siglip_vision_model")
    return _multimodal.joined(config, text, [*tower, *_projector(vision, text.hidden_size)])


def _projector(vision: Config, out: int) -> list[Weight]:
    hidden = vision.integer("hidden_size", least=1)
    merged = hidden * vision.integer("spatial_merge_size", default=2, least=1) ** 2
    packed = "visual.vision_model.embeddings.packing_position_embedding"
    return [
        _towers.table(packed, (PACKED_POSITIONS, hidden), served=False),
        *_towers.norm("mlp_AR.pre_norm", hidden, "projector"),
        *_towers.two_linears("mlp_AR", merged, merged, out, split=False),
    ]
