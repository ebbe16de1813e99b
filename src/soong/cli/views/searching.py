"""What a search around a plan found: a table of the ways to run the model, and one piece of advice in words."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from soong.cli.text import style
from soong.cli.views.candidates import Column, dollars, fitting_table, rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.plan.plan import Plan
    from soong.plan.quality import Loss
    from soong.plan.searching import Alternative


def found(plan: Plan, alternatives: Sequence[Alternative]) -> list[str]:
    """The table, the sources of its losses, and the command for the cheapest that differs from what was asked."""
    others = [one for one in alternatives if not one.as_asked]
    if not others:
        return [
            "",
            f"Searched formats, KV types, contexts and GPU counts of {plan.model.id}: nothing better.",
        ]
    lines = ["", "The same model otherwise, all that nothing else beats in cost, quality and context:"]
    lines.append(_table(alternatives))
    lines += _sources(alternatives)
    rank = plan.request.rank
    best = others[0] if alternatives[0] is others[0] and rank == "price" else None
    return [*lines, *(advice(plan, best, sources=False) if best else [])]


def _table(alternatives: Sequence[Alternative]) -> str:
    filled = [
        (column, [column.cell(one) for one in alternatives])
        for column in COLUMNS
        if column.name not in {"KV", "Context"} or len({column.cell(one) for one in alternatives}) > 1
    ]
    return fitting_table(filled)


def _format(one: Alternative) -> str:
    return style(f"▶ {one.label}", "bold") if one.as_asked else f"  {one.label}"


def _rate(one: Alternative) -> str:
    speed = one.candidate.throughput
    return rate(speed.decode_tokens_per_second_per_user) if speed else ""


def _cost(one: Alternative) -> str:
    cost = one.candidate.usd_per_million_output_tokens
    return "" if cost is None else dollars(cost)


def _percent(one: Alternative) -> str:
    """`0`, `1-5%`, `?`: weights and cache together."""
    parts = (one.weights_loss, one.kv_cache_loss)
    if None in parts:
        return "?"
    least = sum(loss.least_percent for loss in parts if loss)
    most = sum(loss.most_percent for loss in parts if loss)
    if most == 0:
        return "0"
    return f"{most:.2g}%" if least == most else f"{least:.2g}-{most:.2g}%"


COLUMNS = (
    Column("Format", 0, _format, at_right=False),
    Column("KV", 0, lambda one: one.request.kv_dtype, at_right=False),
    Column("Context", 0, lambda one: f"{one.context_tokens:,}"),
    Column("Type", 0, lambda one: one.candidate.name, at_right=False),
    Column("$/hour", 0, lambda one: f"{one.usd_per_hour:.2f}"),
    Column("tok/s", 2, _rate),
    Column("$/M out", 1, _cost),
    Column("Loss", 0, _percent),
)


def _sources(alternatives: Sequence[Alternative]) -> list[str]:
    """Who measured each loss, once."""
    seen: dict[str, None] = {}
    for one in alternatives:
        for name, loss in (
            (one.label, one.weights_loss),
            (f"{one.request.kv_dtype} KV cache", one.kv_cache_loss),
        ):
            if loss is None:
                seen.setdefault(f"{name}: no published figure is known")
            elif loss.most_percent:
                seen.setdefault(f"{name}: {loss.words} lost; {loss.source}".replace(
                    "more perplexity lost", "more perplexity"))  # fmt: skip
    return [style(line, "dim") for line in seen]


def advice(plan: Plan, one: Alternative, *, sources: bool = True) -> list[str]:
    """One sentence, and the command that shows its plan. sources: who measured the loss, where no table tells it."""
    changes = [f"in {one.label}"] if one.repository != plan.model.serve_from else []
    if one.request.kv_dtype != plan.workload.kv_dtype:
        changes.append(f"with an {one.request.kv_dtype.upper()} KV cache")
    if one.context_tokens != plan.workload.context_tokens:
        changes.append(f"with {one.context_tokens:,} tokens of context")
    line = f"Cheaper: the same model {', '.join(changes)} fits {one.candidate.name} at ${one.usd_per_hour:.2f}/hour"
    chosen = plan.chosen
    if chosen is not None and chosen.offer is not None:
        line += f", {saved_words(one.usd_per_hour / chosen.offer.usd_per_hour)}"
    else:
        line = line.replace("Cheaper: the", "The", 1)
    if one.candidate.throughput is not None:
        line += f", about {rate(one.candidate.throughput.decode_tokens_per_second_per_user)} tokens/s for each user"
    expected = _expect(one)
    measured = "; ".join(dict.fromkeys(loss.source for loss in _losses(one))) if sources else ""
    line += f"; expect {expected}{f' ({measured})' if measured else ''}" if expected else ""
    return [line, f"  soong plan {shlex.join(one.words)}"]


def saved_words(share: float) -> str:
    """`half the price`, `38% less`."""
    if 0.48 <= share <= 0.52:
        return "half the price"
    return f"{(1 - share) * 100:.0f}% less"


def _losses(one: Alternative) -> list[Loss]:
    return [loss for loss in (one.weights_loss, one.kv_cache_loss) if loss and loss.most_percent]


def _expect(one: Alternative) -> str:
    """What to expect of its quality, of weights and cache each; apart from who measured it.

    `to lose 0 to 0.7% of benchmark scores by the weights and 1 to 6% by the cache`.
    """
    losses = _losses(one)
    if len(losses) < 2:
        return "".join(map(_lost, losses))
    weights, cache = losses
    second = cache.words.removesuffix(OF_SCORES) if weights.words.endswith(OF_SCORES) else _lost(cache)
    return f"{_lost(weights)} by the weights and {second} by the cache"


OF_SCORES = " of benchmark scores"


def _lost(loss: Loss) -> str:
    return loss.words if loss.measure == "perplexity" else f"to lose {loss.words}"
