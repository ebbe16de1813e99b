"""`soong models`: the catalogue, and the user's own models beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from soong import units
from soong.cli import output, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.plan.listing import ListedModel


F = TypeVar("F", bound="Callable[..., Any]")


class ModelsGroup(click.Group):
    """`soong models` itself lists; a word that is no subcommand gets a suggestion."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand that `args` names.

        Raises:
            UsageError: there is none.
        """
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from soong.cli.app import unknown_command

            raise unknown_command(args[0], self.commands, "soong models")
        return super().resolve_command(ctx, args)


def _filters(function: F) -> F:
    """The options that choose among the models."""
    for option in (
        click.option("--task", help="Only models for reasoning, coding, general, quick, vision."),
        click.option("--search", metavar="TEXT", help="Only models whose name, family or text has this."),
        click.option("--fits", metavar="SIZE", help="Only models that fit one GPU of this size: 24GB."),
    ):
        function = option(function)
    return function


@click.group(
    "models",
    cls=ModelsGroup,
    invoke_without_command=True,
    epilog="\b\nExamples:\n  soong models --fits 24GB\n  soong models info deepseek-r1-70b\n",
)
@_filters
@output.options
@click.pass_context
def command(
    ctx: click.Context, task: str | None, search: str | None, fits: str | None, out: output.Output
) -> None:
    """The models soong knows: list, info, compare, add, remove."""
    if ctx.invoked_subcommand is None:
        _list(out, task, search, fits)


@command.command(
    "list", epilog="\b\nExamples:\n  soong models list --task coding\n  soong models list --json\n"
)
@_filters
@output.options
def list_command(task: str | None, search: str | None, fits: str | None, out: output.Output) -> None:
    """All models, smallest memory first."""
    _list(out, task, search, fits)


def _list(out: output.Output, task: str | None, search: str | None, fits: str | None) -> None:
    from soong.plan.listing import list_models

    most_bytes = units.parse_bytes(fits, what="`--fits`") if fits else None
    rows = list_models(task=task, search=search, most_bytes=most_bytes)
    out.answer(
        data=lambda: rows,
        ids=[row.id for row in rows],
        human=lambda: text.table(
            ["ID", "Params", "Quant", "VRAM", "Min GPU", "$/hour"],
            [_row(row) for row in rows],
            title="Available Models",
            right=(3, 5),
        ),
    )
    if not rows:
        out.say("No model matches.")
        out.hint("`soong models` lists all")
    elif any(row.basis == "rule-of-thumb" for row in rows):
        out.say("~ rule of thumb: the architecture is not known; all other figures are exact plans.")


def _row(row: ListedModel) -> list[str]:
    mark = "~" if row.basis == "rule-of-thumb" else ""
    return [
        row.id,
        units.format_count(row.parameters),
        row.quantization,
        f"{mark}{units.format_gib(row.vram_bytes)}",
        row.min_gpu or "none for rent here",
        f"{row.usd_per_hour:.2f}" if row.usd_per_hour is not None else "",
    ]


@command.command(
    "info",
    epilog="\b\nExamples:\n  soong models info deepseek-r1-70b\n  soong models info Qwen/Qwen3-8B --json\n",
)
@click.argument("model")
@output.options
def info(model: str, out: output.Output) -> None:
    """Everything known of MODEL: paths, memory by rule of thumb and exactly, the GPU to rent, what it is good for."""
    from soong.cli.views import model as view
    from soong.plan.describing import describe

    described = describe(model)
    out.answer(
        data=lambda: view.document(described),
        ids=[described.plan.model.id],
        human=lambda: view.details(described),
    )


@command.command(
    "compare",
    epilog="\b\nExamples:\n  soong models compare deepseek-r1-70b llama-3.1-70b\n  soong models compare\n",
)
@click.argument("models", nargs=-1)
@output.options
def compare(models: tuple[str, ...], out: output.Output) -> None:
    """MODELS side by side: what each is best for, its memory, GPU and price; the built-in comparison without names."""
    from soong.cli.views import model as view
    from soong.plan.describing import COMPARED_BY_DEFAULT, describe

    described = [describe(model) for model in models or COMPARED_BY_DEFAULT]
    out.answer(
        data=lambda: [view.document(one) for one in described],
        ids=[one.plan.model.id for one in described],
        human=lambda: view.comparison(described),
    )


@command.command(
    "add",
    epilog="\b\nExamples:\n  soong models add --hf-path mistralai/Mistral-Nemo-Instruct-2407\n"
    "  soong models add --name my-model --hf-path me/my-model --params 12 --quantization fp16 --context 128000\n",
)
@click.option("--name", help="The id it gets here; the repository's name otherwise.")
@click.option("--hf-path", help="ORG/NAME on Hugging Face.")
@click.option("--params", help="Billions of parameters: 12 or 7.6.")
@click.option("--quantization", help="fp32, fp16, bf16, int8 or int4.")
@click.option("--context", help="Context length in tokens: 128000, 32k.")
@click.option("--offline", is_flag=True, help="Do not ask the Hugging Face Hub.")
@output.options
def add(
    name: str | None,
    hf_path: str | None,
    params: str | None,
    quantization: str | None,
    context: str | None,
    offline: bool,
    out: output.Output,
) -> None:
    """Add a model of your own; with `--hf-path` alone its repository is read for the rest."""
    from soong.cli.adding import Answers, add_model

    answers = Answers(name=name, hf_path=hf_path, params=params, quantization=quantization, context=context)
    add_model(answers, out=out, offline=offline)


@command.command(
    "remove",
    epilog="\b\nExamples:\n  soong models remove mistral-nemo-12b\n  soong models remove mistral-nemo-12b --yes\n",
)
@click.argument("model")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output.options
def remove(model: str, yes: bool, out: output.Output) -> None:
    """Remove a model that you added; built-in models stay."""
    from soong.cli.adding import remove_model

    remove_model(model, yes=yes, out=out)
