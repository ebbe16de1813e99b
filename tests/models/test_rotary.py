"""Rotary tables against the buffers that vLLM 0.32's own model classes hold."""

from __future__ import annotations

from typing import Any

import pytest

from soong.models.config_json import Config
from soong.models.rotary import early_rotary_table_bytes, rotary_table_bytes

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "max_position_embeddings": 131072,
}
MROPE = {
    "rope_type": "default",
    "mrope_interleaved": True,
    "mrope_section": [11, 11, 10],
    "partial_rotary_factor": 0.25,
}
QWEN = {
    "model_type": "qwen3_5_text",
    "head_dim": 256,
    "max_position_embeddings": 262144,
    "rope_parameters": MROPE,
}


def table(**config: Any) -> int:
    return rotary_table_bytes(Config(config))


def test_one_row_for_each_position() -> None:
    assert table(**LLAMA) == 33_554_432  # Llama-3.1-8B


def test_llama_3_scaling_does_not_lengthen_the_table() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    assert table(**LLAMA, rope_scaling=scaling) == 33_554_432


def test_yarn_multiplies_the_original_length() -> None:
    scaling = {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}
    config = {"model_type": "kimi_k2", "qk_rope_head_dim": 64, "max_position_embeddings": 131072}
    assert table(**config, rope_scaling=scaling) == 16_777_216  # Kimi-K2


def test_long_rope_keeps_a_short_table_too() -> None:
    config = {"model_type": "phi3", "head_dim": 96, "max_position_embeddings": 131072}
    scaling = {"type": "longrope"}
    assert (
        table(**config, rope_scaling=scaling, original_max_position_embeddings=4096) == 25_952_256
    )  # Phi-3 128k


def test_linear_scaling_lengthens_one_of_gemma_3s_two_tables() -> None:
    config = {"model_type": "gemma3_text", "head_dim": 256, "max_position_embeddings": 131072}
    scaling = {"rope_type": "linear", "factor": 8.0}
    assert table(**config, rope_scaling=scaling) == (8 + 1) * 131072 * 256 * 2


def test_gemma_4_rotates_whole_heads_of_two_sizes() -> None:
    kinds = {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_type": "default"},
    }
    config = {
        "model_type": "gemma4_text",
        "head_dim": 256,
        "global_head_dim": 512,
        "max_position_embeddings": 262144,
    }
    assert table(**config, rope_parameters=kinds) == 402_653_184  # Gemma-4-26B-A4B


def test_a_share_of_the_head_may_be_rotated() -> None:
    config = {
        "model_type": "stablelm",
        "hidden_size": 2560,
        "num_attention_heads": 32,
        "partial_rotary_factor": 0.25,
    }
    assert table(**config, max_position_embeddings=4096) == 163_840  # stablelm-3b


def test_video_models_reached_further_in_earlier_engines() -> None:
    assert rotary_table_bytes(Config(QWEN)) == 33_554_432  # Qwen3.5-27B
    assert early_rotary_table_bytes(Config(QWEN)) == 4 * 33_554_432


@pytest.mark.parametrize("config", [{"model_type": "gpt2"}, {"model_type": "falcon", "alibi": True}])
def test_models_without_rotary_positions_have_no_table(config: dict[str, Any]) -> None:
    assert table(**config, n_embd=768, n_head=12) == 0
