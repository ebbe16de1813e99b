"""From a request to a plan: pair the model with every machine that is asked for, judge each, choose the cheapest.

The work is plain arithmetic over frozen values; whatever is the same for many requests (reading a model, sharding
it) is remembered by the stations that do it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from soong.errors import NotFoundError, UsageError
from soong.memory.footprint import Workload
from soong.memory.rule_of_thumb import rule_of_thumb
from soong.models.answers import writes_text
from soong.models.resolve import ResolvedModel, resolve
from soong.offers.sources import ALL, offers_to_plan
from soong.plan import ranking
from soong.plan.candidates import ENGINE_OF_GGUF, Question, beyond_limit, judged, served_model, with_offer
from soong.plan.machines import machines_for
from soong.plan.plan import Plan
from soong.speed.throughput import load_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.gpus.gpu import Gpu
    from soong.models.hub import Progress
    from soong.offers.offer import Offer
    from soong.plan.candidates import Machine
    from soong.plan.machines import Choice
    from soong.plan.plan import Candidate
    from soong.plan.request import Request

DEFAULT_CONTEXT_TOKENS = 8192
"""The specification: "8K context: most tasks (99% of code files)"."""


def make_plan(
    request: Request,
    *,
    offers: Sequence[Offer] | None = None,
    gpus: Sequence[Gpu] = (),
    allow_network: bool = True,
    progress: Progress | None = None,
    first_fit_only: bool = False,
) -> Plan:
    """The plan for one request.

    Args:
        request: the question.
        offers: machines for rent; where none are given, the newest prices known of the clouds that are meant.
        gpus: which no table has, or not as they are in these machines; they come before those of the tables.
        allow_network: whether an unknown Hugging Face id may be asked of the Hub.
        progress: told of the files read from the Hub: how many of how many.
        first_fit_only: judge no machine dearer than the recommended one; for lists, where only that one is shown.

    Raises:
        NotFoundError: no such model, GPU or cloud. UsageError: the options contradict each other.
        RemoteError, CredentialError: the Hub's.
    """
    model = resolve(
        request.model,
        quantization=request.quantization,
        allow_network=allow_network,
        progress=progress,
        for_llama_cpp=request.engine == ENGINE_OF_GGUF,
    )
    _refuse_jobs_of_what_is_written(request, model)
    machines, left_out = _machines(request, offers, {gpu.id: gpu for gpu in gpus})
    question = question_of(request, model)
    candidates = ranking.ranked(_judged(question, machines, first_fit_only=first_fit_only), request)
    return Plan(
        request=request,
        model=model,
        workload=question.workload,
        settings=question.settings_of(request.tensor_parallel or 1),
        rule_of_thumb=question.estimate,
        candidates=candidates,
        left_out=left_out,
        choice=ranking.choice(candidates),
        load=question.load,
    )


def _refuse_jobs_of_what_is_written(request: Request, model: ResolvedModel) -> None:
    """Refuse a rank or a job by answers, of a model that writes none.

    Raises:
        UsageError: it answers with vectors or scores.
    """
    if model.architecture is None or writes_text(model.architecture):
        return
    if request.rank != "price" or request.has_job:
        raise UsageError(
            f"{model.id} answers with vectors or scores: no tokens are written to rank or count by",
            hints=("the same with `--rank price`, and without `--requests` and `--job-tokens`",),
        )


def _machines(request: Request, offers: Sequence[Offer] | None, own: dict[str, Gpu]) -> Choice:
    """The machines to judge; a GPU or type that is named and not for rent at the usual clouds is looked for at all."""
    if offers is not None:
        return machines_for(request, offers, own)
    named = request.gpu is not None

    def usual() -> Choice:
        found = offers_to_plan(request.cloud, region=request.region, spot=request.spot, every_type=named)
        return machines_for(request, found, own)

    if not named or request.cloud is not None or request.gpu_memory_bytes is not None:
        return usual()
    try:
        found = usual()
    except NotFoundError:
        found = None
    if found is not None and found[0][0].offer is not None:
        return found
    anywhere = offers_to_plan(ALL, region=request.region, spot=request.spot, every_type=True)
    return machines_for(request, anywhere, own)


def question_of(request: Request, model: ResolvedModel) -> Question:
    """What a request asks of each machine."""
    workload = Workload(
        context_tokens=request.context_tokens or _context_for(request, model),
        sequences=request.sequences or 1,
        usual_tokens=_usual_tokens(request),
        kv_dtype=request.kv_dtype,
    )
    load = load_of(
        workload.context_tokens,
        workload.sequences,
        request.input_tokens,
        request.output_tokens,
        context_is_said=fills_context(request),
        requests=request.requests or 0,
        lengths=request.lengths,
        job_tokens=request.stated_job_tokens,
    )
    estimate = rule_of_thumb(_stated_billions(model), stated_quantization(model), workload.context_tokens)
    return Question(
        model=model,
        served=served_model(model),
        estimate=estimate,
        workload=workload,
        request=request,
        load=load,
        beyond_limit=beyond_limit(request, model, workload),
        paced=request.searches_batch or request.target_tokens_per_second is not None,
        settings={},
        argv={},
        splits={},
    )


def _judged(question: Question, machines: Iterable[Machine], *, first_fit_only: bool) -> list[Candidate]:
    """The candidates in the machines' order; the same GPUs are judged once, whatever they cost.

    With `first_fit_only`, and where the rank is the price, none that follows the recommended one.
    """
    stops = first_fit_only and question.request.rank == "price"
    known: dict[tuple[str, int], Candidate] = {}
    candidates = []
    for machine in machines:
        key = (machine.gpu.id, machine.gpu_count)
        twin = known.get(key)
        if twin is None:
            candidate = known[key] = judged(question, machine)
        else:
            candidate = with_offer(twin, machine.offer)
        candidates.append(candidate)
        if stops and candidate.will_do and candidate.launchable:
            break
    return candidates


def _context_for(request: Request, model: ResolvedModel) -> int:
    """The context where none is said: the usual one, or what the prompt and answer fill where that is more."""
    if request.input_tokens is None and request.output_tokens is None:
        return default_context(model)
    filled = (request.input_tokens or 0) + (request.output_tokens or 0)
    return max(default_context(model), filled + (0 if request.input_tokens and request.output_tokens else 1))


def fills_context(request: Request) -> bool:
    """Whether a prompt whose length nobody said fills the context."""
    return request.context_tokens is not None if request.fills_context is None else request.fills_context


def _usual_tokens(request: Request) -> int | None:
    """How long the sequences are where prompt and answer are said; None where each may fill the context."""
    if request.input_tokens is None or request.output_tokens is None:
        return None
    return request.input_tokens + request.output_tokens


def default_context(model: ResolvedModel) -> int:
    """The context planned for when none is asked: the catalogue's, else 8K, never beyond the model's own limit."""
    wanted = model.default_context_tokens or DEFAULT_CONTEXT_TOKENS
    return min(wanted, model.context_limit_tokens or wanted)


def _stated_billions(model: ResolvedModel) -> float:
    """The size that people say: the `8` of `llama-3.1-8b`, where it is the exact count rounded; else the exact count.

    The specification's formula is about the size in a model's name: 35.0 GB for 70B in INT4, not 35.3.
    """
    exact = (model.parameters or 0) / 1e9
    said = [float(number) for number in _SIZE_IN_NAME.findall(model.id.lower())]
    return next((size for size in said if abs(size - exact) <= ROUNDED_BY_AT_MOST * exact), exact)


_SIZE_IN_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)b(?![a-z0-9])")
ROUNDED_BY_AT_MOST = 0.1
"""Mistral 7B has 7.25 billion parameters; a `17b-16e` names one expert's share, not the model."""

_STATED = {"fp4": "int4", "int4": "int4", "fp8": "int8", "int8": "int8"}


def stated_quantization(model: ResolvedModel) -> str:
    """The word of the specification's list that comes nearest to how the model is stored."""
    if model.quantization.dtype == "float32" and model.quantization.compute == "bf16":
        return "fp32"
    return _STATED.get(model.quantization.compute, "fp16")
