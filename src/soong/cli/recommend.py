"""`soong recommend`: the page's selection strategy and decision matrix, answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output, prompts, text
from soong.errors import NothingFitsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.plan.advising import Recommendation
    from soong.plan.request import Request

TASKS = (
    ("reasoning", "Complex reasoning: debugging, architecture"),
    ("coding", "Coding"),
    ("general", "General purpose: writing, documentation, a bit of all"),
    ("quick", "Simple, quick tasks"),
)
LONG_CONTEXT_TOKENS = 32768


@click.command(
    "recommend",
    epilog="\b\nExamples:\n  soong recommend --task coding --context 32k --quality budget\n"
    "  soong recommend --task general --budget 2.50\n"
    "  soong recommend --task quick --rank cost-per-token --target 30\n",
)
@click.option("--task", help="reasoning, coding, general or quick.")
@click.option("--context", help="Tokens you need at once: 8k, 32k.")
@click.option("--budget", help="Most dollars an hour.")
@click.option("--quality", type=click.Choice(["high", "budget"]), help="What matters more.")
@click.option("--sequences", help="How many users at once.")
@click.option("--input-tokens", help="Length of a usual prompt, for the speed.")
@click.option("--output-tokens", help="Length of a usual answer, for the speed.")
@click.option("--target", help="Tokens a second that each user must see: 40.")
@click.option("--rank", help="Compare by price an hour (the default), cost-per-token or time.")
@click.option("--job-tokens", help="Output tokens of a job, for its time and cost: 10M (1M where unsaid).")
@output.options
def command(
    task: str | None,
    context: str | None,
    budget: str | None,
    quality: str | None,
    out: output.Output,
    **plan_options: str | None,
) -> None:
    """Which model to take for a task, and where to run it; asks where flags are silent."""
    from soong.plan.advising import recommend
    from soong.plan.request import read_request

    if task is None and not out.can_ask:
        raise UsageError(
            "which task?", hints=("soong recommend --task coding", "tasks: reasoning, coding, general, quick")
        )
    asked = task is None
    task = task or prompts.ask_choice("What are you building?", TASKS, out=out, option="--task")
    context_tokens: int | None = units.parse_tokens(context, what="`--context`") if context else None
    if asked and task == "coding" and context_tokens is None:
        context_tokens, quality = _asked_of_coders(quality, out)
    most = units.parse_usd(budget, what="`--budget`") if budget else None
    request = read_request({"model": "any", **plan_options})
    found = recommend(
        task, context_tokens=context_tokens, max_usd_per_hour=most, quality=quality, request=request
    )
    if not found:
        raise NothingFitsError(
            f"no model for {task} runs within these limits",
            hints=("raise `--budget` or lower `--context`", f"soong models --task {task}"),
        )
    out.answer(
        data=lambda: found, ids=[one.model for one in found], human=lambda: _page(task, found, request)
    )


def _asked_of_coders(quality: str | None, out: output.Output) -> tuple[int | None, str | None]:
    """The context and the quality, as the page's tree asks for them."""
    needs_long = prompts.confirm("Do you need long context (32K and more)?", out=out, option="--context")
    if needs_long and quality is None:
        choices = (("high", "High quality"), ("budget", "Budget"))
        quality = prompts.ask_choice("Budget?", choices, out=out, option="--quality")
    return (LONG_CONTEXT_TOKENS if needs_long else None), quality


def _page(task: str, found: tuple[Recommendation, ...], request: Request) -> str:
    from soong.cli.views.candidates import Column, dollars, fitting_table, rate, span

    best = found[0]
    columns = [
        Column("Model", 0, lambda one: f"{'▶' if one is best else ' '} {one.model}", at_right=False),
        Column("Type", 0, lambda one: one.instance_type, at_right=False),
        Column("GPU", 2, lambda one: one.machine, at_right=False),
        Column("$/hour", 0, lambda one: f"{one.usd_per_hour:.2f}"),
        Column("tok/s", 0, lambda one: _or_nothing(rate, one.tokens_per_second_per_user)),
        Column("$/M out", 0, lambda one: _or_nothing(dollars, one.usd_per_million_output_tokens)),
        *([Column("Job", 0, lambda one: _or_nothing(span, one.job_hours))] if request.job else []),
        Column("Context", 1, lambda one: f"{one.context_tokens:,}"),
    ]
    price = f"${best.usd_per_hour:.2f}/hour on {best.cloud} (price of {best.price_as_of})"
    lines = (
        f"For {task}: {text.style(best.model, 'bold')} on {best.machine}, {price}",
        best.reason,
        fitting_table([(column, [column.cell(one) for one in found]) for column in columns]),
        f"Next: soong plan {best.model} --context {best.context_tokens}",
    )
    return "\n".join(lines)


def _or_nothing(shown: Callable[[float], str], amount: float | None) -> str:
    return "" if amount is None else shown(amount)
