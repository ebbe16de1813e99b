"""What of a model on a GPU under an engine does not depend on the load, made once: the work of a pass, in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from soong.memory import engines
from soong.memory.footprint import Workload
from soong.speed.efficiency import packaged_efficiencies
from soong.speed.kernels import flops_per_second, launches_us, reducing, seconds_of
from soong.speed.work import work_of

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.speed.efficiency import Efficiencies, Rates
    from soong.speed.throughput import Load
    from soong.speed.work import Work

LARGEST_CHUNK_TOKENS = 8192
"""Prompt tokens of one pass at the most: more share no more of anything."""

LLAMA_CPP_CHUNK_TOKENS = 512
"""llama.cpp `common/common.h` n_ubatch."""

MIXING = "vllm"
"""The engine whose passes read prompts and decode at once (`v1/core/sched/scheduler.py`); SGLang does one or the other
unless told (`--enable-mixed-chunk`)."""

FLASH_ATTENTION_2 = (8, 12)
"""Major compute capabilities on which vLLM takes FlashAttention 2 (0.33 `v1/attention/backends/fa_utils.py`)."""

TILE_ROWS = 64
"""Rows of queries that FlashAttention 2 multiplies at a time over a paged cache. A pass that also reads a prompt gives
each head of each waiting sequence a tile of its own for its single row (vLLM pull request 58013, September 2026)."""


class Window(NamedTuple):
    """Layers that keep a window: seconds a token attended to, while decoding and in a prompt; bytes of one token."""

    decode_seconds: float
    prompt_seconds: float
    window_tokens: int
    past_bytes: float


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A model on a GPU under an engine.

    dense_, head_, experts_: matrices. memory: reading all weights once; compute, moved: for one token of a pass.
    missed_share: the chance that a token does not meet a given expert.
    token: states, logits and hidden states of a token; prompt_token: the same while a prompt is read.
    decode_past, prompt_past: for each token attended to, in layers that keep all; `windows` has the others.
    reduce_start, reduce_token: adding up hidden states, a pass and a token. launches: least times of all kernels.
    step, sequence, request, first: the engine's own, for a step, a sequence of it, a request, before its first pass.
    slower_factor, prompt_slower_factor: on all kernels of a step and of a prompt.
    chunk_tokens: of prompts in one pass, at most. stages: of a pipeline, each with a microbatch of its own.
    mixes: whether a pass reads prompts and decodes at once. crowding, crowding_windows: what each token attended to
    takes longer in such a pass; the latter as (seconds, window in tokens).
    pool_bytes, past_bytes, state_bytes: for caches; of one token attended to, and of one sequence's states.
    most_running: the engine's own limit, 0 for none. alone, many, burst: low and high factor, and the basis in words.
    """

    dense_memory_seconds: float
    dense_compute_seconds: float
    dense_moved_seconds: float
    head_memory_seconds: float
    head_compute_seconds: float
    experts_memory_seconds: float
    experts_compute_seconds: float
    experts_moved_seconds: float
    missed_share: float
    token_seconds: float
    prompt_token_seconds: float
    decode_past_seconds: float
    prompt_past_seconds: float
    windows: tuple[Window, ...]
    reduce_start_seconds: float
    reduce_token_seconds: float
    launches_seconds: float
    step_seconds: float
    sequence_seconds: float
    request_seconds: float
    first_seconds: float
    slower_factor: float
    prompt_slower_factor: float
    chunk_tokens: int
    stages: int
    mixes: bool
    crowding_seconds: float
    crowding_windows: tuple[tuple[float, int], ...]
    pool_bytes: float
    past_bytes: float
    state_bytes: float
    most_running: int
    alone: tuple[float, float, str]
    many: tuple[float, float, str]
    burst: tuple[float, float, str]


MOST_KEPT = 8192
_kept: dict[tuple[object, ...], Prepared | None] = {}


def prepare(
    served: ServedModel, gpu: Gpu, settings: EngineSettings, gpu_count: int, *, kv_dtype: str = "auto"
) -> Prepared | None:
    """All that does not depend on the load; remembered by everything that decides it."""
    key = (
        served.key, gpu.id, gpu.memory_bytes, settings.name, settings.version, settings.tensor_parallel,
        settings.pipeline_parallel, settings.memory_fraction, settings.kv_cache_memory_bytes, settings.max_num_seqs,
        settings.max_num_batched_tokens, settings.enforce_eager, kv_dtype, gpu_count,
        settings.expert_parallel,
    )  # fmt: skip
    if key in _kept:
        return _kept[key]
    if len(_kept) >= MOST_KEPT:
        _kept.clear()
    found = _kept[key] = prepared_with(packaged_efficiencies(), served, gpu, settings, kv_dtype=kv_dtype)
    return found


def prepared_with(
    efficiencies: Efficiencies,
    served: ServedModel,
    gpu: Gpu,
    settings: EngineSettings,
    *,
    kv_dtype: str = "auto",
) -> Prepared | None:
    """As `prepare`, with a table of one's own: for those who measure."""
    rates = efficiencies.rates(gpu, settings.name, settings.version)
    return None if rates is None else _in_seconds(efficiencies, rates, served, gpu, settings, kv_dtype)


def _in_seconds(
    efficiencies: Efficiencies,
    rates: Rates,
    served: ServedModel,
    gpu: Gpu,
    settings: EngineSettings,
    kv_dtype: str,
) -> Prepared:
    """The work of a pass at the rates of a GPU."""
    llama_cpp = settings.name == "llama.cpp"  # its GPUs share layers, one after the other
    parallel = 1 if llama_cpp else settings.tensor_parallel
    stages = 1 if llama_cpp else settings.pipeline_parallel
    work = work_of(
        served, tensor_parallel=parallel, kv_dtype=kv_dtype, expert_parallel=settings.expert_parallel
    )
    pool_bytes, most_running = _pool(served, gpu, settings, kv_dtype)
    chunk_tokens = engines.pass_tokens(gpu, settings) or LLAMA_CPP_CHUNK_TOKENS
    return Prepared(
        **_of_matrices(work, rates, gpu),
        **_of_tokens(work, served, rates, gpu, settings, parallel),
        **_of_the_engine(work, rates, gpu),
        chunk_tokens=LLAMA_CPP_CHUNK_TOKENS if llama_cpp else min(chunk_tokens, LARGEST_CHUNK_TOKENS),
        stages=stages,
        mixes=settings.name == MIXING,
        pool_bytes=pool_bytes * stages,
        state_bytes=work.states_bytes,
        most_running=most_running,
        alone=_known(efficiencies, settings.name, "alone", "many"),
        many=_known(efficiencies, settings.name, "many", "alone"),
        burst=_known(efficiencies, settings.name, "burst", "many", "alone"),
    )


def _of_matrices(work: Work, rates: Rates, gpu: Gpu) -> dict[str, Any]:
    """The fields that matrices make: `dense_`, `head_`, `experts_`."""
    dense = seconds_of(work.dense, "dense", rates, gpu)
    head = seconds_of(work.head, "dense", rates, gpu)
    experts = seconds_of(work.experts, "experts", rates, gpu)
    return {
        "dense_memory_seconds": dense[0],
        "dense_compute_seconds": dense[1],
        "dense_moved_seconds": dense[2],
        "head_memory_seconds": head[0],
        "head_compute_seconds": head[1],
        "experts_memory_seconds": experts[0],
        "experts_compute_seconds": experts[1],
        "experts_moved_seconds": experts[2],
        "missed_share": 1 - work.experts_per_token / work.expert_count if work.expert_count else 0.0,
    }


def _of_tokens(
    work: Work, served: ServedModel, rates: Rates, gpu: Gpu, settings: EngineSettings, parallel: int
) -> dict[str, Any]:
    """The fields of single tokens: their past, their states, and what the GPUs add up of them."""
    generation = rates.generation
    passing = 1 / (gpu.bandwidth_bytes_per_second * generation.passing)
    reading = 1 / (gpu.bandwidth_bytes_per_second * generation.attention_memory)
    attending = 1 / (flops_per_second(gpu, "16-bit") * generation.attention_compute)
    hidden = work.passed_bytes_per_token * passing
    start, byte = reducing(rates, gpu, parallel)
    decode_past, prompt_past, past_bytes, windows = _pasts(work, reading, attending)
    crowding, crowding_windows = _crowding(work, served, gpu, settings, reading, attending)
    return {
        "token_seconds": 2 * work.states_bytes * reading + work.logits_bytes / parallel * passing + hidden,
        "prompt_token_seconds": work.state_flops * attending + hidden,
        "decode_past_seconds": decode_past,
        "prompt_past_seconds": prompt_past,
        "past_bytes": past_bytes,
        "windows": windows,
        "reduce_start_seconds": work.reductions * start,
        "reduce_token_seconds": work.reductions * work.reduced_bytes_per_token * byte,
        "crowding_seconds": crowding,
        "crowding_windows": crowding_windows,
    }


def _of_the_engine(work: Work, rates: Rates, gpu: Gpu) -> dict[str, Any]:
    """The fields of the engine itself, whose table counts in microseconds."""
    engine = rates.engine
    return {
        "launches_seconds": engine.launches * launches_us(work, rates, gpu) * 1e-6,
        "step_seconds": engine.step_us * 1e-6,
        "sequence_seconds": engine.sequence_us * 1e-6,
        "request_seconds": engine.request_us * 1e-6,
        "first_seconds": engine.first_us * 1e-6,
        "slower_factor": engine.decode,
        "prompt_slower_factor": engine.prefill,
    }


def _pasts(work: Work, reading: float, attending: float) -> tuple[float, float, float, tuple[Window, ...]]:
    """What a token attended to costs while decoding and while a prompt is read, and its bytes; then the windows'."""
    decode_past = prompt_past = past_bytes = 0.0
    windows = []
    for past in work.pasts:
        decode = past.bytes_per_token * reading + past.flops_per_token * attending
        prompt = past.prefill_flops_per_token * attending
        if past.window:
            windows.append(Window(decode, prompt, past.window, past.bytes_per_token))
            continue
        decode_past += decode
        prompt_past += prompt
        past_bytes += past.bytes_per_token
    return decode_past, prompt_past, past_bytes, tuple(windows)


def _crowding(
    work: Work, served: ServedModel, gpu: Gpu, settings: EngineSettings, reading: float, attending: float
) -> tuple[float, tuple[tuple[float, int], ...]]:
    """What a token attended to takes longer in a pass that also reads a prompt; the second for each window.

    Only FlashAttention 2 in vLLM has it. Its tiles are multiplied while the past is read, so the longer of both counts.
    Layers with sinks take Triton's kernel on such GPUs (the same file: FlashAttention 3 and 4 alone have sinks).
    """
    major = gpu.compute_capability[0] if gpu.compute_capability else 0
    sinks = any(weight.path.endswith(".sinks") for weight in served.architecture.weights)
    if settings.name != "vllm" or major not in FLASH_ATTENTION_2 or sinks:
        return 0.0, ()
    everywhere, windows = 0.0, []
    for past in work.pasts:
        if past.is_latent:
            continue
        decode = past.bytes_per_token * reading + past.flops_per_token * attending
        longer = max(0.0, TILE_ROWS * past.flops_per_token * attending - decode)
        if past.window:
            windows.append((longer, past.window))
        else:
            everywhere += longer
    return everywhere, tuple(windows)


def _pool(served: ServedModel, gpu: Gpu, settings: EngineSettings, kv_dtype: str) -> tuple[float, int]:
    """Bytes for caches on one GPU, and the engine's own limit of sequences.

    An engine that would refuse by less than the figures may be off, and starts, has a pool all the same: somewhere
    between nothing and that error, whose middle is taken.
    """
    most = engines.most_running(gpu, settings) or 0
    if settings.name == "llama.cpp":
        return 0.0, most  # its slots are made for the workload, however large
    usual = Workload(context_tokens=_USUAL_CONTEXT_TOKENS, kv_dtype=kv_dtype)
    found = engines.footprint(served, gpu, usual, settings)
    pool = found.kv_pool_bytes + found.state_bytes
    if not found.starts:
        pool = max(pool, found.pool_uncertainty_bytes // 2)
    return float(max(pool, 1)), most


_USUAL_CONTEXT_TOKENS = 8192


def _known(efficiencies: Efficiencies, engine: str, *loads: str) -> tuple[float, float, str]:
    """How far to trust the figures of an engine, and on what they rest: the first kind of load that was compared."""
    for load in loads:
        spread = efficiencies.spread(engine, load)
        if spread is not None:
            basis = (
                f"roofline with measured kernels, held against {spread.runs} published runs "
                f"{KINDS_OF_LOAD[load]} on {engine}"
            )
            return spread.low, spread.high, basis
    return *UNKNOWN_RANGE, f"roofline with measured kernels; no published runs of {engine} like this"


def first_token_range(engine: str, load: Load) -> tuple[float, float]:
    """Between which multiples of the time to the first token the true one is expected, as measured for few users."""
    few = not load.requests and load.sequences <= FEW_USERS
    spread = packaged_efficiencies().spread(engine, "first-token") if few else None
    return (spread.low, spread.high) if spread else UNKNOWN_RANGE


FEW_USERS = 8
"""Up to so many at once hardly anybody waits in a queue, so that the time to the first token is the engine's own."""

KINDS_OF_LOAD = {"alone": "of one user", "many": "of many users", "burst": "of bursts"}
UNKNOWN_RANGE = (0.5, 2.0)
"""A factor of two either way where nothing was compared."""
