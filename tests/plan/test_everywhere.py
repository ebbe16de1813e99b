"""Placing every model over very many offers: the same answer as one plan after another, and quickly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from benchmarks.choosing import synthetic_offers
from hypothesis import given, settings
from hypothesis import strategies as st

from soong.gpus.catalogue import all_gpus
from soong.memory import engines
from soong.models.catalogue import all_models
from soong.models.resolve import resolve
from soong.plan.everywhere import (
    LEAST_BESIDES_BYTES,
    best_machine,
    cheapest_machines,
    least_bytes,
    placed_everywhere,
)
from soong.plan.planner import make_plan, question_of
from soong.plan.ranking import rank_key
from soong.plan.request import Request

if TYPE_CHECKING:
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate

OFFERS = synthetic_offers(3000)
MODELS = [model for model in all_models() if model.formats]


def score(candidate: Candidate | None, request: Request) -> object:
    return None if candidate is None else (candidate.launchable, rank_key(candidate, request)[0])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(["price", "cost-per-token", "time"]),
    st.sampled_from(["sglang", "vllm"]),
    st.sampled_from([None, 30.0]),
    st.lists(st.sampled_from(OFFERS), min_size=1, max_size=60),
)
def test_it_is_what_a_plan_over_all_offers_recommends(
    model: object, rank: str, engine: str, target: float | None, offers: list[Offer]
) -> None:
    row = model.formats[-1]  # type: ignore[attr-defined]
    request = Request(
        model=model.id,  # type: ignore[attr-defined]
        quantization=row.quantization,
        rank=rank,  # type: ignore[arg-type]
        engine=engine,
        target_tokens_per_second=target,
    )
    plan = make_plan(request, offers=offers, allow_network=False)
    found = best_machine(question_of(request, plan.model), cheapest_machines(offers, request))
    assert score(found, request) == score(plan.chosen, request)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_no_gpu_holds_less_than_the_least_that_is_counted_with(engine: str) -> None:
    by_generation = {}
    for gpu in all_gpus():
        if gpu.vendor != "cpu":
            by_generation[gpu.compute_capability, gpu.vendor] = gpu
    for model in MODELS:
        for row in model.formats:
            request = Request(model=model.id, quantization=row.quantization, engine=engine)
            question = question_of(
                request, resolve(model.id, quantization=row.quantization, allow_network=False)
            )
            if question.served is None:
                continue
            least = least_bytes(question)
            for gpu in by_generation.values():
                for gpu_count in (1, 8):
                    split = question.split_of(question.served, gpu_count)
                    found = engines.footprint(question.served, gpu, question.workload, split.settings)
                    share = least / max(split.parallel, 1)
                    assert found.need_bytes >= share + LEAST_BESIDES_BYTES, (
                        model.id,
                        row.quantization,
                        gpu.id,
                    )


@pytest.mark.slow
def test_every_model_is_placed_over_a_hundred_thousand_offers_in_seconds() -> None:
    """One second on a computer with nothing else to do, as docs/choosing.md quotes; five where others work too."""
    offers = synthetic_offers()
    start = time.process_time()
    placed = placed_everywhere(offers, Request(model=""))
    assert time.process_time() - start < 5
    assert len(placed) >= len(MODELS)
    assert all(one.candidate for one in placed if one.model == "llama-3.1-8b")
