"""Which model for a task, and where to run it: the advice table joined with plans and prices."""

from __future__ import annotations

import msgspec

from soong.models.advice import recommend as advise
from soong.plan.describing import machine_name
from soong.plan.planner import make_plan
from soong.plan.request import Request


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """A model for a task on the cheapest machine that fits."""

    model: str
    reason: str
    context_tokens: int
    machine: str
    cloud: str
    instance_type: str
    usd_per_hour: float
    price_as_of: str


def recommend(
    task: str,
    *,
    context_tokens: int | None = None,
    max_usd_per_hour: float | None = None,
    quality: str | None = None,
) -> tuple[Recommendation, ...]:
    """Models for the task that run within the limits, the specification's choice first.

    Args:
        task: reasoning, coding, general or quick.
        context_tokens: what the workload needs at once; the model's default where None.
        max_usd_per_hour: the budget. quality: `high` or `budget`.

    Raises:
        NotFoundError, UsageError: no such task or quality.
    """
    advice = advise(
        task, context_tokens=context_tokens, budget_usd_per_hour=max_usd_per_hour, quality=quality
    )
    chosen = (_placed(model, advice.reason, context_tokens, max_usd_per_hour) for model in advice.models)
    others = (_placed(model, _ALSO, context_tokens, max_usd_per_hour) for model in advice.alternatives)
    cheapest_first = sorted(
        (one for one in others if one is not None), key=lambda one: (one.usd_per_hour, one.model)
    )
    return (*(one for one in chosen if one is not None), *cheapest_first[:MOST_ALTERNATIVES])


MOST_ALTERNATIVES = 8
"""A person compares a handful; `soong models --task` lists the rest."""

_ALSO = "also listed for this task"


def _placed(
    model: str, reason: str, context_tokens: int | None, max_usd_per_hour: float | None
) -> Recommendation | None:
    request = Request(model=model, context_tokens=context_tokens, max_usd_per_hour=max_usd_per_hour)
    plan = make_plan(request, allow_network=False, first_fit_only=True)
    limit = plan.model.context_limit_tokens
    chosen = plan.chosen
    if chosen is None or chosen.offer is None or (limit and plan.workload.context_tokens > limit):
        return None
    return Recommendation(
        model=model,
        reason=reason,
        context_tokens=plan.workload.context_tokens,
        machine=machine_name(chosen),
        cloud=chosen.offer.cloud,
        instance_type=chosen.offer.instance_type,
        usd_per_hour=chosen.offer.usd_per_hour,
        price_as_of=chosen.offer.as_of,
    )
