"""ColPali: PaliGemma without its vocabulary at the end; every token becomes a short vector for search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from soong.models.families import _parts, gemma_vision

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

VECTOR_NUMBERS = 128
"""transformers `configuration_colpali.py` embedding_dim."""

TEXT_DEFAULTS: dict[str, Any] = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "num_hidden_layers": 18,
    "intermediate_size": 16384,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "vocab_size": 257152,
}
VISION_DEFAULTS = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
"""What transformers `configuration_paligemma.py` assumes of both sections."""


def read(config: Config) -> Architecture:
    """The architecture of a ColPali config. Source: vLLM 0.33 `models/colpali.py`; its head is in float32."""
    section = config.section("vlm_config")
    inner = type(config)(
        {
            "model_type": "paligemma",
            "torch_dtype": config.values.get("torch_dtype") or config.values.get("dtype"),
            **section.values,
            "text_config": {**TEXT_DEFAULTS, **section.section("text_config").values},
            "vision_config": {**VISION_DEFAULTS, **section.section("vision_config").values},
        },
        section.address,
    )
    whole = gemma_vision.read(inner)
    size = config.integer("embedding_dim", default=VECTOR_NUMBERS, least=1)
    head = _parts.matrix("custom_text_proj", (size, whole.hidden_size), "other", dtype="float32")
    names = config.texts("architectures")
    return replace(
        whole,
        name=names[0] if names else config.text("model_type"),
        model_type=config.text("model_type"),
        weights=(*(weight for weight in whole.weights if weight.part != "lm_head"), head),
    )
