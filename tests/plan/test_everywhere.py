"""Placing every model over very many offers: the same answer as one plan after another, and quickly."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from benchmarks.choosing import synthetic_offers

from soong.errors import NotFoundError
from soong.gpus.catalogue import all_gpus
from soong.memory import engines
from soong.models.catalogue import all_models
from soong.models.resolve import resolve
from soong.plan import candidates, everywhere
from soong.plan.bounds import LEAST_BESIDES_BYTES, least_bytes
from soong.plan.everywhere import best_machine, best_models, cheapest_machines, placed_everywhere
from soong.plan.planner import make_plan, question_of
from soong.plan.ranking import rank_key
from soong.plan.request import Request

if TYPE_CHECKING:
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate

OFFERS = synthetic_offers(3000)
MODELS = [model for model in all_models() if model.formats]

LOADS: dict[str, tuple[object, ...]] = {
    "rank": ("price", "cost-per-token", "cost-per-token", "time", "time"),
    "engine": ("sglang", "vllm", "llama.cpp"),
    "target_tokens_per_second": (None, None, None, 5.0, 20.0, 40.0, 80.0, 200.0),
    "sequences": (None, None, None, 1, 4, 32, 300),
    "requests": (None, None, None, None, 1, 7, 200, 5000),
    "lengths": ("varied", "same"),
    "input_tokens": (None, None, None, 16, 500, 3000),
    "output_tokens": (None, None, None, 16, 300, 2000),
    "context_tokens": (None, None, 4096, 16384, 65536),
    "kv_dtype": ("auto", "auto", "fp8"),
}
NARROWER: dict[str, tuple[object, ...]] = {
    "max_usd_per_hour": (1.0, 4.0, 10.0),
    "cloud": ("cloud-1", "cloud-2", "all", "nobody"),
    "region": ("region-1",),
    "gpu_count": (1, 2, 8),
    "tensor_parallel": (1, 2, 4),
    "pipeline_parallel": (2,),
    "expert_parallel": (True,),
    "memory_fraction": (0.5, 0.9, 0.98),
    "kv_cache_memory_bytes": (10**9, 2 * 10**10),
    "max_num_seqs": (1, 16, 64),
    "max_num_batched_tokens": (512, 16384),
    "enforce_eager": (True,),
    "text_only": (True,),
}
"""Options that a request has now and then."""


def some_request(chance: random.Random) -> Request:
    """A format of the catalogue, asked for in some way."""
    model = chance.choice(MODELS)
    options: dict[str, Any] = {name: chance.choice(values) for name, values in LOADS.items()}
    for name, values in NARROWER.items():
        if chance.random() < 0.1:
            options[name] = chance.choice(values)
    if options["requests"] is None and chance.random() < 0.3:
        options["job_tokens"] = chance.choice((1000, 10**5, 10**8))
    quantization = chance.choice(model.formats).quantization
    return Request(model=model.id, quantization=quantization, **options)


def some_offers(chance: random.Random) -> list[Offer]:
    """Up to eighty offers, half of the times at a few prices, so that many cost the same."""
    alike = chance.random() < 0.5
    return [
        msgspec.structs.replace(
            offer,
            spot=chance.random() < 0.2,
            usd_per_hour=chance.choice((0.5, 1.0, 2.0, 8.0)) if alike else offer.usd_per_hour,
        )
        for offer in chance.sample(OFFERS, chance.randint(1, 80))
    ]


def searched(request: Request, offers: list[Offer]) -> Candidate | None:
    """What the search finds."""
    model = resolve(
        request.model,
        quantization=request.quantization,
        allow_network=False,
        for_llama_cpp=request.engine == "llama.cpp",
    )
    return best_machine(question_of(request, model), cheapest_machines(offers, request))


@pytest.mark.parametrize("seed", range(10))
def test_it_is_the_very_candidate_that_a_plan_over_every_offer_recommends(seed: int) -> None:
    """Four hundred cases: the plan judges every machine by itself, the search as few as it can."""
    chance = random.Random(seed)
    chosen = 0
    for _ in range(40):
        request, offers = some_request(chance), some_offers(chance)
        try:
            plan = make_plan(request, offers=offers, allow_network=False)
        except NotFoundError:
            with pytest.raises(NotFoundError):
                searched(request, offers)
            continue
        assert searched(request, offers) == plan.chosen, (seed, request, offers)
        chosen += plan.chosen is not None
    assert chosen > 10, "most of these cases have an answer"


@pytest.mark.parametrize("rank", ["price", "cost-per-token", "time"])
@pytest.mark.parametrize("target", [None, 30.0])
def test_the_best_models_are_the_first_of_all(rank: str, target: float | None) -> None:
    request = Request(model="", rank=rank, target_tokens_per_second=target)  # type: ignore[arg-type]
    placed = placed_everywhere(OFFERS, request)
    ordered = sorted(
        ((rank_key(one.candidate, request), place, one) for place, one in enumerate(placed) if one.candidate),
        key=lambda each: each[:2],
    )
    first: dict[str, object] = {}
    for _, _, one in ordered:
        first.setdefault(one.model, one)
    assert best_models(OFFERS, request, 9) == tuple(first.values())[:9]


def test_of_a_hundred_thousand_offers_few_machines_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is worth something: a tenth of the machines that could hold the model, not all of them."""
    judged = []
    real = candidates.judged_if_it_fits

    def counted(*asked: Any) -> Any:
        judged.append(asked)
        return real(*asked)

    monkeypatch.setattr(everywhere, "judged_if_it_fits", counted)
    request = Request(model="llama-3.1-8b", rank="cost-per-token")
    machines = cheapest_machines(synthetic_offers(20_000), request)
    model = resolve("llama-3.1-8b", allow_network=False)
    assert best_machine(question_of(request, model), machines) is not None
    assert 0 < len(judged) < len(machines) / 10


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
@pytest.mark.parametrize("rank", ["price", "cost-per-token", "time"])
def test_every_model_is_placed_over_a_hundred_thousand_offers_in_seconds(rank: str) -> None:
    """One second on a computer with nothing else to do, as docs/choosing.md quotes; five where others work too."""
    offers = synthetic_offers()
    start = time.process_time()
    placed = placed_everywhere(offers, Request(model="", rank=rank))  # type: ignore[arg-type]
    assert time.process_time() - start < 5
    assert len(placed) >= len(MODELS)
    assert all(one.candidate for one in placed if one.model == "llama-3.1-8b")
