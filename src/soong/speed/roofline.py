"""Prefill and decode throughput: the work of a pass over what the GPU delivers, plus what starting kernels costs.

A kernel takes the time of its bytes and of its multiplications, each at the share of the datasheet's rate that was
measured for such kernels (`data/speed.toml`; Williams, Waterman, Patterson: Roofline, CACM 2009). A step of decoding
is the sum of its kernels: matrices that all tokens share, the experts that a batch touches, each sequence's past, the
hidden states that GPUs add up, and the least time that every kernel and the engine itself take. Under a steady load a
request's prompt is computed between the others' tokens, so each of `sequences` waits for every prompt once. A burst,
after which nothing comes, is put together from the same steps and prompts (`soong.speed.burst`).

What depends on the load is a handful of multiplications; all else is prepared once for a model on a GPU
(`soong.speed.prepared`).
"""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import TYPE_CHECKING, Literal

from soong.speed.prepared import prepare
from soong.speed.throughput import Load, Throughput

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.speed.prepared import Prepared


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
        first + prepared.first_seconds,  # time_to_first_token_seconds
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
    return prepared.chunk_tokens if prepared.mixes and batch > 1 else batch / load.output_tokens


def crowding_seconds(prepared: Prepared, load: Load, batch: float, context: float) -> float:
    """What a step takes longer, on average, because some of them also read a prompt."""
    if not prepared.crowding_seconds and not prepared.crowding_windows:
        return 0.0
    each = prepared.crowding_seconds * context
    for seconds, window in prepared.crowding_windows:
        each += seconds * (min(window, context))
    others = max(batch - 1, 0.0)  # nobody's own prompt is read while their answer streams
    passes = ceil(load.input_tokens / prepared.chunk_tokens) * others / load.output_tokens
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
    each = batch / prepared.stages if batch > prepared.stages else 1.0
    memory = prepared.dense_memory_seconds + each * prepared.dense_moved_seconds
    compute = each * prepared.dense_compute_seconds
    head_memory, head_compute = prepared.head_memory_seconds, each * prepared.head_compute_seconds
    kernels = sqrt(memory * memory + compute * compute)
    kernels += sqrt(head_memory * head_memory + head_compute * head_compute)
    past = prepared.token_seconds + prepared.decode_past_seconds * context
    for decode, _, window, _ in prepared.windows:
        past += decode * (min(window, context))
    rest = each * past
    if prepared.experts_memory_seconds:
        met = prepared.experts_memory_seconds * (1 - prepared.missed_share**each)
        rest += met + each * prepared.experts_moved_seconds
        experts = each * prepared.experts_compute_seconds
        kernels += experts
        compute += experts
    slower = prepared.slower_factor
    reduced = prepared.reduce_start_seconds + each * prepared.reduce_token_seconds
    overhead = prepared.launches_seconds + prepared.step_seconds + batch * prepared.sequence_seconds
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
    chunk = min(chunk, prepared.chunk_tokens)
    memory = prepared.dense_memory_seconds / chunk + prepared.dense_moved_seconds
    compute = prepared.dense_compute_seconds
    each = sqrt(memory * memory + compute * compute) + prepared.prompt_token_seconds
    if prepared.experts_memory_seconds:
        each += prepared.experts_memory_seconds * (1 - prepared.missed_share**chunk) / chunk
        each += prepared.experts_moved_seconds + prepared.experts_compute_seconds
    far = tokens / 2
    past = prepared.prompt_past_seconds * far
    for _, prompt, window, _ in prepared.windows:
        past += prompt * (min(window, far))
    started = prepared.launches_seconds + prepared.reduce_start_seconds
    shared = started / chunk + prepared.reduce_token_seconds
    return (
        tokens * (prepared.prompt_slower_factor * (each + past) + shared) / prepared.stages
        + prepared.request_seconds
    )
