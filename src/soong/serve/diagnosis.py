"""Why an engine did not come up, from its own log: known failures, their figures, and what would fit instead."""

from __future__ import annotations

import re
import time
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from soong import units
from soong.errors import SoongError
from soong.serve.command import Cause, Failure, table
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from soong.plan.plan import Candidate, Plan

MEMORY: tuple[Cause, ...] = (
    "memory-load",
    "memory-pool",
    "memory-graphs",
    "memory-other-process",
    "context-too-long",
)
"""What a better estimate would have foreseen."""

GIB = units.GIB
MISSES = "misses.jsonl"
SHORTEST_CONTEXT = 1024


@cache
def rules() -> tuple[tuple[Failure, re.Pattern[str]], ...]:
    """The known failures of `data/serving.toml`, in order, with their patterns compiled."""
    return tuple((one, re.compile(one.pattern)) for one in table().failure)


WORDS: dict[Cause, str] = {
    "memory-load": "the GPU's memory was full while the model was loaded or run for the first time",
    "memory-pool": "after the weights nothing, or too little, was left for the KV cache",
    "memory-graphs": "the GPU's memory was full while CUDA graphs were captured",
    "memory-other-process": "something else holds memory of the GPU",
    "context-too-long": "the KV cache that fits does not hold one request of the planned context",
    "killed": "the kernel killed the engine: the machine's own memory (not the GPU's) was full",
    "gated": "the repository is gated, and the token does not open it",
    "disk-full": "the machine's disk is full",
    "unsupported-model": "this version of the engine does not know the model's architecture",
    "unsupported-quantization": "the engine cannot run this number format on this GPU",
    "driver": "the machine's NVIDIA driver is too old for this engine",
    "port": "the engine's port on the machine was taken",
}


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Figures out of the log; None where it does not tell. All of one GPU."""

    total_bytes: int | None = None
    free_bytes: int | None = None
    tried_bytes: int | None = None
    needed_bytes: int | None = None
    available_bytes: int | None = None
    longest_context_tokens: int | None = None


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """cause: which failure. words: for a person. line: of the log, that says so. source: who prints it."""

    cause: Cause
    words: str
    line: str
    source: str
    observed: Observed

    @property
    def is_of_memory(self) -> bool:
        """Whether the estimate missed."""
        return self.cause in MEMORY


def diagnose(log: str) -> Diagnosis | None:
    """The known failure in an engine's log; None where there is none.

    Args:
        log: the end of it, as the engine printed it.
    """
    for rule, pattern in rules():
        found = pattern.search(log)
        if found:
            return Diagnosis(
                cause=rule.cause,
                words=WORDS[rule.cause],
                line=_line_at(log, found.end()),
                source=rule.source,
                observed=observed_in(log),
            )
    return None


def observed_in(log: str) -> Observed:
    """The figures in a log, in bytes.

    >>> observed_in("GPU 0 has a total capacity of 23.58 GiB of which 1.50 GiB is free.").free_bytes == int(1.5 * 2**30)
    True
    """
    free, total = _first(
        log,
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\)",
        r"of which (?P<a>[\d.]+ [GM]iB) is free",
        r"loaded.*?, (\d+) MiB free",
    )
    if total is None:
        total = _first(log, r"total capacity of ([\d.]+ [GM]iB)")[0]
    return Observed(
        total_bytes=total,
        free_bytes=free,
        tried_bytes=_first(log, r"Tried to allocate ([\d.]+ [GM]iB)", r"allocating ([\d.]+ MiB) on device")[
            0
        ],
        needed_bytes=_first(log, r"\(([\d.]+) GiB KV cache is needed")[0],
        available_bytes=_first(log, r"available KV cache memory \(([-\d.]+) GiB\)")[0],
        longest_context_tokens=_whole(log, r"estimated maximum model length is (\d+)"),
    )


def refitted(plan: Plan, pick: Candidate, found: Diagnosis) -> Candidate | None:
    """The same model on the same machine, planned anew with what was seen to be free; None where nothing fits.

    The context is halved until the engine would start. Nothing is said of a GPU that somebody else fills.
    """
    from soong.plan.planner import make_plan
    from soong.plan.request import read_request

    memory = usable_bytes(pick, found.observed)
    if memory is None:
        return None
    context = found.observed.longest_context_tokens or plan.workload.context_tokens // 2
    while context >= SHORTEST_CONTEXT:
        wish = {
            "model": plan.model.id,
            "gpu": pick.gpu.id,
            "gpu_memory": memory,
            "gpu_count": pick.gpu_count,
            "engine": plan.settings.name,
            "engine_version": plan.settings.version,
            "context": context,
        }
        try:
            again = make_plan(read_request(wish), offers=())
        except SoongError:
            return None
        if again.candidates and again.candidates[0].starts:
            return again.candidates[0]
        context //= 2
    return None


def usable_bytes(pick: Candidate, seen: Observed) -> int | None:
    """How much memory to plan with, after what was seen: the GPU's own, less what could not be had of it."""
    planned = pick.footprint.total_bytes if pick.footprint else None
    total = min((one for one in (planned, seen.total_bytes) if one), default=None)
    if total is None:
        return None
    if seen.tried_bytes is not None:
        return total - max(seen.tried_bytes - (seen.free_bytes or 0), 0)
    if seen.needed_bytes is not None and seen.available_bytes is not None:
        return total - max(seen.needed_bytes - seen.available_bytes, 0)
    return total


def screen(plan: Plan, pick: Candidate, found: Diagnosis, again: Candidate | None) -> str:
    """The failure on one screen: what was planned, what was seen, what would fit, what to type."""
    import shlex

    seen, lines = found.observed, [f"The engine did not start: {found.words}.", f"  {found.line[:300]}"]
    if pick.footprint is not None and found.is_of_memory:
        one = pick.footprint
        lines += [
            "planned for each GPU:",
            f"  weights {_gib(one.weights_bytes)}, KV cache {_gib(one.kv_pool_bytes)}, activations "
            f"{_gib(one.activations_bytes)}, CUDA graphs {_gib(one.cuda_graphs_bytes)}, free {_gib(one.free_bytes)} "
            f"of {_gib(one.total_bytes)}",
        ]
        figures = [
            f"{name} {_gib(value)}"
            for name, value in (
                ("of the GPU's", seen.total_bytes),
                ("free", seen.free_bytes),
                ("asked for", seen.tried_bytes),
                ("needed for one request", seen.needed_bytes),
                ("available for the KV cache", seen.available_bytes),
            )
            if value is not None
        ]
        lines.append(f"seen there: {', '.join(figures) or 'the log has no figures'}")
    if again is not None:
        lines += ["this would fit:", f"  {shlex.join(again.engine_argv)}"]
    lines += [f"try: {command}" for command in commands(plan, pick, found, again)]
    return "\n".join(lines)


def commands(plan: Plan, pick: Candidate, found: Diagnosis, again: Candidate | None) -> tuple[str, ...]:
    """What to type next, best first."""
    model, engine = plan.model.id, plan.settings.name
    if found.is_of_memory:
        fits: tuple[str, ...] = ()
        if again is not None:
            context = context_of(again.engine_argv)
            fits = (f"soong start --model {model} --gpu {pick.gpu.id} --engine {engine} --context {context}",)
        return (*fits, f"soong plan {model} --engine {engine}   (larger GPUs)")
    return {
        "killed": (f"soong start --model {model} with a machine that has more RAM: soong offers",),
        "gated": (
            f"ask for access at https://huggingface.co/{plan.model.serve_from}, then export HF_TOKEN=hf_...",
        ),
        "disk-full": ("soong ssh -- df -h", "a machine with a larger disk: soong offers"),
        "unsupported-model": (
            f"soong start --model {model} --engine {'sglang' if engine == 'vllm' else 'vllm'}",
        ),
        "unsupported-quantization": (f"soong plan {model} --engine {engine}", f"soong models info {model}"),
        "driver": ("soong stop, and start again: another machine may have a newer driver",),
        "port": ("soong ssh -- ss -ltnp",),
    }.get(found.cause, ("soong logs",))


def context_of(argv: Sequence[str]) -> int:
    """The context that an engine's command asks for: of one slot, for llama.cpp."""
    words = dict(pairwise(argv))
    length = words.get("--max-model-len") or words.get("--context-length") or words.get("--ctx-size") or "0"
    return int(length) // int(words.get("--parallel") or 1)


def keep_miss(plan: Plan, pick: Candidate, found: Diagnosis) -> Path:
    """Write down that the estimate was wrong, for a report; nothing in it is secret. Returns the file.

    Raises:
        SoongError: it cannot be written.
    """
    import os

    file = paths.made(paths.state_dir()) / MISSES
    row: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": plan.model.serve_from,
        "engine": plan.settings.name,
        "engine_version": plan.settings.version,
        "gpu": pick.gpu.id,
        "gpu_count": pick.gpu_count,
        "argv": pick.engine_argv,
        "planned": pick.footprint,
        "cause": found.cause,
        "observed": found.observed,
        "line": found.line[:500],
    }
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as opened:
            opened.write(msgspec.json.encode(row) + b"\n")
    except OSError as error:
        raise paths.cannot_write(file, error) from error
    return file


def _gib(size_bytes: int) -> str:
    return units.format_gib(size_bytes, 2)


def _line_at(log: str, place: int) -> str:
    begin, end = log.rfind("\n", 0, max(place - 1, 0)) + 1, log.find("\n", place)
    return log[begin : end if end >= 0 else None].strip()


def _first(log: str, *patterns: str) -> tuple[int | None, int | None]:
    """The last match of the first pattern that matches: one figure, or two; plain numbers are GiB, or MiB if whole."""
    for pattern in patterns:
        found = list(re.finditer(pattern, log))
        if found:
            values = [_bytes(text) for text in found[-1].groups()]
            return values[0], values[1] if len(values) > 1 else None
    return None, None


def _bytes(text: str) -> int:
    number, _, unit = text.partition(" ")
    scale = 2**20 if unit == "MiB" or (not unit and "." not in number) else GIB
    return int(float(number) * scale)


def _whole(log: str, pattern: str) -> int | None:
    found = re.search(pattern, log)
    return int(found[1]) if found else None
