"""What is asked of an endpoint, and how fast it answers: the values of this station."""

from __future__ import annotations

from typing import Literal

import msgspec

USUAL_OUTPUT_TOKENS = 1024
"""Where nobody says how long answers are: the length that most published runs are measured with (InferenceMAX's 1k/1k
and 8k/1k, vLLM's and SGLang's own nightly benchmarks)."""


class Load(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A steady load: always so many requests at once, each with a prompt and an answer of these lengths.

    input_tokens: of the prompt. output_tokens: of the answer. sequences: requests in flight at any moment.
    """

    input_tokens: int
    output_tokens: int
    sequences: int


class Throughput(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How fast one machine answers under one load.

    Attributes:
        load: what it holds for.
        prefill_tokens_per_second: prompt tokens a second while nothing else is computed.
        decode_tokens_per_second_per_user: what one user sees while an answer streams: 1 / time per output token.
        decode_tokens_per_second: output tokens a second of all users together, prompts' time included.
        time_to_first_token_seconds: from the request to its first token, without waiting in a queue.
        low_factor, high_factor: the true figures are expected between figure × low and figure × high.
        bound: what decoding waits for: `memory`, `compute`, `communication` or `overhead` of the engine.
        basis: one line for a person: which published runs the efficiencies rest on, and how many.
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


def load_of(
    context_tokens: int,
    sequences: int,
    input_tokens: int | None,
    output_tokens: int | None,
    *,
    context_is_said: bool,
) -> Load:
    """The load that a request means.

    Where no lengths are said: an answer of 1,024 tokens, and a prompt that fills the context where a context was
    asked for, else another 1,024; both cut to what the context holds.
    """
    room = max(context_tokens, 2)
    most_output = room // 2 if input_tokens is None else max(room - input_tokens, 1)
    output = output_tokens or min(USUAL_OUTPUT_TOKENS, most_output)
    rest = max(room - output, 1)
    prompt = input_tokens or (rest if context_is_said else min(USUAL_OUTPUT_TOKENS, rest))
    return Load(input_tokens=prompt, output_tokens=output, sequences=sequences)
