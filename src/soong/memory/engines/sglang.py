"""SGLang 0.5: the static fraction it picks, its token pools, and the flags that make the plan true.

`mem_fraction_static` is what weights and pools may take of the memory that was free before loading
(`arg_groups/memory_hook.py`, `mem_cache/kv_cache_configurator.py _profile_available_bytes`); activations,
CUDA graphs and the request table live in the rest. A pool of tokens is bytes divided by a cell, the bytes of
one token in all layers (`model_executor/pool_configurator.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines import _facts, _vllm_budget
from soong.memory.engines._constants import engine_tables, rules
from soong.memory.footprint import Footprint
from soong.memory.kv_cache import kv_bytes_per_token, state_bytes_per_sequence

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel, Workload

NAME = "sglang"
MIB = 1 << 20
GIB = 1 << 30
BF16_BYTES = 2

CARD_CLASSES_MIB = (20 * 1024, 35 * 1024, 60 * 1024, 160 * 1024)
CHUNKED_PREFILL_TOKENS = (2048, 4096, 4096, 8192, 16384)
DECODE_BATCH = (8, 48, 32, 256, 512)
DECODE_BATCH_OF_LARGE_GROUPS = (8, 160, 160, 512, 512)
"""Defaults by the size of the card; groups of four GPUs and more capture larger batches."""

RESERVE_MIB, RESERVE_PER_TOKEN_MIB, LEAST_RESERVED_TOKENS = 512, 1.5, 2048
RESERVE_PER_GPU_MIB = 128
DECODE_GRAPH_MIB, PREFILL_GRAPH_MIB, LATENT_PREFILL_GRAPHS_MIB = 2, 8, 1536
LARGE_CARD_MIB, LARGE_CARD_LEAST_RESERVE_MIB = 60 * 1024, 10 * 1024
"""The reserve of `handle_gpu_memory_settings` and `reserve_for_graph_mb`."""

VISION_FACTOR, VISION_SENSITIVITY, VISION_BASELINE = 0.95, 0.1, 24 * 1024**2
VISION_PARAMETERS_PER_UNIT = 12
"""`adjust_mem_fraction_for_vlm` compares layers × hidden² of the tower, a twelfth of a plain tower's
parameters.
"""

MOST_REQUESTS, FEWEST_REQUESTS, REQUESTS_PER_CONTEXT = 4096, 2048, 512
REQUEST_SLOT_EXTRA_TOKENS, REQUEST_SLOT_BYTES = 4, 4
"""`resolve_max_num_reqs`, and the int32 table that maps each request's positions to pool slots."""


class _Prepared(NamedTuple):
    facts: _facts.Facts
    rules: dict[str, Any]
    cell_bytes: float
    state_bytes: int
    """Of one request slot, all layers."""
    window_tokens: int
    context_limit_tokens: int
    kv_bytes_per_token: int
    state_bytes_per_sequence: int
    pool_uncertainty_bytes: int
    terms: dict[tuple[Any, ...], _Terms]
    """How memory is divided, by all that decides it: the GPU's memory and links, and the flags."""


_prepared: dict[tuple[Any, ...], _Prepared] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory under SGLang.

    Args:
        model: what is served.
        gpu: one of the GPUs.
        workload: what must fit.
        settings: engine, version and flags.

    Returns:
        The footprint; `starts` is False where no pool is left, or where it holds no sequence of the asked
        context.
    """
    kv_type = _facts.kv_dtype(model, workload, settings)
    key = (
        model.key, kv_type, gpu.compute_capability, settings.version,
        settings.tensor_parallel, settings.pipeline_parallel, settings.dtype,
    )  # fmt: skip
    prepared = _prepared.get(key) or _facts.kept(
        _prepared, key, lambda: _prepare(model, gpu, settings, kv_type)
    )
    terms = _terms(prepared, gpu, settings)
    requests = _requests(terms.pool_tokens, terms.slots, prepared, workload, settings)
    table = (requests + 1) * (workload.context_tokens + REQUEST_SLOT_EXTRA_TOKENS) * REQUEST_SLOT_BYTES
    return _report(prepared, terms, workload, settings, requests=requests, table_bytes=table)


class _Terms(NamedTuple):
    """How one GPU's memory is divided, whatever the workload.

    rest_bytes: for pools, before the recurrent state is taken. free_bytes: before the request table is taken.
    """

    total_bytes: int
    context_bytes: int
    fraction: float | None
    rest_bytes: int
    state_bytes: int
    slots: int
    pool_bytes: int
    pool_tokens: int
    activations_bytes: int
    graphs_bytes: int
    free_bytes: int


def _terms(prepared: _Prepared, gpu: Gpu, settings: EngineSettings) -> _Terms:
    """The division for one GPU and one set of flags; remembered, since all contexts share it."""
    key = (
        gpu.memory_bytes, gpu.interconnect, settings.memory_fraction, settings.kv_cache_memory_bytes,
        settings.enforce_eager, settings.max_num_batched_tokens, settings.max_num_seqs,
    )  # fmt: skip
    found = prepared.terms.get(key)
    if found is None:
        if len(prepared.terms) >= _facts.MOST_TERMS:
            prepared.terms.clear()
        found = prepared.terms[key] = _divide(prepared, gpu, settings)
    return found


def _divide(prepared: _Prepared, gpu: Gpu, settings: EngineSettings) -> _Terms:
    weights = prepared.facts.weights_bytes
    context = _vllm_budget.context_bytes(prepared.rules, gpu, settings.tensor_parallel)
    tokens, decode_batch = batch(gpu, settings)
    fraction: float | None = settings.memory_fraction or default_fraction(
        prepared.facts, prepared.rules, gpu, settings
    )
    rest = int((gpu.memory_bytes - context) * (fraction or 0)) - weights
    if settings.kv_cache_memory_bytes is not None:
        rest, fraction = settings.kv_cache_memory_bytes, None
    state, slots = _state_pool(prepared, rest, settings)
    pool = max(rest - state, 0)
    activations, graphs = _transient(prepared, settings, tokens, decode_batch)
    return _Terms(
        total_bytes=gpu.memory_bytes,
        context_bytes=context,
        fraction=fraction,
        rest_bytes=rest,
        state_bytes=state,
        slots=slots,
        pool_bytes=pool,
        pool_tokens=int(pool // prepared.cell_bytes)
        if prepared.cell_bytes
        else prepared.context_limit_tokens,
        activations_bytes=activations,
        graphs_bytes=graphs,
        free_bytes=gpu.memory_bytes - context - weights - pool - state - activations - graphs,
    )


def _report(
    prepared: _Prepared,
    terms: _Terms,
    workload: Workload,
    settings: EngineSettings,
    *,
    requests: int,
    table_bytes: int,
) -> Footprint:
    weights, pool_tokens = prepared.facts.weights_bytes, terms.pool_tokens
    activations, graphs = terms.activations_bytes, terms.graphs_bytes
    runtime = terms.context_bytes + table_bytes
    free = terms.free_bytes - table_bytes
    refusal = _refusal(prepared, terms, workload, free)
    used = int(prepared.cell_bytes * workload.context_tokens * workload.sequences)
    used += prepared.state_bytes * prepared.rules["mamba_slots_per_request"] * workload.sequences
    return Footprint(
        total_bytes=terms.total_bytes,
        runtime_bytes=runtime,
        weights_bytes=weights,
        kv_pool_bytes=terms.pool_bytes,
        state_bytes=terms.state_bytes,
        activations_bytes=activations,
        cuda_graphs_bytes=graphs,
        free_bytes=free,
        memory_fraction=terms.fraction,
        kv_pool_tokens=pool_tokens if not refusal or settings.kv_cache_memory_bytes is not None else None,
        max_concurrency=None,
        kv_bytes_per_token=prepared.kv_bytes_per_token,
        state_bytes_per_sequence=prepared.state_bytes_per_sequence,
        workload_kv_bytes=used,
        need_bytes=runtime + weights + activations + graphs + used,
        max_context_tokens=min(prepared.context_limit_tokens, pool_tokens),
        max_sequences=min(requests, pool_tokens // max(1, workload.context_tokens)),
        starts=not refusal,
        refusal=refusal,
        uncertainty_bytes=_uncertainty(runtime, weights, activations, graphs),
        pool_uncertainty_bytes=0 if terms.fraction is None else prepared.pool_uncertainty_bytes,
    )


def batch(gpu: Gpu, settings: EngineSettings) -> tuple[int, int]:
    """Chunked prefill size in tokens, and the largest decode batch that is captured."""
    card = bisect_left(CARD_CLASSES_MIB, gpu.memory_bytes // MIB + 1)
    sizes = DECODE_BATCH if settings.tensor_parallel < len(DECODE_BATCH) - 1 else DECODE_BATCH_OF_LARGE_GROUPS
    decode = min(sizes[card], settings.max_num_seqs) if settings.max_num_seqs else sizes[card]
    return settings.max_num_batched_tokens or CHUNKED_PREFILL_TOKENS[card], decode


def default_fraction(
    facts: _facts.Facts, constants: dict[str, Any], gpu: Gpu, settings: EngineSettings
) -> float:
    """The `mem_fraction_static` that SGLang picks for a card, to three digits as it does."""
    total = gpu.memory_bytes // MIB
    tokens, decode_batch = batch(gpu, settings)
    reserved = RESERVE_MIB + RESERVE_PER_TOKEN_MIB * max(tokens, LEAST_RESERVED_TOKENS)
    reserved += RESERVE_PER_GPU_MIB * settings.tensor_parallel * settings.pipeline_parallel
    if not settings.enforce_eager or not constants["prefill_graphs"]:
        reserved += DECODE_GRAPH_MIB * decode_batch
    if constants["prefill_graphs"] and not settings.enforce_eager:
        latent = any(kind.name == "latent" for kind in facts.kinds)
        reserved += LATENT_PREFILL_GRAPHS_MIB if latent else PREFILL_GRAPH_MIB * prefill_graphs(tokens)
    if total > LARGE_CARD_MIB:
        reserved = max(reserved, LARGE_CARD_LEAST_RESERVE_MIB)
    fraction = round((total - reserved) / total, 3)
    if facts.vision_parameters:
        tower = facts.vision_parameters / VISION_PARAMETERS_PER_UNIT / VISION_BASELINE
        fraction *= VISION_FACTOR * max(0.8, min(1.05, 1 - VISION_SENSITIVITY * (tower - 1)))
    return fraction


@lru_cache(maxsize=256)
def prefill_graphs(tokens: int) -> int:
    """How many prefill sizes are captured up to `tokens` (`arg_groups/cuda_graph_hook.py`)."""
    steps = (
        (4, 33, 4),
        (48, 257, 16),
        (288, 513, 32),
        (576, 1025, 64),
        (1280, 4097, 256),
        (4608, tokens + 1, 512),
    )
    return sum(1 for step in steps for size in range(*step) if size <= tokens)


@lru_cache(maxsize=256)
def _decode_graphs(batch_size: int) -> int:
    sizes = [1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, batch_size + 1, 32)]
    fitting = sum(1 for size in sizes if size <= batch_size)
    return fitting if batch_size in sizes else fitting + 1


def _prepare(model: ServedModel, gpu: Gpu, settings: EngineSettings, kv_type: str) -> _Prepared:
    constants = rules(NAME, settings.version)
    facts = _facts.gather(model, gpu, settings, kv_type)
    full = sum(kind.layers * kind.token_bytes / kind.ratio for kind in facts.kinds if not kind.window)
    sliding = sum(kind.layers * kind.token_bytes for kind in facts.kinds if kind.window)
    share = constants["swa_full_tokens_ratio"] if full else 1.0
    return _Prepared(
        facts=facts,
        rules=constants,
        cell_bytes=full + share * sliding,
        state_bytes=sum(kind.layers * kind.state_bytes for kind in facts.kinds),
        window_tokens=max((kind.window for kind in facts.kinds), default=0),
        context_limit_tokens=model.architecture.context_limit_tokens or 1 << 24,
        kv_bytes_per_token=kv_bytes_per_token(facts.kinds),
        state_bytes_per_sequence=state_bytes_per_sequence(facts.kinds),
        pool_uncertainty_bytes=_uncertainty(0, facts.weights_bytes, 0, 0),
        terms={},
    )


def _state_pool(prepared: _Prepared, rest: int, settings: EngineSettings) -> tuple[int, int]:
    """Bytes of recurrent state and its slots (`_handle_max_mamba_cache`); one slot is padding."""
    if not prepared.state_bytes:
        return 0, 0
    ratio = prepared.rules["mamba_full_memory_ratio"]
    if settings.kv_cache_memory_bytes is not None:
        rest = settings.kv_cache_memory_bytes
    slots = int((max(rest, 0) * ratio / (1 + ratio) - prepared.state_bytes) // prepared.state_bytes)
    return (slots + 1) * prepared.state_bytes if slots > 0 else 0, max(slots, 0)


def _requests(
    pool_tokens: int, slots: int, prepared: _Prepared, workload: Workload, settings: EngineSettings
) -> int:
    """`resolve_max_num_reqs`: how many requests may run at once."""
    estimated = int(pool_tokens / max(1, workload.context_tokens) * REQUESTS_PER_CONTEXT)
    requests = settings.max_num_seqs or max(min(estimated, MOST_REQUESTS), FEWEST_REQUESTS)
    requests = min(requests, pool_tokens // 2)
    if prepared.state_bytes:
        requests = min(requests, slots // prepared.rules["mamba_slots_per_request"])
    return int(requests)


def _transient(
    prepared: _Prepared, settings: EngineSettings, tokens: int, decode_batch: int
) -> tuple[int, int]:
    terms = engine_tables()[NAME]["terms"]
    facts = prepared.facts
    row = tokens * BF16_BYTES
    forward = terms["residual_copies"] * facts.hidden_size * row
    if facts.mixture:
        forward += (
            row
            * facts.experts_per_token
            * (max(2 * facts.expert_width, facts.hidden_size) + facts.hidden_size)
        )
    else:
        forward += terms["mlp_copies"] * facts.mlp_width * row
    logits = terms["logits_copies"] * decode_batch * facts.vocab_size * 4
    graphs = (
        0
        if settings.enforce_eager
        else terms["graphs_base_bytes"] + terms["graph_bytes"] * _decode_graphs(decode_batch)
    )
    return int(max(forward, logits)), int(graphs)


def _refusal(prepared: _Prepared, terms: _Terms, workload: Workload, free: int) -> str:
    pool_tokens = terms.pool_tokens
    if terms.rest_bytes <= 0 or pool_tokens <= 0 or (prepared.state_bytes and terms.slots <= 0):
        return "not enough memory for the token pool; increase --mem-fraction-static"
    if free < 0:
        return f"out of memory: {-free / GIB:.2f} GiB more than the GPU has"
    if (
        prepared.window_tokens
        and pool_tokens * prepared.rules["swa_full_tokens_ratio"] <= prepared.window_tokens
    ):
        return "the sliding-window pool cannot hold one window"
    if pool_tokens < workload.context_tokens:
        return (
            f"a request of {workload.context_tokens} tokens is longer than the pool of {pool_tokens} tokens"
        )
    return ""


def _uncertainty(runtime: int, weights: int, activations: int, graphs: int) -> int:
    table = engine_tables()[NAME]["uncertainty"]
    return int(
        table["activations_fraction"] * activations
        + table["cuda_graphs_fraction"] * graphs
        + table["runtime_fraction"] * runtime
        + table["weights_fraction"] * weights
        + table["unseen_gpu_bytes"]
    )


def launch_argv(model_name: str, workload: Workload, settings: EngineSettings) -> tuple[str, ...]:
    """The command that starts the server as it was planned."""
    argv = ["python", "-m", "sglang.launch_server", "--model-path", model_name]
    argv += ["--context-length", str(workload.context_tokens)]
    if settings.tensor_parallel > 1:
        argv += ["--tp-size", str(settings.tensor_parallel)]
    if settings.pipeline_parallel > 1:
        argv += ["--pp-size", str(settings.pipeline_parallel)]
    if settings.memory_fraction is not None:
        argv += ["--mem-fraction-static", f"{settings.memory_fraction:g}"]
    if workload.kv_dtype != "auto":
        argv += ["--kv-cache-dtype", "fp8_e4m3" if workload.kv_dtype == "fp8" else workload.kv_dtype]
    if settings.dtype != "auto":
        argv += ["--dtype", settings.dtype]
    if settings.max_num_batched_tokens:
        argv += ["--chunked-prefill-size", str(settings.max_num_batched_tokens)]
    if settings.max_num_seqs:
        argv += ["--max-running-requests", str(settings.max_num_seqs)]
    if settings.enforce_eager:
        argv.append("--disable-cuda-graph")
    return tuple(argv)
