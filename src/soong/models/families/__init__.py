"""One small module per family of models, each beside the modelling code it mirrors.

A family module has `read(config) -> Architecture`. `FAMILIES` names the module for each `model_type`; only that
module is imported. To add a model type: write or extend a module, add one line here, and give the tests a
published parameter count for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

import msgspec

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
    "cosmos3_edge_text": "cosmos3_edge",
    "embedding_gemma2_text": "embedding_gemma2",
    "inkling_text": "inkling",
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
    "afmoe": "moe",
    "exaone_moe": "moe",
    "hy_v3": "moe",
    "solar_open": "moe",
    "mellum": "moe",
    "vaultgemma": "llama",
    "jais2": "llama",
    "helium": "llama",
    "iquestcoder": "llama",
    "apertus": "llama",
    "arcee": "llama",
    "baichuan": "classic",
    "bloom": "classic",
    "chatglm": "chatglm",
    "cohere": "llama",
    "cohere2": "llama",
    "cwm": "llama",
    "dots1": "moe",
    "ernie4_5": "llama",
    "ernie4_5_moe": "moe",
    "exaone": "classic",
    "exaone4": "llama",
    "falcon": "classic",
    "flex_olmo": "moe",
    "gemma": "llama",
    "gemma2": "llama",
    "gemma3_text": "llama",
    "gemma4_text": "gemma4",
    "glm": "llama",
    "glm4": "llama",
    "glm4_moe": "moe",
    "gpt2": "classic",
    "gpt_bigcode": "classic",
    "gpt_neox": "classic",
    "gpt_oss": "gpt_oss",
    "gptj": "classic",
    "granite": "llama",
    "granitemoe": "moe",
    "hunyuan_v1_dense": "llama",
    "hunyuan_v1_moe": "moe",
    "internlm2": "classic",
    "internlm3": "llama",
    "laguna": "laguna",
    "llama4_text": "llama4",
    "mimo": "llama",
    "mimo_v2_flash": "mimo_v2",
    "minicpm": "llama",
    "minimax_m2": "moe",
    "minimax_m3": "minimax_m3",
    "ministral": "llama",
    "ministral3": "llama",
    "mixtral": "moe",
    "mpt": "classic",
    "nemotron": "llama",
    "nemotron-nas": "nemotron_nas",
    "olmo": "llama",
    "olmo2": "llama",
    "olmo3": "llama",
    "olmoe": "moe",
    "opt": "classic",
    "orion": "llama",
    "phi": "llama",
    "phi3": "llama",
    "phi3small": "classic",
    "phimoe": "moe",
    "qwen": "classic",
    "qwen2": "llama",
    "qwen2_moe": "moe",
    "qwen3": "llama",
    "qwen3_moe": "moe",
    "seed_oss": "llama",
    "smollm3": "llama",
    "stablelm": "llama",
    "starcoder2": "llama",
    "step3p5": "laguna",
    "step3p7_text": "laguna",
    "mistral": "llama",
    "granite_swa": "llama",
    "hyperclovax": "llama",
    "solar": "llama",
    "telechat": "llama",
    "telechat3": "llama",
    "teleflm": "llama",
    "TeleFLM": "llama",
    "PanguEmbedded": "llama",
    "plamo3": "llama",
    "granitemoeshared": "moe",
    "granitemoe_swa": "moe",
    "zamba2": "zamba2",
    "cohere2_moe": "cohere2_moe",
    "axk1": "deepseek",
    "AXK1": "deepseek",
    "pangu_ultra_moe": "deepseek",
    "olmo_hybrid": "olmo_hybrid",
    "gemma3n_text": "gemma3n",
    "bailing_moe": "bailing",
    "bailing_moe_v2": "bailing",
    "sarvam_moe": "bailing",
    "param2moe": "bailing",
    "dbrx": "dbrx",
    "step3_text": "step3",
    "longcat_flash": "longcat_flash",
    "deepseek_vl_v2": "deepseek_vl",
    "dots_ocr": "dots_ocr",
    "gemma3": "gemma_vision",
    "gemma4": "gemma_vision",
    "glm4v": "glm_vision",
    "glm4v_moe": "glm_vision",
    "glm_ocr": "glm_vision",
    "paddleocr_vl": "paddleocr_vl",
    "qwen3_asr": "qwen_omni",
    "exaone4_5": "qwen_vl",
    "idefics3": "idefics",
    "internvl": "llava",
    "kimi_k25": "kimi_vision",
    "kimi_k3": "kimi_vision",
    "kimi_vl": "kimi_vision",
    "llama4": "llama_vision",
    "llava": "llava",
    "llava_next": "llava",
    "llava_next_video": "llava",
    "gemma3n": "gemma3n_vision",
    "bagel": "bagel",
    "cosmos3_edge": "cosmos3_edge",
    "embedding_gemma2": "embedding_gemma2",
    "inkling_mm_model": "inkling_vision",
    "moss_transcribe_diarize": "moss_transcribe",
    "lfm2_vl": "lfm2_vision",
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
    "NVLM_D": "internvl_chat",
    "h2ovl_chat": "internvl_chat",
    "skywork_chat": "internvl_chat",
    "Keye": "keye",
    "Llama_Nemotron_Nano_VL": "nemotron_vision",
    "NemotronH_Nano_VL_V2": "nemotron_vision",
    "qianfan_ocr": "internvl_chat",
    "interns1": "llava",
    "glm5_next": "glm5_next",
    "glm5_next_text": "glm5_next",
    "hy_v4": "hy_v4",
    "molmo2": "molmo2",
    "opencua": "qwen_vl",
    "phi4mm": "phi4_multimodal",
    "bailing_hybrid": "bailing_hybrid",
    "ernie4_5_moe_vl": "ernie_vision",
    "ernie4_5_vl_moe": "ernie_vision",
    "minicpmo": "minicpm_vision",
    "minicpmv": "minicpm_vision",
    "qwen4_exp": "qwen4_exp",
    "qwen4_exp_text": "qwen4_exp",
    "minicpmv4_6": "minicpm_merged",
    "minicpmv4_7": "minicpm_merged",
    "step3_vl": "step3_vision",
    "aria": "aria",
    "aria_text": "moe",
    "granite_speech": "granite_speech",
    "ovis": "ovis",
    "xverse": "llama",
    "audioflamingo3": "audio",
    "bert": "bert",
    "blip-2": "blip2",
    "clip": "clip",
    "colpali": "colpali",
    "diffusion_gemma": "gemma_vision",
    "diffusion_gemma_text": "gemma4",
    "gemma4_unified": "gemma_vision",
    "gemma4_unified_text": "gemma4",
    "glmasr": "audio",
    "granite_speech_plus": "granite_speech",
    "musicflamingo": "audio",
    "openai_privacy_filter": "gpt_oss",
    "openvla": "openvla",
    "phi4-siglip": "phi4_siglip",
    "shieldgemma2": "gemma_vision",
    "siglip": "clip",
    "whisper": "whisper",
    "gpt-sw3": "classic",
    "gte": "bert",
    "llama_bidirec": "llama",
    "modernbert": "bert",
    "new": "bert",
    "nomic_bert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "hrm_text": "hrm_text",
    "hyperclovax_vision_v2": "hcx_vision",
    "iquestloopcoder": "iquest_loop",
    "kimi_audio": "kimi_audio",
    "KeyeVL1_5": "keye",
    "longcat_flash_ngram": "longcat_flash",
    "bitnet": "llama",
    "isaac": "isaac",
    "mistral4": "deepseek",
    "nanochat": "llama",
    "mimo_v2": "mimo_v2",
    "pangu_pro_moe_v2": "pangu_pro",
    "sarvam_mla": "deepseek",
}
"""`model_type` of a config.json to the module that reads it."""

CLASSES: dict[str, str] = {
    "AquilaForCausalLM": "llama",
    "BailingMoeForCausalLM": "bailing_moe",
    "BailingMoeV2ForCausalLM": "bailing_moe_v2",
    "ChatGLMForConditionalGeneration": "chatglm",
    "ChatGLMModel": "chatglm",
    "CohereForCausalLM": "cohere",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "Gemma2ForCausalLM": "gemma2",
    "GraniteForCausalLM": "granite",
    "InternLM2ForCausalLM": "internlm2",
    "IQuestLoopCoderForCausalLM": "iquestloopcoder",
    "InternLM3ForCausalLM": "internlm3",
    "LLaMAForCausalLM": "llama",
    "MiMoV2ForCausalLM": "mimo_v2",
    "LlamaBidirectionalForSequenceClassification": "llama",
    "LlamaBidirectionalModel": "llama",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Olmo2ForCausalLM": "olmo2",
    "PanguEmbeddedForCausalLM": "PanguEmbedded",
    "PanguProMoEV2ForCausalLM": "pangu_pro_moe_v2",
    "PanguUltraMoEForCausalLM": "pangu_ultra_moe",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "SarvamMLAForCausalLM": "sarvam_mla",
    "SolarForCausalLM": "solar",
    "TeleChat2ForCausalLM": "telechat",
    "TeleChat3ForCausalLM": "telechat3",
    "TeleFLMForCausalLM": "teleflm",
}
"""Classes that serve model types of any name, and the type whose sizes they read: vLLM 0.32 `models/registry.py`.

A repository with code of its own may call its type what it likes; an engine goes by the class.
"""


GENERATING = ("ForCausalLM", "ForConditionalGeneration")
"""How nearly all classes end whose last layer is the vocabulary; for these the other heads' module is not loaded."""


UNTIED = frozenset(
    {
        "deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "glm_moe_dsa", "jamba", "nemotron_h",
        "phimoe", "qwen3_next",
    }
)  # fmt: skip
"""Types whose class in vLLM gives the head memory of its own though the config ties it: 0.32 `models/` of that name."""


class UnknownFamilyError(ConfigError):
    """The config is well formed, but soong has no reader for its model type."""

    code = "unknown-model-type"


def _what_is_known(config: Config) -> str:
    """What the config says all the same, and why that is not enough."""
    names = {"num_hidden_layers": "layers", "hidden_size": "wide", "vocab_size": "words"}
    stated = [
        f"{config.values[key]} {name}"
        for key, name in names.items()
        if isinstance(config.values.get(key), int)
    ]
    known = f"it states {', '.join(stated)}; " if stated else ""
    return f"{known}its layers cannot be computed from the config alone"


def _family_of_class(config: Config) -> str:
    """The model type that the config's class would read; empty where that is not known."""
    names = config.texts("architectures")
    return CLASSES.get(names[0], "") if names and config.text("model_type") else ""


def _nearest_types(model_type: str) -> tuple[str, ...]:
    from difflib import get_close_matches

    near = get_close_matches(model_type[:60], FAMILIES, n=3)
    return (f"the nearest of the {len(FAMILIES)} known types: {', '.join(near)}",) if near else ()


def check_lists(config: Config) -> None:
    """That lists of one word per layer have as many as the model has layers, or those and its draft layers.

    Source: transformers 5 `configuration_utils.py` validate_layer_type, which each engine runs on loading.

    Raises:
        ConfigError: a list is too short or too long.
    """
    layers = config.values.get("num_hidden_layers")
    if not isinstance(layers, int):
        return
    for key in ("layer_types", "mlp_layer_types"):
        kinds = config.values.get(key)
        if not isinstance(kinds, list) or len(kinds) == layers:
            continue
        if len(kinds) != layers + config.integer("num_nextn_predict_layers", default=0):
            raise ConfigError(
                f"`{config.where(key)}` names {len(kinds)} of {layers} layers",
                why="engines refuse a list that is not as long as the model is deep",
            )


def read_architecture(config: Config) -> Architecture:
    """The architecture that a config.json describes.

    Raises:
        UnknownFamilyError: no family reads this model type.
        ConfigError: a size is missing, of a wrong type, or absurd.
    """
    model_type = config.text("model_type")
    module_name = FAMILIES.get(model_type)
    if module_name is None and (family := _family_of_class(config)):
        alike = type(config)({**config.values, "model_type": family}, config.address)
        return msgspec.structs.replace(read_architecture(alike), model_type=model_type)
    if module_name is None:
        raise UnknownFamilyError(
            f"soong does not know the model type `{model_type}`"
            if model_type
            else "config.json names no `model_type`",
            why=_what_is_known(config),
            hints=(
                *_nearest_types(model_type),
                "plan it by the rule of thumb, marked: soong models add --name my-model --hf-path ORG/NAME"
                " --params 12 --quantization fp16 --context 8192",
            ),
        )
    check_lists(config)
    module = import_module(f"soong.models.families.{module_name}")
    architecture = cast("Architecture", module.read(config))
    names = config.texts("architectures")[:1]
    if not names or not names[0].endswith(GENERATING) or config.values.get("is_causal") is False:
        architecture = import_module("soong.models.families._heads").with_own_head(config, architecture)
    elif model_type in UNTIED and config.flag("tie_word_embeddings"):
        architecture = import_module("soong.models.families._heads").with_head_of_its_own(architecture)
    shape = _vision_shape(config)
    return architecture if shape is None else msgspec.structs.replace(architecture, vision_shape=shape)


_UNREAD_SECTIONS = {"minimax_m3_vl"}
"""Types whose `vision_config` engines keep as a plain dictionary, whose words they do not see."""

_LAYER_WORDS = ("num_hidden_layers", "vt_num_hidden_layers")
_WIDTH_WORDS = ("hidden_size", "vt_hidden_size")


def _vision_shape(config: Config) -> tuple[int, int] | None:
    """Layers and hidden size of a `vision_config`, by the words that `transformers` 5 knows them by."""
    section = config.values.get("vision_config")
    if not isinstance(section, dict):
        return None
    if config.text("model_type") in _UNREAD_SECTIONS:
        return 0, 0
    words = (*_LAYER_WORDS, "depth") if config.text("model_type") == "qwen2_5_vl" else _LAYER_WORDS
    return _first_count(section, words), _first_count(section, _WIDTH_WORDS)


def _first_count(section: dict[str, object], words: tuple[str, ...]) -> int:
    return next((value for word in words if isinstance(value := section.get(word), int)), 0)
