"""`soong plan`: what would you do, and what would it cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from soong.cli import output, plan_options
from soong.cli.exit_codes import ExitCode
from soong.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.pictures.saving import Kind
    from soong.plan.plan import Plan
    from soong.plan.searching import Alternative

EPILOG = """\b
Examples:
  soong plan llama-3.1-8b
  soong plan Qwen/Qwen3-30B-A3B --context 32k --sequences 8 --engine vllm
  soong plan ./my-model/config.json --gpu h100-80gb-sxm5 --explain
  soong plan qwen3-32b --rank cost-per-token --target 40
  soong plan llama-3.1-70b --search
  soong plan qwen3-32b --context 32k --save plan.svg
  soong plan --batch requests.jsonl
"""


@click.command("plan", epilog=EPILOG)
@click.argument("model", required=False)
@plan_options.workload
@click.option("--engine-version", help="Follow the rules of this version: 0.19.0.")
@plan_options.machine
@click.option("--gpu-count", help="How many GPUs the machine has.")
@plan_options.engine_flags
@click.option(
    "--cloud", help=f"Whose offers, else Lambda's and your own: all, or one of {plan_options.CLOUDS}."
)
@click.option("--region", help="Only this region's offers.")
@click.option("--max-price", help="Only offers up to this many dollars an hour.")
@click.option(
    "--spot", is_flag=True, default=None, help="Spot offers too: they may be taken away at any moment."
)
@click.option("--hours", help="Show the cost of this many hours.")
@plan_options.load
@click.option("--search", is_flag=True, help="Look for what is cheaper: other formats, KV types, contexts.")
@click.option("--all", "show_all", is_flag=True, help="Show every machine, dominated ones too.")
@click.option("--plot", is_flag=True, help="Plots: memory against context, price against speed.")
@click.option(
    "--save",
    "files",
    metavar="FILE",
    multiple=True,
    help="The same as a picture: .svg, .html, .png or .pdf; memory.svg and speed.svg have one of them.",
)
@click.option(
    "--picture", type=click.Choice(["memory", "speed", "both"]), help="Which of them to plot or save."
)
@click.option("--force", is_flag=True, help="Let --save write over a file.")
@click.option("--explain", is_flag=True, help="Open the arithmetic, line by line.")
@click.option("--batch", metavar="FILE", help="Answer one JSON request a line; - reads stdin.")
@click.option("--offline", is_flag=True, help="Do not ask the Hugging Face Hub.")
@output.options
def command(
    model: str | None,
    *,
    explain: bool,
    search: bool,
    show_all: bool,
    batch: str | None,
    offline: bool,
    plot: bool,
    files: tuple[str, ...],
    picture: Kind | None,
    force: bool,
    out: output.Output,
    **options: Any,
) -> int:
    """What MODEL needs, which GPUs hold it, what that costs, and the command to serve it.

    MODEL is a catalogue id, a Hugging Face id, a folder with config.json, a config.json, or a .gguf file.
    Speeds are for `--sequences` at once (one where unsaid); with `--target`, `--requests`, or ranked by cost-per-token
    or time, for the largest batch that memory and target allow. `--requests` are all sent at once, and none after.
    Ends with 5 when nothing that was considered can run it, or reach the target.
    """
    if batch is not None:
        _check_batch(model, search=search, drawn=plot or bool(files))
        return _batch(batch, options, allow_network=not offline)
    if model is None:
        raise UsageError("which model?", hints=("soong plan llama-3.1-8b", "soong models"))
    if plot or files or picture or force:
        from soong.cli.views import pictures

        pictures.check(files, plot=plot, picture=picture, force=force)
    from soong.tables import held

    with held():
        plan = _made(model, options, out, allow_network=not offline)
        alternatives = _alternatives(plan) if search else None
        if files:
            pictures.save(plan, files, out, picture=picture, force=force)

        def words() -> str:
            if plot:
                return pictures.plots(plan, picture=picture)
            return _words(plan, alternatives, explain=explain, show_all=show_all)

        ids = [plan.chosen.name] if plan.chosen else []
        out.answer(data=lambda: _document(plan, alternatives), ids=ids, human=words)
    return _code(plan)


def _made(model: str, options: dict[str, Any], out: output.Output, *, allow_network: bool) -> Plan:
    """The plan for a model and what was asked of it."""
    from soong.plan.planner import make_plan
    from soong.plan.request import read_request

    request = read_request({"model": model, **options})
    return make_plan(request, allow_network=allow_network, progress=out.progress(f"Reading {model}"))


def _code(plan: Plan) -> int:
    """Whether anything that was considered will start, and reach the target."""
    will_start = any(one.starts and one.meets_target is not False for one in plan.candidates)
    return ExitCode.DONE if will_start else ExitCode.NOTHING_FITS


def _check_batch(model: str | None, *, search: bool, drawn: bool) -> None:
    """Refuse what is for one model only.

    Raises:
        UsageError: beside `--batch` stands a model, a search or a picture.
    """
    if model is not None:
        raise UsageError("give a MODEL or `--batch`, not both")
    if search:
        raise UsageError("`--search` is for one MODEL, not for `--batch`")
    if drawn:
        raise UsageError("`--plot` and `--save` are for one MODEL, not for `--batch`")


def _document(plan: Plan, alternatives: tuple[Alternative, ...] | None) -> dict[str, Any]:
    from soong.plan.document import plan_document

    return plan_document(plan, alternatives)


def _words(plan: Plan, alternatives: tuple[Alternative, ...] | None, *, explain: bool, show_all: bool) -> str:
    from soong.cli.views import plan as view

    return view.explained(plan) if explain else view.screen(plan, alternatives, show_all=show_all)


def _alternatives(plan: Plan) -> tuple[Alternative, ...]:
    from soong.plan.searching import alternatives

    return alternatives(plan)


def _batch(file: str, options: dict[str, Any], *, allow_network: bool) -> int:
    from soong.plan.batch import answer_lines, collect_rarely

    collect_rarely()
    defaults = {key: value for key, value in options.items() if value is not None}
    for answer in answer_lines(_lines(file), defaults=defaults, allow_network=allow_network):
        sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return ExitCode.DONE


def _lines(file: str) -> Iterator[bytes]:
    if file == "-":
        yield from sys.stdin.buffer
        return
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - `file` may be a pipe's path such as /dev/fd/63
            yield from stream
    except OSError as error:
        raise UsageError(f"cannot read {file}", why=error.strerror or str(error)) from None
