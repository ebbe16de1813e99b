"""Which model for a task, and where to run it: the advice table joined with plans and prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.advice import recommend as advise
from soong.plan.describing import machine_name
from soong.plan.planner import make_plan
from soong.plan.ranking import rank_key
from soong.plan.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterable


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """A model for a task on the machine that its plan recommends.

    tokens_per_second_per_user, tokens_per_second: of one answer, and of the `sequences` that are given at once; None
        where the speed is not known, as the two costs are.
    job_hours: for the job that was asked for.
    """

    model: str
    reason: str
    context_tokens: int
    machine: str
    cloud: str
    instance_type: str
    usd_per_hour: float
    price_as_of: str
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
        task: reasoning, coding, general or quick.
        context_tokens: what the workload needs at once; the model's default where None.
        max_usd_per_hour: the budget. quality: `high` or `budget`.
        request: what else is asked of each plan: rank, target, lengths, job; its `model` does not count.

    Raises:
        NotFoundError, UsageError: no such task or quality.
    """
    advice = advise(
        task, context_tokens=context_tokens, budget_usd_per_hour=max_usd_per_hour, quality=quality
    )
    asked = msgspec.structs.replace(
        request or Request(model=""), context_tokens=context_tokens, max_usd_per_hour=max_usd_per_hour
    )
    chosen = _placed(advice.models, advice.reason, asked)
    others = sorted(_placed(advice.alternatives, _ALSO, asked), key=lambda pair: pair[0])
    return (*(one for _, one in chosen), *(one for _, one in others[:MOST_ALTERNATIVES]))


MOST_ALTERNATIVES = 8
"""A person compares a handful; `soong models --task` lists the rest."""

_ALSO = "also listed for this task"


def _placed(
    models: Iterable[str], reason: str, asked: Request
) -> list[tuple[tuple[float, float], Recommendation]]:
    """The models that something holds, in the order given, each with what its plan's rank compares."""
    found = []
    for model in models:
        request = msgspec.structs.replace(asked, model=model)
        plan = make_plan(request, allow_network=False, first_fit_only=True)
        limit, chosen = plan.model.context_limit_tokens, plan.chosen
        if chosen is None or chosen.offer is None or (limit and plan.workload.context_tokens > limit):
            continue
        speed = chosen.throughput
        one = Recommendation(
            model=model,
            reason=reason,
            context_tokens=plan.workload.context_tokens,
            machine=machine_name(chosen),
            cloud=chosen.offer.cloud,
            instance_type=chosen.offer.instance_type,
            usd_per_hour=chosen.offer.usd_per_hour,
            price_as_of=chosen.offer.as_of,
            sequences=speed.load.sequences if speed else None,
            tokens_per_second_per_user=speed.decode_tokens_per_second_per_user if speed else None,
            tokens_per_second=speed.decode_tokens_per_second if speed else None,
            usd_per_million_output_tokens=chosen.usd_per_million_output_tokens,
            job_hours=chosen.job_hours(request.job) if request.job else None,
        )
        found.append((rank_key(chosen, request), one))
    return found
