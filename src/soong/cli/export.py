"""`soong export`: the plan as a file for the tool that is trusted already."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from soong.cli import output, plan_options
from soong.cli.exit_codes import ExitCode
from soong.errors import SoongError, UsageError

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment, Wishes
    from soong.offers.offer import Offer
    from soong.plan.plan import Plan
    from soong.plan.request import Request

TOOLS = ("skypilot", "dstack", "kubernetes", "compose", "shell")
IDLE_TOOLS = ("skypilot", "dstack")
"""Those that rent machines, and end one that has stood without work for so long."""
MOST_REPLICAS = 1000
DEFAULT_IDLE_HOURS = 1 / 6

EPILOG = """\b
Examples:
  soong export skypilot llama-3.1-8b --output llama.sky.yaml
  soong export kubernetes Qwen/Qwen3-32B --engine vllm --replicas 2 | kubectl apply -f -
  soong export kubernetes deepseek-r1 --gpu h100-80gb-sxm5 --gpu-count 16 --tensor-parallel 8 --pipeline-parallel 2
  soong export shell qwen2.5-7b --gpu rtx4090 --hours 8 --output serve.sh
"""


@click.command("export", epilog=EPILOG)
@click.argument("tool", metavar="FORMAT", required=False)
@click.argument("model", required=False)
@plan_options.workload
@click.option("--engine-version", help="Of those whose container image is known.")
@plan_options.machine
@click.option("--gpu-count", help="How many GPUs one replica has, on one machine or several.")
@plan_options.engine_flags
@click.option(
    "--cloud",
    help=f"Only this one, and the file asks for no other: {plan_options.CLOUDS}. Or `all` their prices.",
)
@click.option("--region", help="Only this region.")
@click.option("--max-price", help="Only machines up to this many dollars an hour; the file says so too.")
@click.option(
    "--spot", is_flag=True, default=None, help="Spot machines too: they may be taken away at any moment."
)
@plan_options.load
@click.option("--replicas", default="1", show_default=True, help="How many engines, each with its own GPUs.")
@click.option("--gpus-per-machine", help="How many GPUs one machine has at most; else what the GPU comes in.")
@click.option("--hours", help="When it ends: 4 (the default), 90m, 1h30m.")
@click.option("--idle", help="How long a machine may stay when its work has ended: 10m (the default).")
@click.option("-o", "--output", "file", metavar="FILE", help="Write the file; else it is printed.")
@click.option("--force", is_flag=True, help="Put it in the place of a file that is there.")
@click.option("--offline", is_flag=True, help="Do not ask the Hugging Face Hub.")
@output.options
def command(
    tool: str | None,
    model: str | None,
    *,
    replicas: str,
    gpus_per_machine: str | None,
    hours: str | None,
    idle: str | None,
    file: str | None,
    force: bool,
    offline: bool,
    out: output.Output,
    **options: Any,
) -> int:
    """The plan of MODEL as a file for another tool: skypilot, dstack, kubernetes, compose or shell.

    The engine's command is the plan's, word for word. Every file asks for an API key, ends by itself after `--hours`
    where its tool can, and names secrets without holding them. Ends with 5, and writes nothing, when nothing fits.
    """
    tool, model = _named(tool, model)
    if file is not None and not force:
        _refuse_to_overwrite(file)
    from msgspec import structs

    from soong.exports import written
    from soong.exports.deployment import made
    from soong.offers.sources import offers_to_plan

    if idle is not None and tool not in IDLE_TOOLS:
        raise UsageError(f"`--idle` means nothing to {tool}", why="it is for " + " and ".join(IDLE_TOOLS))
    wishes = structs.replace(_wishes(replicas, gpus_per_machine, hours, idle), tool=tool)
    plan = _plan(model, options, out, tool=tool, offline=offline)
    wishes = structs.replace(wishes, command=_typed(plan))
    deployment = made(plan, wishes, offers=offers_to_plan(plan.request.cloud, region=plan.request.region))
    if deployment.usd_per_hour is None and plan.request.cloud is None:
        deployment = made(plan, wishes, offers=offers_to_plan("all", region=plan.request.region))
    text = written(deployment, tool)
    if file is not None:
        _write(file, text, force=force)
    _answer(out, deployment, tool, text, file)
    return ExitCode.DONE


def _named(tool: str | None, model: str | None) -> tuple[str, str]:
    """The two words.

    Raises:
        UsageError: one is missing, or there is no such format.
    """
    formats = ", ".join(TOOLS)
    if tool is None:
        raise UsageError(
            "for which tool?", why=f"formats: {formats}", hints=("soong export skypilot llama-3.1-8b",)
        )
    if tool.lower() not in TOOLS:
        from difflib import get_close_matches

        near = get_close_matches(tool.lower(), TOOLS, n=1)
        hints = (f"did you mean `soong export {near[0]}`?",) if near else ()
        raise UsageError(f"there is no format `{tool[:60]}`", why=f"formats: {formats}", hints=hints)
    if model is None:
        raise UsageError("which model?", hints=(f"soong export {tool} llama-3.1-8b", "soong models"))
    return tool.lower(), model


def _plan(model: str, options: dict[str, Any], out: output.Output, *, tool: str, offline: bool) -> Plan:
    """The plan, over what the tool can rent of the clouds that are named."""
    from soong.plan.planner import make_plan
    from soong.plan.request import read_request

    request = read_request({"model": model, **options})
    offers = _rentable(request, tool) if request.cloud else None
    progress = out.progress(f"Reading {model}")
    return make_plan(request, offers=offers, allow_network=not offline, progress=progress)


def _rentable(request: Request, tool: str) -> list[Offer] | None:
    """None where the tool can rent nothing: the plan is made all the same, and the file's writer says why."""
    from soong.exports.renting import can_rent
    from soong.gpus.catalogue import all_gpus
    from soong.offers.sources import offers_to_plan

    gpus = {gpu.id: gpu for gpu in all_gpus()}
    every_type = request.gpu is not None
    offers = offers_to_plan(request.cloud, region=request.region, spot=request.spot, every_type=every_type)
    return [
        offer
        for offer in offers
        if offer.gpu in gpus and can_rent(tool, offer, gpus[offer.gpu], spot=request.spot)
    ] or None


def _wishes(replicas: str, gpus_per_machine: str | None, hours: str | None, idle: str | None) -> Wishes:
    from datetime import UTC, datetime

    from soong import __version__, units
    from soong.exports.deployment import Wishes
    from soong.settings import config

    idle_hours = DEFAULT_IDLE_HOURS if idle is None else units.parse_hours(idle, what="`--idle`")
    return Wishes(
        replicas=_count("--replicas", replicas),
        gpus_per_machine=None if gpus_per_machine is None else _count("--gpus-per-machine", gpus_per_machine),
        hours=float(
            config.value("lease.hours") if hours is None else units.parse_hours(hours, what="`--hours`")
        ),
        version=__version__,
        today=datetime.now(UTC).date().isoformat(),
        idle_minutes=max(1, round(idle_hours * 60)),
    )


def _count(option: str, text: str) -> int:
    if (
        not text.strip().isdecimal()
        or len(text) > len(str(MOST_REPLICAS))
        or not 1 <= int(text) <= MOST_REPLICAS
    ):
        raise UsageError(f"`{option}` must be a whole number from 1 to {MOST_REPLICAS}, not {text[:40]!r}")
    return int(text)


def _typed(plan: Plan) -> str:
    """The command as it can be typed again anywhere: options as given, a path by its last part alone."""
    context = click.get_current_context()
    model = plan.request.model
    if plan.model.source in {"folder", "gguf", "config"}:
        model = model.rstrip("/").rsplit("/", 1)[-1]
    words = ["soong", "export", str(context.params["tool"]), model]
    return shlex.join([*words, *plan_options.as_typed(context, left_out=NOT_RETOLD)])


NOT_RETOLD = {"tool", "model", "file", "force", *plan_options.SHOWN_ONLY}
"""Parameters that do not change what stands in the file, and the two words that stand first."""


def _refuse_to_overwrite(file: str) -> None:
    import os

    if os.path.isdir(file):  # noqa: PTH112
        raise UsageError(f"{file} is a folder", hints=(f"--output {file.rstrip('/')}/NAME",))
    if os.path.lexists(file):
        raise UsageError(
            f"{file} is there already", hints=("the same with `--force` replaces it", "another `--output`")
        )


def _write(file: str, text: str, *, force: bool) -> None:
    """Put the file there in one step; one that appeared meanwhile is kept.

    Raises:
        UsageError: it is there, or it is no place for a file. SoongError: it cannot be written.
    """
    from pathlib import Path

    from soong.settings.files import replace_text

    path = Path(file)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hints=(f"mkdir -p {path.parent}",))
    if not force or path.is_dir():
        _refuse_to_overwrite(file)
    try:
        replace_text(path, text, new_mode=0o644)
    except SoongError as error:
        error.hints = ("another `--output`",)
        raise


def _answer(out: output.Output, deployment: Deployment, tool: str, text: str, file: str | None) -> None:
    for note in deployment.notes:
        out.say(f"note: {note}")
    if out.as_json:
        out.write_json(_document(deployment, tool, text, file))
    elif file is None:
        sys.stdout.write(text)
    else:
        out.answer(
            data=dict, ids=[file], human=lambda: f"Wrote {file}; its first lines say how it starts and ends."
        )


def _document(deployment: Deployment, tool: str, text: str, file: str | None) -> dict[str, Any]:
    return {
        "schema": "soong.export/1",
        "format": tool,
        "model": deployment.model,
        "engine": {"name": deployment.engine, "version": deployment.version},
        "gpu": deployment.gpu.id,
        "gpus_per_machine": deployment.gpus_per_node,
        "machines": deployment.nodes,
        "replicas": deployment.wishes.replicas,
        "hours": deployment.wishes.hours,
        "usd_per_hour": deployment.usd_per_hour,
        "engine_argv": deployment.candidate.engine_argv,
        "notes": deployment.notes,
        "file": file,
        "content": text,
    }
