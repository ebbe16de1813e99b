"""The best machine for every model and format over any number of offers: tens of thousands in under a second.

Equal to planning each model and format over all offers one by one, only quicker, for three reasons:

- Offers of the same GPUs differ in price alone, so the cheapest of each number of each GPU stands for all.
- In order of price the first machine that will do is the cheapest, and nothing after it need be judged.
- A GPU that cannot hold its share with the headroom is not one that `fits`. Its share is at least the weights and the
  cache of an undivided model on a reference GPU, over the number of GPUs, and the least that an engine takes besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong.gpus.catalogue import all_gpus
from soong.memory import engines
from soong.memory.rule_of_thumb import HEADROOM_FACTOR
from soong.models.catalogue import all_models
from soong.models.resolve import resolve
from soong.plan.candidates import Machine, is_supported, judged
from soong.plan.planner import question_of
from soong.plan.ranking import choice, ranked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from soong.gpus.gpu import Gpu
    from soong.models.model import Model
    from soong.offers.offer import Offer
    from soong.plan.candidates import Question
    from soong.plan.plan import Candidate
    from soong.plan.request import Request

REFERENCE_GPU = "h100-80gb-sxm5"
LEAST_WEIGHTS = 0.99
LEAST_CACHE = 0.5
LEAST_BESIDES_BYTES = 512 << 20
"""What any GPU holds at the least: of the reference's weights and cache over the number of GPUs (splits never hold
less than their part; sparse latent attention is kept in half the bytes on Blackwell), and beside them for driver,
runtime and activations. A test holds the three against models, formats and GPUs of the tables."""


class Placed(NamedTuple):
    """One format of one model, and the machine to run it on; None where nothing will do."""

    model: str
    quantization: str
    repository: str
    candidate: Candidate | None


def placed_everywhere(
    offers: Sequence[Offer], request: Request, models: Iterable[Model] | None = None
) -> tuple[Placed, ...]:
    """The best machine for each format of each model.

    Args:
        offers: machines for rent. request: what is asked of each; its model, format and place do not count.
        models: of the catalogue; all where None.
    """
    machines = cheapest_machines(offers, request)
    found = []
    for model in all_models() if models is None else models:
        for row in model.formats:
            asked = msgspec.structs.replace(request, model=model.id, quantization=row.quantization)
            question = question_of(
                asked, resolve(model.id, quantization=row.quantization, allow_network=False)
            )
            candidate = best_machine(question, machines)
            found.append(Placed(model.id, row.quantization, row.repository, candidate))
    return tuple(found)


def cheapest_machines(offers: Sequence[Offer], request: Request) -> tuple[Machine, ...]:
    """The cheapest machine of each number of each GPU, of those that soong rents and of the others; cheapest first."""
    best: dict[tuple[str, int, bool], Offer] = {}
    most = request.max_usd_per_hour or float("inf")
    for offer in offers:
        key = (offer.gpu, offer.gpu_count, offer.launchable)
        known = best.get(key)
        if (known is None or offer.usd_per_hour < known.usd_per_hour) and offer.usd_per_hour <= most:
            best[key] = offer
    gpus = {gpu.id: gpu for gpu in all_gpus()}
    in_order = sorted(best.values(), key=lambda offer: (offer.usd_per_hour, offer.gpu_count))
    return tuple(Machine(gpus[offer.gpu], offer.gpu_count, offer) for offer in in_order if offer.gpu in gpus)


def best_machine(question: Question, machines: Sequence[Machine]) -> Candidate | None:
    """The machine that a plan over these would recommend.

    Args:
        question: model, format and workload. machines: cheapest first.
    """
    by_price = question.request.rank == "price"
    candidates: list[Candidate] = []
    for machine in _large_enough(question, machines):
        if is_supported(question, machine):
            candidates.append(judged(question, machine))
            if by_price and candidates[-1].will_do and candidates[-1].launchable:
                break
    in_order = ranked(candidates, question.request)
    index = choice(in_order)
    return None if index is None else in_order[index]


def _large_enough(question: Question, machines: Sequence[Machine]) -> Iterator[Machine]:
    """The machines whose GPUs could hold their share with the headroom."""
    least = least_bytes(question)
    stages = question.request.pipeline_parallel
    for machine in machines:
        split = question.split_of(question.served, machine.gpu_count) if question.served else None
        parts = max(split.parallel, 1) * stages if split else machine.gpu_count
        if (least / parts + LEAST_BESIDES_BYTES) * HEADROOM_FACTOR <= machine.gpu.memory_bytes:
            yield machine


def least_bytes(question: Question) -> float:
    """What all GPUs together hold of weights and cache at the least; 0 where only the model's size is known."""
    if question.served is None:
        return 0.0
    settings = question.settings_of(1)
    whole = engines.footprint(question.served, _reference_gpu(), question.workload, settings)
    return whole.tensor_bytes * LEAST_WEIGHTS + whole.workload_kv_bytes * LEAST_CACHE


def _reference_gpu() -> Gpu:
    return next(gpu for gpu in all_gpus() if gpu.id == REFERENCE_GPU)
