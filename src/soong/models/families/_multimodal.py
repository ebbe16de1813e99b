"""Join a language model with its towers: read the text section through its own family, add the rest.

Multimodal configs nest the language model's sizes under `text_config`, or leave them at top level (older
files). Nested sections
are saved without the values that equal their configuration class's defaults, which `data/text_defaults.toml` holds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import msgspec

from soong.errors import ConfigError
from soong.models.config_json import Config
from soong.models.families import FAMILIES, UnknownFamilyError, check_lists

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from soong.models.architecture import Architecture, Weight

SHARED_KEYS = ("dtype", "torch_dtype", "tie_word_embeddings")
"""What a nested section leaves to the outer config."""

TEXT_MODEL_TYPES = {
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_5_omni_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_omni_moe_text": "qwen3_moe",
    "dots_ocr": "qwen2",
    "phi3_v": "phi3",
    "kimi_k2": "deepseek_v3",
    "ministral3": "mistral",
    "glm4v_text": "glm4",
    "glm_ocr_text": "glm4",
    "glm4v_moe_text": "glm4_moe",
}
"""Text sections that are built like a plain language model, by the model type of that model."""

TIED_BY_CLASS: dict[str, bool] = dict.fromkeys(
    (
        "aya_vision", "cohere2_vision", "deepseek_vl", "diffusion_gemma", "ernie4_5_vl_moe", "fun_asr_nano", "gemma3",
        "gemma3n", "gemma4", "gemma4_unified", "glmasr", "got_ocr2", "granite_speech", "granite_speech_plus",
        "hunyuan_vl", "hyperclovax_vision_v2", "internvl", "janus", "kimi_k25", "lfm2_vl", "lighton_ocr", "mistral3",
        "ovis2", "paddleocr_vl", "paligemma", "qwen3_asr", "shieldgemma2", "voxtral_realtime",
    ),
    True,
) | dict.fromkeys(
    (
        "aria", "cohere_compass", "cosmos3_edge", "deepseek_ocr2", "emu3", "exaone4_5", "fast_vlm", "glm46v", "glm4v",
        "glm4v_moe", "glm5_next", "glm_ocr", "granite4_vision", "idefics2", "idefics3", "llama4", "llava",
        "llava_next", "llava_next_video", "llava_onevision", "minicpmv4_6", "minicpmv4_7", "minimax_m3_vl",
        "qianfan_ocr", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe", "qwen4_exp",
        "smolvlm", "video_llama_3", "vipllava",
    ),
    False,
)  # fmt: skip
"""Whether the class that holds both layers ties them where the file is silent, whatever the text section says.

Source: transformers 5.19 `configuration_*.py`; types that are not here leave it to the text section.
"""


def text_section(config: Config, *keys: str) -> Config:
    """Where the language model is described: the first of `keys`, or the config itself in older files."""
    for key in keys or ("text_config",):
        if key in config:
            return config.section(key)
    return config


def read_text(
    config: Config,
    section: Config,
    *,
    prefix: str,
    model_type: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> Architecture:
    """The language model of a multimodal config.

    Args:
        config: the whole config, whose number type and tied head a section may leave unsaid.
        section: where the sizes of the language model stand.
        prefix: the path of its decoder in the checkpoint.
        model_type: what the section is where it does not say, or says it in the whole model's word.
        defaults: values of the configuration class that the file may leave out.

    Raises:
        UnknownFamilyError: no family reads the text section.
        ConfigError: the section is missing.
    """
    named = model_type or section.text("model_type")
    family = TEXT_MODEL_TYPES.get(named, named)
    if section is config and family == config.text("model_type"):
        raise ConfigError(
            f"config.json describes no language model of this {family} model",
            why="its sizes stand in a section of their own",
        )
    if family not in FAMILIES and f"{family}_text" in FAMILIES:
        family += "_text"
    module_name = FAMILIES.get(family)
    if module_name is None:
        raise UnknownFamilyError(
            f"soong does not know the language model `{named}` of this {config.text('model_type')} model",
            why="its layers cannot be computed from the config alone",
        )
    inherited = {key: config.values[key] for key in SHARED_KEYS if config.values.get(key) is not None}
    # A null that the section writes out wins over the class's default: `"sliding_window": null` means no window.
    values = {**(_class_defaults(named, family) if defaults is None else defaults), **section.values}
    values |= {key: value for key, value in inherited.items() if values.get(key) is None}
    if "tie_word_embeddings" in inherited:
        # What holds both layers decides: vLLM 0.32 `config/vllm.py` with_hf_config.
        values["tie_word_embeddings"] = inherited["tie_word_embeddings"]
    elif section is not config and config.text("model_type") in TIED_BY_CLASS:
        values["tie_word_embeddings"] = TIED_BY_CLASS[config.text("model_type")]
    values["model_type"] = family
    check_lists(section)
    module = import_module(f"soong.models.families.{module_name}")
    return cast("Architecture", module.read(Config(values, section.address), prefix=prefix))


def _class_defaults(named: str, family: str) -> dict[str, Any]:
    """What the section's class assumes: of its own type, of the text part of a whole model's type, or of its like."""
    from soong.models.families._text_defaults import text_defaults

    known = text_defaults()
    return next((known[key] for key in (named, f"{named}_text", family) if key in known), {})


def joined(
    config: Config, text: Architecture, towers: Iterable[Weight], *, head: str = "lm_head", name: str = ""
) -> Architecture:
    """The language model with its towers; `head` is where the checkpoint keeps the output projection."""
    names = config.texts("architectures")
    return msgspec.structs.replace(
        text,
        name=name or (names[0] if names else config.text("model_type")),
        model_type=config.text("model_type"),
        weights=(*_with_head_at(text.weights, head), *towers),
        multimodal=True,
        whole_items=config.section("text_config").values.get("use_bidirectional_attention") == "vision",
        input_buffer_numbers=_layer_input_numbers(text),
    )


def _layer_input_numbers(text: Architecture) -> int:
    """Gemma's second embedding, which vLLM looks up before the decoder: `gemma3n_mm.py`, `gemma4_mm.py`."""
    tables = (weight for weight in text.weights if weight.path.endswith("embed_tokens_per_layer"))
    return sum(weight.shape[1] for weight in tables)


def _with_head_at(weights: tuple[Weight, ...], head: str) -> tuple[Weight, ...]:
    if head == "lm_head":
        return weights
    return tuple(
        msgspec.structs.replace(weight, path=head + weight.path[len("lm_head") :])
        if weight.path.startswith("lm_head")
        else weight
        for weight in weights
    )
