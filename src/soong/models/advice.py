"""Which model for which job: answers from the decision tree and the decision matrix in `data/advice.toml`.

The tree names models; what they cost is the planner's to say. So the answer is an ordered list, and the
planner takes the first that a budget allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong import tables
from soong.errors import UsageError
from soong.models import catalogue

if TYPE_CHECKING:
    from soong.models.model import Model

TASKS = ("reasoning", "coding", "general", "quick")
"""The branches of the decision tree."""

QUALITIES = ("high", "budget")

Quality = Literal["high", "budget"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One branch of the tree; a condition that is None always holds."""

    task: str
    context_tokens_at_least: int | None = None
    quality: Quality | None = None
    models: tuple[str, ...]
    reason: str


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the decision matrix."""

    scenario: str
    task: str
    context_tokens: int | None = None
    quality: Quality | None = None
    model: str


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What to run for a job.

    Attributes:
        task, context_tokens, budget_usd_per_hour, quality: the question, as understood.
        models: ids, best first; a later one is the way out when the first costs more than the budget.
        reason: why, one sentence.
        scenario: the row of the decision matrix that this is, where there is one.
        holds_context: whether the first model's stated limit holds the context asked for.
        alternatives: ids of further models listed for the task whose stated limit holds the context: those
            listed for it before all else come first, the newest in front.
    """

    task: str
    context_tokens: int | None
    budget_usd_per_hour: float | None
    quality: Quality | None
    models: tuple[str, ...]
    reason: str
    scenario: Scenario | None
    holds_context: bool
    alternatives: tuple[str, ...]


class _Table(msgspec.Struct, frozen=True):
    rule: tuple[Rule, ...]
    scenario: tuple[Scenario, ...]


def rules() -> tuple[Rule, ...]:
    """The decision tree, in the order in which it is read."""
    return _table().rule


def scenarios() -> tuple[Scenario, ...]:
    """The decision matrix."""
    return _table().scenario


def recommend(
    task: str,
    *,
    context_tokens: int | None = None,
    budget_usd_per_hour: float | None = None,
    quality: str | None = None,
) -> Advice:
    """The models for a job.

    Args:
        task: reasoning, coding, general or quick.
        context_tokens: the context that the job needs; None where it is of no account.
        budget_usd_per_hour: what an hour may cost; the planner applies it to `Advice.models` in order.
        quality: high or budget; without it, high, with the cheaper model next in line.

    Raises:
        UsageError: the task or quality is not one of these, or a number is not positive.
        ConfigError: the user's table of models cannot be read.
    """
    asked = _one_of(task, TASKS, "task")
    wanted = _quality(quality)
    _check_positive(context_tokens, "context")
    _check_positive(budget_usd_per_hour, "budget")
    rule = _deciding_rule(asked, context_tokens or 0, wanted or "high")
    return Advice(
        task=asked,
        context_tokens=context_tokens,
        budget_usd_per_hour=budget_usd_per_hour,
        quality=wanted,
        models=rule.models,
        reason=rule.reason,
        scenario=_scenario_of(asked, rule.models[0]),
        holds_context=_holds(rule.models[0], context_tokens or 0),
        alternatives=_alternatives(asked, context_tokens or 0, rule.models),
    )


def _deciding_rule(task: str, context_tokens: int, quality: Quality) -> Rule:
    return next(
        rule
        for rule in rules()
        if rule.task == task
        and (rule.context_tokens_at_least is None or context_tokens >= rule.context_tokens_at_least)
        and (rule.quality is None or rule.quality == quality)
    )


def _scenario_of(task: str, model_id: str) -> Scenario | None:
    return next((row for row in scenarios() if row.task == task and row.model == model_id), None)


def _holds(model_id: str, context_tokens: int) -> bool:
    return _within_limit(catalogue.find_model(model_id), context_tokens)


def _within_limit(model: Model, context_tokens: int) -> bool:
    return model.context_limit_tokens is None or context_tokens <= model.context_limit_tokens


def _alternatives(task: str, context_tokens: int, taken: tuple[str, ...]) -> tuple[str, ...]:
    newest_first = sorted(catalogue.all_models(), key=lambda model: model.released, reverse=True)
    listed = (model for model in catalogue.for_task(task, newest_first) if model.id not in taken)
    return tuple(model.id for model in listed if _within_limit(model, context_tokens))


def _quality(word: str | None) -> Quality | None:
    if word is None:
        return None
    return "high" if _one_of(word, QUALITIES, "quality") == "high" else "budget"


def _one_of(word: str, known: tuple[str, ...], what: str) -> str:
    wanted = word.strip().lower()
    if wanted in known:
        return wanted
    from difflib import get_close_matches

    near = tuple(f"did you mean `{name}`?" for name in get_close_matches(wanted[:60], known, n=1))
    raise UsageError(f"Invalid {what} '{word[:60]}'. Must be one of: {', '.join(known)}", hints=near)


def _check_positive(value: float | None, what: str) -> None:
    # `not >` also refuses NaN.
    if value is not None and not value > 0:
        raise UsageError(f"the {what} must be more than zero, not {value}")


def _table() -> _Table:
    table: _Table = tables.packaged_document("advice", _Table)
    return table
