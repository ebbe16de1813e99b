"""What a picture shows, as values: no library, no screen, no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong import units
from soong.plan.plan import sequences_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate, Plan
    from soong.speed.throughput import Load

BASIS = {
    "headers": "weights from the files' own headers",
    "config": "weights from the shapes in config.json",
    "rule-of-thumb": "memory by the rule of thumb: the architecture is not known",
}
CLOUDS_NAMED = 3
"""More than so many clouds are counted in the footer instead of named."""


class Caption(msgspec.Struct, frozen=True, kw_only=True):
    """The words around a picture.

    title: the model, and the answer. workload: size, format, context, sequences, the load of the speeds, engine with
        its version, the day.
    footer: where the prices are from and of which day, what the figures rest on, who drew it.
    """

    title: str
    workload: str
    footer: tuple[str, ...]

    def with_notes(self, *notes: str) -> Caption:
        """The same with one more line at the foot; empty notes are none."""
        said = " · ".join(note for note in notes if note)
        return msgspec.structs.replace(self, footer=(said, *self.footer)) if said else self


def caption(plan: Plan, *, drawn_on: str, version: str) -> Caption:
    """The caption of a plan's pictures.

    Args:
        drawn_on: the day, ISO. version: of soong.
    """
    model = plan.model
    size = f"{units.format_count(model.parameters)} parameters, " if model.parameters else ""
    engine = f"{plan.settings.name} {plan.settings.version}"
    prices = prices_words(one.offer for one in plan.candidates if one.offer)
    return Caption(
        title=f"{model.id}: {_answer(plan)}",
        workload=f"{size}{model.quantization_label} · {_workload(plan)} · {engine} · {drawn_on}",
        footer=(f"{prices} · {BASIS[model.weights_basis]} · drawn by soong {version}",),
    )


def _workload(plan: Plan) -> str:
    """What the memory and the speeds are for, as the plan's own head says it."""
    workload = plan.workload
    kv = "" if workload.kv_dtype == "auto" else f", KV cache in {workload.kv_dtype}"
    speed = ""
    if any(candidate.throughput for candidate in plan.candidates):
        speed = f" · speed for {requests_words(plan.load)}"
    return f"{workload.context_tokens:,} tokens of context, {sequences_words(plan)}{kv}{speed}"


def requests_words(load: Load) -> str:
    """`1,024 tokens in and 300 out`, with how many there are of a burst."""
    return f"{load.requests:,} requests of {load.each}" if load.requests else load.each


def _answer(plan: Plan) -> str:
    """The recommendation in one line of a slide; without one, why there is none, as the plan's text says it."""
    chosen = plan.chosen
    if chosen is not None:
        return f"{machine_name(chosen)} for {price_name(chosen)}" if chosen.offer else machine_name(chosen)
    if any(candidate.verdict == "fits" for candidate in plan.candidates):
        target = plan.request.target_tokens_per_second or 0
        return f"nothing that fits gives each user {target:g} tokens/s"
    starting = any(candidate.starts for candidate in plan.candidates)
    return "nothing fits with 10% to spare" if starting else "nothing considered here runs it"


def nearest_words(plan: Plan) -> str:
    """What the machine is that is shown where none is recommended."""
    fits = any(candidate.verdict == "fits" for candidate in plan.candidates)
    return "the fastest that fits" if fits else "the cheapest that starts"


def prices_words(offers: Iterable[Offer]) -> str:
    """`Prices: lambda, 2026-09-05 (Lambda price page)`: whose prices, of which days, read where.

    Days, not ages: a file is looked at long after it was drawn.
    """
    kept = list(offers)
    days: dict[str, set[str]] = {}
    for offer in kept:
        days.setdefault(offer.cloud, set()).add(offer.as_of)
    if not days:
        return "No prices"
    if len(days) > CLOUDS_NAMED:
        return f"Prices: {len(days)} clouds, {_span(set().union(*days.values()))}"
    words = "; ".join(f"{cloud}, {_span(of)}" for cloud, of in sorted(days.items()))
    sources = {"asked of the cloud" if one.live else one.source.partition(";")[0].strip() for one in kept}
    return f"Prices: {words}" + (f" ({sources.pop()})" if len(sources) == 1 else "")


def _span(days: set[str]) -> str:
    every = sorted(days)
    return every[0] if len(every) == 1 else f"{every[0]} to {every[-1]}"


def machine_name(candidate: Candidate, *, with_cloud: bool = False) -> str:
    """`2× H100 SXM5`, with the cloud where several are compared."""
    cloud = f", {candidate.offer.cloud}" if with_cloud and candidate.offer else ""
    return f"{candidate.gpu_count}× {candidate.gpu.name}{cloud}"


def price_name(candidate: Candidate) -> str:
    """`$1.09/hour`, or that there is no price."""
    return f"${candidate.offer.usd_per_hour:.2f}/hour" if candidate.offer else "no price"


def short_tokens(tokens: int) -> str:
    """`8k`, `128k`, `1M`: an axis' words, in 1024s as contexts are; other counts in their own figures."""
    for size, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{letter}"
    return str(tokens)
