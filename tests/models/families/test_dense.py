"""Decoders with plain attention, dense and with experts, against published counts and vLLM's own cache specs."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soong.errors import ConfigError
from soong.models.architecture import Architecture, AttentionCache
from soong.models.config_json import Config
from soong.models.families import FAMILIES, read_architecture
from soong.models.families import llama4 as llama4_family

GOLDEN = Path(__file__).parents[2] / "golden" / "parameters.toml"

DENSE_MODULES = {
    "classic",
    "gemma4",
    "gpt_oss",
    "laguna",
    "llama",
    "llama4",
    "mimo_v2",
    "minimax_m3",
    "moe",
    "nemotron_nas",
}
TYPES = sorted(model_type for model_type, module in FAMILIES.items() if module in DENSE_MODULES)

ROWS: dict[str, dict[str, Any]] = {
    row["id"]: row
    for row in tomllib.loads(GOLDEN.read_text("utf-8"))["model"]
    if FAMILIES.get(row["config"]["model_type"]) in DENSE_MODULES
}

SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 512,
    "vocab_size": 1000,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}


def read(name: str, **changes: Any) -> Architecture:
    """The architecture of a golden config with some values changed; None removes one."""
    values = {**ROWS[name]["config"], **changes}
    return read_architecture(Config({key: value for key, value in values.items() if value is not None}))


def served(architecture: Architecture) -> int:
    return sum(weight.elements * weight.count for weight in architecture.served_weights())


def windows(architecture: Architecture) -> set[tuple[int, int]]:
    """Layers and window of each cache."""
    return {
        (cache.layers, cache.window) for cache in architecture.caches if isinstance(cache, AttentionCache)
    }


@pytest.mark.parametrize("name", sorted(ROWS))
def test_parameters_equal_the_published_count(name: str) -> None:
    assert read(name).parameters == ROWS[name]["parameters"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # KV-cache specs of vLLM 0.32 for the same configs: layers and window.
        ("google/gemma-2-2b-it", {(13, 4096), (13, 0)}),
        ("microsoft/Phi-3-mini-4k-instruct", {(32, 2047)}),
        ("microsoft/phi-4", {(40, 0)}),
        ("Qwen/Qwen2.5-3B", {(36, 0)}),
        # From the configuration classes of transformers 5.23: one global layer in six, one in four.
        ("google/gemma-3-1b-it", {(22, 512), (4, 0)}),
        ("LGAI-EXAONE/EXAONE-4.0-32B", {(48, 4096), (16, 0)}),
        ("mistralai/Mistral-7B-v0.1", {(32, 4096)}),
    ],
)
def test_sliding_layers_are_those_of_the_engine(name: str, expected: set[tuple[int, int]]) -> None:
    assert windows(read(name)) == expected


def test_an_explicit_null_window_means_full_attention() -> None:
    config = {**ROWS["mistralai/Mistral-7B-v0.1"]["config"], "sliding_window": None}
    assert windows(read_architecture(Config(config))) == {(32, 0)}


def test_draft_layers_are_counted_but_not_served() -> None:
    # What transformers 5.23 builds of GLM-4.7, with the 160 router biases of 89 layers that are buffers there.
    architecture = read("zai-org/GLM-4.7")
    assert architecture.mtp_layers == 1
    assert served(architecture) == 352_797_814_784 + 89 * 160
    assert served(read("zai-org/GLM-4.7", num_nextn_predict_layers=None)) == served(architecture)


def test_nemotron_super_has_heads_and_widths_of_its_own_in_each_layer() -> None:
    # nvidia/Llama-3_3-Nemotron-Super-49B-v1: Hugging Face API, safetensors.total 49,867,145,216.
    full, none = 8, 0
    runs = [
        (full, 2.625, 1),
        (full, 5.25, 5),
        (none, 2.625, 2),
        (full, 5.25, 3),
        (none, 3.28125, 1),
        (full, 5.25, 30),
    ]
    runs += [
        (none, mult, count) for mult, count in ((1.3125, 1), (2.625, 2), (1.3125, 1), (5.25, 1), (1.3125, 1))
    ]
    runs += [(none, 2.625, 1), (none, 1.3125, 3), (full, 5.25, 1), (none, 1.3125, 1)]
    runs += [
        (none, mult, count)
        for mult, count in ((1.0, 2), (1.3125, 1), (1.0, 3), (1.3125, 2), (0.5, 2), (1.0, 2))
    ]
    runs += [(none, 0.5, 2), (none, 1.0, 1), (none, 0.5, 2), (full, 5.25, 9)]
    blocks = [
        {"attention": {"n_heads_in_group": group or None, "no_op": not group}, "ffn": {"ffn_mult": mult}}
        for group, mult, count in runs
        for _ in range(count)
    ]
    config = {
        "model_type": "nemotron-nas",
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "vocab_size": 128256,
        "block_configs": blocks,
    }
    architecture = read_architecture(Config(config))
    assert architecture.parameters == 49_867_145_216
    assert windows(architecture) == {(49, 0)}


def test_gpt_oss_has_the_size_of_its_model_card() -> None:
    # openai/gpt-oss-20b, model card (arXiv 2508.10925, table 1): 20.91 billion parameters, 3.61 billion active
    # without the embedding of 0.58 billion.
    config = {
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "vocab_size": 201088,
    }
    architecture = read_architecture(Config(config))
    assert architecture.parameters == 20_914_757_184
    assert round((architecture.active_parameters - 201088 * 2880) / 1e9, 2) == 3.61
    assert windows(architecture) == {(12, 128), (12, 0)}


def test_llama4_chunks_three_layers_of_four() -> None:
    # Llama 4 Scout; vLLM 0.32: 36 chunked layers of 8192 tokens and 12 full ones, 8 heads of 128.
    architecture = llama4_family.read(Config({"model_type": "llama4_text"}), prefix="language_model.model")
    assert architecture.caches == (
        AttentionCache(layers=36, kv_heads=8, key_dim=128, value_dim=128, chunk=8192),
        AttentionCache(layers=12, kv_heads=8, key_dim=128, value_dim=128),
    )
    assert architecture.parameters == 107_769_861_120
    assert all(
        weight.path.startswith(("language_model.model.", "lm_head")) for weight in architecture.weights
    )


class TestGemma4:
    """Gemma 4's global layers: wider heads, and values that are the keys."""

    FACTS: ClassVar[dict[str, Any]] = {
        "model_type": "gemma4_text",
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "moe_intermediate_size": 704,
        "num_experts": 128,
        "top_k_experts": 8,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "sliding_window": 1024,
    }

    def test_caches_are_those_of_vllm(self) -> None:
        assert set(read_architecture(Config(self.FACTS)).caches) == {
            AttentionCache(layers=25, kv_heads=8, key_dim=256, value_dim=256, window=1024),
            AttentionCache(layers=5, kv_heads=2, key_dim=512, value_dim=512),
        }

    def test_values_are_loaded_twice_but_counted_once(self) -> None:
        architecture = read_architecture(Config(self.FACTS))
        # transformers 5.23 builds 25,233,141,760 parameters; a checkpoint also holds one scale per layer.
        assert architecture.parameters == 25_233_141_760 + 30
        assert served(architecture) - architecture.parameters == 5 * 2 * 512 * 2816

    def test_shared_layers_have_no_cache_of_their_own(self) -> None:
        architecture = read_architecture(Config({**self.FACTS, "num_kv_shared_layers": 10}))
        assert sum(cache.layers for cache in architecture.caches if isinstance(cache, AttentionCache)) == 20


def test_biases_of_queries_follow_the_config() -> None:
    plain, biased = (
        read_architecture(Config({**SMALL, "model_type": "llama", "attention_bias": on})) for on in (0, 1)
    )
    assert biased.parameters - plain.parameters == 4 * (256 + 64 + 64 + 256)


def test_an_embedding_checkpoint_has_no_head() -> None:
    head = read_architecture(Config({**SMALL, "model_type": "qwen3"}))
    bare = read_architecture(Config({**SMALL, "model_type": "qwen3", "architectures": ["Qwen3Model"]}))
    assert head.parameters - bare.parameters == 1000 * 256


@pytest.mark.parametrize(
    ("scaling", "limit"),
    [
        # vLLM 0.33 `config/model.py`: only these kinds of scaling multiply the stated length.
        ({"rope_type": "linear", "factor": 4.0}, 16384),
        ({"type": "dynamic", "factor": 2.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 4096),
        ({"rope_type": "llama3", "factor": 8.0}, 4096),
        ({"type": "longrope"}, 4096),
    ],
)
def test_context_limit_follows_the_engine(scaling: dict[str, Any], limit: int) -> None:
    config = {**SMALL, "model_type": "llama", "max_position_embeddings": 4096, "rope_scaling": scaling}
    assert read_architecture(Config(config)).context_limit_tokens == limit


def test_a_list_of_layers_that_is_too_short_is_refused_by_name() -> None:
    config = {**SMALL, "model_type": "qwen3", "sliding_window": 64, "use_sliding_window": True}
    with pytest.raises(ConfigError, match="layer_types"):
        read_architecture(Config({**config, "layer_types": ["full_attention"]}))


@pytest.mark.parametrize(
    "model_type", sorted(set(TYPES) - {"mimo_v2", "mimo_v2_flash", "nemotron-nas", "phi3small"})
)
def test_every_type_reads_a_small_config(model_type: str) -> None:
    config = Config({**SMALL, "num_local_experts": 8, "moe_num_experts": 8, "moe_k": 2, "moe_topk": 2})
    config.values = {**config.values, "model_type": model_type}
    architecture = read_architecture(config)
    assert 0 < architecture.active_parameters <= served(architecture)
    assert architecture.hidden_size == 256
    assert architecture.caches


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1 << 50),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 9), max_size=5),
    st.dictionaries(st.sampled_from(["factor", "rope_type", "no_op"]), st.integers(), max_size=2),
)
KEYS = [*SMALL, "sliding_window", "layer_types", "rope_scaling", "block_configs", "num_nextn_predict_layers"]
KEYS += [
    "sliding_window_pattern",
    "mlp_only_layers",
    "decoder_sparse_step",
    "per_layer_config",
    "architectures",
]
KEYS += [
    "num_kv_shared_layers",
    "moe_layer_freq",
    "hybrid_layer_pattern",
    "gating",
    "moe_topk",
    "attn_config",
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_nonsense_is_refused_with_a_config_error(model_type: str, changes: dict[str, Any]) -> None:
    config = {**SMALL, **changes, "model_type": model_type}
    # Any other error than a ConfigError, which names the key, fails the test.
    with suppress(ConfigError):
        read_architecture(Config(config))


def test_a_type_of_its_own_is_read_as_its_class() -> None:
    values = {**SMALL, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    llama = read_architecture(Config(values))
    own = read_architecture(Config({**values, "model_type": "somebodys-llama"}))
    assert own.weights == llama.weights
    assert own.caches == llama.caches
    assert own.model_type == "somebodys-llama"


def test_a_class_that_is_not_known_stays_refused() -> None:
    values = {**SMALL, "model_type": "somebodys-own", "architectures": ["SomebodysForCausalLM"]}
    with pytest.raises(ConfigError, match="does not know the model type"):
        read_architecture(Config(values))


@pytest.mark.parametrize("count", [3, 6])
@pytest.mark.parametrize("key", ["layer_types", "mlp_layer_types"])
def test_a_list_of_layers_must_be_as_long_as_the_model_is_deep(key: str, count: int) -> None:
    values = {**SMALL, "model_type": "llama", key: ["full_attention"] * count}
    with pytest.raises(ConfigError, match=f"`{key}` names {count} of 4 layers"):
        read_architecture(Config(values))


def test_a_list_may_name_the_draft_layers_too() -> None:
    values = {**SMALL, "model_type": "llama", "num_nextn_predict_layers": 2, "layer_types": ["x"] * 6}
    assert read_architecture(Config(values)).caches[0].layers == 4


def attention(architecture: Architecture) -> AttentionCache:
    (cache,) = architecture.caches
    assert isinstance(cache, AttentionCache)
    return cache


def test_a_window_without_a_list_holds_for_every_layer() -> None:
    values = {**SMALL, "model_type": "llama", "sliding_window": 512}
    cache = attention(read_architecture(Config(values)))
    assert (cache.layers, cache.window) == (4, 512)
