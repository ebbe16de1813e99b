"""Footprints through the public door: identities, refusals, versions, flags, and who may run what."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from soong.errors import UsageError
from soong.gpus.gpu import Gpu
from soong.memory import engines
from soong.memory.engines._constants import rules, version_tuple
from soong.memory.footprint import EngineSettings, Footprint, ServedModel, Workload
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization.reading import read_quantization
from soong.models.resolve import resolve

GIB = 1 << 30

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def served(key: str = "llama", **more: Any) -> ServedModel:
    config = Config({**LLAMA_8B, **more})
    architecture = read_architecture(config)
    quantization = read_quantization(config, dtype=architecture.dtype)
    return ServedModel(key=key, architecture=architecture, quantization=quantization)


def a_gpu(gib: float = 79.19, capability: tuple[int, int] | None = (9, 0), **more: Any) -> Gpu:
    fields: dict[str, Any] = {
        "id": "h100", "name": "H100", "vendor": "nvidia", "label_gb": 80, "memory_bytes": round(gib * GIB),
        "bandwidth_bytes_per_second": 0, "dense_flops": {}, "compute_capability": capability, "native_formats": (),
        "interconnect": "NVLink 4", "source": "", "as_of": "",
    }  # fmt: skip
    return Gpu(**{**fields, **more})


def with_engine(name: str, **more: Any) -> EngineSettings:
    return EngineSettings(**{"name": name, "version": engines.default_version(name), **more})


def parts(found: Footprint) -> int:
    return (
        found.runtime_bytes + found.weights_bytes + found.kv_pool_bytes + found.state_bytes
        + found.activations_bytes + found.cuda_graphs_bytes + found.free_bytes
    )  # fmt: skip


@pytest.mark.parametrize("engine", engines.ENGINES)
@pytest.mark.parametrize("gib", [14, 24, 79.19, 141])
def test_parts_add_up_to_the_gpu(engine: str, gib: float) -> None:
    gpu = a_gpu(gib)
    found = engines.footprint(served(), gpu, Workload(context_tokens=8192), with_engine(engine))
    assert found.starts == (gib > 14)
    if found.starts:
        assert parts(found) == found.total_bytes == gpu.memory_bytes


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_more_context_never_needs_less(engine: str) -> None:
    needs = [
        engines.footprint(served(), a_gpu(), Workload(context_tokens=tokens), with_engine(engine)).need_bytes
        for tokens in (1024, 8192, 65536, 131072)
    ]
    assert needs == sorted(needs)


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_gpu_of_which_only_the_memory_is_known(engine: str) -> None:
    unknown = a_gpu(40, None, id="mig", interconnect="")
    settings = with_engine(engine)
    assert engines.supports(served(), unknown, settings) is None
    assert engines.footprint(served(), unknown, Workload(context_tokens=4096), settings).starts


def test_a_published_start_of_llama_8b() -> None:
    """Meta-Llama-3.1-8B w8a8 runs on 0.19 show 1.89 GiB of activations and 64 KiB of cache a token at TP 2."""
    settings = with_engine("vllm", version="0.19.0", memory_fraction=0.95, tensor_parallel=2)
    found = engines.footprint(served(), a_gpu(), Workload(context_tokens=8192), settings)
    assert found.activations_bytes / GIB == pytest.approx(1.89, abs=0.02)
    assert found.kv_bytes_per_token == 65536
    assert found.weights_bytes / GIB == pytest.approx(7.51, abs=0.02)


def test_a_fixed_pool_decides_the_tokens() -> None:
    settings = with_engine("vllm", kv_cache_memory_bytes=10 * GIB)
    found = engines.footprint(served(), a_gpu(), Workload(context_tokens=8192), settings)
    assert (found.kv_pool_bytes, found.kv_pool_tokens, found.memory_fraction) == (10 * GIB, 81920, None)
    assert found.max_concurrency == 10.0


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_fixed_pool_leaves_the_tensors_alone_as_weights(engine: str) -> None:
    """What loading adds to them (a rotary table of 32 MiB, rounding) moves to the runtime; the sum stays."""
    free, fixed = (
        engines.footprint(served(), a_gpu(), Workload(context_tokens=8192), with_engine(engine, **more))
        for more in ({}, {"kv_cache_memory_bytes": 10 * GIB})
    )
    assert free.weights_bytes == free.loaded_bytes == fixed.loaded_bytes
    assert fixed.weights_bytes == fixed.tensor_bytes == free.tensor_bytes
    # 8,030,261,248 parameters of 16 bits; vLLM adds four float32 scales a layer.
    assert fixed.tensor_bytes == 2 * 8_030_261_248 + (32 * 16 if engine == "vllm" else 0)
    moved = fixed.loaded_bytes - fixed.tensor_bytes
    assert moved >= 32 << 20
    assert fixed.runtime_bytes - free.runtime_bytes == pytest.approx(moved, abs=2 << 20)
    assert parts(fixed) == fixed.total_bytes


@pytest.mark.parametrize(("version", "tokens"), [("0.20.1", 40_016), ("0.20.2", 286_007)])
def test_tokens_of_two_kinds_of_layers_follow_concurrency_since_0_20_2(version: str, tokens: int) -> None:
    """A log of 0.20.2 of nvidia/Gemma-4-26B-A4B-NVFP4: 4.58 GiB hold 286,007 tokens, 1.12 times 256,000.

    Before, each of the 6 groups of 5 layers was given as many of the 15,007 blocks, of 16 tokens at least.
    """
    found = resolve("nvidia/Gemma-4-26B-A4B-NVFP4", allow_network=False)
    assert found.architecture is not None
    model = ServedModel(key="gemma", architecture=found.architecture, quantization=found.quantization)
    settings = with_engine(
        "vllm", version=version, max_num_batched_tokens=16384, kv_cache_memory_bytes=round(4.58 * GIB)
    )
    workload = Workload(context_tokens=256_000, kv_dtype="fp8")
    held = engines.footprint(model, a_gpu(capability=(10, 0)), workload, settings)
    assert held.max_concurrency == pytest.approx(1.12, abs=0.005)
    assert held.kv_pool_tokens == pytest.approx(tokens, rel=0.002)


def test_the_null_block_refuses_a_context_that_fills_the_pool() -> None:
    settings = with_engine("vllm", kv_cache_memory_bytes=10 * GIB)
    full = engines.footprint(served(), a_gpu(), Workload(context_tokens=81920), settings)
    assert not full.starts
    assert "GiB of KV cache is needed" in full.refusal
    assert full.max_context_tokens == 81920 - 16


@pytest.mark.parametrize(
    ("version", "fraction"), [("0.10.0", 0.90), ("0.19.1", 0.90), ("0.20.0", 0.92), ("0.33.0", 0.92)]
)
def test_the_default_fraction_follows_the_version(version: str, fraction: float) -> None:
    found = engines.footprint(
        served(), a_gpu(), Workload(context_tokens=4096), with_engine("vllm", version=version)
    )
    assert found.memory_fraction == fraction


def test_graphs_count_in_the_budget_since_0_20() -> None:
    pools = [
        engines.footprint(
            served(),
            a_gpu(),
            Workload(context_tokens=4096),
            with_engine("vllm", version=version, memory_fraction=0.9),
        )
        for version in ("0.19.0", "0.20.0")
    ]
    assert pools[0].kv_pool_bytes - pools[1].kv_pool_bytes == pools[1].cuda_graphs_bytes > 0


def test_eager_mode_captures_nothing() -> None:
    found = engines.footprint(
        served(), a_gpu(), Workload(context_tokens=4096), with_engine("vllm", enforce_eager=True)
    )
    assert found.cuda_graphs_bytes == 0


def test_heads_are_replicated_beyond_their_number() -> None:
    eight, sixteen = (
        engines.footprint(
            served(), a_gpu(), Workload(context_tokens=4096), with_engine("vllm", tensor_parallel=ranks)
        )
        for ranks in (8, 16)
    )
    assert eight.kv_bytes_per_token == sixteen.kv_bytes_per_token == 16384


@pytest.mark.parametrize(
    ("total_mib", "ranks", "version", "eager", "fraction"),
    [
        (81559, 1, "0.5.23", False, 0.830),  # https://github.com/sgl-project/sglang/issues/39713
        (81920, 1, "0.5.3", False, 0.836),
        (97887, 8, "0.5.3", False, 0.848),
    ],
)
def test_sglang_picks_the_fraction_its_logs_show(
    total_mib: int, ranks: int, version: str, eager: bool, fraction: float
) -> None:
    gpu = replace(a_gpu(), memory_bytes=total_mib << 20)
    settings = with_engine("sglang", version=version, tensor_parallel=ranks, enforce_eager=eager)
    found = engines.footprint(served(), gpu, Workload(context_tokens=4096), settings)
    assert found.memory_fraction == pytest.approx(fraction, abs=0.0011)


def test_sglang_tokens_are_bytes_over_a_cell() -> None:
    settings = with_engine("sglang", kv_cache_memory_bytes=20 * GIB)
    found = engines.footprint(served(), a_gpu(), Workload(context_tokens=8192), settings)
    assert found.kv_pool_tokens == 20 * GIB // 131072


def test_llama_cpp_pads_its_context() -> None:
    found = engines.footprint(
        served(), a_gpu(), Workload(context_tokens=1000, sequences=2), with_engine("llama.cpp")
    )
    assert found.kv_pool_bytes == 2 * 1024 * 131072


def test_argv_carries_what_was_planned() -> None:
    settings = with_engine(
        "vllm", tensor_parallel=2, memory_fraction=0.95, max_num_seqs=64, enforce_eager=True
    )
    argv = engines.launch_argv("org/model", Workload(context_tokens=8192, kv_dtype="fp8"), settings)
    assert argv[:3] == ("vllm", "serve", "org/model")
    text = " ".join(argv)
    for flag in (
        "--max-model-len 8192", "--tensor-parallel-size 2", "--gpu-memory-utilization 0.95",
        "--kv-cache-dtype fp8", "--max-num-seqs 64", "--enforce-eager",
    ):  # fmt: skip
        assert flag in text


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_argv_is_words(engine: str) -> None:
    argv = engines.launch_argv("org/model", Workload(context_tokens=8192), with_engine(engine))
    assert all(word and " " not in word for word in argv)


def test_an_unknown_engine_and_version_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="Unknown engine 'tgi'"):
        engines.default_version("tgi")
    with pytest.raises(UsageError, match="not an engine version"):
        engines.footprint(
            served(), a_gpu(), Workload(context_tokens=1), with_engine("vllm", version="latest")
        )


def quantized(name: str, **fields: Any) -> ServedModel:
    return served(f"{name}-{fields}", quantization_config={"quant_method": name, **fields})


@pytest.mark.parametrize(
    ("model", "capability", "engine", "fragment"),
    [
        (served(), (7, 5), "vllm", None),
        (served("gemma2-like", model_type="gemma2", head_dim=128), (7, 5), "vllm", "overflows in float16"),
        (served(), (7, 0), "vllm", "needs compute capability 7.5"),
        (served(), (8, 0), "vllm", None),
        (quantized("fp8"), (8, 0), "vllm", None),
        (quantized("fp8"), (7, 5), "sglang", "needs compute capability 8.0"),
        (served(), (7, 5), "sglang", "needs compute capability 8.0"),
        (quantized("mxfp4"), (7, 5), "vllm", "MXFP4 needs compute capability 8.0"),
        (quantized("awq", bits=4, group_size=128), (8, 6), "sglang", None),
        (quantized("awq", bits=4, group_size=128), (8, 6), "llama.cpp", "llama.cpp reads GGUF files"),
    ],
)
def test_who_may_run_what(
    model: ServedModel, capability: tuple[int, int], engine: str, fragment: str | None
) -> None:
    reason = engines.supports(model, a_gpu(24, capability), with_engine(engine))
    if fragment is None:
        assert reason is None
    else:
        assert reason is not None
        assert fragment in reason


@pytest.mark.parametrize(("version", "runs"), [("0.18.0", True), ("0.19.1", True), ("0.20.0", False)])
def test_volta_runs_until_cuda_13(version: str, runs: bool) -> None:
    """A log of Qwen2.5-7B in float16 on a V100, 0.18.0."""
    reason = engines.supports(served(), a_gpu(32, (7, 0)), EngineSettings(name="vllm", version=version))
    assert (reason is None) == runs


def test_a_bfloat16_model_is_cast_for_turing() -> None:
    assert engines.casts_to_float16(served(), a_gpu(14.56, (7, 5)))
    assert not engines.casts_to_float16(served(), a_gpu(24, (8, 6)))


def test_heads_must_divide_among_the_gpus() -> None:
    reason = engines.supports(served(), a_gpu(), with_engine("vllm", tensor_parallel=3))
    assert reason == "32 attention heads do not divide among 3 GPUs"


def test_models_stored_in_32_bits_keep_their_cache_in_16() -> None:
    found = engines.footprint(
        served("wide", torch_dtype="float32"), a_gpu(), Workload(context_tokens=4096), with_engine("vllm")
    )
    assert found.kv_bytes_per_token == 131072


@pytest.mark.parametrize(("short", "whole"), [("0.33", "0.33.0"), ("0.20", "0.20.0"), ("0.11", "0.11.0")])
def test_a_version_of_two_numbers_is_the_first_of_its_patches(short: str, whole: str) -> None:
    assert version_tuple(short) == version_tuple(whole)
    assert rules("vllm", short) == rules("vllm", whole)
