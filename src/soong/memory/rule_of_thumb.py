"""The rule of thumb: one formula for every model, from a parameter count alone.

It knows nothing of attention, engines or GPUs, and differs from the truth by a lot either way; it stands
here alone so that it can be shown beside the exact figure and used, marked, where no architecture is known.
Its gigabytes are decimal.
"""

from __future__ import annotations

import msgspec

from soong.errors import UsageError

BYTES_PER_PARAMETER: dict[str, float] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int4": 0.5}
"""Bytes that one parameter takes, by the quantization a person may state."""

NAMED_QUANTIZATIONS = ("fp32", "fp16", "int8", "int4")
"""What the message about a wrong quantization names; bf16 is taken too, and equals fp16 in size."""

KV_CACHE_GB_AT_MOST = 4.0
CONTEXT_TOKENS_PER_KV_CACHE_GB = 2048
OVERHEAD_GB = 2.0
ACTIVATIONS_SHARE_OF_WEIGHTS = 0.1
HEADROOM_FACTOR = 1.1


class RuleOfThumb(msgspec.Struct, frozen=True, kw_only=True):
    """The estimate and its parts, in decimal gigabytes."""

    weights_gb: float
    kv_cache_gb: float
    overhead_gb: float
    activations_gb: float
    total_gb: float
    with_headroom_gb: float


def rule_of_thumb(parameters_billions: float, quantization: str, context_tokens: int) -> RuleOfThumb:
    """The memory that the formula gives for a model.

    Args:
        parameters_billions: the parameter count in billions, as in "70B".
        quantization: fp32, fp16, bf16, int8 or int4, in any case.
        context_tokens: the context length to be served.

    Returns:
        weights = billions × bytes per parameter; KV cache = context / 2048, at most 4; overhead 2;
        activations a tenth of the weights; their sum; and the sum with 10 % headroom.

    Raises:
        UsageError: the quantization is not in the list.
    """
    weights = parameters_billions * BYTES_PER_PARAMETER[parse_stated_quantization(quantization)]
    kv_cache = min(KV_CACHE_GB_AT_MOST, context_tokens / CONTEXT_TOKENS_PER_KV_CACHE_GB)
    activations = weights * ACTIVATIONS_SHARE_OF_WEIGHTS
    total = weights + kv_cache + OVERHEAD_GB + activations
    return RuleOfThumb(
        weights_gb=weights,
        kv_cache_gb=kv_cache,
        overhead_gb=OVERHEAD_GB,
        activations_gb=activations,
        total_gb=total,
        with_headroom_gb=total * HEADROOM_FACTOR,
    )


def parse_stated_quantization(text: str) -> str:
    """The quantization that a person typed, in lower case.

    Raises:
        UsageError: it is not one that the formula knows. Formats read from a repository's own files never
        come here.
    """
    name = text.strip().lower()
    if name not in BYTES_PER_PARAMETER:
        raise UsageError(
            f"Invalid quantization '{text}'. Must be one of: {', '.join(NAMED_QUANTIZATIONS)}",
            hints=("leave `--quantization` out: the format is read from the repository's own files",),
        )
    return name
