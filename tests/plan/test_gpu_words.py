"""The words by which a plan's GPU is named: as drivers, clouds and people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.errors import NotFoundError, UsageError
from soong.plan.api import plan_model
from soong.plan.request import read_request

if TYPE_CHECKING:
    from soong.plan.plan import Candidate

GIB = 1 << 30


def candidate(**options: object) -> Candidate:
    plan = plan_model("llama-3.1-8b", allow_network=False, engine="vllm", **options)
    assert len(plan.candidates) == 1
    return plan.candidates[0]


@pytest.mark.parametrize(
    ("word", "gpu", "count"),
    [
        ("8xH100", "H100", 8),
        ("8 x H100", "H100", 8),
        ("2XA100", "A100", 2),
        ("3090", "3090", None),
        ("5x", "5x", None),
    ],
)
def test_a_number_in_front_counts_the_gpus(word: str, gpu: str, count: int | None) -> None:
    request = read_request({"model": "m", "gpu": word})
    assert (request.gpu, request.gpu_count) == (gpu, count)


def test_two_counts_must_agree() -> None:
    assert read_request({"model": "m", "gpu": "8xH100", "gpu_count": 8}).gpu_count == 8
    with pytest.raises(UsageError, match="contradict"):
        read_request({"model": "m", "gpu": "8xH100", "gpu_count": 4})


def test_memory_picks_the_variant_and_is_taken_as_given() -> None:
    small = candidate(gpu="A100", gpu_memory="39.4GiB")
    large = candidate(gpu="A100", gpu_memory="79.25GiB")
    assert (small.gpu.id, large.gpu.id) == ("a100-40gb-sxm4", "a100-80gb-sxm4")
    assert large.gpu.memory_bytes == round(79.25 * GIB)
    assert large.gpu.compute_capability == (8, 0)


def test_a_word_of_several_without_memory_is_the_smallest_and_says_so() -> None:
    found = candidate(gpu="A100")
    assert found.gpu.id == "a100-40gb-sxm4"
    assert any("the one with least memory" in reason for reason in found.reasons)


def test_the_beginning_of_a_name_is_no_name() -> None:
    with pytest.raises(NotFoundError, match="could be"):
        candidate(gpu="rtx")


def test_any_name_will_do_where_the_memory_is_given() -> None:
    found = candidate(gpu="Frobnicator 9000 Ti", gpu_memory="48GiB")
    assert found.gpu.name == "Frobnicator 9000 Ti"
    assert found.gpu.compute_capability is None
    assert found.footprint is not None
    assert found.footprint.total_bytes == 48 * GIB


def test_memory_alone_will_do() -> None:
    assert candidate(gpu_memory="48GiB").gpu.memory_bytes == 48 * GIB
