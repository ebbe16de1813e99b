"""vLLM's start-up figures as others published them, against the models of its profile run, graphs and pool.

The bounds are what the models reach today; they are the source of the uncertainty in data/engines.toml.
"""

from __future__ import annotations

import math
import statistics
import tomllib
from pathlib import Path
from typing import Any

import pytest

from soong.gpus.gpu import Gpu
from soong.memory.engines import _vllm_budget, _vllm_graphs, _vllm_profile
from soong.memory.engines._constants import engine_tables, rules
from soong.memory.engines._facts import Facts
from soong.memory.engines._vllm_encoder import encoder_run
from soong.memory.engines._vllm_pool import Pool, PoolRules, build_pool
from soong.memory.kv_cache import LayerKind

GIB = 1 << 30
RUNS = tomllib.loads((Path(__file__).parents[1] / "golden" / "engine_logs.toml").read_text())["run"]
WITH_ACTIVATIONS = [run for run in RUNS if "activations_gib" in run]
ON_H100 = [run for run in WITH_ACTIVATIONS if run["gpu"] == "H100 80GB"]
GRAPHS_MEASURED = [run for run in ON_H100 if run["engine_version"] == "0.19.0" and "graphs_gib" in run]


def gpu_of(run: dict[str, Any]) -> Gpu:
    capability = {"H100": (9, 0), "A100": (8, 0), "T4": (7, 5), "L40S": (8, 9)}.get(
        run["gpu"].split(" ")[0], (8, 6)
    )
    return Gpu(
        id=run["gpu"].lower(),
        name=run["gpu"],
        vendor="nvidia",
        label_gb=0,
        memory_bytes=round(run.get("gpu_total_gib", 80) * GIB),
        bandwidth_bytes_per_second=0,
        dense_flops={},
        compute_capability=capability,
        native_formats=(),
        interconnect="NVLink" if "H100" in run["gpu"] else "PCIe",
        source="",
        as_of="",
    )


def kinds_of(run: dict[str, Any]) -> tuple[LayerKind, ...]:
    size = run.get("cache_bytes", 2)
    kinds = []
    for name, layers, heads, dim, window in run["kinds"]:
        if name == "gdn":  # key heads and value heads of 128 numbers, a convolution over three tokens
            conv = (2 * heads + dim) * 128 * 3 * 2
            state = (conv + dim * 128 * 128 * 4) // run["tensor_parallel"]
            kinds.append(LayerKind("state", layers, 0, state_bytes=state, state_kind="gdn"))
            continue
        local = 1 if name == "latent" else max(1, heads // run["tensor_parallel"])
        token_bytes = dim * size if name == "latent" else local * 2 * dim * size
        kinds.append(LayerKind(name, layers, token_bytes, window=window))
    return tuple(kinds)


def facts_of(run: dict[str, Any]) -> Facts:
    ranks = run["tensor_parallel"]
    kinds = kinds_of(run)
    return Facts(
        weights_bytes=round(run.get("weights_gib", 0) * GIB),
        tensor_bytes=round(run.get("weights_gib", 0) * GIB),
        embedding_bytes=0,
        kinds=kinds,
        layers=sum(kind.layers for kind in kinds),
        hidden_size=run["hidden_size"],
        vocab_size=-(-run["vocab_size"] // 64) * 64,
        attention_width=run["attention_heads"] // ranks * run["value_size"],
        mlp_width=run["intermediate_size"] // ranks,
        expert_width=run.get("expert_intermediate_size", 0) // ranks,
        experts_per_token=run.get("experts_per_token", 0) if run.get("expert_intermediate_size") else 0,
        mixture="experts_per_token" in run,
        multimodal=run.get("multimodal", False),
        vision_parameters=0,
        model_type=run.get("model_type", ""),
    )


def batch_of(run: dict[str, Any]) -> tuple[int, int]:
    tokens, sequences = _vllm_profile.batch_defaults(gpu_of(run), rules("vllm", run["engine_version"]))
    return run.get("max_num_batched_tokens", tokens), run.get("max_num_seqs", sequences)


def activations_of(run: dict[str, Any]) -> int:
    tokens, sequences = batch_of(run)
    constants, facts = rules("vllm", run["engine_version"]), facts_of(run)
    batch = _vllm_profile.Batch(tokens, sequences, processors=132)
    encoder = encoder_run(facts, constants, tokens, run["tensor_parallel"])
    terms = engine_tables()["vllm"]["activations"]
    return _vllm_profile.activations(facts, constants, terms, batch, encoder).peak_bytes


def pool_of(run: dict[str, Any]) -> tuple[Pool, dict[str, Any]]:
    constants = rules("vllm", run["engine_version"])
    pool = build_pool(
        kinds_of(run),
        PoolRules(
            hybrid=constants["hybrid_pools"],
            common_group_ratio=constants["common_group_ratio"],
            state_blocks=constants["mamba_blocks_per_sequence"],
            mamba2_checkpoint_blocks=constants["mamba2_checkpoint_blocks"],
            latent_block_tokens=16,
        ),
    )
    return pool, constants


@pytest.mark.parametrize("run", WITH_ACTIVATIONS, ids=lambda run: f"{run['model']}-{run['engine_version']}")
def test_activation_peak(run: dict[str, Any]) -> None:
    error = activations_of(run) / GIB - run["activations_gib"]
    assert abs(error) <= max(0.05, 0.04 * run["activations_gib"])


def test_activation_peak_is_close_in_the_middle() -> None:
    errors = [abs(activations_of(run) / GIB / run["activations_gib"] - 1) for run in WITH_ACTIVATIONS]
    assert statistics.median(errors) < 0.01


@pytest.mark.parametrize("run", GRAPHS_MEASURED, ids=lambda run: f"{run['model']}-tp{run['tensor_parallel']}")
def test_graphs_stay_within_a_third(run: dict[str, Any]) -> None:
    tokens, sequences = batch_of(run)
    found = _vllm_graphs.graphs(
        facts_of(run),
        gpu_of(run),
        rules("vllm", run["engine_version"]),
        engine_tables()["vllm"]["graphs"],
        tokens=tokens,
        sequences=sequences,
    )
    assert found.total_bytes / GIB / run["graphs_gib"] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    "run", RUNS, ids=lambda run: f"{run['model']}-{run['engine_version']}-tp{run['tensor_parallel']}"
)
def test_tokens_of_the_printed_pool(run: dict[str, Any]) -> None:
    """The pool is printed to a hundredth of a GiB, which alone moves the tokens of small pools."""
    pool, constants = pool_of(run)
    blocks = round(run["pool_gib"] * GIB) // pool.bytes_per_block
    per_sequence = pool.blocks_per_sequence(
        run["context_tokens"], constants["in_flight_batches"] * batch_of(run)[0]
    )
    if constants["tokens_from_concurrency"]:
        tokens = int(blocks / per_sequence * run["context_tokens"])
    else:
        groups = pool.group_count(with_states=constants["state_groups_counted"])
        tokens = blocks // groups * min(group.block_tokens for group in pool.groups)
    rounding = 0.005 / run["pool_gib"]
    assert tokens == pytest.approx(run["tokens"], rel=0.003 + rounding)
    if "concurrency" in run:
        assert blocks / per_sequence == pytest.approx(run["concurrency"], rel=0.003 + rounding, abs=0.006)


@pytest.mark.parametrize(
    "run", ON_H100, ids=lambda run: f"{run['model']}-{run['engine_version']}-tp{run['tensor_parallel']}"
)
def test_pool_size_of_the_launch_as_it_was(run: dict[str, Any]) -> None:
    """The printed weights are taken, so that this measures budget, activations and what is not PyTorch's alone."""
    gpu = gpu_of(run)
    constants = rules("vllm", run["engine_version"])
    budget = math.ceil(gpu.memory_bytes * run.get("memory_fraction", constants["memory_fraction"]))
    other = _vllm_budget.non_torch_bytes(constants, gpu, run["tensor_parallel"], graphs_profiled=True)
    pool = budget - round(run["weights_gib"] * GIB) - other - activations_of(run)
    assert pool / GIB == pytest.approx(run["pool_gib"], abs=0.25)
