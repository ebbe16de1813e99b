"""vLLM, 0.10 to 0.33: the size of its KV cache, whether it starts, the flags that make the plan true.

The engine takes `ceil(total × gpu_memory_utilization)` as its budget (`v1/worker/utils.py request_memory`),
subtracts weights, what grew outside PyTorch, the profile run's peak and, since 0.21, CUDA graphs
(`v1/worker/gpu_worker.py determine_available_memory`), and gives the rest to one pool of KV blocks
(`_vllm_pool`). What the driver and NCCL took before, and graphs in older versions, must fit in what the
budget leaves.
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
    uncertainty: dict[str, float]
    terms: dict[tuple[Any, ...], _Terms]
    """How memory is divided, by all that decides it: the GPU's memory, the batch and the flags."""


_prepared: dict[tuple[Any, ...], _Prepared] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory under vLLM.

    Args:
        model: what is served.
        gpu: one of the GPUs.
        workload: what must fit.
        settings: engine, version and flags.

    Returns:
        The footprint; `starts` is False, with vLLM's own reason, where the engine would refuse.
    """
    kv_type = _facts.kv_dtype(model, workload, settings)
    key = (
        model.key, kv_type, gpu.compute_capability, gpu.interconnect, settings.version,
        settings.tensor_parallel, settings.pipeline_parallel, settings.dtype,
    )  # fmt: skip
    prepared = _prepared.get(key) or _facts.kept(
        _prepared, key, lambda: _prepare(model, gpu, settings, kv_type)
    )
    terms = _terms(prepared, gpu, workload, settings)
    sized = _size(prepared, terms, workload)
    of_pool = _refusal_of_pool(prepared, workload, terms, sized)
    # A pool of a given size has its tokens, whether or not the rest finds room on this GPU.
    counted = not of_pool and (not terms.refusal or settings.kv_cache_memory_bytes is not None)
    return _report(prepared, gpu, terms, sized, terms.refusal or of_pool, counted=counted)


class _Terms(NamedTuple):
    """How the GPU's memory is divided, whatever the context.

    budget_bytes: 0 where the pool is fixed. blocks: of the pool. max_context_tokens: the longest sequence that they
    hold. refusal: why the budget cannot be had, or nothing.
    """

    runtime_bytes: int
    activations_bytes: int
    graphs_bytes: int
    budget_bytes: int
    pool_bytes: int
    free_bytes: int
    fraction: float | None
    in_flight_tokens: int
    blocks: int = 0
    max_context_tokens: int | None = None
    uncertainty_bytes: int = 0
    refusal: str = ""


def _terms(prepared: _Prepared, gpu: Gpu, workload: Workload, settings: EngineSettings) -> _Terms:
    """The division for one batch and one set of flags; remembered, since most contexts share it."""
    tokens, sequences = batch(gpu, workload, settings)
    key = (
        gpu.memory_bytes, tokens, sequences, settings.memory_fraction, settings.kv_cache_memory_bytes,
        settings.enforce_eager,
    )  # fmt: skip
    found = prepared.terms.get(key)
    if found is None:
        if len(prepared.terms) >= _facts.MOST_TERMS:
            prepared.terms.clear()
        divided = _divide(prepared, gpu, settings, tokens, sequences)
        found = prepared.terms[key] = _with_pool(prepared, gpu, divided)
    return found


def _with_pool(prepared: _Prepared, gpu: Gpu, terms: _Terms) -> _Terms:
    """The terms with what follows from them."""
    has_pool = bool(prepared.pool.groups)
    blocks = max(terms.pool_bytes, 0) // prepared.pool.bytes_per_block if has_pool else 1
    return terms._replace(
        blocks=blocks,
        max_context_tokens=_longest_context(prepared, blocks, terms.in_flight_tokens),
        uncertainty_bytes=_uncertainty(prepared, terms),
        refusal=_refusal_of_budget(prepared, gpu, terms),
    )


def _divide(prepared: _Prepared, gpu: Gpu, settings: EngineSettings, tokens: int, sequences: int) -> _Terms:
    activations, graphs = _transient(prepared, gpu, settings, tokens, sequences)
    weights, non_torch = prepared.facts.weights_bytes, prepared.non_torch_bytes
    runtime = prepared.context_bytes + non_torch
    fraction: float | None = None
    budget = 0
    if settings.kv_cache_memory_bytes is None:
        fraction = settings.memory_fraction or prepared.rules["memory_fraction"]
        budget = math.ceil(gpu.memory_bytes * fraction)
        counted = graphs if prepared.rules["graphs_in_budget"] else 0
        pool = budget - weights - non_torch - activations - counted
    else:
        pool = settings.kv_cache_memory_bytes
    return _Terms(
        runtime_bytes=runtime,
        activations_bytes=activations,
        graphs_bytes=graphs,
        budget_bytes=budget,
        pool_bytes=pool,
        free_bytes=gpu.memory_bytes - runtime - weights - max(pool, 0) - activations - graphs,
        fraction=fraction,
        in_flight_tokens=prepared.rules["in_flight_batches"] * tokens,
    )


def _report(
    prepared: _Prepared, gpu: Gpu, terms: _Terms, sized: _Sized, refusal: str, *, counted: bool
) -> Footprint:
    weights = prepared.facts.weights_bytes
    fixed = terms.runtime_bytes + weights + terms.activations_bytes + terms.graphs_bytes
    return Footprint(
        total_bytes=gpu.memory_bytes,
        runtime_bytes=terms.runtime_bytes,
        weights_bytes=weights,
        kv_pool_bytes=max(terms.pool_bytes, 0),
        state_bytes=0,
        activations_bytes=terms.activations_bytes,
        cuda_graphs_bytes=terms.graphs_bytes,
        free_bytes=terms.free_bytes,
        memory_fraction=terms.fraction,
        kv_pool_tokens=sized.tokens if counted else None,
        max_concurrency=sized.concurrency if counted else None,
        kv_bytes_per_token=prepared.kv_bytes_per_token,
        state_bytes_per_sequence=prepared.state_bytes_per_sequence,
        workload_kv_bytes=sized.workload_bytes,
        need_bytes=fixed + sized.workload_bytes,
        max_context_tokens=terms.max_context_tokens,
        max_sequences=sized.sequences,
        starts=not refusal,
        refusal=refusal,
        uncertainty_bytes=terms.uncertainty_bytes,
        pool_uncertainty_bytes=0 if terms.fraction is None else terms.uncertainty_bytes,
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
        uncertainty=engine_tables()[NAME]["uncertainty"],
        terms={},
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
    """Activation peak and graphs."""
    tables = engine_tables()[NAME]
    activations = _vllm_budget.activation_bytes(
        prepared.facts, prepared.rules, tables["activations"], tokens=tokens, sequences=sequences
    )
    graphs = 0
    if not settings.enforce_eager:
        graphs = _vllm_budget.graph_bytes(
            prepared.facts, gpu, prepared.rules, tables["graphs"], tokens=tokens, sequences=sequences
        )
    return activations, graphs


class _Sized(NamedTuple):
    """What the pool holds of a workload."""

    per_sequence: int
    tokens: int
    concurrency: float
    workload_bytes: int
    sequences: int | None


def _size(prepared: _Prepared, terms: _Terms, workload: Workload) -> _Sized:
    pool, blocks = prepared.pool, terms.blocks
    if not pool.groups:
        return _Sized(0, 0, 0.0, 0, None)
    per_sequence = pool.blocks_per_sequence(workload.context_tokens, terms.in_flight_tokens)
    concurrency = blocks / per_sequence
    if prepared.rules["tokens_from_concurrency"]:
        tokens = int(concurrency * workload.context_tokens)
    else:
        groups = pool.group_count(with_states=prepared.rules["state_groups_counted"])
        tokens = blocks // groups * min(group.block_tokens for group in pool.groups)
    return _Sized(
        per_sequence=per_sequence,
        tokens=tokens,
        concurrency=concurrency,
        workload_bytes=(per_sequence * workload.sequences + 1) * pool.bytes_per_block,
        sequences=(blocks - 1) // per_sequence if blocks else 0,
    )


def _refusal_of_budget(prepared: _Prepared, gpu: Gpu, terms: _Terms) -> str:
    """Why the engine's budget cannot be had, or nothing (`request_memory`)."""
    gib = _vllm_budget.GIB
    at_start = gpu.memory_bytes - prepared.context_bytes
    if terms.budget_bytes > at_start:
        return (
            f"free memory at start ({at_start / gib:.2f} GiB) is less than the desired GPU memory utilization "
            f"({terms.budget_bytes / gib:.2f} GiB)"
        )
    if terms.pool_bytes <= 0:
        return "no available memory for the cache blocks: weights and activations fill the engine's budget"
    if terms.free_bytes < 0:
        return f"out of memory: {-terms.free_bytes / gib:.2f} GiB more than the GPU has"
    return ""


def _refusal_of_pool(prepared: _Prepared, workload: Workload, terms: _Terms, sized: _Sized) -> str:
    """Why the pool, one block of it kept back, is too small for one sequence, or nothing.

    Source: `_check_enough_kv_cache_memory`.
    """
    if terms.blocks - 1 >= sized.per_sequence:
        return ""
    gib = _vllm_budget.GIB
    needed = sized.per_sequence * prepared.pool.bytes_per_block
    return (
        f"to serve one request of {workload.context_tokens} tokens {needed / gib:.2f} GiB of KV cache "
        f"is needed, the available KV cache memory is {terms.pool_bytes / gib:.2f} GiB"
    )


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


def _uncertainty(prepared: _Prepared, terms: _Terms) -> int:
    fractions = prepared.uncertainty
    return int(
        fractions["activations_fraction"] * terms.activations_bytes
        + fractions["cuda_graphs_fraction"] * terms.graphs_bytes
        + fractions["runtime_fraction"] * terms.runtime_bytes
        + fractions["weights_fraction"] * prepared.facts.weights_bytes
        + fractions["unseen_gpu_bytes"]
        + fractions["multimodal_bytes"] * prepared.facts.multimodal
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
