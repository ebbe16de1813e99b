"""The ceiling: no engine is faster than it, and its premises about splits hold."""

from __future__ import annotations

import random
from typing import Any

import pytest

from soong.gpus.catalogue import all_gpus
from soong.models.catalogue import all_models
from soong.models.resolve import resolve
from soong.plan.bounds import Bounds
from soong.plan.candidates import Machine, judged
from soong.plan.planner import question_of
from soong.plan.request import Request
from soong.speed.ceiling import Ceilings
from soong.speed.work import work_of

MODELS = [model for model in all_models() if model.formats]
GPUS = [gpu for gpu in all_gpus() if gpu.vendor != "cpu"]

LOADS: dict[str, tuple[object, ...]] = {
    "rank": ("cost-per-token", "time"),
    "engine": ("sglang", "vllm", "llama.cpp"),
    "target_tokens_per_second": (None, None, 5.0, 20.0, 80.0),
    "sequences": (None, None, 1, 4, 32, 300),
    "requests": (None, None, 1, 7, 50, 200, 1000, 5000),
    "lengths": ("varied", "same"),
    "input_tokens": (None, 16, 500, 3000, 20_000),
    "output_tokens": (None, 16, 300, 2000),
    "pipeline_parallel": (1, 1, 1, 2),
    "kv_dtype": ("auto", "fp8"),
}


@pytest.mark.parametrize("seed", range(8))
def test_no_machine_that_will_do_is_faster_than_its_ceiling(seed: int) -> None:
    chance = random.Random(seed)
    compared = 0
    for _ in range(100):
        model = chance.choice(MODELS)
        quantization = chance.choice(model.formats).quantization
        options: dict[str, Any] = {name: chance.choice(values) for name, values in LOADS.items()}
        request = Request(model=model.id, quantization=quantization, **options)
        found = resolve(
            model.id,
            quantization=quantization,
            allow_network=False,
            for_llama_cpp=request.engine == "llama.cpp",
        )
        question = question_of(request, found)
        gpu, gpu_count = chance.choice(GPUS), chance.choice((1, 2, 4, 8))
        candidate = judged(question, Machine(gpu, gpu_count, None))
        if not candidate.will_do or candidate.throughput is None or question.served is None:
            continue
        parallel = question.split_of(question.served, gpu_count).parallel
        ceiling = Bounds(question, Ceilings(question.settings_of(1))).ceiling(gpu, gpu_count)
        assert ceiling is not None
        exact, rough = ceiling.tokens_per_second(parallel), ceiling.roughly(parallel)
        assert candidate.throughput.decode_tokens_per_second <= exact, (seed, request, gpu.id, gpu_count)
        assert exact <= rough * (1 + 1e-8), (seed, request, gpu.id, gpu_count)
        compared += 1
    assert compared > 10


def test_one_user_alone_is_as_fast_as_the_ceiling_says() -> None:
    """It is a bound that is reached: the terms are the roofline's own, and only memory is guessed at."""
    request = Request(model="llama-3.1-8b", rank="cost-per-token", sequences=1)
    question = question_of(request, resolve("llama-3.1-8b", allow_network=False))
    gpu = next(gpu for gpu in GPUS if gpu.id == "h100-80gb-sxm5")
    speed = judged(question, Machine(gpu, 1, None)).throughput
    ceiling = Bounds(question, Ceilings(question.settings_of(1))).ceiling(gpu, 1)
    assert speed is not None
    assert ceiling is not None
    assert ceiling.tokens_per_second(1) == pytest.approx(speed.decode_tokens_per_second, rel=1e-6)


@pytest.mark.parametrize("parallel", [2, 4, 8])
def test_a_gpu_of_several_has_at_least_its_part_of_the_work(parallel: int) -> None:
    for model in MODELS:
        for row in model.formats:
            question = question_of(
                Request(model=model.id, quantization=row.quantization),
                resolve(model.id, quantization=row.quantization, allow_network=False),
            )
            served = question.served
            if served is None or question.split_of(served, parallel).parallel != parallel:
                continue
            whole, part = (work_of(served, tensor_parallel=parts) for parts in (1, parallel))
            for name in ("dense", "head", "experts"):
                assert _at_least(_sums(getattr(part, name)), _sums(getattr(whole, name)), parallel), model.id
            assert _at_least(_pasts(part), _pasts(whole), parallel), model.id
            for name in ("states_bytes", "state_flops", "passed_bytes_per_token"):
                assert _at_least([getattr(part, name)], [getattr(whole, name)], parallel), (model.id, name)
            for name in (
                "logits_bytes", "reduced_bytes_per_token", "reductions", "products", "expert_layers",
                "attention_layers", "state_layers", "layers", "expert_count", "experts_per_token",
            ):  # fmt: skip
                assert getattr(part, name) == getattr(whole, name), (model.id, name)


def _sums(matrices: Any) -> list[float]:
    return [
        amount
        for one in sorted(matrices, key=lambda each: each.storage)
        for amount in (one.weights_bytes, one.flops_per_token, one.moved_bytes_per_token)
    ]


def _pasts(work: Any) -> list[float]:
    return [
        amount
        for past in work.pasts
        for amount in (past.bytes_per_token, past.flops_per_token, past.prefill_flops_per_token)
    ]


def _at_least(part: list[float], whole: list[float], parallel: int) -> bool:
    assert len(part) == len(whole)
    return all(mine * parallel >= all_of_it * (1 - 1e-9) for mine, all_of_it in zip(part, whole, strict=True))
