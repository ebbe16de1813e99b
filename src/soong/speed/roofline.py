"""Prefill and decode throughput: the work of a pass over what the GPU delivers, plus what starting kernels costs.

A kernel takes the time of its bytes and of its multiplications, each at the share of the datasheet's rate that was
measured for such kernels (`data/speed.toml`; Williams, Waterman, Patterson: Roofline, CACM 2009). A step of decoding
is the sum of its kernels: matrices that all tokens share, the experts that a batch touches, each sequence's past, the
hidden states that GPUs add up, and the least time that every kernel and the engine itself take. Under a steady load a
request's prompt is computed between the others' tokens, so each of `sequences` waits for every prompt once.

What depends on the load is a handful of multiplications; all else is prepared once for a model on a GPU.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import msgspec

from soong.memory import engines
from soong.memory.footprint import Workload
from soong.speed.efficiency import Efficiencies, Rates, kernel_of, packaged_efficiencies
from soong.speed.throughput import Load, Throughput
from soong.speed.work import Matrices, work_of

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.speed.work import Work

LARGEST_CHUNK_TOKENS = 8192
"""Prompt tokens of one pass: SGLang's chunked prefill size and vLLM's `max_num_batched_tokens` on large GPUs."""

LLAMA_CPP_CHUNK_TOKENS = 512
"""llama.cpp `common/common.h` n_ubatch."""

GPUS_OF_A_NODE = 8
"""HGX boards, and PCIe servers; only the racks of GB200 and GB300 have more GPUs on one NVLink."""

NETWORK_BYTES_PER_SECOND = 50e9
"""InfiniBand NDR, 400 Gbit/s for each GPU, between nodes: NVIDIA DGX H100 and B200 system guides."""

RACK = ("gb200", "gb300")


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
    pool_bytes, past_bytes, state_bytes: for caches; of one token attended to, and of one sequence's states.
    most_running: the engine's own limit, 0 for none. alone, many: low and high factor, and the basis in words.
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
    pool_bytes: float
    past_bytes: float
    state_bytes: float
    most_running: int
    alone: tuple[float, float, str]
    many: tuple[float, float, str]


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
        most: as many as memory holds.
        target_tokens_per_second_per_user: None for as many as memory holds.
    """
    prepared = prepare(served, gpu, settings, gpu_count, kv_dtype=kv_dtype)
    if prepared is None:
        return None
    fits = min(most, running(prepared, load, most))
    target = target_tokens_per_second_per_user
    if target is not None:
        low, high = 0, fits
        while low < high:
            middle = (low + high + 1) // 2
            if 1 / time_per_token(prepared, load, middle) >= target:
                low = middle
            else:
                high = middle - 1
        fits = low
    if fits < 1:
        return None
    return answered(prepared, _with_sequences(load, fits))


def _with_sequences(load: Load, sequences: int) -> Load:
    if load.sequences == sequences:
        return load
    return Load(input_tokens=load.input_tokens, output_tokens=load.output_tokens, sequences=sequences)


def answered(prepared: Prepared, load: Load) -> Throughput:
    """The figures for one load, of what is prepared for one engine."""
    prompt_tokens, output, wanted = load.input_tokens, load.output_tokens, load.sequences
    batch = running(prepared, load, wanted)
    if batch != wanted:
        load = _with_sequences(load, batch)
    step, kinds = _step(prepared, batch, prompt_tokens + output / 2)
    first = prompt_seconds(prepared, prompt_tokens, 1.0)
    arriving = batch / output
    prompt = first if arriving <= 1 else prompt_seconds(prepared, prompt_tokens, arriving)
    between = (batch - 1) * prompt / output
    memory, compute, communication, overhead = kinds
    compute += between
    most = max(memory, compute, communication, overhead)
    low, high, basis = prepared.alone if batch == 1 else prepared.many
    return Throughput(
        load=load,
        prefill_tokens_per_second=prompt_tokens / prompt,
        decode_tokens_per_second_per_user=1 / (step + between),
        decode_tokens_per_second=batch * output / (output * step + batch * prompt),
        time_to_first_token_seconds=first + prepared.first,
        low_factor=low,
        high_factor=high,
        bound="memory"
        if most == memory
        else "compute"
        if most == compute
        else "overhead"
        if most == overhead
        else "communication",
        basis=basis,
    )


def running(prepared: Prepared, load: Load, wanted: int) -> int:
    """How many of the wanted sequences run at once: the engine's limit, and what its pool holds.

    In a steady load sequences are of all ages, so that one takes its prompt and half of its answer on average.
    """
    limit = prepared.most_running
    batch = limit if 0 < limit < wanted else wanted
    pool = prepared.pool_bytes
    if pool:
        tokens = load.input_tokens + load.output_tokens / 2
        one = prepared.state_bytes + prepared.past_bytes * tokens
        for _, _, window, size in prepared.windows:
            one += size * (min(window, tokens))
        if one * batch > pool:
            batch = int(pool / one)
    return max(1, batch)


def time_per_token(prepared: Prepared, load: Load, batch: int) -> float:
    """Seconds between two tokens of one answer, the others' prompts in between."""
    prompt = prompt_seconds(prepared, load.input_tokens, batch / load.output_tokens)
    return step_seconds(prepared, batch, load.input_tokens + load.output_tokens / 2) + (
        (batch - 1) * prompt / load.output_tokens
    )


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
    if rates is None:
        return None
    alone = settings.name == "llama.cpp"  # its GPUs share layers, one after the other
    parallel = 1 if alone else settings.tensor_parallel
    parts = 1 if alone else settings.pipeline_parallel
    work = work_of(served, tensor_parallel=parallel, kv_dtype=kv_dtype)
    return _in_seconds(efficiencies, rates, work, served, gpu, settings, parallel, parts, kv_dtype)


def _in_seconds(
    efficiencies: Efficiencies,
    rates: Rates,
    work: Work,
    served: ServedModel,
    gpu: Gpu,
    settings: EngineSettings,
    parallel: int,
    parts: int,
    kv_dtype: str,
) -> Prepared:
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
    llama_cpp = settings.name == "llama.cpp"
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
        chunk=LLAMA_CPP_CHUNK_TOKENS if llama_cpp else LARGEST_CHUNK_TOKENS,
        parts=parts,
        pool_bytes=pool * parts,
        past_bytes=past_bytes,
        state_bytes=work.states_bytes,
        most_running=most,
        alone=_known(efficiencies, settings.name, alone=True),
        many=_known(efficiencies, settings.name, alone=False),
    )


def _known(efficiencies: Efficiencies, engine: str, *, alone: bool) -> tuple[float, float, str]:
    """How far to trust the figures of an engine, and on what they rest."""
    spread = efficiencies.spread(engine, alone=alone)
    if spread is None:
        spread, alone = efficiencies.spread(engine, alone=not alone), not alone
    if spread is None:
        return *UNKNOWN_RANGE, f"roofline with measured kernels; no published runs of {engine} like this"
    asked = "of one user" if alone else "of many users"
    return (
        spread.low,
        spread.high,
        f"roofline with measured kernels, held against {spread.runs} published runs {asked} on {engine}",
    )


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


def _pool(served: ServedModel, gpu: Gpu, settings: EngineSettings, kv_dtype: str) -> tuple[float, int]:
    """Bytes for caches on one GPU, and the engine's own limit of sequences."""
    most = engines.most_running(gpu, settings) or 0
    if settings.name == "llama.cpp":
        return 0.0, most  # its slots are made for the workload, however large
    usual = Workload(context_tokens=_USUAL_CONTEXT_TOKENS, kv_dtype=kv_dtype)
    found = engines.footprint(served, gpu, usual, settings)
    return float(max(found.kv_pool_bytes + found.state_bytes, 1)), most


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


def _launches(work: Work, rates: Rates, gpu: Gpu) -> float:
    """Least microseconds of all kernels of a pass."""
    generation, starts = rates.generation, rates.engine.starts
    if starts is not None:
        return generation.start_us * (
            starts.product * work.products_apart
            + starts.norm * work.norms
            + starts.attention * work.attention_layers
            + starts.expert * work.expert_layers
            + starts.state * work.state_layers
        )
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
