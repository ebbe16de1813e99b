"""A speed that no engine exceeds, in a few multiplications: to pass over machines without planning them.

Every term of the roofline (`soong.speed.roofline`) stands here or is left out, and none is larger:

- Matrices, caches and states of one GPU among `n` are at least an nth of the whole model's; hidden states too. So the
  sums are made once for a GPU, of the undivided model, and divided by `n`. A test holds this against `work_of`.
- What GPUs add up, what kernels take at least, and what the engine itself takes do not depend on the split.
- The batch is as large as the GPU's memory less the least share of the weights, which no engine's pool reaches.
- Prompts of a burst are read in full passes. Its batch drains in as many steps as `soong.speed.burst` counts or fewer,
  each of which reads the weights once; and its tokens have, on average, half an answer before them.

More sequences at once give more tokens a second in the roofline, so the ceiling at the largest batch is over all.
"""

from __future__ import annotations

from math import log1p, sqrt
from typing import TYPE_CHECKING, NamedTuple

from soong.memory import engines
from soong.speed.efficiency import kernel_of, packaged_efficiencies
from soong.speed.kernels import counted_starts, flops_per_second, reducing
from soong.speed.prepared import LARGEST_CHUNK_TOKENS, LLAMA_CPP_CHUNK_TOKENS, MIXING
from soong.speed.work import work_of

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.speed.efficiency import Rates
    from soong.speed.throughput import Load
    from soong.speed.work import Matrices, Work

ROUNDING = 1 + 1e-9
"""Sums in another order differ in their last digits."""

NEVER = float("inf")

NARROWINGS = 5
"""How often the largest batch at a target is halved in on from above: each halving brings the ceiling nearer."""


class Product(NamedTuple):
    """What a matrix costs on one GPU: seconds a byte, seconds a multiplication or addition, least microseconds."""

    byte: float
    flop: float
    least_us: float


class Ceilings:
    """The ceilings of one engine's GPUs; keeps what does not depend on the model.

    Args:
        settings: the engine, its version and its flags; not how the model is split.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._gpus: dict[str, OneGpu | None] = {}

    def of(self, gpu: Gpu) -> OneGpu | None:
        """What is known of a GPU; None where its speed is not."""
        if gpu.id not in self._gpus:
            rates = packaged_efficiencies().rates(gpu, self._settings.name, self._settings.version)
            self._gpus[gpu.id] = None if rates is None else OneGpu(gpu, rates, self._settings)
        return self._gpus[gpu.id]


class OneGpu:
    """A GPU under an engine: what each kind of matrix costs on it, and what the GPUs of a machine add up."""

    def __init__(self, gpu: Gpu, rates: Rates, settings: EngineSettings) -> None:
        self.gpu, self.rates = gpu, rates
        self.most_running = engines.most_running(gpu, settings) or 0
        bandwidth, generation = gpu.bandwidth_bytes_per_second, rates.generation
        self.passing = 1 / (bandwidth * generation.passing)
        self.reading = 1 / (bandwidth * generation.attention_memory)
        self.attending = 1 / (flops_per_second(gpu, "16-bit") * generation.attention_compute)
        self._products: dict[tuple[str, str], Product] = {}
        self._reducing: dict[int, tuple[float, float]] = {}

    def product(self, part: str, storage: str) -> Product:
        """Of matrices of this part (dense or experts) and storage."""
        found = self._products.get((part, storage))
        if found is None:
            found = self._products[part, storage] = self._product(part, storage)
        return found

    def _product(self, part: str, storage: str) -> Product:
        gpu = self.gpu
        kernel = kernel_of(self.rates, part, storage, gpu.native_formats)  # type: ignore[arg-type]
        if kernel is None:
            return NOTHING
        return Product(
            1 / (gpu.bandwidth_bytes_per_second * kernel.memory),
            1 / (flops_per_second(gpu, kernel.rate) * kernel.compute),
            kernel.launch_us,
        )

    def reducing(self, parallel: int) -> tuple[float, float]:
        """As the roofline has it; remembered."""
        found = self._reducing.get(parallel)
        if found is None:
            found = self._reducing[parallel] = reducing(self.rates, self.gpu, parallel)
        return found


NOTHING = Product(0.0, 0.0, 0.0)
NOTHING_ADDED = 0.0, 0.0


class Asked(NamedTuple):
    """A model and a load, as far as no GPU matters.

    past_bytes, past_flops, prompt_flops: of all layers, for a token of an answer or of a prompt, with an average past.
    sequence_bytes: of one sequence's cache and states. most: the largest batch that is asked for, 0 for any.
    least_weights_bytes: of all GPUs together. parts: pipeline stages. mixes: prompts are read in passes that decode.
    told: sequences at once that the engine may be told to run, beyond its own number.
    """

    work: Work
    load: Load
    past_bytes: float
    past_flops: float
    prompt_flops: float
    sequence_bytes: float
    least_weights_bytes: float
    most: int
    parts: int
    is_llama_cpp: bool
    mixes: bool
    target_tokens_per_second: float | None
    told: int = 0


def asked_of(
    served: ServedModel,
    load: Load,
    settings: EngineSettings,
    *,
    kv_dtype: str,
    least_weights_bytes: float,
    most: int,
    target_tokens_per_second: float | None,
    told: int = 0,
) -> Asked:
    """What a model and a load ask of every GPU.

    Args:
        served, load, settings, kv_dtype: as for `throughput`.
        least_weights_bytes: of the weights on all GPUs together, at the least.
        most: the largest batch that is meant; 0 for as many as memory holds.
        target_tokens_per_second: what each user must see; None for any speed.
        told: how many sequences at once the engine may be told to run, where its own number is smaller.
    """
    work = work_of(served, tensor_parallel=1, kv_dtype=kv_dtype)
    past_bytes, past_flops, prompt_flops, sequence_bytes = _of_pasts(work, load)
    is_llama_cpp = settings.name == "llama.cpp"
    return Asked(
        work=work,
        load=load,
        past_bytes=past_bytes,
        past_flops=past_flops,
        prompt_flops=prompt_flops,
        sequence_bytes=work.states_bytes + sequence_bytes,
        least_weights_bytes=least_weights_bytes,
        most=most,
        parts=1 if is_llama_cpp else settings.pipeline_parallel,
        is_llama_cpp=is_llama_cpp,
        mixes=settings.name == "vllm",
        target_tokens_per_second=target_tokens_per_second,
        told=told,
    )


def _of_pasts(work: Work, load: Load) -> tuple[float, float, float, float]:
    """Bytes and flops for a token of an answer, flops for one of a prompt, and bytes of a sequence; of all layers."""
    prompt, shortest = float(load.input_tokens), 0.0 if load.requests else load.output_tokens / 2
    read = met = prompt_flops = sequence_bytes = 0.0
    for past in work.pasts:
        # A window is shorter than some pasts, and so in a burst less on average than of the average past.
        own = prompt + (shortest if past.window else load.output_tokens / 2)
        tokens, held, far = own, prompt + shortest, prompt / 2
        if past.window:
            tokens, held, far = (min(past.window, each) for each in (tokens, held, far))
        read += past.bytes_per_token * tokens
        met += past.flops_per_token * tokens
        prompt_flops += past.prefill_flops_per_token * far
        sequence_bytes += past.bytes_per_token * held
    return read, met, prompt_flops, sequence_bytes


def _summed(matrices: tuple[Matrices, ...], part: str, one: OneGpu) -> tuple[float, float, float, float]:
    """Seconds to read all, to multiply one token, to move its numbers; and the least microseconds of a product."""
    memory = compute = moved = 0.0
    least_us = float("inf")
    for each in matrices:
        byte, flop, least = one.product(part, each.storage)
        memory += each.weights_bytes * byte
        compute += each.flops_per_token * flop
        moved += each.moved_bytes_per_token * byte
        least_us = min(least_us, least)
    return memory, compute, moved, least_us if matrices else 0.0


class Ceiling:
    """The fastest that one model could be served on a number of one kind of GPU.

    Args:
        asked: model and load. one: the GPU. most_parallel: the largest number that is likely to be asked about.
    """

    def __init__(self, asked: Asked, one: OneGpu, most_parallel: int) -> None:
        work, engine = asked.work, one.rates.engine
        self.most_parallel = most_parallel
        self.asked, self.one, self.engine = asked, one, engine
        self.dense_memory, self.dense_compute, self.dense_moved, dense_us = _summed(work.dense, "dense", one)
        self.head_memory, self.head_compute, _, _ = _summed(work.head, "dense", one)
        experts = _summed(work.experts, "experts", one)
        self.experts_memory = experts[0]
        self.experts_token = experts[1] + experts[2] if experts[0] else 0.0
        self.missed = 1 - work.experts_per_token / work.expert_count if work.expert_count else 0.0
        hidden = work.passed_bytes_per_token * one.passing
        past = asked.past_bytes * one.reading + asked.past_flops * one.attending
        states = 2 * work.states_bytes * one.reading
        self.token = states + work.logits_bytes * one.passing + hidden + past + self.experts_token
        self.prompt_token = (
            (work.state_flops + asked.prompt_flops) * one.attending + hidden + self.experts_token
        )
        self.launches = engine.launches * _launches(work, one.rates, dense_us, experts[3]) * 1e-6
        self.fixed = self.launches + engine.step_us * 1e-6
        self.sequence = engine.sequence_us * 1e-6
        self.request = engine.request_us * 1e-6
        self.most_chunk = LLAMA_CPP_CHUNK_TOKENS if asked.is_llama_cpp else LARGEST_CHUNK_TOKENS
        self._rough: tuple[float, float, float] | None = None

    def roughly(self, parallel: int) -> float:
        """As `tokens_per_second` and never below it, sooner said: for a first look at many numbers of one GPU.

        At one batch the time is a share of the undivided model's and what no split makes shorter. So the batch of
        `most_parallel` GPUs that add nothing up, the largest of all, serves for every number.

        Args:
            parallel: GPUs that each layer is divided among.
        """
        if self._rough is None or parallel > self.most_parallel:
            self.most_parallel = max(parallel, self.most_parallel)
            self._rough = self._time_of_largest()
        tokens, divided_seconds, other_seconds = self._rough
        return tokens / (divided_seconds / self._divided(parallel) + other_seconds)

    def tokens_per_second(self, parallel: int) -> float:
        """Output tokens of all users together, at the most; 0 where the target cannot be reached.

        Args:
            parallel: GPUs that each layer is divided among.
        """
        divided, target = self._divided(parallel), self.asked.target_tokens_per_second
        batch = self._largest_batch(divided)
        if target is not None:
            slowest = ROUNDING / target
            if self._between_tokens(1.0, divided) > slowest:
                return 0.0
            if not self.asked.load.requests:
                batch = self._at_target(batch, divided, slowest)
        return ROUNDING * self._tokens(batch) / self._seconds(batch, divided, self._adding(divided))

    def _divided(self, parallel: int) -> int:
        """llama.cpp's GPUs hold layers one after the other, so that each waits for the others."""
        return 1 if self.asked.is_llama_cpp else parallel

    def _time_of_largest(self) -> tuple[float, float, float]:
        """Tokens of the largest batch at the most, the seconds for them that a split divides, and all others."""
        batch = self._largest_batch(self._divided(self.most_parallel))
        other = self._seconds(batch, NEVER, NOTHING_ADDED)
        return ROUNDING * self._tokens(batch), self._seconds(batch, 1, NOTHING_ADDED) - other, other

    def _tokens(self, batch: float) -> float:
        """Output tokens of a burst, or of as many answers as run at once."""
        load = self.asked.load
        return (load.requests or batch) * load.output_tokens

    def _seconds(self, batch: float, divided: float, adding: tuple[float, float]) -> float:
        """How long these tokens take at the least."""
        load = self.asked.load
        step, prompt = self._step(batch, divided, adding), self._prompt(batch, divided, adding)
        if not load.requests:
            return load.output_tokens * step + batch * prompt
        if load.lengths == "same":
            return load.requests * (load.output_tokens * step / batch + prompt)
        full = (load.requests - batch) * step / batch
        return load.output_tokens * (full + self._drain(batch, divided, adding)) + load.requests * prompt

    def _drain(self, batch: float, divided: float, adding: tuple[float, float]) -> float:
        """Seconds of a batch that nobody fills up, over the tokens of an answer.

        Of every size from one to all a mean length is made: H(n) ≥ ln(n + 1) steps, with a token of each sequence.
        """
        parts, decode = self.asked.parts, self.engine.decode / divided
        once = self.dense_memory + self.head_memory + self.experts_memory * (1 - self.missed)
        token = decode * (self.token + self.dense_moved) + adding[1]
        steps = decode * once + self.fixed + adding[0]
        return steps * log1p(batch) + batch * (token / parts + self.sequence)

    def _largest_batch(self, divided: int) -> float:
        asked, limit = self.asked, self.one.most_running
        batch = float(asked.most or MOST_SEQUENCES)
        if 0 < limit < batch:
            batch = min(batch, float(max(limit, asked.told)))
        if asked.sequence_bytes and not asked.is_llama_cpp:
            gpus = divided * asked.parts
            pool = self.one.gpu.memory_bytes * gpus - asked.least_weights_bytes
            batch = min(batch, pool * ROUNDING / asked.sequence_bytes)
        return max(1.0, batch)

    def _at_target(self, batch: float, divided: int, slowest: float) -> float:
        """A batch over which no user sees the target: never below the largest that reaches it."""
        low = 1.0
        if self._between_tokens(batch, divided) <= slowest:
            return batch
        for _ in range(NARROWINGS):
            middle = (low + batch) / 2
            if self._between_tokens(middle, divided) <= slowest:
                low = middle
            else:
                batch = middle
        return batch

    def _between_tokens(self, batch: float, divided: int) -> float:
        """Seconds between two tokens of one answer, at the least."""
        adding = self._adding(divided)
        waiting = (batch - 1) * self._prompt(batch, divided, adding) / self.asked.load.output_tokens
        return self._step(batch, divided, adding) + waiting

    def _adding(self, divided: int) -> tuple[float, float]:
        """What the GPUs add up: seconds for a pass, and for each token of it."""
        if divided < 2:
            return NOTHING_ADDED
        start, byte = self.one.reducing(divided)
        work = self.asked.work
        return work.reductions * start, work.reductions * work.reduced_bytes_per_token * byte

    def _step(self, batch: float, divided: float, adding: tuple[float, float]) -> float:
        """`roofline._step`, of the undivided model and divided."""
        parts = self.asked.parts
        each = batch / parts if batch > parts else 1.0
        memory, compute = self.dense_memory + each * self.dense_moved, each * self.dense_compute
        head_memory, head_compute = self.head_memory, each * self.head_compute
        kernels = sqrt(memory * memory + compute * compute) + each * self.token
        kernels += sqrt(head_memory * head_memory + head_compute * head_compute)
        if self.experts_memory:
            kernels += self.experts_memory * (1 - self.missed**each)
        added = adding[0] + each * adding[1]
        return self.engine.decode * kernels / divided + self.fixed + batch * self.sequence + added

    def _prompt(self, batch: float, divided: float, adding: tuple[float, float]) -> float:
        """`roofline.prompt_seconds`, of the undivided model and divided."""
        chunk = self._chunk(batch)
        memory, compute = self.dense_memory / chunk + self.dense_moved, self.dense_compute
        each = sqrt(memory * memory + compute * compute) + self.prompt_token
        if self.experts_memory:
            each += self.experts_memory * (1 - self.missed**chunk) / chunk
        shared = (self.launches + adding[0]) / chunk + adding[1]
        seconds = self.engine.prefill * each / divided + shared
        return self.asked.load.input_tokens * seconds / self.asked.parts + self.request

    def _chunk(self, batch: float) -> float:
        """Prompt tokens of a pass."""
        load = self.asked.load
        if load.requests or self.engine.name == MIXING:
            return self.most_chunk
        arriving = batch / load.output_tokens
        tokens = load.input_tokens * arriving if arriving > 1 else load.input_tokens
        return min(tokens, self.most_chunk)


MOST_SEQUENCES = 1 << 30
"""Where neither memory nor engine sets a limit: more than any has run."""


def _launches(work: Work, rates: Rates, dense_us: float, expert_us: float) -> float:
    """`roofline._launches`, with the quickest kernel of each part."""
    generation, starts = rates.generation, rates.engine.starts
    if starts is not None:
        return generation.start_us * counted_starts(work, starts)
    return (
        work.products * dense_us
        + work.expert_layers * (expert_us + generation.mixture_us)
        + work.attention_layers * generation.attention_us
        + work.state_layers * generation.state_us
        + work.layers * generation.layer_us
    )
