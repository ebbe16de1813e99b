"""A burst: so many requests that come at once and none after, as a batch job sends them and `vllm bench serve` does.

Its time is that of all prompts, of the steps while others wait for a place, and of the steps in which a batch that
nobody fills up drains. Answers of people end like radioactive atoms: in every step the same share of them, so that a
batch of B shrinks to one in `ln B` mean lengths, a sequence in flight is a mean length old once many have taken their
turn, and the oldest are left at the end. Answers of one length end together, in rounds.

What waits for a place is put off by the pool, by the engine's own limit, or by the sender's. vLLM takes every prompt
that the pool holds and puts the newest off again when the others grow, so that part of the prompts is computed twice.
"""

from __future__ import annotations

from math import ceil, exp, log
from typing import TYPE_CHECKING, NamedTuple

from soong.speed.roofline import crowding_seconds, joining, prompt_seconds, sequence_bytes, step_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.speed.prepared import Prepared
    from soong.speed.throughput import Load

EACH_BY_ITSELF = 6
DRAIN_STEPS = 10
"""A drain's smallest sizes are computed each by itself, those above at so many places, evenly in their logarithm."""

SETTLING_STEPS = 6
"""The batch and the age of its sequences depend on each other; so many rounds settle them to a few in a thousand."""


class Burst(NamedTuple):
    """How a burst went.

    batch: sequences at once while others wait. seconds: from the first request to the last answer.
    seconds_per_token: between two tokens of an answer, on average over all tokens.
    first_token_seconds: from a request to its first token, on average over all requests, the queue included.
    """

    batch: int
    seconds: float
    seconds_per_token: float
    first_token_seconds: float


class Stretch(NamedTuple):
    """A part of a burst: so many steps of so many seconds, and the tokens that they make."""

    steps: float
    step_seconds: float
    tokens: float


def burst(prepared: Prepared, load: Load) -> Burst:
    """A burst, from what is prepared for an engine on its GPUs.

    Args:
        prepared: model, GPUs and engine. load: with `requests`, of which `sequences` are sent at once at the most.
    """
    batch, age = _at_once(prepared, load)
    waiting = load.requests - batch
    prompt = prompt_seconds(prepared, load.input_tokens, joining(prepared, load, batch))
    ramp = batch * prompt_seconds(prepared, load.input_tokens, batch)
    begun = _begun_seconds(prepared, load, batch, ramp)
    full = _full(prepared, load, batch, age)
    again = _again_tokens(prepared, load, batch) / load.input_tokens if prepared.mixes else 0.0
    repeated = load.requests * again * prompt
    joined = waiting * prompt + repeated
    draining = list(_drain(prepared, load, batch, age))
    decoding = sum(stretch.steps * stretch.step_seconds for stretch in (full, *draining))
    streamed = sum(stretch.tokens * stretch.step_seconds for stretch in (full, *draining))
    # Those that begin first wait for the rest of the ramp, all others in flight for whoever joins later.
    held_up = (batch - 1) * waiting * prompt + batch * (repeated + ramp - begun)
    each = _turn_seconds(load, batch, full, joined)
    return Burst(
        batch=batch,
        seconds=prepared.first_seconds + ramp + joined + decoding,
        seconds_per_token=(streamed + held_up) / (load.requests * load.output_tokens),
        first_token_seconds=prepared.first_seconds
        + _until_first_token(load, batch, ramp, begun, prompt, each),
    )


def _at_once(prepared: Prepared, load: Load) -> tuple[int, float]:
    """How many run at once while others wait, and the mean age in tokens of those that do."""
    most = _sent(load)
    if 0 < load.slots < most:
        most = load.slots
    if 0 < prepared.most_running < most:
        most = prepared.most_running
    mean = load.output_tokens if load.lengths == "varied" else load.output_tokens / 2
    batch, age = float(most), mean * (1 - most / load.requests)
    if prepared.pool_bytes:
        youngest = sequence_bytes(prepared, load.input_tokens + (0 if load.lengths == "varied" else mean))
        batch = min(batch, prepared.pool_bytes / youngest) if youngest else batch  # never more than that
        age = mean * (1 - batch / load.requests)
        for _ in range(SETTLING_STEPS):
            one = sequence_bytes(prepared, load.input_tokens + (age if load.lengths == "varied" else mean))
            held = prepared.pool_bytes / one if one else most
            batch = max(1.0, min(most, (batch + held) / 2 if held < most else most))
            age = mean * (1 - batch / load.requests)
    return max(1, int(batch)), age if load.lengths == "varied" else mean


def _full(prepared: Prepared, load: Load, batch: int, age: float) -> Stretch:
    """While others wait for a place."""
    tokens = (load.requests - batch) * load.output_tokens
    if load.lengths == "same":
        tokens = (load.requests // batch) * batch * load.output_tokens  # the last round may be smaller
    context = load.input_tokens + age
    step = step_seconds(prepared, batch, context) + crowding_seconds(prepared, load, batch, context)
    return Stretch(tokens / batch, step, tokens)


def _drain(prepared: Prepared, load: Load, batch: int, age: float) -> Iterator[Stretch]:
    """Once nobody waits: a batch that shrinks, or a last round."""
    output, prompt = load.output_tokens, load.input_tokens
    if load.lengths == "same":
        last = load.requests % batch
        if last:
            yield Stretch(output, step_seconds(prepared, last, prompt + output / 2), last * output)
        return
    largest = batch + 0.5
    for size, sizes in _sizes(batch):
        steps = output * sizes / size
        grown = age + output * log(largest / size)
        yield Stretch(steps, step_seconds(prepared, size, prompt + grown), output * sizes)


def _sizes(batch: int) -> Iterator[tuple[float, float]]:
    """The sizes that a draining batch goes through, down to one: the small ones each, others several at a time.

    Yields:
        A size, and how many it stands for: in each of them a mean length's worth of tokens is made.
    """
    small = min(batch, EACH_BY_ITSELF)
    for size in range(1, small + 1):
        yield size, 1
    low = small + 0.5
    stretch = log((batch + 0.5) / low) / DRAIN_STEPS
    for place in range(DRAIN_STEPS if batch > small else 0):
        begin, end = low * exp(place * stretch), low * exp((place + 1) * stretch)
        yield (end - begin) / stretch, end - begin


def _again_tokens(prepared: Prepared, load: Load, batch: int) -> float:
    """Tokens of a request that are computed again because the pool was full, on average.

    In a pool that prompts filled, every answer grows by putting the newest off: for each token that others gain, one
    is computed again once its turn comes, as long as anybody waits. A count of vLLM's own scheduling
    (`v1/core/sched/scheduler.py`: admission by the prompt alone, the last of the running is put off) gives this within
    a third from 128 to 4,000 tokens of prompt.
    """
    limited = min(_sent(load), prepared.most_running or load.requests, load.slots or load.requests)
    if batch >= limited:
        return 0.0
    return load.output_tokens * max(0.0, 1 - 2 * batch / load.requests)


def _sent(load: Load) -> int:
    """How many are under way at once, in the engine or in its queue."""
    return min(load.sequences, load.requests)


def _begun_seconds(prepared: Prepared, load: Load, batch: int, ramp: float) -> float:
    """When those of the first batch have their first token, on average; prompts that share a pass end together.

    Args:
        ramp: seconds until all of them have.
    """
    together = max(1, min(batch, prepared.chunk_tokens // load.input_tokens))
    return ramp * (batch + together) / (2 * batch)


def _turn_seconds(load: Load, batch: int, full: Stretch, joined: float) -> float:
    """How much later each of those that wait for a place has its first token than the one before it.

    Args:
        batch: that run. full: the steps while others wait. joined: seconds of the prompts that are read meanwhile.
    """
    waiting = load.requests - batch
    if not waiting:
        return 0.0
    if load.lengths == "varied":
        return (full.steps * full.step_seconds + joined) / waiting
    rounds = ceil(waiting / batch)  # those of the last may be fewer
    last = waiting - (rounds - 1) * batch
    mean = (batch * rounds * (rounds - 1) / 2 + last * rounds) / waiting
    return 2 * mean * load.output_tokens * full.step_seconds / (waiting + 1) + joined / waiting


def _until_first_token(
    load: Load, batch: int, ramp: float, begun: float, prompt: float, each: float
) -> float:
    """From a request to its first token, on average over all: some wait for others' prompts, some for others' ends.

    Args:
        load: of `requests` that come, `sequences` at once are sent. batch: that run.
        ramp, begun: seconds until the last of the first batch has its first token, and on average.
        prompt: seconds of one that joins later. each: between the first tokens of two that wait for a place.
    """
    sent = _sent(load)
    queued, later = sent - batch, load.requests - sent
    total = batch * begun + queued * (ramp + (queued + 1) / 2 * each) + later * (queued * each + prompt)
    return total / load.requests
