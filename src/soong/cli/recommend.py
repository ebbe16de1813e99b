"""`soong recommend`: the page's selection strategy and decision matrix, answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output, prompts, text
from soong.errors import NothingFitsError, UsageError

if TYPE_CHECKING:
    from soong.plan.advising import Recommendation

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
    "  soong recommend --task general --budget 2.50\n",
)
@click.option("--task", help="reasoning, coding, general or quick.")
@click.option("--context", help="Tokens you need at once: 8k, 32k.")
@click.option("--budget", help="Most dollars an hour.")
@click.option("--quality", type=click.Choice(["high", "budget"]), help="What matters more.")
@output.options
def command(
    task: str | None, context: str | None, budget: str | None, quality: str | None, out: output.Output
) -> None:
    """Which model to take for a task, and where to run it; asks where flags are silent."""
    from soong.plan.advising import recommend

    if task is None and not out.can_ask:
        raise UsageError(
            "which task?", hints=("soong recommend --task coding", "tasks: reasoning, coding, general, quick")
        )
    asked = task is None
    task = task or prompts.ask_choice("What are you building?", TASKS, out=out, option="--task")
    context_tokens: int | None = units.parse_tokens(context, what="`--context`") if context else None
    if asked and task == "coding" and context_tokens is None:
        needs_long = prompts.confirm("Do you need long context (32K and more)?", out=out, option="--context")
        context_tokens = LONG_CONTEXT_TOKENS if needs_long else None
        if needs_long and quality is None:
            choices = (("high", "High quality"), ("budget", "Budget"))
            quality = prompts.ask_choice("Budget?", choices, out=out, option="--quality")
    most = units.parse_usd(budget, what="`--budget`") if budget else None
    found = recommend(task, context_tokens=context_tokens, max_usd_per_hour=most, quality=quality)
    if not found:
        raise NothingFitsError(
            f"no model for {task} runs within these limits",
            hints=("raise `--budget` or lower `--context`", f"soong models --task {task}"),
        )
    out.answer(data=lambda: found, ids=[one.model for one in found], human=lambda: _page(task, found))


def _page(task: str, found: tuple[Recommendation, ...]) -> str:
    best = found[0]
    rows = [
        [
            f"▶ {one.model}" if one is best else f"  {one.model}",
            one.machine,
            f"{one.usd_per_hour:.2f}",
            f"{one.context_tokens:,}",
            one.reason,
        ]
        for one in found
    ]
    price = f"${best.usd_per_hour:.2f}/hour on {best.cloud} (price of {best.price_as_of})"
    lines = (
        f"For {task}: {text.style(best.model, 'bold')} on {best.machine}, {price}",
        text.table(["Model", "GPU", "$/hour", "Context", "Why"], rows, right=(2, 3)),
        f"Next: soong plan {best.model} --context {best.context_tokens}",
    )
    return "\n".join(lines)
