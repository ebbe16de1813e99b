"""Weights and pools of whole families, byte for byte, against vLLM's own model classes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from soong.memory.engines._vllm_pool import PoolRules, build_pool
from soong.memory.kv_cache import layer_kinds
from soong.memory.weights import weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import read_quantization

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = [
    case
    for name in ("vllm_classes.toml", "vllm_families.toml")
    for case in tomllib.loads((GOLDEN / name).read_text())["model"]
]
POOL_BYTES, IN_FLIGHT_TOKENS = 40 << 30, 2 * 8192


def name_of(case: dict[str, Any]) -> str:
    return str(case["name"])


def read(case: dict[str, Any]) -> tuple[Config, Architecture]:
    config = Config(case["config"])
    return config, read_architecture(config)


@pytest.mark.parametrize("case", MODELS, ids=name_of)
def test_each_gpu_holds_the_bytes_of_the_engine_s_parameters(case: dict[str, Any]) -> None:
    config, architecture = read(case)
    quantization = read_quantization(config, dtype=architecture.dtype)
    held = {
        size: weights_per_gpu(
            architecture, quantization, tensor_parallel=int(size), engine="vllm", engine_version="0.32.0"
        ).total_bytes
        for size in case["weights_bytes"]
    }
    assert held == case["weights_bytes"]


@pytest.mark.parametrize("case", MODELS, ids=name_of)
def test_the_pool_holds_the_tokens_that_the_engine_logs(case: dict[str, Any]) -> None:
    _, architecture = read(case)
    context, tokens = case["context_tokens"], {}
    for size in case["pool_tokens"]:
        kinds = layer_kinds(architecture, tensor_parallel=int(size), kv_dtype="bfloat16")
        pool = build_pool(kinds, PoolRules(True, 1.5, 2, 1, 16, 1))
        blocks = POOL_BYTES // pool.bytes_per_block
        tokens[size] = int(blocks / pool.blocks_per_sequence(context, IN_FLIGHT_TOKENS) * context)
    assert tokens == case["pool_tokens"]
