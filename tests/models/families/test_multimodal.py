"""Models with towers: counts that others published, shares that vLLM computes, names that quantizers use."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from soong.errors import ConfigError
from soong.models.config_json import Config
from soong.models.families import (
    UnknownFamilyError,
    _towers,
    kimi_vision,
    llama_vision,
    qwen_vl,
    read_architecture,
)

TOWER_PARTS = {"vision", "audio", "projector"}
GOLDEN = Path(__file__).parents[2] / "golden" / "multimodal.toml"
MODELS = tomllib.loads(GOLDEN.read_text())["model"]

LLAMA_TEXT = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
}

QWEN_3_VL_32B_TOWER = {
    "deepstack_visual_indexes": [8, 16, 24],
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "out_hidden_size": 5120,
}


@pytest.mark.parametrize("model", MODELS, ids=[model["id"] for model in MODELS])
def test_parameters_are_the_published_ones(model: dict[str, Any]) -> None:
    architecture = read_architecture(Config(model["config"]))
    assert architecture.multimodal
    assert architecture.parameters == model["parameters"]
    if "towers" in model:
        towers = [weight for weight in architecture.weights if weight.part in TOWER_PARTS]
        assert sum(weight.elements * weight.count for weight in towers) == model["towers"]


def bytes_per_gpu(weights: list[Any], gpus: int) -> int:
    """16-bit weights that one GPU of a tensor-parallel group holds."""
    served = (weight for weight in weights if weight.served)
    return sum(
        2 * weight.count * (weight.elements if weight.shard == "replicated" else weight.elements // gpus)
        for weight in served
    )


@pytest.mark.parametrize(
    ("weights", "gpus", "expected"),
    [
        (qwen_vl.tower_3("model.visual", Config(QWEN_3_VL_32B_TOWER), deepstack=3), 1, 1_190_533_600),
        (qwen_vl.tower_3("model.visual", Config(QWEN_3_VL_32B_TOWER), deepstack=3), 2, 599_928_688),
        (qwen_vl.tower_3("model.visual", Config(QWEN_3_VL_32B_TOWER), deepstack=3), 8, 156_975_004),
        (llama_vision.tower_4(llama_vision.LLAMA_4_TOWER, 5120), 1, 1_743_864_832),
        (llama_vision.tower_4(llama_vision.LLAMA_4_TOWER, 5120), 8, 219_919_808),
        (kimi_vision.tower_k(Config({}), 7168, plain=False), 2, 531_007_856),
        (kimi_vision.tower_k(Config({}), 7168, plain=False), 8, 222_547_868),
    ],
    ids=[
        "qwen3-vl tp1",
        "qwen3-vl tp2",
        "qwen3-vl tp8",
        "llama-4 tp1",
        "llama-4 tp8",
        "kimi-k2.7 tp2",
        "kimi-k2.7 tp8",
    ],
)
def test_each_gpu_holds_the_share_that_vllm_gives_it(weights: list[Any], gpus: int, expected: int) -> None:
    """Bytes of the vision part of one rank as vLLM 0.32's own classes build them."""
    assert bytes_per_gpu(weights, gpus) == expected


def test_llava_does_not_load_what_lies_behind_the_layer_it_reads() -> None:
    config = {
        "model_type": "llava",
        "vision_feature_layer": -2,
        "text_config": LLAMA_TEXT,
        "vision_config": SIGLIP,
    }
    weights = read_architecture(Config(config)).weights
    fc1 = [weight for weight in weights if weight.path.endswith("encoder.layers.{}.mlp.fc1")]
    assert [(weight.layers, weight.served) for weight in fc1] == [((0, 1, 2), True), ((3,), False)]
    assert not any(
        weight.served for weight in weights if "post_layernorm" in weight.path or ".head." in weight.path
    )


def test_names_are_those_of_the_checkpoint() -> None:
    config = {"model_type": "llava", "text_config": LLAMA_TEXT, "vision_config": SIGLIP}
    paths = {weight.path for weight in read_architecture(Config(config)).weights}
    assert "vision_tower.vision_model.encoder.layers.{}.self_attn.q_proj" in paths
    assert "multi_modal_projector.linear_1" in paths
    assert "language_model.model.layers.{}.self_attn.q_proj" in paths
    assert "language_model.lm_head" in paths


def test_a_section_inherits_type_and_tied_head() -> None:
    config = {
        "model_type": "llava",
        "torch_dtype": "float16",
        "tie_word_embeddings": True,
        "text_config": LLAMA_TEXT,
        "vision_config": SIGLIP,
    }
    architecture = read_architecture(Config(config))
    assert architecture.dtype == "float16"
    assert not any(weight.part == "lm_head" for weight in architecture.weights)


def test_a_whisper_encoder_has_no_bias_on_its_keys() -> None:
    paths = [weight.path for weight in _towers.audio_tower("audio_tower", Config({}))]
    assert "audio_tower.layers.{}.self_attn.q_proj.bias" in paths
    assert "audio_tower.layers.{}.self_attn.k_proj.bias" not in paths


def test_an_unknown_language_model_is_named() -> None:
    config = {
        "model_type": "llava",
        "text_config": {**LLAMA_TEXT, "model_type": "abacus"},
        "vision_config": SIGLIP,
    }
    with pytest.raises(UnknownFamilyError, match="abacus"):
        read_architecture(Config(config))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vision_config", [1, 2]),
        ("vision_config", {**SIGLIP, "patch_size": 0}),
        ("vision_config", {**SIGLIP, "patch_size": [0, 0]}),
        ("vision_config", {**SIGLIP, "hidden_size": "wide"}),
        ("vision_config", {**SIGLIP, "num_hidden_layers": 10**9}),
        ("vision_feature_layer", "last"),
        ("text_config", "llama"),
    ],
)
def test_nonsense_is_refused_by_name(key: str, value: object) -> None:
    config = {"model_type": "llava", "text_config": LLAMA_TEXT, "vision_config": SIGLIP, key: value}
    with pytest.raises(ConfigError, match=r"_config|vision_feature_layer"):
        read_architecture(Config(config))


def test_deepseek_ocr_has_the_parameters_that_its_page_states() -> None:
    # huggingface.co/deepseek-ai/DeepSeek-OCR: 3B params in BF16, 3.34B in the listing
    text = {
        "hidden_size": 1280, "intermediate_size": 6848, "num_hidden_layers": 12, "num_attention_heads": 10,
        "num_key_value_heads": 10, "vocab_size": 129280, "moe_intermediate_size": 896, "n_routed_experts": 64,
        "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "use_mla": False,
        "q_lora_rank": None, "kv_lora_rank": None, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0,
    }  # fmt: skip
    architecture = read_architecture(
        Config(
            {
                "architectures": ["DeepseekOCRForCausalLM"],
                "model_type": "deepseek_vl_v2",
                "language_config": text,
                "projector_config": {"projector_type": "linear", "input_dim": 2048, "n_embed": 1280},
                "vision_config": {"model_name": "deeplip_b_l"},
            }
        )
    )
    assert architecture.name == "DeepseekOCRForCausalLM"
    assert architecture.parameters == pytest.approx(3.336e9, rel=1e-3)
