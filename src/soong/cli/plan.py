"""`soong plan`: what would you do, and what would it cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from soong.cli import output
from soong.cli.exit_codes import ExitCode
from soong.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

EPILOG = """\b
Examples:
  soong plan llama-3.1-8b
  soong plan Qwen/Qwen3-30B-A3B --context 32k --sequences 8 --engine vllm
  soong plan ./my-model/config.json --gpu h100-80gb-sxm5 --explain
  soong plan --batch requests.jsonl
"""


@click.command("plan", epilog=EPILOG)
@click.argument("model", required=False)
@click.option("--context", help="Longest sequence in tokens, prompt and answer: 8192, 32k.")
@click.option("--sequences", help="How many such sequences at once.")
@click.option("--quantization", help="Which of the model's formats: bf16, fp8, int4, ...")
@click.option("--engine", help="sglang (the default), vllm or llama.cpp.")
@click.option("--engine-version", help="Follow the rules of this version: 0.19.0.")
@click.option("--kv-dtype", help="Type of the KV cache: auto, bfloat16, float16, fp8.")
@click.option("--gpu", help="One GPU (h100-80gb-sxm5) or a cloud's type (gpu_1x_a6000).")
@click.option("--gpu-memory", help="Its memory, in place of what soong knows: 79.19GiB.")
@click.option("--gpu-count", help="How many GPUs the machine has.")
@click.option("--tensor-parallel", help="How many GPUs share each layer.")
@click.option("--pipeline-parallel", help="How many groups of GPUs share the layers.")
@click.option("--memory-fraction", help="gpu_memory_utilization or mem_fraction_static: 0.9.")
@click.option("--kv-cache-memory", help="Fix the KV pool per GPU: 10GiB.")
@click.option("--max-num-seqs", help="Most sequences the engine runs together.")
@click.option("--max-num-batched-tokens", help="Most tokens of one forward pass.")
@click.option("--enforce-eager", is_flag=True, default=None, help="No CUDA graphs.")
@click.option("--cloud", help="Only this cloud's offers.")
@click.option("--region", help="Only this region's offers.")
@click.option("--max-price", help="Only offers up to this many dollars an hour.")
@click.option("--hours", help="Show the cost of this many hours.")
@click.option("--explain", is_flag=True, help="Open the arithmetic, line by line.")
@click.option("--batch", metavar="FILE", help="Answer one JSON request a line; - reads stdin.")
@click.option("--offline", is_flag=True, help="Do not ask the Hugging Face Hub.")
@output.options
def command(
    model: str | None, *, explain: bool, batch: str | None, offline: bool, out: output.Output, **options: Any
) -> int:
    """What MODEL needs, which GPUs hold it, what that costs, and the command to serve it.

    MODEL is a catalogue id, a Hugging Face id, a folder with config.json, a config.json, or a .gguf file.
    Ends with 5 when nothing that was considered can run it.
    """
    if batch is not None:
        if model is not None:
            raise UsageError("give a MODEL or `--batch`, not both")
        return _batch(batch, options, allow_network=not offline)
    if model is None:
        raise UsageError("which model?", hints=("soong plan llama-3.1-8b", "soong models"))
    from soong.plan.planner import make_plan
    from soong.plan.request import read_request

    request = read_request({"model": model, **options})
    plan = make_plan(request, allow_network=not offline, progress=out.progress(f"Reading {model}"))
    from soong.cli.views import plan as view
    from soong.plan.document import plan_document

    out.answer(
        data=lambda: plan_document(plan),
        ids=[view.row_id(plan.chosen)] if plan.chosen else [],
        human=lambda: view.explained(plan) if explain else view.screen(plan),
    )
    return ExitCode.DONE if any(candidate.starts for candidate in plan.candidates) else ExitCode.NOTHING_FITS


def _batch(file: str, options: dict[str, Any], *, allow_network: bool) -> int:
    import gc

    from soong.plan.batch import answer_lines

    gc.enable()
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
