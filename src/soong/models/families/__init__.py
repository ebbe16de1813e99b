"""One small module per family of models, each beside the modelling code it mirrors.

A family module has `read(config) -> Architecture`. `FAMILIES` names the module for each `model_type`; only that
module is imported. To add a model type: write or extend a module, add one line here, and give the tests a
published parameter count for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from soong.errors import ConfigError

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

FAMILIES: dict[str, str] = {
    "bamba": "bamba",
    "deepseek": "deepseek",
    "deepseek_ref": "deepseek_v4",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "deepseek_v32": "deepseek",
    "deepseek_v4": "deepseek_v4",
    "falcon_h1": "falcon_h1",
    "falcon_mamba": "mamba",
    "glm4_moe_lite": "deepseek",
    "glm_moe_dsa": "deepseek",
    "granitemoehybrid": "granitemoehybrid",
    "jamba": "jamba",
    "kimi_k2": "deepseek",
    "kimi_linear": "kimi_linear",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2",
    "mamba": "mamba",
    "mamba2": "mamba",
    "minicpm3": "minicpm3",
    "minimax_m1": "minimax_m1",
    "minimax_text_01": "minimax_m1",
    "muse_glimmer_text": "muse_glimmer",
    "nemotron_h": "nemotron_h",
    "qwen3_5_moe_text": "qwen3_next",
    "qwen3_5_text": "qwen3_next",
    "qwen3_next": "qwen3_next",
    "llama": "llama",
    "mistral": "llama",
    "deepseek_vl_v2": "deepseek_vl",
    "dots_ocr": "dots_ocr",
    "gemma3": "gemma_vision",
    "gemma4": "gemma_vision",
    "glm4v": "glm_vision",
    "glm4v_moe": "glm_vision",
    "idefics3": "idefics",
    "internvl": "llava",
    "kimi_k25": "kimi_vision",
    "kimi_k3": "kimi_vision",
    "kimi_vl": "kimi_vision",
    "llama4": "llama_vision",
    "llava": "llava",
    "llava_next": "llava",
    "minimax_m3_vl": "minimax_vision",
    "mistral3": "llava",
    "mllama": "llama_vision",
    "molmo": "molmo",
    "muse_glimmer": "muse_vision",
    "paligemma": "gemma_vision",
    "phi3_v": "phi3_vision",
    "qwen2_5_omni": "qwen_omni",
    "qwen2_5_vl": "qwen_vl",
    "qwen2_vl": "qwen_vl",
    "qwen3_5": "qwen_vl",
    "qwen3_5_moe": "qwen_vl",
    "qwen3_omni_moe": "qwen_omni",
    "qwen3_vl": "qwen_vl",
    "qwen3_vl_moe": "qwen_vl",
    "smolvlm": "idefics",
    "step3p7": "step_vision",
    "ultravox": "ultravox",
    "llava_onevision": "llava",
    "qwen2_audio": "audio",
    "voxtral": "audio",
    "aya_vision": "cohere_vision",
    "cohere2_vision": "cohere_vision",
    "internvl_chat": "internvl_chat",
}
"""`model_type` of a config.json to the module that reads it."""


class UnknownFamilyError(ConfigError):
    """The config is well formed, but soong has no reader for its model type."""

    code = "unknown-model-type"


def read_architecture(config: Config) -> Architecture:
    """The architecture that a config.json describes.

    Raises:
        UnknownFamilyError: no family reads this model type.
        ConfigError: a size is missing, of a wrong type, or absurd.
    """
    model_type = config.text("model_type")
    module_name = FAMILIES.get(model_type)
    if module_name is None:
        raise UnknownFamilyError(
            f"soong does not know the model type `{model_type}`" if model_type else "config.json names no `model_type`",
            why="its layers cannot be computed from the config alone",
            hints=(
                "soong models add --name my-model --hf-path ORG/NAME --params 12 --quantization fp16 --context 8192"
                "  # then planned by the rule of thumb, and marked",
            ),
        )
    module = import_module(f"soong.models.families.{module_name}")
    return cast("Architecture", module.read(config))
