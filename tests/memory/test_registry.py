"""Classes, methods and flags that versions of engines have: known answers from their sources.

vLLM `models/registry.py`, `layers/quantization/__init__.py`, `config/cache.py`; SGLang EntryClass of `srt/models`;
Transformers `_supports_attention_backend`.
"""

from __future__ import annotations

from typing import Any

import pytest

from soong.errors import UsageError
from soong.gpus.catalogue import find_gpu
from soong.memory import engines
from soong.memory.engines import _registry
from soong.memory.engines._constants import version_tuple
from soong.memory.engines._registry import Build, standing
from soong.memory.footprint import EngineSettings, ServedModel, Workload
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import checkpoint_matrix_bytes, read_quantization
from soong.plan.planner import make_plan
from soong.plan.request import read_request

TEXT: Build = (False, False, False)
TOWERS: Build = (True, False, False)
MIXTURE: Build = (False, True, False)

DENSE: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "bfloat16", "head_dim": 128,
    "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960, "num_attention_heads": 16,
    "num_hidden_layers": 4, "num_key_value_heads": 8, "tie_word_embeddings": True, "vocab_size": 151936,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "build", "engine", "version", "answer"),
    [
        ("LlamaForCausalLM", TEXT, "vllm", "0.33.0", "native"),
        ("LlamaForCausalLM", TEXT, "vllm", "0.2.3", "native"),  # in the oldest version read, so before it too
        ("BaichuanForCausalLM", TEXT, "vllm", "0.33.0", "lacking"),  # _PREVIOUSLY_SUPPORTED_MODELS
        ("BaichuanForCausalLM", TEXT, "vllm", "0.24.0", "native"),
        ("MllamaForConditionalGeneration", TOWERS, "vllm", "0.33.0", "lacking"),
        ("MllamaForConditionalGeneration", TOWERS, "vllm", "0.10.2", "native"),
        ("MllamaForConditionalGeneration", TOWERS, "sglang", "0.5.23", "native"),
        ("JambaForCausalLM", MIXTURE, "sglang", "0.5.23", "lacking"),  # no _supports_attention_backend
        ("FalconForCausalLM", TEXT, "sglang", "0.5.23", "lacking"),
        ("FalconForCausalLM", TEXT, "vllm", "0.33.0", "native"),
        ("HeliumForCausalLM", TEXT, "sglang", "0.5.23", "by-transformers"),
        (
            "Lfm2ForCausalLM",
            TEXT,
            "sglang",
            "0.5.6",
            "by-transformers",
        ),  # 0.5.7 has it; a published launch ran
        (
            "Lfm2ForCausalLM",
            TEXT,
            "sglang",
            "0.4.6",
            "lacking",
        ),  # no such backend, and Transformers 4.51 lacks it
        ("BambaForCausalLM", TEXT, "vllm", "0.25.0", "lacking"),
        ("BambaForCausalLM", TEXT, "vllm", "0.32.0", "by-transformers"),  # its classes build it
        ("Gemma4ForConditionalGeneration", TOWERS, "vllm", "0.10.0", "lacking"),
        ("Gemma4ForConditionalGeneration", TOWERS, "vllm", "0.18.0", "lacking"),  # needs Transformers 5
        (
            "Gemma4ForConditionalGeneration",
            TOWERS,
            "vllm",
            "0.18.1",
            "native",
        ),  # after 0.18.0, not read: may be
        ("Gemma4ForConditionalGeneration", TOWERS, "vllm", "0.17.2rc1.dev133", "unknown"),
        ("GptOssForCausalLM", MIXTURE, "vllm", "0.9.2", "lacking"),
        ("Dots1ForCausalLM", MIXTURE, "vllm", "0.32.0", "by-transformers"),
        ("Qwen3NextForCausalLM", MIXTURE, "sglang", "0.4.6", "lacking"),
        ("Qwen3ForSequenceClassification", TEXT, "vllm", "0.33.0", "native"),  # made of Qwen3ForCausalLM
        ("ZorkForCausalLM", TEXT, "vllm", "0.33.0", "unknown"),
    ],
)
def test_which_version_runs_a_class(name: str, build: Build, engine: str, version: str, answer: str) -> None:
    assert standing(name, build, engine, version) == answer


def test_every_span_is_of_versions_that_were_read() -> None:
    table = _registry._table()
    for engine in (table.vllm, table.sglang):
        assert list(engine.read) == sorted(engine.read, key=version_tuple)
        for spans in (engine.classes, engine.methods, engine.modelopt):
            for word, span in spans.items():
                places = [engine.read.index(version) for version in span]
                assert places == sorted(places), word
                assert len(span) <= 2, word
    assert set(table.transformers.classes.values()) <= {"", "*", *table.transformers.read}


def _served(method: dict[str, Any], name: str = "Qwen3ForCausalLM") -> ServedModel:
    config = Config({**DENSE, "architectures": [name], **({"quantization_config": method} if method else {})})
    architecture = read_architecture(config)
    quantization = read_quantization(config, dtype=architecture.dtype)
    return ServedModel(key=f"{name} {method}", architecture=architecture, quantization=quantization)


def _problem(method: dict[str, Any], engine: str, version: str, gpu: str = "h100-80gb-sxm5") -> str:
    settings = EngineSettings(name=engine, version=version)
    return engines.supports(_served(method), find_gpu(gpu), settings) or ""


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("method", "engine", "version", "said"),
    [
        (GPTQ, "vllm", "0.33.0", ""),
        (GPTQ, "sglang", "0.5.23", ""),
        ({**GPTQ, "bits": 3}, "vllm", "0.21.0", ""),  # gptq.py takes 2, 3, 4 and 8 bits
        ({**GPTQ, "bits": 3}, "vllm", "0.22.0", "in 3 bits"),  # auto_gptq.py TYPE_MAP
        ({**GPTQ, "sym": False}, "vllm", "0.21.0", ""),
        ({**GPTQ, "sym": False}, "vllm", "0.33.0", "sym: false"),
        ({**GPTQ, "sym": False}, "sglang", "0.5.19", ""),
        ({**GPTQ, "bits": 2}, "sglang", "0.5.23", "in 2 bits"),
        (NF4, "vllm", "0.27.0", ""),
        (NF4, "vllm", "0.28.0", "does not read NF4"),
        (NF4, "sglang", "0.5.23", ""),
        ({"quant_method": "hqq", "quant_config": {}}, "vllm", "0.33.0", "does not read hqq"),
        ({"quant_method": "aqlm", "nbits_per_codebook": 16}, "vllm", "0.33.0", "does not read aqlm"),
        ({"quant_method": "zorkquant"}, "sglang", "0.5.23", "does not read zorkquant"),
        ({"quant_method": "fp_quant"}, "vllm", "0.33.0", "does not plan fp-quant"),
        ({"quant_method": "fp_quant"}, "sglang", "0.5.23", "does not read fp-quant"),
        ({"quant_method": "fbgemm_fp8"}, "vllm", "0.33.0", ""),
        ({"quant_method": "fbgemm_fp8"}, "sglang", "0.5.15.post1", ""),
        ({"quant_method": "fbgemm_fp8"}, "sglang", "0.5.23", "fbgemm_fp8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "vllm", "0.10.0", ""),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "sglang", "0.5.23", ""),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, "vllm", "0.15.0", "ModelOpt's MXFP8"),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, "vllm", "0.17.0", ""),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, "vllm", "0.20.0", "W4A16_NVFP4"),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, "vllm", "0.21.0", ""),
        ({"quant_method": "modelopt", "quant_algo": "INT8_SQ"}, "vllm", "0.33.0", "ModelOpt's INT8_SQ"),
        ({"quant_method": "modelopt", "quant_algo": "ZORK"}, "sglang", "0.5.23", "ModelOpt's ZORK"),
    ],
)
def test_which_version_reads_a_method(method: dict[str, Any], engine: str, version: str, said: str) -> None:
    problem = _problem(method, engine, version)
    assert said in problem
    assert bool(problem) is bool(said)


def _torchao(kind: str, **data: Any) -> dict[str, Any]:
    return {
        "quant_method": "torchao",
        "modules_to_not_convert": ["lm_head"],
        "quant_type": {"default": {"_type": kind, "_data": data}},
    }


@pytest.mark.parametrize(
    ("method", "matrix_bytes"),
    [
        # torchao 0.18, Linear(1024, 512): Float8Tensor has a float32 scale a row; Int4Tensor half a byte each, and a
        # bfloat16 scale and zero point for each group.
        (_torchao("Float8WeightOnlyConfig"), 526_336),
        (_torchao("Int4WeightOnlyConfig", group_size=128), 512 * 512 + 512 * 8 * 4),
        (_torchao("Int4WeightOnlyConfig", group_size=32), 512 * 512 + 512 * 32 * 4),
    ],
)
def test_torchao_is_planned_on_vllm_alone(method: dict[str, Any], matrix_bytes: int) -> None:
    storage = _served(method).quantization
    assert storage.default is not None
    assert checkpoint_matrix_bytes(storage.default, 512, 1024) == matrix_bytes
    assert not _problem(method, "vllm", "0.33.0")
    assert "does not read" in _problem(method, "sglang", "0.5.23")


def test_torchao_by_modules_leaves_the_named_ones_and_experts_alone() -> None:
    int4 = {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}
    named = {"_default": int4, "model.layers.0.mlp.down_proj": None}
    storage = _served(_torchao("ModuleFqnToConfig", module_fqn_to_config=named)).quantization
    weights = {weight.path: weight for weight in _served({}).architecture.weights}
    down = storage.spread(weights["model.layers.{}.mlp.down_proj"])
    assert {(form.label if form else None): layers for form, layers in down} == {None: 1, "INT4 (torchao)": 3}
    assert not storage.unread


def test_a_layout_of_torchao_that_is_not_known_is_refused() -> None:
    assert "does not plan torchao" in _problem(_torchao("IntxWeightOnlyConfig"), "vllm", "0.33.0")


BLOCK_FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(("version", "runs"), [("0.13.0", False), ("0.15.0", True), ("0.17.0", True)])
def test_fp8_runs_on_turing_from_0_15(version: str, *, runs: bool) -> None:
    assert (not _problem(BLOCK_FP8, "vllm", version, gpu="t4-16gb")) is runs


@pytest.mark.parametrize(("version", "reads"), [("0.23.0", True), ("0.24.0", False), ("0.31.0", False)])
def test_gguf_leaves_vllm_with_0_24(version: str, *, reads: bool) -> None:
    assert _registry.reads_method("vllm", version, "gguf") is reads


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kv_cache_memory": "10GiB", "engine_version": "0.10.1"}, "--kv-cache-memory-bytes"),
        ({"kv_cache_memory": "10GiB", "engine_version": "0.10.2"}, ""),
        ({"kv_dtype": "bfloat16", "engine_version": "0.10.2"}, "first in 0.11.0"),
        ({"kv_dtype": "bfloat16", "engine_version": "0.11.0"}, ""),
        ({"kv_dtype": "float16", "engine_version": "0.17.0"}, "first in 0.18.0"),
        ({"kv_dtype": "fp8_e5m2", "engine_version": "0.10.0"}, ""),
        ({"max_num_seqs": 2000, "max_num_batched_tokens": 1024}, "fewer tokens (1,024)"),
    ],
)
def test_flags_that_a_version_has_not_are_refused(options: dict[str, Any], said: str) -> None:
    asked = {"model": "qwen3-8b", "engine": "vllm", "gpu": "h100-80gb-sxm5", **options}
    candidate = make_plan(read_request(asked), offers=()).candidates[0]
    assert (candidate.verdict == "unsupported") is bool(said)
    assert said in "; ".join(candidate.reasons)


def test_the_cache_type_is_carried_into_the_command() -> None:
    workload = Workload(context_tokens=4096, sequences=1, kv_dtype="fp8_e5m2")
    for engine in ("vllm", "sglang"):
        settings = EngineSettings(name=engine, version=engines.default_version(engine))
        argv = engines.launch_argv("org/model", workload, settings)
        assert argv[argv.index("--kv-cache-dtype") + 1] == "fp8_e5m2"
    assert "Q8_0" in engines.against_flags(workload, EngineSettings(name="llama.cpp", version="b10662"))


@pytest.mark.parametrize(
    ("model", "engine", "version"),
    [
        ("qwen3-8b", "sglang", "0.5.23"),
        ("jamba-1.5-mini", "vllm", "0.33.0"),
        ("falcon-180b-chat", "vllm", "0.33.0"),
        ("smollm3-3b", "vllm", "0.33.0"),  # SGLang has its Transformers backend alone
        ("minimax-m1-40k", "vllm", "0.23.0"),  # the last of any engine
    ],
)
def test_an_engine_that_has_the_class_is_chosen(model: str, engine: str, version: str) -> None:
    settings = make_plan(
        read_request({"model": model, "gpu": "b200-180gb", "gpu_count": 8}), offers=()
    ).settings
    assert (settings.name, settings.version) == (engine, version)


def test_a_refusal_says_since_when_and_what_has_the_class() -> None:
    asked = {"model": "llama-3.2-11b-vision", "engine": "vllm", "gpu": "h100-80gb-sxm5"}
    candidate = make_plan(read_request(asked), offers=()).candidates[0]
    assert candidate.verdict == "unsupported"
    assert candidate.reasons == (
        "vllm 0.33.0 has no MllamaForConditionalGeneration (last in 0.10.2); "
        "`--engine sglang --engine-version 0.5.23` has it",
    )


@pytest.mark.parametrize(
    ("engine", "version", "said"),
    [
        ("vllm", "0.34.0", "newer than the rules, which end with 0.33.0"),
        (
            "vllm",
            "0.4.6",
            "older than the rules, which begin with 0.8.5: planned by those (0.4.6 is a version of sglang)",
        ),
        ("sglang", "0.33.0", "(0.33.0 is a version of vllm)"),
        ("llama.cpp", "b99999", "newer than the rules"),
        ("vllm", "0.19.1", ""),
        ("sglang", "0.5.8", ""),
    ],
)
def test_versions_beyond_the_rules_are_told(engine: str, version: str, said: str) -> None:
    found = engines.support_remark(_served({}), EngineSettings(name=engine, version=version))
    assert said in found
    assert bool(found) is bool(said)


@pytest.mark.parametrize(
    ("engine", "version", "hint"),
    [
        ("llama.cpp", "foo", "--engine-version b"),
        ("vllm", "b9000", "--engine-version 0."),
        ("sglang", "latest", "--engine-version 0.5"),
    ],
)
def test_what_is_no_version_is_refused_with_one_that_is(engine: str, version: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        engines.check_version(engine, version)
    assert caught.value.hints[0].startswith(hint)
