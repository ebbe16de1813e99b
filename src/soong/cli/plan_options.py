"""The options that every command which plans takes in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

Command = TypeVar("Command", bound="Callable[..., Any]")

CLOUDS = "aws, azure, lambda, runpod and others; `soong offers --cloud all` shows every one"
"""The words of `--cloud` where it picks prices."""

TEXT_ONLY = "Leave out what sees or hears, for room: vLLM's --language-model-only."

_WORKLOAD = (
    click.option("--context", help="Longest sequence in tokens, prompt and answer: 8192, 32k."),
    click.option("--sequences", help="How many such sequences at once."),
    click.option("--quantization", help="Which of the model's formats: bf16, fp8, int4, ..."),
    click.option("--engine", help="sglang (the default where it has the model's class), vllm or llama.cpp."),
)

_MACHINE = (
    click.option("--kv-dtype", help="Type of the KV cache: auto, bfloat16, float16, fp8, fp8_e5m2."),
    click.option("--gpu", help="One GPU (h100-80gb-sxm5) or a cloud's type (gpu_1x_a6000)."),
    click.option("--gpu-memory", help="Its memory, in place of what soong knows: 79.19GiB."),
)

_ENGINE_FLAGS = (
    click.option("--tensor-parallel", help="How many GPUs share each layer."),
    click.option("--pipeline-parallel", help="How many groups of GPUs share the layers."),
    click.option(
        "--expert-parallel", is_flag=True, default=None, help="Keep experts whole, some of them on each GPU."
    ),
    click.option("--memory-fraction", help="gpu_memory_utilization or mem_fraction_static: 0.9."),
    click.option("--kv-cache-memory", help="Fix the KV pool per GPU: 10GiB."),
    click.option("--max-num-seqs", help="Most sequences the engine runs together."),
    click.option("--max-num-batched-tokens", help="Most tokens of one forward pass."),
    click.option("--enforce-eager", is_flag=True, default=None, help="No CUDA graphs."),
    click.option("--text-only", is_flag=True, default=None, help=TEXT_ONLY),
)

_LOAD = (
    click.option("--input-tokens", help="Length of a usual prompt, for the speed: 4000."),
    click.option("--output-tokens", help="Length of a usual answer, for the speed: 500."),
    click.option("--requests", help="So many requests in all, sent at once: a batch job, a benchmark: 1000."),
    click.option("--lengths", help="Of their answers: varied about --output-tokens (the default) or same."),
    click.option("--target", help="Tokens a second that each user must see: 40."),
    click.option("--rank", help="Choose by price an hour (the default), cost-per-token or time."),
    click.option(
        "--job-tokens", help="Output tokens of a job, for its time and cost: 10M (1M where unsaid)."
    ),
)


def _all(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Command], Command]:
    """One decorator for several, in the order of the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


workload, machine, engine_flags, load = _all(_WORKLOAD), _all(_MACHINE), _all(_ENGINE_FLAGS), _all(_LOAD)


SHOWN_ONLY = frozenset({"as_json", "quiet", "verbose", "no_input", "color"})
"""Parameters that say how an answer is shown, and nothing of what is asked."""


def as_typed(
    context: click.Context, *, left_out: AbstractSet[str], known_to: click.Command | None = None
) -> list[str]:
    """The options of the running command as they were given, to be typed again in another.

    Args:
        context: of the running command. left_out: parameters that are not told again.
        known_to: the other command; options that it lacks are left out too.
    """
    known = None if known_to is None else {parameter.name for parameter in known_to.params}
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name)
        if name in left_out or (known is not None and name not in known):
            continue
        if given is None or given.name not in {"COMMANDLINE", "ENVIRONMENT"}:
            continue
        option, value = max(parameter.opts, key=len), context.params[name]
        words += [option] if value is True else [option, str(value)]
    return words
