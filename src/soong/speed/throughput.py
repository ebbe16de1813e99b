"""What is asked of an endpoint, and how fast it answers: the values of this station."""

from __future__ import annotations

from typing import Literal

import msgspec

USUAL_OUTPUT_TOKENS = 1024
"""Where nobody says how long answers are: the length that most published runs are measured with (InferenceMAX's 1k/1k
and 8k/1k, vLLM's and SGLang's own nightly benchmarks)."""


Lengths = Literal["varied", "same"]


class Load(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A steady load: always so many requests at once; or a burst: so many in all, and none after.

    input_tokens: of the prompt. output_tokens: of the answer; means where lengths differ.
    sequences: requests in flight at any moment; of a burst, as many as the sender has under way at the most.
    requests: of a burst, in all; 0 for a steady load. slots: of a burst: what the engine is told to run at the most,
        so that others wait inside of it; 0 where nothing but its own limit and its pool holds it back.
    lengths: of a burst's answers: `varied` about the mean, as those of people, or all the `same`, as those of synthetic
        tests.
    """

    input_tokens: int
    output_tokens: int
    sequences: int
    requests: int = 0
    lengths: Lengths = "varied"
    slots: int = 0

    @property
    def each(self) -> str:
        """One of the requests in words: `1,024 tokens in and 300 out`."""
        return f"{self.input_tokens:,} tokens in and {self.output_tokens:,} out"


class Throughput(msgspec.Struct, frozen=True, gc=False):
    """How fast one machine answers under one load.

    Attributes:
        load: what it holds for.
        prefill_tokens_per_second: prompt tokens a second while nothing else is computed.
        decode_tokens_per_second_per_user: what one user sees while an answer streams: 1 / time per output token.
        decode_tokens_per_second: output tokens a second of all users together, prompts' time included; of a burst,
            from its first request to its last answer.
        time_to_first_token_seconds: from the request to its first token, without waiting in a queue; of a burst, the
            mean over all of its requests, the queue included.
        low_factor, high_factor: the true figures are expected between figure × low and figure × high.
        bound: what decoding waits for: `memory`, `compute`, `communication` or `overhead` of the engine.
        basis: one line for a person: which published runs the efficiencies rest on, and how many.
        burst_seconds: from a burst's first request to its last answer; None for a steady load.
    """

    load: Load
    prefill_tokens_per_second: float
    decode_tokens_per_second_per_user: float
    decode_tokens_per_second: float
    time_to_first_token_seconds: float
    low_factor: float
    high_factor: float
    bound: Literal["memory", "compute", "communication", "overhead"]
    basis: str
    burst_seconds: float | None = None


def load_of(
    context_tokens: int,
    sequences: int,
    input_tokens: int | None,
    output_tokens: int | None,
    *,
    context_is_said: bool,
    requests: int = 0,
    lengths: Lengths = "varied",
    job_tokens: int | None = None,
) -> Load:
    """The load that a request means.

    Where no lengths are said: an answer of 1,024 tokens, and a prompt that fills the context where a context was
    asked for, else another 1,024; both cut to what the context holds. A job of so many output tokens is a burst of as
    many answers as they make.
    """
    room = max(context_tokens, 2)
    most_output = room // 2 if input_tokens is None else max(room - input_tokens, 1)
    output = output_tokens or min(USUAL_OUTPUT_TOKENS, most_output)
    rest = max(room - output, 1)
    prompt = input_tokens or (rest if context_is_said else min(USUAL_OUTPUT_TOKENS, rest))
    if job_tokens and not requests:
        requests = -(-job_tokens // output)
    return Load(
        input_tokens=prompt, output_tokens=output, sequences=sequences, requests=requests, lengths=lengths
    )
