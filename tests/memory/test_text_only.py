"""A model that also sees or hears, served for text alone: what vLLM's own classes then hold, and what was printed."""

from typing import Any

import pytest

from soong.errors import UsageError
from soong.gpus.catalogue import find_gpu
from soong.memory import engines, towers
from soong.memory.footprint import EngineSettings, ServedModel, Workload
from soong.memory.weights import weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import read_quantization
from soong.models.resolve import resolve
from soong.plan.candidates import served_model
from soong.plan.planner import make_plan
from soong.plan.request import read_request

GIB = 1 << 30

PRINTED = [
    ("qwen3.6-35b-a3b", "0.19.2", "a5000-24gb", 2, 17.03),
    ("qwen3.6-35b-a3b", "0.30.0", "gb10-128gb", 1, 33.38),
    ("qwen3.8-27b", "0.30.0", "gb10-128gb", 1, 27.64),
]
"""Model loading took ... GiB: genesis-vllm-patches, whose log states `language_model_only`; and launches on a GB10 that
state no flag, and loaded what the language model weighs."""

HELD = [
    ("qwen3.5-122b-a10b", "bf16", 244_223_058_624),
    ("qwen3.6-35b-a3b", "fp8", 35_712_084_336),
    ("qwen3-vl-30b-a3b", "bf16", 61_064_246_016),
    ("kimi-k2.5", "int4", 594_205_537_232),
]
"""Bytes of the parameters that vLLM 0.32's classes make on one GPU with language_model_only."""


def served(name: str, quantization: str) -> Any:
    return served_model(resolve(name, quantization=quantization, allow_network=False))


def planned(model: str, **options: Any) -> Any:
    asked = {"gpu": "h100-80gb-sxm5", "engine": "vllm", "context": 8192, "text_only": True, **options}
    return make_plan(read_request({"model": model, **asked}), allow_network=False).candidates[0]


@pytest.mark.parametrize(("name", "version", "gpu", "parallel", "gib"), PRINTED)
def test_what_the_engine_printed(name: str, version: str, gpu: str, parallel: int, gib: float) -> None:
    one = planned(name, quantization="fp8", engine_version=version, gpu=gpu, tensor_parallel=parallel)
    assert one.footprint.loaded_bytes / GIB == pytest.approx(gib, rel=0.002)


@pytest.mark.parametrize(("name", "quantization", "expected"), HELD)
def test_the_parameters_of_the_engine_s_classes(name: str, quantization: str, expected: int) -> None:
    model = served(name, quantization)
    whole, found = (
        weights_per_gpu(
            architecture, model.quantization, tensor_parallel=1, engine="vllm", engine_version="0.32.0"
        ).total_bytes
        for architecture in (model.architecture, towers.text_alone(model.architecture))
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert whole > found


def test_the_command_is_the_one_that_is_planned() -> None:
    """More tokens, and the flag; the same of a model that only reads, which needs none."""
    whole, text = planned("qwen3.6-27b", text_only=False), planned("qwen3.6-27b")
    assert "--language-model-only" in text.engine_argv
    assert "--language-model-only" not in whole.engine_argv
    assert text.footprint.kv_pool_tokens > whole.footprint.kv_pool_tokens
    reader, same = planned("qwen3-14b"), planned("qwen3-14b", text_only=False)
    assert (reader.engine_argv, reader.footprint) == (same.engine_argv, same.footprint)


def test_room_for_what_a_tower_hands_over_went_with_it_in_0_28() -> None:
    """qwen3_vl.py deepstack_input_embeds: three rows of 2048 numbers for each token of a batch."""
    settings: dict[str, Any] = {"name": "vllm", "max_num_batched_tokens": 8192, "text_only": True}
    model, gpu = served("qwen3-vl-30b-a3b", "bf16"), find_gpu("h100-80gb-sxm5")
    before, after = (
        towers.as_loaded(model, EngineSettings(version=version, **settings))
        for version in ("0.27.1", "0.28.0")
    )
    assert before.architecture.input_buffer_numbers == 3 * 2048
    assert after.architecture.input_buffer_numbers == 0
    assert not after.architecture.multimodal
    assert (
        engines.footprint(
            model, gpu, Workload(context_tokens=8192), EngineSettings(version="0.28.0", **settings)
        ).loaded_bytes
        < engines.footprint(
            model, gpu, Workload(context_tokens=8192), EngineSettings(version="0.27.1", **settings)
        ).loaded_bytes
        - 3 * 2048 * 8192
    )


@pytest.mark.parametrize(
    ("model", "options", "why"),
    [
        ("qwen3.6-27b", {"engine_version": "0.16.0"}, "0.17.0 does"),
        ("qwen3.6-27b", {"engine": "sglang"}, "leaves encoders out of"),
    ],
)
def test_engines_that_lack_it_refuse(model: str, options: dict[str, Any], why: str) -> None:
    found = planned(model, **options)
    assert found.verdict == "unsupported"
    assert why in found.reasons[0]
    assert not found.engine_argv


TINY = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 2, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 151666, "max_position_embeddings": 32768,
}  # fmt: skip


def read(config: dict[str, Any]) -> ServedModel:
    found = Config(config)
    architecture = read_architecture(found)
    return ServedModel(
        key=str(config["model_type"]),
        architecture=architecture,
        quantization=read_quantization(found, dtype=architecture.dtype),
    )


def test_a_tower_s_tables_go_with_it() -> None:
    """models/minicpmv.py Resampler: 70 × 70 positions as wide as the text; what stays is the decoder's own."""
    tower = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 2,
        "num_attention_heads": 16,
    }
    names = {"architectures": ["MiniCPMV"], "model_type": "minicpmv", "version": 2.6, "query_num": 64}
    sees = read({**TINY, **names, "vision_config": {**tower, "patch_size": 14, "image_size": 980}})
    reads = read({**TINY, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})
    text = towers.as_loaded(sees, EngineSettings(name="vllm", version="0.33.0", text_only=True))
    for tables in ("rotary_bytes", "early_rotary_bytes"):
        kept = getattr(text.architecture, tables)
        assert kept == getattr(reads.architecture, tables)
        assert getattr(sees.architecture, tables) - kept == 70 * 70 * 3584 * 2


def test_what_vllm_does_not_mark_as_a_tower_stays() -> None:
    """models/gemma4_unified.py has `_mark_language_model` alone, gemma4_mm.py `_mark_tower_model` too."""
    text = {**TINY, "model_type": "gemma4_unified_text", "head_dim": 128}
    model = read(
        {
            "architectures": ["Gemma4UnifiedForConditionalGeneration"],
            "model_type": "gemma4_unified",
            "text_config": text,
            "vision_config": {},
        }
    )
    assert towers.as_loaded(model, EngineSettings(name="vllm", version="0.33.0", text_only=True)) is model


def test_sglang_leaves_llama_4_s_tower_out_unasked() -> None:
    """models/mllama4.py: has_vision asks enable_multimodal, which mm_disabled_models turns off; 0.4.9 did not ask."""
    model = served("llama-4-scout", "int4")
    settings = EngineSettings(name="sglang", version="0.5.23")
    assert not towers.as_loaded(model, settings).architecture.multimodal
    assert towers.as_loaded(model, EngineSettings(name="sglang", version="0.4.9")) is model
    assert towers.as_loaded(model, EngineSettings(name="vllm", version="0.33.0")) is model
    asked, unasked = (
        planned("llama-4-scout", engine="sglang", gpu_count=4, text_only=given) for given in (True, False)
    )
    assert asked.footprint == unasked.footprint
    assert "--language-model-only" not in asked.engine_argv


def test_it_is_true_or_false() -> None:
    with pytest.raises(UsageError, match="`text_only` must be true or false"):
        read_request({"model": "qwen3.6-27b", "text_only": "yes"})
