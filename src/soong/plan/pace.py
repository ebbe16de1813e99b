"""How fast a candidate answers, at which batch, and what a million of its tokens cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.memory import engines
from soong.plan.plan import SECONDS_PER_HOUR
from soong.speed.roofline import largest_batch, throughput

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.plan.candidates import Question
    from soong.plan.request import Request
    from soong.speed.throughput import Throughput


class Pace(msgspec.Struct, frozen=True, gc=False):
    """The speed of one candidate; meets_target is None where no target was asked for, reason says why it fails."""

    throughput: Throughput | None
    meets_target: bool | None = None
    reason: str = ""


def pace(question: Question, gpu: Gpu, gpu_count: int, settings: EngineSettings) -> Pace:
    """How fast an engine that starts answers on these GPUs.

    Args:
        question: model, workload and load. gpu, gpu_count: the machine. settings: the engine's flags on it.
    """
    served, request = question.served, question.request
    if served is None:
        return unknown_pace(request)
    if request.searches_batch:
        return _searched(question, served, gpu, gpu_count, settings)
    found = throughput(served, gpu, question.load, settings, gpu_count, kv_dtype=request.kv_dtype)
    target = request.target_tokens_per_second
    return Pace(found) if target is None else _against(target, found, question)


def usd_per_million(usd_per_hour: float, throughput: Throughput) -> float:
    """Dollars for a million output tokens, under the load that the speed is for."""
    return usd_per_hour / (throughput.decode_tokens_per_second * SECONDS_PER_HOUR) * 1e6


def _searched(
    question: Question, served: ServedModel, gpu: Gpu, gpu_count: int, settings: EngineSettings
) -> Pace:
    """The pace at the largest batch that memory allows, and the target where there is one."""
    target, kv_dtype = question.request.target_tokens_per_second, question.request.kv_dtype
    found = largest_batch(
        served,
        gpu,
        question.load,
        settings,
        most=largest_held(question, served, gpu, settings),
        target_tokens_per_second_per_user=target,
        gpu_count=gpu_count,
        kv_dtype=kv_dtype,
    )
    if target is None:
        return Pace(found)
    if found is not None:
        return Pace(found, meets_target=True)
    alone = largest_batch(
        served,
        gpu,
        question.load,
        settings,
        most=1,
        target_tokens_per_second_per_user=None,
        gpu_count=gpu_count,
        kv_dtype=kv_dtype,
    )
    return _against(target, alone, question)


def largest_held(question: Question, served: ServedModel, gpu: Gpu, settings: EngineSettings) -> int:
    """How many requests of the load's length run at once: what the pool holds, the engine's own limit, and the job.

    Prompt and answer count whole, so that no request need be put off for want of memory. In a burst without a target
    the engine takes what it can and the others wait, which the burst counts itself; llama.cpp has slots.
    """
    load, request = question.load, question.request
    if load.requests and request.target_tokens_per_second is None and settings.name != "llama.cpp":
        return load.requests
    workload = msgspec.structs.replace(
        question.workload, context_tokens=load.input_tokens + load.output_tokens, sequences=1
    )
    held = engines.footprint(served, gpu, workload, settings).max_sequences or 1
    most = min(held, engines.most_running(gpu, settings) or held)
    return max(1, min(most, load.requests) if load.requests else most)


def _against(target: float, found: Throughput | None, question: Question) -> Pace:
    """The pace of a fixed batch, held against the target."""
    if found is None:
        return unknown_pace(question.request)
    reached = found.decode_tokens_per_second_per_user
    many, asked = found.load.sequences, question.load.sequences
    if many < asked and not question.load.requests:
        return Pace(found, meets_target=False, reason=f"runs {many} of {asked} at once; the others wait")
    if reached >= target:
        return Pace(found, meets_target=True)
    users = "a single user" if many == 1 else f"each of {many} users"
    return Pace(
        found,
        meets_target=False,
        reason=f"gives {users} about {reached:,.0f} tokens/s, the target is {target:g}",
    )


def unknown_pace(request: Request) -> Pace:
    """Where nothing is known of the speed."""
    target = request.target_tokens_per_second
    if target is None:
        return NO_PACE
    reason = f"its speed is not known, and a target of {target:g} tokens/s was asked for"
    return Pace(None, meets_target=False, reason=reason)


NO_PACE = Pace(None)
