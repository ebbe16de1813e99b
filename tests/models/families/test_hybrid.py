"""Latent, sparse and linear attention and state-space decoders, against published counts and engines."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache, CompressedCache, LatentCache, StateCache
from soong.models.config_json import Config
from soong.models.families import read_architecture

if TYPE_CHECKING:
    from soong.models.architecture import Weight

GOLDEN = Path(__file__).parents[2] / "golden" / "parameters.toml"

HYBRID_TYPES = {
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "deepseek_v4",
    "falcon_h1",
    "falcon_mamba",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "granitemoehybrid",
    "jamba",
    "kimi_linear",
    "lfm2",
    "minicpm3",
    "nemotron_h",
    "qwen3_next",
}

ROWS: dict[str, dict[str, Any]] = {
    row["id"]: row
    for row in tomllib.loads(GOLDEN.read_text("utf-8"))["model"]
    if row["config"]["model_type"] in HYBRID_TYPES
}


def config_of(name: str, **changes: Any) -> Config:
    """The golden config of a model with some values changed; None removes one."""
    values = {**ROWS[name]["config"], **changes}
    return Config({key: value for key, value in values.items() if value is not None})


@pytest.mark.parametrize("name", sorted(ROWS))
def test_parameters_equal_the_published_count(name: str) -> None:
    assert read_architecture(config_of(name)).parameters == ROWS[name]["parameters"]


@pytest.mark.parametrize(
    ("name", "layers", "served"),
    [
        # What transformers 5.23 builds of each, with the router biases that are buffers there.
        ("deepseek-ai/DeepSeek-V3", 1, 671_026_419_200),
        ("deepseek-ai/DeepSeek-V4-Flash-Base", 1, 284_334_567_511),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 1, 79_674_391_296),
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16", 1, 120_668_707_840),
        ("zai-org/GLM-5", 1, 743_911_218_432),
    ],
)
def test_draft_layers_are_counted_but_not_served(name: str, layers: int, served: int) -> None:
    architecture = read_architecture(config_of(name))
    assert architecture.mtp_layers == layers
    assert sum(weight.elements * weight.count for weight in architecture.served_weights()) == served


def test_latent_attention_keeps_one_vector_of_576_numbers() -> None:
    # vLLM 0.32 on Kimi-K2, the same attention: MLAAttentionSpec head_size 576, one head on every GPU.
    (cache,) = read_architecture(config_of("deepseek-ai/DeepSeek-V3")).caches
    assert cache == LatentCache(layers=61, latent_dim=512, rope_dim=64)


@pytest.mark.parametrize(
    "changes",
    [
        {"index_topk_freq": 4, "index_skip_topk_offset": 3},
        {"index_topk_pattern": "FFF" + "SSSF" * 18 + "SSS"},
    ],
)
def test_glm_layers_share_indexers(changes: dict[str, Any]) -> None:
    # vLLM 0.32 on GLM-5.3: 21 indexer caches of 128 numbers, 78 latent caches of 576.
    architecture = read_architecture(config_of("zai-org/GLM-5", **changes))
    (cache,) = architecture.caches
    assert cache == LatentCache(layers=78, latent_dim=512, rope_dim=64, indexer_layers=21, indexer_dim=128)
    # transformers 5.23 counts 743,377,000,704 for it, and 75 x 256 balancing biases are buffers there.
    served = sum(weight.elements * weight.count for weight in architecture.served_weights())
    assert served == 743_377_000_704 + 75 * 256


def test_minicpm3_caches_every_head() -> None:
    # vLLM 0.32: FullAttentionSpec with 40 heads of 96 for keys and for values.
    (cache,) = read_architecture(config_of("openbmb/MiniCPM3-4B")).caches
    assert cache == AttentionCache(layers=62, kv_heads=40, key_dim=96, value_dim=96)


def test_deepseek_v1_type_with_latent_sizes_is_latent() -> None:
    architecture = read_architecture(
        config_of("deepseek-ai/DeepSeek-Coder-V2-Instruct", model_type="deepseek")
    )
    assert isinstance(architecture.caches[0], LatentCache)
    (plain,) = read_architecture(config_of("deepseek-ai/deepseek-moe-16b-base")).caches
    assert plain == AttentionCache(layers=28, kv_heads=16, key_dim=128, value_dim=128)


def test_deepseek_v4_layers_by_compression() -> None:
    caches = read_architecture(config_of("deepseek-ai/DeepSeek-V4-Flash-Base")).caches
    found = [
        (cache.ratio, cache.layers, cache.indexer_dim)
        for cache in caches
        if isinstance(cache, CompressedCache)
    ]
    assert found == [(0, 2, 0), (4, 21, 128), (128, 20, 0)]


def test_fp4_checkpoints_of_deepseek_v4_do_not_repeat_the_embedding() -> None:
    # Published total of DeepSeek-V4-Flash: experts hold two numbers per element and a scale per 32 numbers.
    architecture = read_architecture(config_of("deepseek-ai/DeepSeek-V4-Flash-Base", expert_dtype="fp4"))
    stored = sum(weight.count * _stored_elements(weight) for weight in architecture.weights)
    assert stored == 158_069_433_298


def _stored_elements(weight: Weight) -> int:
    if ".experts." in weight.path:
        return weight.elements // 2 + weight.elements // 32
    if not weight.linear or weight.part == "lm_head":
        return weight.elements
    return weight.elements + -(-weight.shape[0] // 128) * -(-weight.shape[1] // 128)


def shapes(cache: object) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of each state tensor."""
    assert isinstance(cache, StateCache)
    return [(tensor.name, tensor.shape, tensor.dtype) for tensor in cache.tensors]


def test_gated_delta_net_states() -> None:
    # vLLM 0.32 on Qwen3.5-27B: shapes [3, 10240] and [48, 128, 128], bfloat16 and float32, 48 layers.
    sizes = {"linear_num_value_heads": 48, "mamba_ssm_dtype": "float32", "num_hidden_layers": 64}
    attention, state = read_architecture(config_of("Qwen/Qwen3-Next-80B-A3B-Instruct", **sizes)).caches
    assert isinstance(attention, AttentionCache)
    assert isinstance(state, StateCache)
    assert (attention.layers, state.layers) == (16, 48)
    assert shapes(state) == [("conv", (3, 10240), ""), ("recurrent", (48, 128, 128), "float32")]


def test_mamba2_states_hold_groups_apart() -> None:
    # vLLM 0.32 on granite-4.0-h-small: [3, 8448] on one GPU; [3, 1280] on eight, 8192 / 8 and a group of 256.
    sizes = {"hidden_size": 4096, "mamba_n_heads": 128, "num_attention_heads": 32, "num_key_value_heads": 8}
    attention, state = read_architecture(config_of("ibm-granite/granite-4.0-h-tiny", **sizes)).caches
    assert attention == AttentionCache(layers=4, kv_heads=8, key_dim=128, value_dim=128)
    assert isinstance(state, StateCache)
    assert shapes(state) == [
        ("conv", (3, 8192), ""),
        ("conv_groups", (3, 256), ""),
        ("ssm", (128, 64, 128), ""),
    ]
    assert [tensor.groups for tensor in state.tensors] == [0, 1, 0]


def test_nemotron_keeps_its_state_in_float32_unless_told_otherwise() -> None:
    name = "nvidia/NVIDIA-Nemotron-Nano-9B-v2"
    assert shapes(read_architecture(config_of(name)).caches[1])[2] == ("ssm", (128, 80, 128), "float32")
    half = read_architecture(config_of(name, mamba_ssm_cache_dtype="float16"))
    assert shapes(half.caches[1])[2] == ("ssm", (128, 80, 128), "float16")


def test_nemotron_patterns_and_lists_say_the_same() -> None:
    name = "nvidia/NVIDIA-Nemotron-Nano-9B-v2"
    words = {"M": "mamba", "*": "attention", "-": "mlp"}
    listed = [words[letter] for letter in ROWS[name]["config"]["hybrid_override_pattern"]]
    same = config_of(name, hybrid_override_pattern=None, num_hidden_layers=None, layers_block_type=listed)
    assert read_architecture(same).weights == read_architecture(config_of(name)).weights


def test_short_convolutions_keep_two_tokens() -> None:
    # vLLM 0.32 on LFM2-1.2B: ten layers of [2, 2048], six attention layers of 8 heads of 64.
    attention, state = read_architecture(config_of("LiquidAI/LFM2-1.2B")).caches
    assert attention == AttentionCache(layers=6, kv_heads=8, key_dim=64, value_dim=64)
    assert isinstance(state, StateCache)
    assert (state.layers, shapes(state)) == (10, [("conv", (2, 2048), "")])


def test_kimi_delta_attention_states_are_float32() -> None:
    latent, state = read_architecture(config_of("moonshotai/Kimi-Linear-48B-A3B-Instruct")).caches
    assert latent == LatentCache(layers=7, latent_dim=512, rope_dim=64)
    assert shapes(state) == [("conv", (3, 12288), ""), ("recurrent", (32, 128, 128), "float32")]


def test_mamba_alone_has_no_keys_or_values() -> None:
    (state,) = read_architecture(config_of("tiiuae/falcon-mamba-7b-instruct")).caches
    assert shapes(state) == [("conv", (3, 8192), ""), ("ssm", (8192, 16), "")]


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("deepseek-ai/DeepSeek-V4-Flash-Base", {"compress_ratios": [0, 4]}, "compress_ratios"),
        ("deepseek-ai/DeepSeek-V3", {"num_nextn_predict_layers": 10**6}, "num_nextn_predict_layers"),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", {"hybrid_override_pattern": "M?M"}, "unknown kind"),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", {"hybrid_override_pattern": None}, "hybrid_override_pattern"),
        ("ibm-granite/granite-4.0-h-tiny", {"layer_types": ["mamba"]}, "layer_types"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", {"layer_types": ["full_attention"]}, "layer_types"),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", {"kv_lora_rank": None}, "kv_lora_rank"),
    ],
)
def test_impossible_configs_are_refused_by_name(name: str, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_architecture(config_of(name, **changes))
