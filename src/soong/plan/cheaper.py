"""Another format of the model on a clearly cheaper machine: the one piece of advice that every plan may give.

It stands apart from the search, since every plan comes by here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import NotFoundError
from soong.models.catalogue import all_models, find_model
from soong.models.resolve import resolve
from soong.plan.candidates import ENGINE_OF_GGUF, Machine, is_supported, judged
from soong.plan.planner import fills_context, question_of
from soong.plan.ranking import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.models.model import Format, Model
    from soong.plan.candidates import Question
    from soong.plan.plan import Candidate, Plan
    from soong.plan.request import Request
    from soong.plan.searching import Alternative

CLEARLY_CHEAPER = 0.75
LEAST_SAVED_USD_PER_HOUR = 0.5
"""Advice that nobody asked for is given when it saves at least a quarter, and half a dollar an hour."""


class FormatOf(msgspec.Struct, frozen=True):
    """One format: the words that ask the planner for it, and its row of the catalogue; None for the plan's own."""

    model: str
    quantization: str | None
    engine: str | None
    of: Model | None = None
    row: Format | None = None


class Found(msgspec.Struct, frozen=True):
    """A format, what was asked of the planner for it, and the machine that would do."""

    form: FormatOf
    request: Request
    question: Question
    candidate: Candidate


def cheaper_format(plan: Plan) -> Alternative | None:
    """Another format of the same model on a clearly cheaper machine, or on any where nothing holds what was asked.

    Quick enough for every plan: the same engine, and of the plan's machines those that soong rents, would be clearly
    cheaper and can run the format at all, in order of price.
    """
    request, chosen = plan.request, plan.chosen
    if request.rank != "price" or request.quantization is not None or request.gpu is not None:
        return None
    price = chosen.offer.usd_per_hour if chosen and chosen.offer else NEVER
    most = min(price * CLEARLY_CHEAPER, price - LEAST_SAVED_USD_PER_HOUR)
    machines = [
        Machine(one.gpu, one.gpu_count, one.offer)
        for one in plan.candidates
        if one.offer is not None and one.launchable and one.offer.usd_per_hour <= most
    ]
    found = []
    for form in repositories(plan) if machines and plan.settings.name != ENGINE_OF_GGUF else ():
        asked = in_format(request, form, plan)
        model = resolve(asked.model, quantization=asked.quantization, allow_network=False)
        question = question_of(asked, model)
        supported = (judged(question, machine) for machine in machines if is_supported(question, machine))
        first = next((one for one in supported if one.will_do and one.engine_argv), None)
        if first is not None:
            found.append(Found(form, asked, question, first))
    if not found:
        return None
    from soong.plan.searching import best_of

    return best_of(found, plan)


def in_format(request: Request, form: FormatOf, plan: Plan) -> Request:
    """What was asked, of another format at the same context."""
    return msgspec.structs.replace(
        request,
        model=form.model,
        quantization=form.quantization,
        engine=form.engine,
        engine_version=request.engine_version if form.engine == request.engine else None,
        context_tokens=plan.workload.context_tokens,
        fills_context=fills_context(request),
    )


def repositories(plan: Plan) -> Iterator[FormatOf]:
    """Repositories for vLLM and SGLang, under the model's id and under others."""
    seen = {plan.model.serve_from}
    for model in namesakes(plan):
        for row in model.formats:
            if row.repository not in seen:
                seen.add(row.repository)
                yield FormatOf(model.id, row.quantization, plan.request.engine, model, row)


def namesakes(plan: Plan) -> Iterator[Model]:
    """The plan's model, and the rows of the catalogue that are the same model under another id."""
    own = catalogue_model(plan)
    if own is not None:
        yield own
        yield from (model for model in all_models() if model.hf_path == own.hf_path and model.id != own.id)


def catalogue_model(plan: Plan) -> Model | None:
    """The plan's model as the catalogue has it; None for one that is not in it."""
    if plan.model.source != "catalogue":
        return None
    try:
        return find_model(plan.request.model)
    except NotFoundError:
        return None
