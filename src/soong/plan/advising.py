"""Which model for a task, and where to run it: the advice table joined with plans and prices.

Every machine that is for rent counts, and for the task `any` every model of the catalogue in every format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import UsageError
from soong.models.advice import recommend as advise
from soong.models.resolve import resolve
from soong.offers.freshness import age_words
from soong.offers.sources import offers_to_plan
from soong.plan.describing import machine_name
from soong.plan.everywhere import Search, best_models, cheapest_machines
from soong.plan.planner import question_of
from soong.plan.ranking import rank_key
from soong.plan.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate

ANY = "any"
"""The task of those who only count: the whole catalogue."""


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """A model for a task on the machine that its plan recommends.

    quantization: which of its formats; None for the one that a plan takes by itself.
    tokens_per_second_per_user, tokens_per_second: of one answer, and of the `sequences` that are given at once; None
        where the speed is not known, as the two costs are.
    launchable: soong rents it; else the machine is a price only, which counts where clouds are named.
    job_hours: for the job that was asked for. price_age: for a person: `live`, the day, or `79 days old`.
    """

    model: str
    reason: str
    context_tokens: int
    machine: str
    cloud: str
    instance_type: str
    usd_per_hour: float
    price_as_of: str
    price_age: str = ""
    launchable: bool = True
    quantization: str | None = None
    sequences: int | None = None
    tokens_per_second_per_user: float | None = None
    tokens_per_second: float | None = None
    usd_per_million_output_tokens: float | None = None
    job_hours: float | None = None


def recommend(
    task: str,
    *,
    context_tokens: int | None = None,
    max_usd_per_hour: float | None = None,
    quality: str | None = None,
    request: Request | None = None,
) -> tuple[Recommendation, ...]:
    """Models for the task that run within the limits, the specification's choice first.

    Args:
        task: reasoning, coding, general or quick; `any` for the whole catalogue, best first by the request's rank.
        context_tokens: what the workload needs at once; the model's default where None.
        max_usd_per_hour: the budget. quality: `high` or `budget`.
        request: what else is asked of each plan: rank, target, lengths, job, clouds; its `model` does not count.

    Raises:
        NotFoundError, UsageError: no such task, quality or cloud.
    """
    asked = msgspec.structs.replace(
        request or Request(model=""), context_tokens=context_tokens, max_usd_per_hour=max_usd_per_hour
    )
    if task == ANY and quality is not None:
        raise UsageError(
            "`--quality` is for a task, not for `any`", why="what is good enough is known by task alone"
        )
    if task == ANY:
        return _of_whole_catalogue(_offers(asked), asked)
    try:
        advice = advise(
            task, context_tokens=context_tokens, budget_usd_per_hour=max_usd_per_hour, quality=quality
        )
    except UsageError as unknown:
        unknown.hints = (*unknown.hints, "soong recommend --task any: every model in every format")
        raise
    search = Search(cheapest_machines(_offers(asked), asked), own_first=asked.cloud is None)
    chosen = _placed(advice.models, advice.reason, asked, search)
    others = sorted(_placed(advice.alternatives, _ALSO, asked, search), key=lambda pair: pair[0])
    if asked.rank != "price":
        return _by_rank([*chosen, *others], asked)
    return (*(one for _, one in chosen), *(one for _, one in others[:MOST_ALTERNATIVES]))


def _by_rank(
    found: list[tuple[tuple[float, float], Recommendation]], asked: Request
) -> tuple[Recommendation, ...]:
    """All models of the task by what was asked for, which the specification's choice does not know."""
    ordered = [one for _, one in sorted(found, key=lambda pair: pair[0])][: MOST_ALTERNATIVES + 1]
    return tuple(msgspec.structs.replace(one, reason=_BEST_OF_TASK[asked.rank]) for one in ordered)


_BEST_OF_TASK = {
    "cost-per-token": "The cheapest tokens of the models listed for this task.",
    "time": "The soonest done of the models listed for this task.",
}

MOST_ALTERNATIVES = 8
"""A person compares a handful; `soong models --task` lists the rest."""

_ALSO = "also listed for this task"


def _offers(asked: Request) -> tuple[Offer, ...]:
    return offers_to_plan(asked.cloud, region=asked.region, spot=asked.spot, every_type=asked.gpu is not None)


def _of_whole_catalogue(offers: tuple[Offer, ...], asked: Request) -> tuple[Recommendation, ...]:
    """The models that are best by the rank, each in the format that is."""
    return tuple(
        _recommended(one.model, _BEST[asked.rank], asked, one.context_tokens, one.candidate, one.quantization)
        for one in best_models(offers, asked, 1 + MOST_ALTERNATIVES, own_first=asked.cloud is None)
        if one.candidate is not None and one.candidate.offer is not None
    )


_BEST = {
    "price": "The lowest price an hour of the whole catalogue.",
    "cost-per-token": "The cheapest tokens of the whole catalogue.",
    "time": "The soonest done of the whole catalogue.",
}


def _placed(
    models: Iterable[str], reason: str, asked: Request, search: Search
) -> list[tuple[tuple[float, float], Recommendation]]:
    """The models that something holds, in the order given, each with what its plan's rank compares."""
    found = []
    for name in models:
        request = msgspec.structs.replace(asked, model=name)
        model = resolve(name, quantization=asked.quantization, allow_network=False)
        question = question_of(request, model)
        limit, context_tokens = model.context_limit_tokens, question.workload.context_tokens
        chosen = None if limit and context_tokens > limit else search.best(question)
        if chosen is None or chosen.offer is None:
            continue
        one = _recommended(name, reason, request, context_tokens, chosen)
        found.append((rank_key(chosen, request), one))
    return found


def _recommended(
    model: str,
    reason: str,
    request: Request,
    context_tokens: int,
    chosen: Candidate,
    quantization: str | None = None,
) -> Recommendation:
    speed, offer = chosen.throughput, chosen.offer
    assert offer is not None  # noqa: S101 - the caller's condition
    return Recommendation(
        model=model,
        reason=reason,
        context_tokens=context_tokens,
        machine=machine_name(chosen),
        cloud=offer.cloud,
        instance_type=offer.instance_type,
        usd_per_hour=offer.usd_per_hour,
        price_as_of=offer.as_of,
        price_age=age_words(offer),
        launchable=offer.launchable,
        quantization=quantization,
        sequences=speed.load.sequences if speed else None,
        tokens_per_second_per_user=speed.decode_tokens_per_second_per_user if speed else None,
        tokens_per_second=speed.decode_tokens_per_second if speed else None,
        usd_per_million_output_tokens=chosen.usd_per_million_output_tokens,
        job_hours=chosen.hours_of_job(request),
    )
