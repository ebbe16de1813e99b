"""vLLM, 0.10 to 0.33: how large its KV cache becomes, whether it starts, and the flags that make the plan true.

The engine takes `ceil(total × gpu_memory_utilization)` as its budget (`v1/worker/utils.py request_memory`), subtracts
weights, what grew outside PyTorch, the profile run's peak and, since 0.21, CUDA graphs (`v1/worker/gpu_worker.py
determine_available_memory`), and gives the rest to one pool of KV blocks (`_vllm_pool`). What the driver and NCCL took
before, and graphs in older versions, must fit in what the budget leaves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines import _facts, _vllm_budget
from soong.memory.engines._constants import engine_tables, rules
from soong.memory.engines._vllm_pool import Pool, PoolRules, build_pool
from soong.memory.footprint import Footprint
from soong.memory.kv_cache import kv_bytes_per_token, state_bytes_per_sequence

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel, Workload

NAME = "vllm"
LONGEST_CONTEXT_TOKENS = 1 << 24
"""The upper end of the search for the longest context when the model states none."""


class _Prepared(NamedTuple):
    """All that does not depend on the workload or on how much memory the GPU has."""

    facts: _facts.Facts
    pool: Pool
    rules: dict[str, Any]
    kv_bytes_per_token: int
    state_bytes_per_sequence: int
    context_bytes: int
    non_torch_bytes: int
    context_limit_tokens: int
    transient: dict[tuple[int, int, int], tuple[int, int]]
    """Activation peak and graphs by batch tokens, sequences and memory class."""


_prepared: dict[tuple[Any, ...], _Prepared] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory under vLLM.

    Args:
        model: what is served. gpu: one of the GPUs. workload: what must fit. settings: engine, version and flags.

    Returns:
        The footprint; `starts` is False, with vLLM's own reason, where the engine would refuse.
    """
    kv_type = _facts.kv_dtype(model, workload, settings)
    key = (
        model.key, kv_type, gpu.compute_capability, gpu.interconnect, settings.version,
        settings.tensor_parallel, settings.pipeline_parallel, settings.dtype,
    )  # fmt: skip
    prepared = _prepared.get(key) or _facts.kept(_prepared, key, lambda: _prepare(model, gpu, settings, kv_type))
    tokens, sequences = batch(gpu, workload, settings)
    activations, graphs = _transient(prepared, gpu, settings, tokens, sequences)
    runtime = prepared.context_bytes + prepared.non_torch_bytes
    fraction = settings.memory_fraction or prepared.rules["memory_fraction"]
    budget = math.ceil(gpu.memory_bytes * fraction)
    if settings.kv_cache_memory_bytes is None:
        counted = graphs if prepared.rules["graphs_in_budget"] else 0
        pool = budget - prepared.facts.weights_bytes - prepared.non_torch_bytes - activations - counted
    else:
        pool, fraction, budget = settings.kv_cache_memory_bytes, None, 0
    free = gpu.memory_bytes - runtime - prepared.facts.weights_bytes - max(pool, 0) - activations - graphs
    in_flight = prepared.rules["in_flight_batches"] * tokens
    sized = _size(prepared, pool, workload, in_flight)
    refusal = _refusal(prepared, gpu, workload, budget, pool, free, sized)
    return Footprint(
        total_bytes=gpu.memory_bytes,
        runtime_bytes=runtime,
        weights_bytes=prepared.facts.weights_bytes,
        kv_pool_bytes=max(pool, 0),
        state_bytes=0,
        activations_bytes=activations,
        cuda_graphs_bytes=graphs,
        free_bytes=free,
        memory_fraction=fraction,
        kv_pool_tokens=None if refusal else sized.tokens,
        max_concurrency=None if refusal else sized.concurrency,
        kv_bytes_per_token=prepared.kv_bytes_per_token,
        state_bytes_per_sequence=prepared.state_bytes_per_sequence,
        workload_kv_bytes=sized.workload_bytes,
        need_bytes=runtime + prepared.facts.weights_bytes + activations + graphs + sized.workload_bytes,
        max_context_tokens=_longest_context(prepared, sized.blocks, in_flight),
        max_sequences=sized.sequences,
        starts=not refusal,
        refusal=refusal,
        uncertainty_bytes=_uncertainty(prepared, runtime, activations, graphs),
    )


def batch(gpu: Gpu, workload: Workload, settings: EngineSettings) -> tuple[int, int]:
    """Tokens of one forward pass and sequences at once, defaults filled in as the engine does."""
    tokens, sequences = _vllm_budget.batch_defaults(gpu)
    if settings.max_num_seqs:
        sequences = settings.max_num_seqs
    if settings.max_num_batched_tokens:
        return settings.max_num_batched_tokens, min(sequences, settings.max_num_batched_tokens)
    tokens = max(1, min(tokens, sequences * workload.context_tokens))
    return tokens, min(sequences, tokens)


def _prepare(model: ServedModel, gpu: Gpu, settings: EngineSettings, kv_type: str) -> _Prepared:
    constants = rules(NAME, settings.version)
    facts = _facts.gather(model, gpu, settings, kv_type)
    pool = build_pool(
        facts.kinds,
        PoolRules(
            hybrid=constants["hybrid_pools"],
            common_group_ratio=constants["common_group_ratio"],
            state_blocks=constants["mamba_blocks_per_sequence"],
            mamba2_checkpoint_blocks=constants["mamba2_checkpoint_blocks"],
            latent_block_tokens=_latent_block_tokens(gpu, kv_type),
        ),
    )
    return _Prepared(
        facts=facts,
        pool=pool,
        rules=constants,
        kv_bytes_per_token=kv_bytes_per_token(facts.kinds),
        state_bytes_per_sequence=state_bytes_per_sequence(facts.kinds),
        context_bytes=_vllm_budget.context_bytes(constants, gpu, settings.tensor_parallel),
        non_torch_bytes=_vllm_budget.non_torch_bytes(constants, gpu, settings.tensor_parallel),
        context_limit_tokens=model.architecture.context_limit_tokens or LONGEST_CONTEXT_TOKENS,
        transient={},
    )


def _latent_block_tokens(gpu: Gpu, kv_type: str) -> int:
    """Block size of the MLA kernel that is picked (`platforms/cuda.py _get_backend_priorities`).

    Hopper: FlashAttention MLA takes 16, FlashMLA (for FP8 caches) 64. Blackwell's FlashInfer MLA takes 32.
    """
    major = (gpu.compute_capability or _vllm_budget.HOPPER)[0]
    if major == _vllm_budget.DATA_CENTRE_BLACKWELL:
        return 32
    return 64 if major == _vllm_budget.HOPPER[0] and kv_type.startswith("fp8") else 16


def _transient(
    prepared: _Prepared, gpu: Gpu, settings: EngineSettings, tokens: int, sequences: int
) -> tuple[int, int]:
    key = (tokens, sequences, settings.enforce_eager)
    found = prepared.transient.get(key)
    if found is None:
        tables = engine_tables()[NAME]
        activations = _vllm_budget.activation_bytes(
            prepared.facts, prepared.rules, tables["activations"], tokens, sequences
        )
        graphs = 0
        if not settings.enforce_eager:
            graphs = _vllm_budget.graph_bytes(prepared.facts, gpu, prepared.rules, tables["graphs"], tokens, sequences)
        if len(prepared.transient) >= _facts.MOST_PREPARED:
            prepared.transient.clear()
        found = prepared.transient[key] = (activations, graphs)
    return found


class _Sized(NamedTuple):
    """What a pool of some bytes holds."""

    blocks: int
    per_sequence: int
    tokens: int
    concurrency: float
    workload_bytes: int
    sequences: int | None


def _size(prepared: _Prepared, pool_bytes: int, workload: Workload, in_flight: int) -> _Sized:
    pool = prepared.pool
    if not pool.groups:
        return _Sized(1, 0, 0, 0.0, 0, None)
    blocks = max(pool_bytes, 0) // pool.bytes_per_block
    per_sequence = pool.blocks_per_sequence(workload.context_tokens, in_flight)
    concurrency = blocks / per_sequence
    if prepared.rules["tokens_from_concurrency"]:
        tokens = int(concurrency * workload.context_tokens)
    else:
        tokens = blocks // pool.group_count() * min(group.block_tokens for group in pool.groups)
    return _Sized(
        blocks=blocks,
        per_sequence=per_sequence,
        tokens=tokens,
        concurrency=concurrency,
        workload_bytes=(per_sequence * workload.sequences + 1) * pool.bytes_per_block,
        sequences=max(blocks - 1, 0) // per_sequence,
    )


def _refusal(
    prepared: _Prepared, gpu: Gpu, workload: Workload, budget: int, pool_bytes: int, free: int, sized: _Sized
) -> str:
    """vLLM's reason not to start, or nothing."""
    gib = _vllm_budget.GIB
    if budget > gpu.memory_bytes - prepared.context_bytes:
        return (
            f"free memory at start ({(gpu.memory_bytes - prepared.context_bytes) / gib:.2f} GiB) is less than the "
            f"desired GPU memory utilization ({budget / gib:.2f} GiB)"
        )
    if pool_bytes <= 0:
        return "no available memory for the cache blocks: weights and activations fill the engine's budget"
    if free < 0:
        return f"out of memory: {-free / gib:.2f} GiB more than the GPU has"
    needed = sized.per_sequence * prepared.pool.bytes_per_block
    if sized.blocks - 1 < sized.per_sequence:
        return (
            f"to serve one request of {workload.context_tokens} tokens {needed / gib:.2f} GiB of KV cache is needed, "
            f"which is larger than the available KV cache memory ({pool_bytes / gib:.2f} GiB)"
        )
    return ""


def _longest_context(prepared: _Prepared, blocks: int, in_flight: int) -> int | None:
    """The longest single sequence that the pool holds, at most the model's limit; 0 when it holds none."""
    pool, limit = prepared.pool, prepared.context_limit_tokens
    if not pool.groups:
        return limit
    usable = blocks - 1
    if pool.uniform_block_tokens:
        return max(0, min(limit, usable * pool.uniform_block_tokens))
    if pool.blocks_per_sequence(limit, in_flight) <= usable:
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if pool.blocks_per_sequence(middle, in_flight) <= usable:
            low = middle
        else:
            high = middle
    return low


def _uncertainty(prepared: _Prepared, runtime: int, activations: int, graphs: int) -> int:
    table = engine_tables()[NAME]["uncertainty"]
    return int(
        table["activations_fraction"] * activations
        + table["cuda_graphs_fraction"] * graphs
        + table["runtime_fraction"] * runtime
        + table["weights_fraction"] * prepared.facts.weights_bytes
        + table["unseen_gpu_bytes"]
    )


def launch_argv(model_name: str, workload: Workload, settings: EngineSettings) -> tuple[str, ...]:
    """The command that starts the server as it was planned."""
    argv = ["vllm", "serve", model_name, "--max-model-len", str(workload.context_tokens)]
    if settings.tensor_parallel > 1:
        argv += ["--tensor-parallel-size", str(settings.tensor_parallel)]
    if settings.pipeline_parallel > 1:
        argv += ["--pipeline-parallel-size", str(settings.pipeline_parallel)]
    if settings.kv_cache_memory_bytes is not None:
        argv += ["--kv-cache-memory-bytes", str(settings.kv_cache_memory_bytes)]
    else:
        fraction = settings.memory_fraction or rules(NAME, settings.version)["memory_fraction"]
        argv += ["--gpu-memory-utilization", f"{fraction:g}"]
    if workload.kv_dtype != "auto":
        argv += ["--kv-cache-dtype", workload.kv_dtype]
    if settings.dtype != "auto":
        argv += ["--dtype", settings.dtype]
    if settings.max_num_batched_tokens:
        argv += ["--max-num-batched-tokens", str(settings.max_num_batched_tokens)]
    if settings.max_num_seqs:
        argv += ["--max-num-seqs", str(settings.max_num_seqs)]
    if settings.enforce_eager:
        argv.append("--enforce-eager")
    return tuple(argv)
