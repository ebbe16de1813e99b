"""`soong recommend`: the page's selection strategy and decision matrix, answered."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output, plan_options, prompts, text
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
ANY = "any"


@click.command(
    "recommend",
    epilog="\b\nExamples:\n  soong recommend --task coding --context 32k --quality budget\n"
    "  soong recommend --task general --budget 2.50\n"
    "  soong recommend --task quick --rank cost-per-token --target 30\n"
    "  soong recommend --task any --rank cost-per-token --cloud all\n",
)
@click.option("--task", help="reasoning, coding, general or quick; any: every model in every format.")
@click.option("--context", help="Tokens you need at once: 8k, 32k.")
@click.option("--budget", help="Most dollars an hour.")
@click.option("--quality", type=click.Choice(["high", "budget"]), help="What matters more.")
@click.option("--cloud", help=f"Whose prices, else Lambda's: all, or one of {plan_options.CLOUDS}.")
@click.option(
    "--spot", is_flag=True, default=None, help="Also machines that may be taken away at any moment."
)
@click.option("--sequences", help="How many users at once.")
@click.option("--input-tokens", help="Length of a usual prompt, for the speed.")
@click.option("--output-tokens", help="Length of a usual answer, for the speed.")
@click.option("--requests", help="So many requests in all, sent at once: a batch job: 1000.")
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
    **plan_options: str | bool | None,
) -> None:
    """Which model to take for a task, and where to run it; asks where flags are silent."""
    from msgspec import structs

    from soong.plan.advising import recommend
    from soong.plan.request import read_request

    if task is None and not out.can_ask:
        raise UsageError(
            "which task?",
            hints=("soong recommend --task coding", "tasks: reasoning, coding, general, quick, any"),
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
    asked_for = structs.replace(request, max_usd_per_hour=most)
    if not found:
        raise NothingFitsError(
            f"no model for {task} runs within these limits",
            hints=(
                "raise `--budget` or lower `--context`",
                "soong models" if task == ANY else f"soong models --task {task}",
            ),
        )
    out.answer(
        data=lambda: found,
        ids=[one.model for one in found],
        human=lambda: _page(task, found, asked_for, context_tokens),
    )


def _asked_of_coders(quality: str | None, out: output.Output) -> tuple[int | None, str | None]:
    """The context and the quality, as the page's tree asks for them."""
    needs_long = prompts.confirm("Do you need long context (32K and more)?", out=out, option="--context")
    if needs_long and quality is None:
        choices = (("high", "High quality"), ("budget", "Budget"))
        quality = prompts.ask_choice("Budget?", choices, out=out, option="--quality")
    return (LONG_CONTEXT_TOKENS if needs_long else None), quality


def _page(task: str, found: tuple[Recommendation, ...], request: Request, context_tokens: int | None) -> str:
    from soong.cli.views.candidates import PRICE_ONLY, Column, dollars, fitting_table, rate, span

    best = found[0]
    columns = [
        Column("Model", 0, lambda one: f"{'▶' if one is best else ' '} {one.model}", at_right=False),
        *([Column("Format", 0, lambda one: one.quantization, at_right=False)] if best.quantization else []),
        Column("Type", 0, lambda one: one.instance_type, at_right=False),
        Column("GPU", 2, lambda one: one.machine, at_right=False),
        Column("$/hour", 0, lambda one: f"{one.usd_per_hour:.2f}{'' if one.launchable else PRICE_ONLY}"),
        Column("tok/s", 0, lambda one: _or_nothing(rate, one.tokens_per_second_per_user)),
        Column("$/M out", 0, lambda one: _or_nothing(dollars, one.usd_per_million_output_tokens)),
        *([Column("Job", 0, lambda one: _or_nothing(span, one.job_hours))] if request.has_job else []),
        Column("Context", 1, lambda one: f"{one.context_tokens:,}"),
    ]
    age = f", {best.price_age}" if best.price_age != best.price_as_of else ""
    price = f"${best.usd_per_hour:.2f}/hour on {best.cloud} (price of {best.price_as_of}{age})"
    purpose = "At any task" if task == ANY else f"For {task}"
    lines = (
        f"{purpose}: {text.style(best.model, 'bold')} on {best.machine}, {price}",
        best.reason,
        fitting_table([(column, [column.cell(one) for one in found]) for column in columns]),
        *_price_only(found),
        f"Next: {_next(best, context_tokens, request)}",
    )
    return text.prose("\n".join(lines))


def _price_only(found: tuple[Recommendation, ...]) -> list[str]:
    """What the mark beside a price means, and who rents the best where soong does not."""
    from soong.cli.views.candidates import MARKS, PRICE_ONLY

    return [] if all(one.launchable for one in found) else [f"{PRICE_ONLY} {MARKS[PRICE_ONLY]}"]


def _next(best: Recommendation, context_tokens: int | None, request: Request) -> str:
    """The plan of it, asked for the same things: what was typed, and what was answered to a question."""
    from soong.cli.plan import command as plan

    words = ["--quantization", best.quantization] if best.quantization else []
    words += ["--context", str(context_tokens)] if context_tokens else []
    words += ["--max-price", f"{request.max_usd_per_hour:g}"] if request.max_usd_per_hour else []
    left_out = {*plan_options.SHOWN_ONLY, "context"}
    asked = plan_options.as_typed(click.get_current_context(), left_out=left_out, known_to=plan)
    return shlex.join(["soong", "plan", best.model, *words, *asked])


def _or_nothing(shown: Callable[[float], str], amount: float | None) -> str:
    return "" if amount is None else shown(amount)
