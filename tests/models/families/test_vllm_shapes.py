"""Families held against the parameters that vLLM 0.32's own classes make of a configuration class's defaults."""

from __future__ import annotations

from typing import Any

import pytest

from soong.memory.weights import weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import read_quantization

EXAONE_4_5: dict[str, Any] = {
    "architectures": ["Exaone4_5_ForConditionalGeneration"],
    "model_type": "exaone4_5",
    "dtype": "bfloat16",
    "tie_word_embeddings": False,
    "vision_config": {"model_type": "exaone4_5_vision", "num_key_value_heads": 8},
    "text_config": {
        "model_type": "exaone4",
        "vocab_size": 102400,
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 2048,
    },
}
GLM_OCR: dict[str, Any] = {
    "architectures": ["GlmOcrForConditionalGeneration"],
    "model_type": "glm_ocr",
    "dtype": "bfloat16",
    "tie_word_embeddings": False,
    "vision_config": {"model_type": "glm_ocr_vision"},
    "text_config": {
        "model_type": "glm_ocr_text",
        "vocab_size": 59392,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
}
PADDLE_TEXT: dict[str, Any] = {
    "vocab_size": 103424,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 18,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
}
PADDLEOCR_VL: dict[str, Any] = {
    "architectures": ["PaddleOCRVLForConditionalGeneration"],
    "model_type": "paddleocr_vl",
    "dtype": "bfloat16",
    "tie_word_embeddings": True,
    "vision_config": {"model_type": "paddleocr_vl_vision"},
    "text_config": {"model_type": "paddleocr_vl_text", **PADDLE_TEXT},
}
QWEN3_ASR: dict[str, Any] = {
    "architectures": ["Qwen3ASRForConditionalGeneration"],
    "model_type": "qwen3_asr",
    "dtype": "bfloat16",
    "tie_word_embeddings": True,
    "audio_config": {
        "d_model": 1024,
        "encoder_layers": 24,
        "encoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "output_dim": 3584,
    },
    "text_config": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
}
KNOWN = {
    "exaone4_5": (EXAONE_4_5, 24_201_877_504, 12_105_894_144),
    "glm_ocr": (GLM_OCR, 1_610_241_280, 812_791_040),
    "paddleocr_vl": (PADDLEOCR_VL, 1_599_391_232, 827_401_104),
    "qwen3_asr": (QWEN3_ASR, 4_079_254_208, 2_056_641_216),
}
"""Parameter bytes of one GPU, alone and of two."""


@pytest.mark.parametrize("name", KNOWN)
def test_parameter_bytes_are_those_of_vllms_classes(name: str) -> None:
    values, alone, of_two = KNOWN[name]
    config = Config(values)
    architecture, storage = read_architecture(config), read_quantization(config, dtype="bfloat16")
    for parallel, wanted in ((1, alone), (2, of_two)):
        share = weights_per_gpu(
            architecture, storage, tensor_parallel=parallel, engine="vllm", engine_version="0.32.0"
        )
        assert share.total_bytes == wanted


def test_paddleocr_vl_files_hold_a_head_and_a_table_that_are_not_served() -> None:
    """958,588,736 is what the Hub shows for PaddlePaddle/PaddleOCR-VL, whose config states the text at its top."""
    flat = {**PADDLEOCR_VL, **PADDLE_TEXT, "tie_word_embeddings": False}
    del flat["text_config"]
    assert read_architecture(Config(flat)).parameters == 958_588_736


def test_latent_projections_of_kimi_k3_are_not_packed() -> None:
    """In 16 bits, its tensors are 75.8 MB below the sum of its files: the headers of 494,592 expert tensors."""
    quantization = {
        "quant_method": "compressed-tensors",
        "format": "mxfp4-pack-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "float", "group_size": 32, "strategy": "group"},
            }
        },
        "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*", "re:.*lm_head.*"],
    }
    config = Config({
        "architectures": ["KimiLinearForCausalLM"],
        "model_type": "kimi_linear",
        "dtype": "bfloat16",
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 1024,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "linear_attn_config": {
            "full_attn_layers": [2],
            "kda_layers": [1],
            "head_dim": 32,
            "num_heads": 4,
            "short_conv_kernel_size": 4,
        },
        "num_experts": 8,
        "num_experts_per_token": 2,
        "moe_intermediate_size": 256,
        "routed_expert_hidden_size": 256,
        "first_k_dense_replace": 0,
        "quantization_config": quantization,
    })  # fmt: skip
    architecture, storage = read_architecture(config), read_quantization(config, dtype="bfloat16")
    latent = [weight for weight in architecture.weights if "routed_expert_" in weight.path]
    assert [weight.shape for weight in latent] == [(256, 512), (512, 256)]
    assert all(storage.spread(weight) == ((None, 2),) for weight in latent)
    packed = [weight for weight in architecture.weights if ".experts." in weight.path]
    assert packed
    assert all(form is not None for weight in packed for form, _ in storage.spread(weight))


@pytest.mark.parametrize(
    ("parallel", "wanted"), [(1, 31_035_699_840), (2, 27_713_172_096), (8, 25_221_276_288)]
)
def test_starcoders_mlp_stands_whole_on_every_gpu(parallel: int, wanted: int) -> None:
    """WizardCoder-15B as vLLM 0.32 runs it, with transformers' code."""
    config = Config({
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
        "torch_dtype": "float16",
        "n_embd": 6144,
        "n_head": 48,
        "n_inner": 24576,
        "n_layer": 40,
        "n_positions": 8192,
        "multi_query": True,
        "vocab_size": 49153,
    })  # fmt: skip
    share = weights_per_gpu(
        read_architecture(config),
        read_quantization(config, dtype="float16"),
        tensor_parallel=parallel,
        engine="vllm",
        engine_version="0.32.0",
    )
    assert share.total_bytes == wanted
