"""The specification's formula, with the numbers that its page states, made consistent."""

from __future__ import annotations

import pytest

from soong.errors import UsageError
from soong.memory.rule_of_thumb import parse_stated_quantization, rule_of_thumb


@pytest.mark.parametrize(
    ("billions", "quantization", "context_tokens", "total_gb"),
    [
        (8, "fp16", 128_000, 23.6),
        (8, "FP16", 32_768, 23.6),
        (32, "fp16", 32_768, 76.4),
        (34, "bf16", 16_384, 80.8),
        (70, "int4", 8_192, 44.5),
        (14, "int8", 8_192, 21.4),
        (12, "fp16", 128_000, 32.4),
        (3, "fp32", 2_048, 16.2),
    ],
)
def test_total(billions: float, quantization: str, context_tokens: int, total_gb: float) -> None:
    assert rule_of_thumb(billions, quantization, context_tokens).total_gb == pytest.approx(total_gb)


def test_every_part_of_the_page_s_example() -> None:
    found = rule_of_thumb(70, "int4", 8_192)
    parts = (found.weights_gb, found.kv_cache_gb, found.overhead_gb, found.activations_gb)
    assert parts == pytest.approx((35.0, 4.0, 2.0, 3.5))
    assert found.with_headroom_gb == pytest.approx(48.95)


def test_short_contexts_take_less_cache() -> None:
    assert rule_of_thumb(8, "int8", 1_024).kv_cache_gb == 0.5


@pytest.mark.parametrize("text", ["fp8", "", "int 4"])
def test_wrong_quantization_has_the_page_s_words(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_stated_quantization(text)
    assert caught.value.message == f"Invalid quantization '{text}'. Must be one of: fp32, fp16, int8, int4"
