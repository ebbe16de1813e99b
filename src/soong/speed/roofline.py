"""Prefill and decode throughput: the work of a pass over what the GPU delivers, plus what starting kernels costs.

A kernel takes the time of its bytes and of its multiplications, each at the share of the datasheet's rate that was
measured for such kernels (`data/speed.toml`; Williams, Waterman, Patterson: Roofline, CACM 2009). A step of decoding
is the sum of its kernels: matrices that all tokens share, the experts that a batch touches, each sequence's past, the
hidden states that GPUs add up, and the least time that every kernel and the engine itself take. Under a steady load a
request's prompt is computed between the others' tokens, so each of `sequences` waits for every prompt once. A burst,
after which nothing comes, is put together from the same steps and prompts (`soong.speed.burst`).

What depends on the load is a handful of multiplications; all else is prepared once for a model on a GPU.
"""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import TYPE_CHECKING, Literal

import msgspec

from soong.memory import engines
from soong.memory.footprint import Workload
from soong.speed.efficiency import Efficiencies, Rates, kernel_of, packaged_efficiencies
from soong.speed.throughput import Load, Throughput
from soong.speed.work import Matrices, work_of

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.speed.efficiency import Starts
    from soong.speed.work import Work

LARGEST_CHUNK_TOKENS = 8192
"""Prompt tokens of one pass at the most: more share no more of anything."""

LLAMA_CPP_CHUNK_TOKENS = 512
"""llama.cpp `common/common.h` n_ubatch."""

GPUS_OF_A_NODE = 8
"""HGX boards, and PCIe servers; only the racks of GB200 and GB300 have more GPUs on one NVLink."""

NETWORK_BYTES_PER_SECOND = 50e9
"""InfiniBand NDR, 400 Gbit/s for each GPU, between nodes: NVIDIA DGX H100 and B200 system guides."""

RACK = ("gb200", "gb300")

MIXING = "vllm"
"""The engine whose passes read prompts and decode at once (`v1/core/sched/scheduler.py`); SGLang does one or the other
unless told (`--enable-mixed-chunk`)."""

FLASH_ATTENTION_2 = (8, 12)
"""Major compute capabilities on which vLLM takes FlashAttention 2 (0.33 `v1/attention/backends/fa_utils.py`)."""

TILE_ROWS = 64
"""Rows of queries that FlashAttention 2 multiplies at a time over a paged cache. A pass that also reads a prompt gives
each head of each waiting sequence a tile of its own for its single row (vLLM pull request 58013, September 2026)."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A model on a GPU under an engine; all in seconds, but for what ends in `_bytes`.

    dense_, head_, experts_: matrices. memory: reading all weights once; compute, moved: for one token of a pass.
    missed: the chance that a token does not meet a given expert. token: states, logits and hidden states of a token;
    prompt_token: the same while a prompt is read. decode_past, prompt_past: for each token attended to, in layers that
    keep all; windows: (decode, prompt, window, bytes) of those that keep a window.
    reduce_start, reduce_token: adding up hidden states, a pass and a token. launches: least times of all kernels.
    step, sequence, request, first: the engine's own, for a step, a sequence of it, a request, before its first pass.
    slower, prompt_slower: factors on all kernels of a step and of a prompt.
    chunk: most prompt tokens of a pass. parts: pipeline stages, each with a microbatch of its own.
    mixes: whether a pass reads prompts and decodes at once. crowding, crowding_windows: what each token attended to
    takes longer in such a pass; the latter as (seconds, window).
    pool_bytes, past_bytes, state_bytes: for caches; of one token attended to, and of one sequence's states.
    most_running: the engine's own limit, 0 for none. alone, many, burst: low and high factor, and the basis in words.
    """

    dense_memory: float
    dense_compute: float
    dense_moved: float
    head_memory: float
    head_compute: float
    experts_memory: float
    experts_compute: float
    experts_moved: float
    missed: float
    token: float
    prompt_token: float
    decode_past: float
    prompt_past: float
    windows: tuple[tuple[float, float, int, float], ...]
    reduce_start: float
    reduce_token: float
    launches: float
    step: float
    sequence: float
    request: float
    first: float
    slower: float
    prompt_slower: float
    chunk: int
    parts: int
    mixes: bool
    crowding: float
    crowding_windows: tuple[tuple[float, int], ...]
    pool_bytes: float
    past_bytes: float
    state_bytes: float
    most_running: int
    alone: tuple[float, float, str]
    many: tuple[float, float, str]
    burst: tuple[float, float, str]


def throughput(
    served: ServedModel,
    gpu: Gpu,
    load: Load,
    settings: EngineSettings,
    gpu_count: int = 1,
    *,
    kv_dtype: str = "auto",
) -> Throughput | None:
    """How fast an engine answers a steady load; None where nothing is known of the GPU's speed.

    Args:
        served: the model and its format.
        gpu: one of the GPUs.
        load: prompts, answers, and how many at once; those that the pool has no room for wait, and the figures are
            for those that run, whose number stands in the answer's load.
        settings: the engine, its flags, and how the model is split; GPUs beyond the split stand idle.
        gpu_count: GPUs of the machine.
        kv_dtype: of the cache, as `Workload.kv_dtype` spells it.
    """
    prepared = prepare(served, gpu, settings, gpu_count, kv_dtype=kv_dtype)
    if prepared is None:
        return None
    return answered(prepared, load)


def largest_batch(
    served: ServedModel,
    gpu: Gpu,
    load: Load,
    settings: EngineSettings,
    *,
    most: int,
    target_tokens_per_second_per_user: float | None,
    gpu_count: int = 1,
    kv_dtype: str = "auto",
) -> Throughput | None:
    """The speed at the largest number of sequences whose users each see the target; None where even one does not.

    Args:
        served, gpu, settings, gpu_count, kv_dtype: as for `throughput`.
        load: lengths; its number of sequences does not count.
        most: as many as memory holds, or as the engine has slots; of a burst the others wait in the engine.
        target_tokens_per_second_per_user: None for as many as memory holds.
    """
    prepared = prepare(served, gpu, settings, gpu_count, kv_dtype=kv_dtype)
    if prepared is None:
        return None
    target = target_tokens_per_second_per_user
    fits = most if load.requests else min(most, running(prepared, load, most))
    if target is not None:
        low, high = 0, fits
        while low < high:
            middle = (low + high + 1) // 2
            if _each_sees(prepared, load, middle) >= target:
                low = middle
            else:
                high = middle - 1
        fits = low
    if fits < 1:
        return None
    return answered(prepared, _with_batch(load, fits))


def _each_sees(prepared: Prepared, load: Load, batch: int) -> float:
    """Tokens a second of each of so many."""
    if load.requests:
        return answered(prepared, _with_batch(load, batch)).decode_tokens_per_second_per_user
    return 1 / time_per_token(prepared, load, batch)


def _with_batch(load: Load, batch: int) -> Load:
    """The load at a batch that is searched: of a burst all come at once, and the engine runs no more than so many."""
    if not load.requests:
        return _with_sequences(load, batch)
    return Load(
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        sequences=load.requests,
        requests=load.requests,
        lengths=load.lengths,
        slots=batch,
    )


def _with_sequences(load: Load, sequences: int) -> Load:
    if load.sequences == sequences:
        return load
    return Load(
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        sequences=sequences,
        requests=load.requests,
        lengths=load.lengths,
    )


def answered(prepared: Prepared, load: Load) -> Throughput:
    """The figures for one load, of what is prepared for one engine."""
    if load.requests:
        return _answered_burst(prepared, load)
    prompt_tokens, output, wanted = load.input_tokens, load.output_tokens, load.sequences
    batch = running(prepared, load, wanted)
    if batch != wanted:
        load = _with_sequences(load, batch)
    context = prompt_tokens + output / 2
    step, kinds = _step(prepared, batch, context)
    step += crowding_seconds(prepared, load, batch, context)
    first = prompt_seconds(prepared, prompt_tokens, 1.0)
    arriving = joining(prepared, load, batch)
    prompt = first if arriving <= 1 else prompt_seconds(prepared, prompt_tokens, arriving)
    between = (batch - 1) * prompt / output
    low, high, basis = prepared.alone if batch == 1 else prepared.many
    return Throughput(  # by place, which is ten times as quick as by name
        load,
        prompt_tokens / prompt,  # prefill_tokens_per_second
        1 / (step + between),  # decode_tokens_per_second_per_user
        batch * output / (output * step + batch * prompt),  # decode_tokens_per_second
        first + prepared.first,  # time_to_first_token_seconds
        low,  # low_factor
        high,  # high_factor
        _bound(kinds, between),  # bound
        basis,
    )


def _answered_burst(prepared: Prepared, load: Load) -> Throughput:
    """The figures for a burst; what decoding waits for is asked of its full batch."""
    from soong.speed.burst import burst  # it stands on this module, and few ask for bursts

    found = burst(prepared, load)
    batch = found.batch
    prompt = prompt_seconds(prepared, load.input_tokens, batch)
    _, kinds = _step(prepared, batch, load.input_tokens + load.output_tokens / 2)
    low, high, basis = prepared.burst
    return Throughput(  # by place, which is ten times as quick as by name
        _with_sequences(load, batch),
        load.input_tokens / prompt,  # prefill_tokens_per_second
        1 / found.seconds_per_token,  # decode_tokens_per_second_per_user
        load.requests * load.output_tokens / found.seconds,  # decode_tokens_per_second
        found.first_token_seconds,  # time_to_first_token_seconds
        low,  # low_factor
        high,  # high_factor
        _bound(kinds, batch * prompt / load.output_tokens),  # bound
        basis,
        found.seconds,  # burst_seconds
    )


def _bound(
    kinds: tuple[float, float, float, float], prompts: float
) -> Literal["memory", "compute", "communication", "overhead"]:
    """What the most time goes to; the prompts between two tokens are computation."""
    memory, compute, communication, overhead = kinds
    compute += prompts
    most = max(memory, compute, communication, overhead)
    if most == memory:
        return "memory"
    if most == compute:
        return "compute"
    return "overhead" if most == overhead else "communication"


def running(prepared: Prepared, load: Load, wanted: int) -> int:
    """How many of the wanted sequences run at once: the engine's limit, and what its pool holds.

    In a steady load sequences are of all ages, so that one takes its prompt and half of its answer on average.
    """
    limit = prepared.most_running
    batch = limit if 0 < limit < wanted else wanted
    pool = prepared.pool_bytes
    if pool:
        tokens = load.input_tokens + load.output_tokens / 2
        one = sequence_bytes(prepared, tokens)
        if one * batch > pool:
            batch = int(pool / one)
    return max(1, batch)


def sequence_bytes(prepared: Prepared, tokens: float) -> float:
    """What one sequence of so many tokens takes of the pool."""
    one = prepared.state_bytes + prepared.past_bytes * tokens
    for _, _, window, size in prepared.windows:
        one += size * (min(window, tokens))
    return one


def joining(prepared: Prepared, load: Load, batch: float) -> float:
    """How many prompts share a pass, as far as weights and launches go, where so many sequences are served.

    An engine that mixes reads a prompt in a pass that decodes anyway; others give those that come in a step one pass.
    """
    return prepared.chunk if prepared.mixes and batch > 1 else batch / load.output_tokens


def crowding_seconds(prepared: Prepared, load: Load, batch: float, context: float) -> float:
    """What a step takes longer, on average, because some of them also read a prompt."""
    if not prepared.crowding and not prepared.crowding_windows:
        return 0.0
    each = prepared.crowding * context
    for seconds, window in prepared.crowding_windows:
        each += seconds * (min(window, context))
    others = max(batch - 1, 0.0)  # nobody's own prompt is read while their answer streams
    passes = ceil(load.input_tokens / prepared.chunk) * others / load.output_tokens
    return batch * each * (1 - exp(-passes))  # they come as they like, so that several share a step


def time_per_token(prepared: Prepared, load: Load, batch: int) -> float:
    """Seconds between two tokens of one answer, the others' prompts in between."""
    prompt = prompt_seconds(prepared, load.input_tokens, joining(prepared, load, batch))
    context = load.input_tokens + load.output_tokens / 2
    crowding = crowding_seconds(prepared, load, batch, context)
    return step_seconds(prepared, batch, context) + crowding + (batch - 1) * prompt / load.output_tokens


def step_seconds(prepared: Prepared, batch: float, context: float) -> float:
    """One token for each of `batch` sequences whose past is `context` tokens long on average."""
    return _step(prepared, batch, context)[0]


def _step(
    prepared: Prepared, batch: float, context: float
) -> tuple[float, tuple[float, float, float, float]]:
    """The seconds of a step, and what they go to: memory, compute, communication, overhead; these overlap a little."""
    each = batch / prepared.parts if batch > prepared.parts else 1.0
    memory = prepared.dense_memory + each * prepared.dense_moved
    compute = each * prepared.dense_compute
    head_memory, head_compute = prepared.head_memory, each * prepared.head_compute
    kernels = sqrt(memory * memory + compute * compute)
    kernels += sqrt(head_memory * head_memory + head_compute * head_compute)
    past = prepared.token + prepared.decode_past * context
    for decode, _, window, _ in prepared.windows:
        past += decode * (min(window, context))
    rest = each * past
    if prepared.experts_memory:
        rest += prepared.experts_memory * (1 - prepared.missed**each) + each * prepared.experts_moved
        experts = each * prepared.experts_compute
        kernels += experts
        compute += experts
    slower = prepared.slower
    reduced = prepared.reduce_start + each * prepared.reduce_token
    overhead = prepared.launches + prepared.step + batch * prepared.sequence
    seconds = slower * (kernels + rest) + reduced + overhead
    return seconds, (
        slower * (memory + head_memory + rest),
        slower * (compute + head_compute),
        reduced,
        overhead,
    )


def prompt_seconds(prepared: Prepared, tokens: int, arriving: float) -> float:
    """The GPUs' time for one prompt, where so many arrive in a pass: these share weights and launches."""
    chunk = tokens * arriving if arriving > 1 else tokens
    chunk = min(chunk, prepared.chunk)
    memory, compute = prepared.dense_memory / chunk + prepared.dense_moved, prepared.dense_compute
    each = sqrt(memory * memory + compute * compute) + prepared.prompt_token
    if prepared.experts_memory:
        each += prepared.experts_memory * (1 - prepared.missed**chunk) / chunk
        each += prepared.experts_moved + prepared.experts_compute
    far = tokens / 2
    past = prepared.prompt_past * far
    for _, prompt, window, _ in prepared.windows:
        past += prompt * (min(window, far))
    shared = (prepared.launches + prepared.reduce_start) / chunk + prepared.reduce_token
    return tokens * (prepared.prompt_slower * (each + past) + shared) / prepared.parts + prepared.request


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
    """The work of a pass at the rates of a GPU: one value of many fields, each a line."""
    llama_cpp = settings.name == "llama.cpp"  # its GPUs share layers, one after the other
    parallel = 1 if llama_cpp else settings.tensor_parallel
    parts = 1 if llama_cpp else settings.pipeline_parallel
    work = work_of(
        served, tensor_parallel=parallel, kv_dtype=kv_dtype, expert_parallel=settings.expert_parallel
    )
    generation, engine = rates.generation, rates.engine
    passing = 1 / (gpu.bandwidth_bytes_per_second * generation.passing)
    reading = 1 / (gpu.bandwidth_bytes_per_second * generation.attention_memory)
    attending = 1 / (flops_per_second(gpu, "16-bit") * generation.attention_compute)
    dense = _seconds(work.dense, "dense", rates, gpu)
    head = _seconds(work.head, "dense", rates, gpu)
    experts = _seconds(work.experts, "experts", rates, gpu)
    start, byte = reducing(rates, gpu, parallel)
    pool, most = _pool(served, gpu, settings, kv_dtype)
    hidden = work.passed_bytes_per_token * passing
    decode_past, prompt_past, past_bytes, windows = _pasts(work, reading, attending)
    crowding, crowding_windows = _crowding(work, served, gpu, settings, reading, attending)
    chunk = engines.pass_tokens(gpu, settings) or LLAMA_CPP_CHUNK_TOKENS
    return Prepared(
        dense_memory=dense[0],
        dense_compute=dense[1],
        dense_moved=dense[2],
        head_memory=head[0],
        head_compute=head[1],
        experts_memory=experts[0],
        experts_compute=experts[1],
        experts_moved=experts[2],
        missed=1 - work.experts_per_token / work.expert_count if work.expert_count else 0.0,
        token=2 * work.states_bytes * reading + work.logits_bytes / parallel * passing + hidden,
        prompt_token=work.state_flops * attending + hidden,
        decode_past=decode_past,
        prompt_past=prompt_past,
        windows=windows,
        reduce_start=work.reductions * start,
        reduce_token=work.reductions * work.reduced_bytes_per_token * byte,
        launches=engine.launches * _launches(work, rates, gpu) * 1e-6,
        step=engine.step_us * 1e-6,
        sequence=engine.sequence_us * 1e-6,
        request=engine.request_us * 1e-6,
        first=engine.first_us * 1e-6,
        slower=engine.decode,
        prompt_slower=engine.prefill,
        chunk=LLAMA_CPP_CHUNK_TOKENS if llama_cpp else min(chunk, LARGEST_CHUNK_TOKENS),
        parts=parts,
        mixes=settings.name == MIXING,
        crowding=crowding,
        crowding_windows=crowding_windows,
        pool_bytes=pool * parts,
        past_bytes=past_bytes,
        state_bytes=work.states_bytes,
        most_running=most,
        alone=_known(efficiencies, settings.name, "alone", "many"),
        many=_known(efficiencies, settings.name, "many", "alone"),
        burst=_known(efficiencies, settings.name, "burst", "many", "alone"),
    )


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


def _pasts(
    work: Work, reading: float, attending: float
) -> tuple[float, float, float, tuple[tuple[float, float, int, float], ...]]:
    """What a token attended to costs while decoding and while a prompt is read, and its bytes; then the windows'."""
    decode_past = prompt_past = past_bytes = 0.0
    windows = []
    for past in work.pasts:
        decode = past.bytes_per_token * reading + past.flops_per_token * attending
        prompt = past.prefill_flops_per_token * attending
        if past.window:
            windows.append((decode, prompt, past.window, past.bytes_per_token))
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


def _seconds(matrices: tuple[Matrices, ...], part: str, rates: Rates, gpu: Gpu) -> tuple[float, float, float]:
    """Reading all weights once, multiplying one token with them, and moving its numbers."""
    memory = compute = moved = 0.0
    for one in matrices:
        kernel = kernel_of(rates, part, one.storage, gpu.native_formats)
        if kernel is None:
            continue
        bandwidth = gpu.bandwidth_bytes_per_second * kernel.memory
        memory += one.weights_bytes / bandwidth
        moved += one.moved_bytes_per_token / bandwidth
        compute += one.flops_per_token / (flops_per_second(gpu, kernel.rate) * kernel.compute)
    return memory, compute, moved


def counted_starts(work: Work, starts: Starts) -> float:
    """The kernels of a pass, each kind weighted by how long it takes to start: of engines that are asked so."""
    return (
        starts.product * work.products_apart
        + starts.norm * work.norms
        + starts.attention * work.attention_layers
        + starts.expert * work.expert_layers
        + starts.state * work.state_layers
    )


def _launches(work: Work, rates: Rates, gpu: Gpu) -> float:
    """Least microseconds of all kernels of a pass."""
    generation, starts = rates.generation, rates.engine.starts
    if starts is not None:
        return generation.start_us * counted_starts(work, starts)
    product = _launch_us(work.dense, "dense", rates, gpu)
    expert = _launch_us(work.experts, "experts", rates, gpu)
    return (
        work.products * product
        + work.expert_layers * (expert + generation.mixture_us)
        + work.attention_layers * generation.attention_us
        + work.state_layers * generation.state_us
        + work.layers * generation.layer_us
    )


def _launch_us(matrices: tuple[Matrices, ...], part: str, rates: Rates, gpu: Gpu) -> float:
    """Of the storage that most of these matrices have."""
    if not matrices:
        return 0.0
    kernel = kernel_of(
        rates, part, max(matrices, key=lambda one: one.flops_per_token).storage, gpu.native_formats
    )
    return kernel.launch_us if kernel else 0.0


def flops_per_second(gpu: Gpu, rate: str) -> float:
    """A GPU's peak for a number format; halved or doubled from the nearest one where the datasheet prints none."""
    flops = gpu.dense_flops
    if rate == "16-bit":
        found = flops.get("bf16") or flops.get("fp16")
        if found is None and "fp8" in flops:
            found = flops["fp8"] / 2
        if found is None and "fp4" in flops:
            found = flops["fp4"] / 4
        return found or flops.get("fp32") or max(flops.values())
    if rate in flops:
        return flops[rate]
    return flops_per_second(gpu, "16-bit") * {"fp8": 2, "int8": 2, "fp4": 4}.get(rate, 1)


def reducing(rates: Rates, gpu: Gpu, parallel: int) -> tuple[float, float]:
    """Seconds to begin adding up hidden states among GPUs, and seconds for each byte of them."""
    link = rates.link
    if parallel < 2 or link is None:
        return 0.0, 0.0
    one_way = (gpu.interconnect_bytes_per_second or NETWORK_BYTES_PER_SECOND) / 2
    if parallel > GPUS_OF_A_NODE and not gpu.id.startswith(RACK):
        one_way = min(one_way, NETWORK_BYTES_PER_SECOND)
    steps = max((int(count) for count in link.start_us if int(count) <= parallel), default=2)
    share = link.share[str(steps)]
    return link.start_us[str(steps)] * 1e-6, 2 * (parallel - 1) / parallel / (one_way * share)
