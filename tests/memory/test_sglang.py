"""SGLang as a whole: what starts, what is refused later, which type the cache has, and the command it takes."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from msgspec.structs import replace

from soong.gpus.gpu import Gpu
from soong.memory import engines
from soong.memory.engines import sglang
from soong.memory.footprint import EngineSettings, ServedModel, Workload
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization.reading import read_quantization
from soong.plan.verdict import judge

GIB = 1 << 30
HOPPER, BLACKWELL = (9, 0), (10, 0)

QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
}
SPARSE = {
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "moe_intermediate_size": 512,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "kv_lora_rank": 512,
    "q_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "index_head_dim": 128,
    "index_n_heads": 8,
    "index_topk": 256,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


def served(values: dict[str, Any], **more: Any) -> ServedModel:
    config = Config({**values, **more})
    architecture = read_architecture(config)
    quantization = read_quantization(config, dtype=architecture.dtype)
    return ServedModel(
        key=str(sorted(more)) + values["model_type"], architecture=architecture, quantization=quantization
    )


def a_gpu(gib: float = 79.19, capability: tuple[int, int] = HOPPER, **more: Any) -> Gpu:
    fields: dict[str, Any] = {
        "id": "card", "name": "card", "vendor": "nvidia", "label_gb": 80, "memory_bytes": round(gib * GIB),
        "bandwidth_bytes_per_second": 0, "dense_flops": {}, "compute_capability": capability, "native_formats": (),
        "interconnect": "NVLink 4", "source": "", "as_of": "",
    }  # fmt: skip
    return Gpu(**{**fields, **more})


def settings(**more: Any) -> EngineSettings:
    return EngineSettings(**{"name": "sglang", "version": "0.5.23", **more})


@pytest.mark.parametrize(
    ("pool_gib", "tokens", "source"),
    [
        (
            234.56,
            1707904,
            "https://github.com/cl-vv-h/SGLang_Tutor/blob/c6de33fcaa2027826f89f375d1e805ab3305f8cb",
        ),
        (
            136.36,
            992896,
            "https://github.com/scottgl9/sglang-spark-gb10-optimizations/blob/76f27b2840960bfdd010ede400ea0a78974b61cf",
        ),
    ],
)
def test_tokens_of_a_printed_pool(pool_gib: float, tokens: int, source: str) -> None:
    found = engines.footprint(
        served(QWEN3_8B),
        a_gpu(280, BLACKWELL),
        Workload(context_tokens=40960),
        settings(kv_cache_memory_bytes=round(pool_gib * GIB)),
    )
    assert found.kv_pool_tokens == pytest.approx(tokens, rel=2e-4), source


def test_default_pool_of_a_b200_as_its_log_has_it() -> None:
    """177.57 GiB were free before loading, 136.36 GiB went to the pool (the second log above)."""
    gpu = a_gpu(182631 / 1024, BLACKWELL, id="b200-180gb")
    found = engines.footprint(
        served(QWEN3_8B), gpu, Workload(context_tokens=40960), settings(version="0.5.10")
    )
    assert found.memory_fraction == pytest.approx(0.854, abs=0.0005)
    assert found.kv_pool_tokens == pytest.approx(992896, rel=0.003)


def test_a_short_pool_starts_and_refuses_long_requests() -> None:
    workload = Workload(context_tokens=40960)
    found = engines.footprint(served(QWEN3_8B), a_gpu(22, HOPPER), workload, settings(memory_fraction=0.85))
    assert found.kv_pool_tokens is not None
    assert 0 < found.kv_pool_tokens < 40960
    assert found.starts
    verdict, reasons = judge(found)
    assert verdict == "too-small"
    assert "40960 tokens is longer than the pool" in reasons[0] or "needs" in reasons[0]


def test_weights_above_the_fraction_do_not_start() -> None:
    found = engines.footprint(
        served(QWEN3_8B), a_gpu(22), Workload(context_tokens=4096), settings(memory_fraction=0.6)
    )
    assert not found.starts
    assert found.kv_pool_tokens is None
    assert judge(found)[0] == "too-small"


@pytest.mark.parametrize(("capability", "token_bytes"), [(HOPPER, 576 * 2 + 132), (BLACKWELL, 576 + 132)])
def test_sparse_attention_keeps_fp8_on_blackwell(capability: tuple[int, int], token_bytes: int) -> None:
    pool = 4 * token_bytes * 64 * 1000
    found = engines.footprint(
        served(SPARSE),
        a_gpu(capability=capability),
        Workload(context_tokens=4096),
        settings(kv_cache_memory_bytes=pool),
    )
    assert found.kv_pool_tokens == 64_000


def test_a_checkpoint_asks_for_an_fp8_cache_where_sglang_reads_it() -> None:
    workload, gpu = Workload(context_tokens=4096), a_gpu()
    asking = served(QWEN3_8B)
    for method, version, kept in (
        ("modelopt", "0.5.23", "fp8"),
        ("modelopt", "0.5.5", "bfloat16"),
        ("compressed-tensors", "0.5.23", "bfloat16"),
    ):
        quantization = replace(asking.quantization, method=method, kv_cache_dtype="fp8")
        model = replace(asking, quantization=quantization)
        assert sglang.kv_dtype(model, gpu, workload, settings(version=version)) == kept


def test_layers_that_need_no_cache_get_one() -> None:
    plain = served(QWEN3_8B)
    (cache,) = plain.architecture.caches
    shared = replace(cache, layers=30, idle_layers=6)
    model = replace(plain, key="shared", architecture=replace(plain.architecture, caches=(shared,)))
    found, usual = (
        engines.footprint(m, a_gpu(), Workload(context_tokens=4096), settings(kv_cache_memory_bytes=GIB))
        for m in (model, plain)
    )
    assert found.kv_pool_tokens == usual.kv_pool_tokens == GIB // (36 * 4096)


def test_defaults_go_by_what_nvidia_smi_reports() -> None:
    assert sglang.reported_mib(a_gpu(81090 / 1024, id="h100-80gb-sxm5")) == 81559
    assert sglang.reported_mib(a_gpu(40, id="h100-80gb-sxm5")) == 40 * 1024
    assert sglang.reported_mib(a_gpu(40)) == 40 * 1024


def test_the_command_has_no_cache_type_that_sglang_lacks() -> None:
    argv = engines.launch_argv("m", Workload(context_tokens=4096, kv_dtype="float16"), settings())
    assert argv[-2:] == ("--dtype", "float16")
    assert "--kv-cache-dtype" not in argv
    older = engines.launch_argv(
        "m", Workload(context_tokens=4096, kv_dtype="bfloat16"), settings(version="0.5.3")
    )
    assert "--kv-cache-dtype" not in older


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="SGLang is not installed")
@pytest.mark.parametrize("kv_dtype", ["auto", "bfloat16", "float16", "fp8", "fp8_e5m2"])
def test_sglang_takes_the_command(kv_dtype: str) -> None:
    import argparse

    from sglang.srt.server_args import ServerArgs  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    everything = settings(
        memory_fraction=0.85,
        tensor_parallel=4,
        pipeline_parallel=2,
        enforce_eager=True,
        max_num_batched_tokens=4096,
        max_num_seqs=16,
    )
    argv = engines.launch_argv("m", Workload(context_tokens=4096, kv_dtype=kv_dtype), everything)
    assert argv[:3] == ("python", "-m", "sglang.launch_server")
    taken = parser.parse_args(list(argv[3:]))
    assert (taken.tp_size, taken.pp_size, taken.context_length) == (4, 2, 4096)
