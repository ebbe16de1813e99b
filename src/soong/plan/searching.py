"""The same model run otherwise: other formats, KV types, contexts and GPU counts, and what each costs in quality.

A plan takes what it was asked for. This searches around it, and keeps what no other choice beats in cost, quality and
context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.model import SIXTEEN_BIT
from soong.plan.candidates import ENGINE_OF_GGUF
from soong.plan.cheaper import FormatOf, catalogue_model, in_format, namesakes, repositories
from soong.plan.planner import default_context, make_plan, question_of
from soong.plan.quality import NOTHING_LOST, Loss, kv_cache_loss, weights_loss
from soong.plan.ranking import rank_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from soong.offers.offer import Offer
    from soong.plan.candidates import Question
    from soong.plan.cheaper import Found
    from soong.plan.plan import Candidate, Plan
    from soong.plan.request import Request

LEAST_CONTEXT_TOKENS = 2048
GPU_COUNTS = (1, 2, 4, 8)
MOST_ALTERNATIVES = 12


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the model.

    Attributes:
        request: what to ask the planner for it. label: the format for people: `INT4 (AWQ)`.
        repository: what is served. candidate: the machine that would be recommended.
        weights_loss, kv_cache_loss: what each costs in quality; None where nobody is known to have measured it.
        as_asked: the plan's own answer, for comparison. is_usual_context: the model's context where none is said.
    """

    request: Request
    label: str
    repository: str
    context_tokens: int
    candidate: Candidate
    weights_loss: Loss | None
    kv_cache_loss: Loss | None
    as_asked: bool = False
    is_usual_context: bool = False

    @property
    def usd_per_hour(self) -> float:
        """Of the machine."""
        return self.candidate.offer.usd_per_hour if self.candidate.offer else float("inf")

    @property
    def expected_loss_percent(self) -> float | None:
        """Of weights and cache together; None where either is not known."""
        if self.weights_loss is None or self.kv_cache_loss is None:
            return None
        return self.weights_loss.expected_percent + self.kv_cache_loss.expected_percent

    @property
    def job_tokens(self) -> int | None:
        """The output tokens of the job that is asked for; None where none is, or the speed is not known."""
        speed = self.candidate.throughput
        return self.request.job_of(speed.load) if speed else self.request.stated_job_tokens

    @property
    def words(self) -> tuple[str, ...]:
        """The model and the options of `soong plan` that ask for it."""
        request = self.request
        words: list[str] = [request.model]
        for name, value in (
            ("--quantization", request.quantization),
            ("--engine", request.engine),
            ("--engine-version", request.engine_version),
            ("--memory-fraction", request.memory_fraction),
            ("--kv-cache-memory", request.kv_cache_memory_bytes),
            ("--max-num-seqs", request.max_num_seqs),
            ("--max-num-batched-tokens", request.max_num_batched_tokens),
            ("--kv-dtype", None if request.kv_dtype == "auto" else request.kv_dtype),
            ("--context", self._context_to_say),
            ("--sequences", request.sequences),
            ("--gpu", request.gpu),
            ("--gpu-memory", request.gpu_memory_bytes),
            ("--gpu-count", request.gpu_count),
            ("--tensor-parallel", request.tensor_parallel),
            ("--pipeline-parallel", request.pipeline_parallel if request.pipeline_parallel > 1 else None),
            ("--cloud", request.cloud),
            ("--region", request.region),
            ("--max-price", request.max_usd_per_hour),
            ("--input-tokens", request.input_tokens or self._same_load("input_tokens")),
            ("--output-tokens", request.output_tokens or self._same_load("output_tokens")),
            ("--target", request.target_tokens_per_second),
            ("--rank", None if request.rank == "price" else request.rank),
            ("--job-tokens", request.job_tokens),
            ("--requests", request.requests),
            ("--lengths", None if request.lengths == "varied" else request.lengths),
        ):
            words += (
                [name, f"{value:.15g}" if isinstance(value, float) else str(value)]
                if value is not None
                else []
            )
        flags = (
            ("--spot", request.spot),
            ("--expert-parallel", request.expert_parallel),
            ("--enforce-eager", request.enforce_eager),
            ("--text-only", request.text_only),
        )
        return (*words, *(name for name, given in flags if given))

    def _same_load(self, length: str) -> int | None:
        """The load's length, where another context would have changed it."""
        speed = self.candidate.throughput
        if self.is_usual_context or self.request.fills_context is not False or speed is None:
            return None
        found: int = getattr(speed.load, length)
        return found

    @property
    def _context_to_say(self) -> int | None:
        """The context, where it is not what is planned for unasked: to say it makes the prompt fill it."""
        unasked = self.is_usual_context and self.request.fills_context is False
        return None if unasked else self.request.context_tokens


def alternatives(plan: Plan, *, offers: Sequence[Offer] | None = None) -> tuple[Alternative, ...]:
    """Every way to run the plan's model that no other beats in cost, quality and context; cheapest first.

    Args:
        plan: what was asked. offers: as for the planner.

    Returns:
        At most `MOST_ALTERNATIVES`, the plan's own answer among them where it has one.
    """
    found = [_own(plan)] if plan.chosen and plan.chosen.offer else []
    for request, form in _requests(plan):
        one = _planned(request, form, plan, offers)
        if one is not None:
            found.append(one)
    found.sort(key=lambda one: (rank_key(one.candidate, plan.request), not one.as_asked))
    best = [one for one in found if one.as_asked or not any(_beats(other, one, plan) for other in found)]
    return tuple(best[:MOST_ALTERNATIVES])


def _own(plan: Plan) -> Alternative:
    """The plan's own answer."""
    assert plan.chosen is not None  # noqa: S101 - the caller's condition
    return Alternative(
        request=plan.request,
        label=plan.model.quantization_label,
        repository=plan.model.serve_from,
        context_tokens=plan.workload.context_tokens,
        candidate=plan.chosen,
        weights_loss=_own_loss(plan),
        kv_cache_loss=kv_cache_loss(plan.workload.kv_dtype),
        as_asked=True,
    )


def best_of(found: Sequence[Found], plan: Plan) -> Alternative | None:
    """The cheapest of what was found, of those whose loss is known; of equals the one that loses least."""
    known = [
        _alternative(one.request, one.question, one.candidate, loss)
        for one in found
        if (loss := loss_of(one.form, plan)) is not None
    ]
    return min(known, key=lambda one: (one.usd_per_hour, one.expected_loss_percent or 0.0), default=None)


def loss_of(form: FormatOf, plan: Plan) -> Loss | None:
    """What a format loses; None where nobody is known to have measured it."""
    if form.of is None or form.row is None:
        return _own_loss(plan)
    return weights_loss(form.of, form.row)


def _own_loss(plan: Plan) -> Loss | None:
    """What the plan's own format loses: as its row of the catalogue says, else nothing if it is not quantized."""
    model = catalogue_model(plan)
    for row in (*model.formats, *model.gguf) if model else ():
        file = f"{row.repository}:{row.quantization}" == plan.model.gguf_from
        if model and (file or (row.repository == plan.model.serve_from and not plan.model.gguf_from)):
            return weights_loss(model, row)
    return NOTHING_LOST if plan.model.quantization_id in SIXTEEN_BIT else None


def _requests(plan: Plan) -> Iterator[tuple[Request, FormatOf]]:
    """Everything that is searched: formats × KV types × contexts × GPU counts."""
    for form in _formats(plan):
        base = in_format(plan.request, form, plan)
        for kv_dtype in _kv_dtypes(plan.request, form):
            for context in _contexts(plan):
                for count in _gpu_counts(plan.request):
                    yield (
                        msgspec.structs.replace(
                            base, kv_dtype=kv_dtype, context_tokens=context, gpu_count=count
                        ),
                        form,
                    )


def _formats(plan: Plan) -> Iterator[FormatOf]:
    """The plan's own format, then the others that the catalogue knows."""
    yield FormatOf(plan.request.model, plan.request.quantization, plan.request.engine)
    yield from _other_formats(plan)


def _other_formats(plan: Plan) -> Iterator[FormatOf]:
    """The catalogue's other formats of the model that the asked engine can load."""
    engine = plan.request.engine
    if engine != ENGINE_OF_GGUF:
        yield from repositories(plan)
    if engine in {None, ENGINE_OF_GGUF}:
        yield from _gguf_files(plan)


def _gguf_files(plan: Plan) -> Iterator[FormatOf]:
    """Files for llama.cpp."""
    seen = {plan.model.gguf_from.partition(":")[2]} if plan.settings.name == ENGINE_OF_GGUF else set()
    for model in namesakes(plan):
        for row in model.gguf:
            if row.quantization not in seen:
                seen.add(row.quantization)
                yield FormatOf(model.id, row.quantization, ENGINE_OF_GGUF, model, row)


def _kv_dtypes(request: Request, form: FormatOf) -> tuple[str, ...]:
    asked = request.kv_dtype
    return (asked,) if form.engine == ENGINE_OF_GGUF or asked.startswith("fp8") else (asked, "fp8")


def _contexts(plan: Plan) -> Iterable[int]:
    """The asked context, its half and its quarter, as far as they hold a prompt and an answer that were stated."""
    request, asked = plan.request, plan.workload.context_tokens
    stated = (request.input_tokens or 0) + (request.output_tokens or 0)
    least = max(LEAST_CONTEXT_TOKENS, stated + 1)
    return (asked, *(asked // part for part in (2, 4) if asked // part >= least))


def _gpu_counts(request: Request) -> tuple[int | None, ...]:
    """Offers bring their own counts; a GPU that is named by itself is tried in the usual ones."""
    named = request.gpu is not None and request.gpu_count is None and request.tensor_parallel is None
    return GPU_COUNTS if named else (request.gpu_count,)


def _planned(
    request: Request, form: FormatOf, asked: Plan, offers: Sequence[Offer] | None
) -> Alternative | None:
    """What the planner recommends for it; None where nothing with a price will do."""
    plan = make_plan(request, offers=offers, allow_network=False, first_fit_only=True)
    chosen = plan.chosen
    if chosen is None or chosen.offer is None or not chosen.engine_argv:
        return None
    return _alternative(request, question_of(request, plan.model), chosen, loss_of(form, asked))


def _alternative(
    request: Request, question: Question, candidate: Candidate, loss: Loss | None
) -> Alternative:
    return Alternative(
        request=request,
        label=question.model.quantization_label,
        repository=question.source_for(question.settings_of(1)),
        context_tokens=question.workload.context_tokens,
        candidate=candidate,
        weights_loss=loss,
        kv_cache_loss=kv_cache_loss(request.kv_dtype),
        is_usual_context=question.workload.context_tokens == default_context(question.model),
    )


def _beats(other: Alternative, one: Alternative, plan: Plan) -> bool:
    """Whether `other` is at least as good in cost, quality and context, and better in one of them.

    Where a loss is not known, only the same format with the same cache can be compared.
    """
    if other is one:
        return False
    mine, theirs = rank_key(one.candidate, plan.request)[0], rank_key(other.candidate, plan.request)[0]
    loss, other_loss = one.expected_loss_percent, other.expected_loss_percent
    if loss is None or other_loss is None:
        same = one.label == other.label and one.request.kv_dtype == other.request.kv_dtype
        loss = other_loss = 0.0
        if not same:
            return False
    if theirs > mine or other_loss > loss or other.context_tokens < one.context_tokens:
        return False
    better = theirs < mine or other_loss < loss or other.context_tokens > one.context_tokens
    return better or (other.as_asked and not one.as_asked)
