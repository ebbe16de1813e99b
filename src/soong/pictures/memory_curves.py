"""Memory against context: what each kind of machine needs on each of its GPUs, and up to which context it will do.

Every point is what `soong plan --context N` says of that machine: the same judgement, with the flags it would give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.pictures.subject import machine_name, price_name
from soong.plan.candidates import ENGINE_OF_GGUF, Machine, judged
from soong.plan.planner import question_of
from soong.plan.ranking import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from soong.plan.plan import Candidate, Plan

LEAST_CONTEXT = 1024
LIMIT_WHERE_UNKNOWN = 131072
"""Where neither the model nor the request says how far to draw: what most models of today hold."""

POINTS_PER_OCTAVE = 6
GB = 10**9


class MemoryPoint(msgspec.Struct, frozen=True, gc=False):
    """One GPU's need at one context, part by part."""

    context_tokens: int
    runtime_bytes: int
    weights_bytes: int
    activations_bytes: int
    kv_bytes: int

    @property
    def need_bytes(self) -> int:
        """All of it."""
        return self.runtime_bytes + self.weights_bytes + self.activations_bytes + self.kv_bytes


class MemoryCurve(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of machine over all contexts.

    Attributes:
        name: `2× A10`. price: in words. usd_per_hour: None where it has no price.
        total_bytes: what the driver reports of one GPU. exact: False where only the rule of thumb applies, which counts
            in labels.
        points: from short contexts to long ones. fits_to: the longest context with room to spare; None: none.
        starts_to: the longest with which the engine starts and serves; None: none.
        why_not: the reason where it never starts. chosen: the recommended machine.
    """

    name: str
    price: str
    usd_per_hour: float | None
    gpu_count: int
    total_bytes: int
    exact: bool
    points: tuple[MemoryPoint, ...]
    fits_to: int | None
    starts_to: int | None
    why_not: str
    chosen: bool


class MemoryView(msgspec.Struct, frozen=True, kw_only=True):
    """The curves that are shown, in order of price, and the axis that they share.

    context_tokens: what was asked for. limit_tokens: where the axis ends. limit_is_the_models: and the reason.
    others: how many kinds of machine are not shown.
    """

    curves: tuple[MemoryCurve, ...]
    context_tokens: int
    least_tokens: int
    limit_tokens: int
    limit_is_the_models: bool
    others: int

    @property
    def note(self) -> str:
        """For the foot of the picture: what is not shown."""
        shown = len(self.curves)
        return f"{shown} of {shown + self.others} kinds of machines shown" if self.others else ""


def memory_view(plan: Plan, *, most: int) -> MemoryView:
    """The memory picture of a plan.

    Args:
        most: how many curves there is room for. Kept are the recommended machine, then those that give more context
            than all cheaper ones, then the nearest that is too small.
    """
    limit = plan.model.context_limit_tokens
    end = max(limit or LIMIT_WHERE_UNKNOWN, plan.workload.context_tokens)
    least = min(LEAST_CONTEXT, end)
    kinds = _kinds(plan)
    reached = [_last_context(_judge(plan, kind), least, end, _starts) or 0 for kind in kinds]
    shown = _shown(plan, kinds, reached, most)
    return MemoryView(
        curves=tuple(_curve(plan, kinds[index], least, end) for index in shown),
        context_tokens=plan.workload.context_tokens,
        least_tokens=least,
        limit_tokens=end,
        limit_is_the_models=end == limit,
        others=len(kinds) - len(shown),
    )


def _kinds(plan: Plan) -> list[Candidate]:
    """Each kind of machine once, at its lowest price, cheapest first.

    Those on which no engine runs the model are left out, as long as there are others.
    """
    kinds: dict[tuple[str, int], Candidate] = {}
    some = [one for one in plan.candidates if one.verdict != "unsupported"] or plan.candidates
    for candidate in sorted(some, key=_price):
        kinds.setdefault((candidate.gpu.id, candidate.gpu_count), candidate)
    chosen = plan.chosen
    if chosen is not None:
        kinds[chosen.gpu.id, chosen.gpu_count] = chosen
    return list(kinds.values())


def _price(candidate: Candidate) -> float:
    return candidate.offer.usd_per_hour if candidate.offer else float("inf")


def _shown(plan: Plan, kinds: list[Candidate], reached: list[int], most: int) -> list[int]:
    """Which kinds to draw, by index, in order of price.

    First the recommended one, or the one that the plan shows without one; then the cheapest that starts, the nearest
    that is too small, those that give more context than all cheaper ones, and those on the front of price and speed;
    then cards of a size not yet seen.
    """
    everything = range(len(kinds))
    shown = plan.chosen or nearest(plan.candidates)
    kind = (shown.gpu.id, shown.gpu_count) if shown else None
    recommended = [index for index in everything if (kinds[index].gpu.id, kinds[index].gpu_count) == kind]
    longest, front = 0, []
    for index in everything:
        if reached[index] > longest:
            longest = reached[index]
            front.append(index)
    too_small = [index for index in everything if not reached[index]]
    too_small.sort(key=lambda index: -kinds[index].gpu.memory_bytes * kinds[index].gpu_count)
    fast = {(plan.candidates[place].gpu.id, plan.candidates[place].gpu_count) for place in plan.front}
    faster = [index for index in everything if (kinds[index].gpu.id, kinds[index].gpu_count) in fast]
    first = {kinds[index].gpu.label_gb: index for index in reversed(faster)}
    sizes = {kinds[index].gpu.label_gb: index for index in reversed(everything) if reached[index]}
    new = [*sorted(first.values()), *sorted(sizes.values()), *faster]
    rest = [index for index in everything if reached[index]]
    ordered = [*recommended, *front[:1], *too_small[:1], *front[1:], *new, *rest, *too_small]
    return sorted(list(dict.fromkeys(ordered))[:most])


def _curve(plan: Plan, candidate: Candidate, least: int, end: int) -> MemoryCurve:
    judge = _judge(plan, candidate)
    fits_to = _last_context(judge, least, end, _fits)
    starts_to = _last_context(judge, least, end, _starts)
    contexts = _contexts(least, end, (fits_to, starts_to, plan.workload.context_tokens))
    return MemoryCurve(
        name=machine_name(candidate),
        price=price_name(candidate),
        usd_per_hour=candidate.offer.usd_per_hour if candidate.offer else None,
        gpu_count=candidate.gpu_count,
        total_bytes=candidate.footprint.total_bytes if candidate.footprint else candidate.gpu.label_gb * GB,
        exact=candidate.footprint is not None,
        points=tuple(_point(plan, judge(context), context) for context in contexts),
        fits_to=fits_to,
        starts_to=starts_to,
        why_not="" if starts_to else _why_not(candidate),
        chosen=candidate is plan.chosen,
    )


def _why_not(candidate: Candidate) -> str:
    return candidate.reasons[0] if candidate.reasons else candidate.verdict


def _contexts(least: int, end: int, more: Iterable[int | None]) -> list[int]:
    """Evenly on the axis of doublings, with the contexts that the picture names among them."""
    found = {least, end, *(context for context in more if context is not None and least <= context <= end)}
    step = 2 ** (1 / POINTS_PER_OCTAVE)
    context = float(least)
    while context < end:
        found.add(int(context))
        context *= step
    return sorted(found)


def _judge(plan: Plan, candidate: Candidate) -> Callable[[int], Candidate]:
    """What the planner says of this machine with another context; remembered, since searches ask twice."""
    machine = Machine(candidate.gpu, candidate.gpu_count, candidate.offer)
    known: dict[int, Candidate] = {plan.workload.context_tokens: candidate}
    changes = _without_speed(plan, candidate)

    def judge(context: int) -> Candidate:
        found = known.get(context)
        if found is None:
            request = msgspec.structs.replace(plan.request, context_tokens=context, **changes)
            found = known[context] = judged(question_of(request, plan.model), machine)
        return found

    return judge


def _without_speed(plan: Plan, candidate: Candidate) -> dict[str, object]:
    """The request without what only speed is about; the batch that was searched for this machine stays.

    The lengths of prompt and answer stay too: they are what several sequences take.
    """
    changes: dict[str, object] = {
        "requests": None,
        "target_tokens_per_second": None,
        "rank": "price",
        "job_tokens": None,
    }
    speed, request = candidate.throughput, plan.request
    told = request.target_tokens_per_second is not None and request.max_num_seqs is None
    if told and speed is not None and plan.settings.name != ENGINE_OF_GGUF:
        changes["max_num_seqs"] = speed.load.sequences
    return changes


def _fits(candidate: Candidate) -> bool:
    return candidate.verdict == "fits"


def _starts(candidate: Candidate) -> bool:
    return candidate.starts


def _last_context(
    judge: Callable[[int], Candidate], least: int, end: int, good: Callable[[Candidate], bool]
) -> int | None:
    """The longest context that is still good, by halving: a longer context never needs less. None where none is."""
    if not good(judge(least)):
        return None
    if good(judge(end)):
        return end
    low, high = least, end
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(judge(middle)) else (low, middle)
    return low


def _point(plan: Plan, candidate: Candidate, context: int) -> MemoryPoint:
    footprint = candidate.footprint
    if footprint is None:
        request = msgspec.structs.replace(plan.request, context_tokens=context)
        estimate, count = question_of(request, plan.model).estimate, candidate.gpu_count
        parts = (estimate.overhead_gb, estimate.weights_gb, estimate.activations_gb, estimate.kv_cache_gb)
        return MemoryPoint(context, *(round(part * GB / count) for part in parts))
    return MemoryPoint(
        context,
        footprint.runtime_bytes + footprint.cuda_graphs_bytes,
        footprint.weights_bytes,
        footprint.activations_bytes,
        footprint.workload_kv_bytes,
    )
