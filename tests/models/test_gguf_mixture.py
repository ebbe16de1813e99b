"""Sizes of GGUF files that were never read, against published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.gguf_mixture import BASE_TYPES, bytes_per_parameter, file_bytes, is_mixture, mixture

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

QWEN3_30B = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048, "head_dim": 128,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 151936,
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "intermediate_size": 6144,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "torch_dtype": "bfloat16", "max_position_embeddings": 40960,
}  # fmt: skip
LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "max_position_embeddings": 131072,
}  # fmt: skip
LLAMA_8B = {
    **LLAMA_1B, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "tie_word_embeddings": False,
}  # fmt: skip

PUBLISHED = [
    # bartowski/Qwen_Qwen3-30B-A3B-GGUF (llama.cpp b5200), as listed at model.aibase.com/.../1924737621108723712
    (QWEN3_30B, "Q8_0", 32.48), (QWEN3_30B, "Q6_K", 25.10), (QWEN3_30B, "Q5_K_M", 21.74),
    (QWEN3_30B, "Q5_K_S", 21.10),
    # bartowski/Llama-3.2-1B-Instruct-GGUF (llama.cpp b3821)
    (LLAMA_1B, "Q8_0", 1.32), (LLAMA_1B, "Q6_K", 1.02), (LLAMA_1B, "Q5_K_M", 0.91), (LLAMA_1B, "Q5_K_S", 0.89),
    (LLAMA_1B, "Q4_K_M", 0.81), (LLAMA_1B, "Q4_K_S", 0.78),
]  # fmt: skip
VOCABULARY_GB = 0.013
"""The names of the tokens and their merges stand in the file beside the tensors (8 MB); two decimals are published."""


def built(config: dict[str, Any]) -> Architecture:
    return read_architecture(Config(config))


@pytest.mark.parametrize(
    ("config", "word", "gigabytes"), PUBLISHED, ids=[f"{row[0]['model_type']}-{row[1]}" for row in PUBLISHED]
)
def test_published_sizes(config: dict[str, Any], word: str, gigabytes: float) -> None:
    architecture = built(config)
    found = file_bytes(architecture, mixture(architecture, word)) / 1e9
    assert found == pytest.approx(gigabytes, rel=0.005, abs=VOCABULARY_GB)


def test_the_mixture_of_q4_k_m() -> None:
    """Half of the values and of the ways back get six bits: the first and last eighth, every third between."""
    architecture = built(LLAMA_8B)
    storage = mixture(architecture, "Q4_K_M")
    spread = {
        weight.path.rpartition(".")[2]: {form.label: count for form, count in storage.spread(weight) if form}
        for weight in architecture.weights
        if weight.linear or weight.part == "embedding"
    }
    assert spread["v_proj"] == spread["down_proj"] == {"Q6_K": 16, "Q4_K": 16}
    assert spread["q_proj"] == spread["gate_proj"] == {"Q4_K": 32}
    assert spread["lm_head"] == {"Q6_K": 1}
    assert spread["embed_tokens"] == {"Q4_K": 1}


def test_a_tied_embedding_is_stored_as_an_output() -> None:
    architecture = built(LLAMA_1B)
    embedding = next(weight for weight in architecture.weights if weight.part == "embedding")
    assert [form.label for form, _ in mixture(architecture, "Q4_K_M").spread(embedding) if form] == ["Q6_K"]


def test_rows_that_do_not_divide_into_256() -> None:
    architecture = built({**LLAMA_8B, "intermediate_size": 14336 + 32})
    storage = mixture(architecture, "Q4_K_M")
    down = next(weight for weight in architecture.weights if weight.path.endswith("down_proj"))
    assert {form.label for form, _ in storage.spread(down) if form} == {"Q5_0", "Q8_0"}


@pytest.mark.parametrize("word", sorted(BASE_TYPES.keys() - {"MXFP4_MOE"}))
def test_sizes_follow_the_bits(word: str) -> None:
    architecture = built(LLAMA_8B)
    found = file_bytes(architecture, mixture(architecture, word)) / architecture.parameters
    assert found == pytest.approx(bytes_per_parameter(word), rel=0.28)


@pytest.mark.parametrize(
    ("word", "known"), [("Q4_K_M", True), ("q8_0", True), ("int4", False), ("BF16", False)]
)
def test_words(word: str, *, known: bool) -> None:
    assert is_mixture(word) is known


def test_a_catalogue_model_in_a_mixture() -> None:
    """4.57 GiB, as runyard.dev states it in "Q4_K_M vs Q5_K_M vs Q6_K vs Q8_0"."""
    from soong.models.resolve import resolve

    found = resolve("llama-3.1-8b", quantization="Q4_K_M", allow_network=False)
    assert (found.quantization.method, found.quantization.label) == ("gguf", "Q4_K_M")
    assert found.weights_bytes == pytest.approx(4.57 * 2**30, rel=0.003)
