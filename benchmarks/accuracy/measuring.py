"""Each answer held against each published figure: one `Measure` a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
from benchmarks.accuracy import asking, llama_cpp
from benchmarks.accuracy.answers import Answer, by_rule_of_thumb, by_soong
from benchmarks.accuracy.cases import GIB, ClassCase, ClassPool, Log, Models, class_cases, config_facts, logs

from soong.errors import SoongError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from soong.plan.plan import Plan

SOONG, RULE_OF_THUMB = "soong", "rule of thumb"

QUANTITIES = {
    "weights": "weights",
    "kv_bytes_per_token": "KV bytes per token",
    "tokens_of_pool": "tokens of a pool of the printed size",
    "tokens": "tokens of the launch",
    "tokens_stated": "the same, version and fraction stated",
    "tokens_elsewhere": "the same, outside the fitted sweep",
    "pool": "KV pool of the launch",
    "states": "recurrent states",
    "outside": "weights, activations and graphs",
    "total": "total: with the pool",
    "activations": "activation peak",
    "graphs": "CUDA graphs",
}
"""What is compared, in the words of the table."""


NOT_SAID = "not said"


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One predicted figure beside the published one. The labels are for grouping."""

    case: str
    by: str
    quantity: str
    predicted: float
    published: float
    engine: str
    family: str
    format: str
    tensor_parallel: int
    gpu: str

    @property
    def error(self) -> float:
        """Relative, with its sign: 0.01 is one percent too much."""
        return self.predicted / self.published - 1


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of a start-up, and what became of it (ok, oom)."""

    case: str
    by: str
    engine: str
    said: str
    outcome: str


class Results(msgspec.Struct, kw_only=True):
    """All that was compared, and what could not be."""

    measures: list[Measure] = []
    verdicts: list[Verdict] = []
    errors: dict[str, str] = {}
    within_uncertainty: list[bool] = []


def published(log: Log) -> dict[str, float]:
    """The figures of a start-up that an estimator can be held against, in bytes and tokens."""
    if log.unscored:
        return {}
    facts = config_facts().get(log.repository.lower())
    found: dict[str, float | None] = {}
    if facts is None or not facts.format_inferred:
        found["weights"] = _bytes(log.weights_gib)
    if log.pool_gib and log.tokens:
        found["kv_bytes_per_token"] = log.pool_gib * GIB / log.tokens
        found["tokens_of_pool"] = log.tokens
    if log.on_a_known_gpu:
        outside = _outside(log)
        found |= {"tokens": log.tokens, "pool": _bytes(log.pool_gib), "outside": outside}
        if log.states_version_and_fraction:
            found["tokens_stated"] = log.tokens
            found["tokens_elsewhere"] = None if log.of_the_sweep else log.tokens
        found["total"] = outside + log.pool_gib * GIB if outside and log.pool_gib else None
        found |= {"activations": _bytes(log.activations_gib), "graphs": _bytes(log.graphs_gib)}
    return {key: value for key, value in found.items() if value is not None and value > 0}


def _bytes(gib: float | None) -> float | None:
    return None if gib is None else gib * GIB


def _outside(log: Log) -> float | None:
    if log.weights_gib is None or log.activations_gib is None:
        return None
    return (log.weights_gib + log.activations_gib + max(log.graphs_gib or 0, 0)) * GIB


def said(answer: Answer) -> dict[str, float | None]:
    """The same figures as an estimator gives them."""
    return {
        "weights": answer.weights_bytes,
        "kv_bytes_per_token": answer.kv_bytes_per_token,
        "tokens_of_pool": answer.tokens_of_pool,
        "tokens": answer.tokens,
        "tokens_stated": answer.tokens,
        "tokens_elsewhere": answer.tokens,
        "pool": answer.pool_bytes,
        "outside": answer.outside_bytes,
        "total": answer.total_bytes,
        "activations": answer.activations_bytes,
        "graphs": answer.graphs_bytes,
    }


def measure_logs(
    models: Models, *, engine: str | None = None, peers: Mapping[str, Mapping[str, Answer]] | None = None
) -> Results:
    """Every published start-up against everyone.

    Args:
        models: where the models of the cases stand.
        engine: only this engine's.
        peers: other estimators' answers, by their name and the case's id.
    """
    results = Results()
    for log in logs():
        if engine in {None, log.engine}:
            ours, plan = by_soong(log, models)
            if plan is None:
                results.errors[log.id] = ours.error
                continue
            answers = {SOONG: ours, RULE_OF_THUMB: by_rule_of_thumb(log, plan)}
            answers |= {name: given[log.id] for name, given in (peers or {}).items() if log.id in given}
            _compare(log, plan, answers, results)
    return results


def _compare(log: Log, plan: Plan, answers: Mapping[str, Answer], results: Results) -> None:
    figures = published(log)
    for name, answer in answers.items():
        results.measures.extend(_measures(log, plan, name, answer, figures))
        if log.outcome and log.on_a_known_gpu and not log.unscored and answer.verdict:
            results.verdicts.append(
                Verdict(case=log.id, by=name, engine=log.engine, said=answer.verdict, outcome=log.outcome)
            )
    ours = answers[SOONG]
    if "pool" in figures and ours.pool_bytes is not None and ours.pool_uncertainty_bytes:
        results.within_uncertainty.append(
            abs(ours.pool_bytes - figures["pool"]) <= ours.pool_uncertainty_bytes
        )


def _measures(
    log: Log, plan: Plan, name: str, answer: Answer, figures: Mapping[str, float]
) -> Iterator[Measure]:
    for quantity, predicted in said(answer).items():
        if predicted is not None and quantity in figures:
            yield Measure(
                case=log.id,
                by=name,
                quantity=quantity,
                predicted=predicted,
                published=figures[quantity],
                engine=log.engine,
                family=family_of(plan),
                format=plan.model.quantization_label,
                tensor_parallel=log.tensor_parallel,
                gpu=plan.candidates[0].gpu.id if log.gpu else NOT_SAID,
            )


def family_of(plan: Plan) -> str:
    """The model type as its config.json names it."""
    config = plan.model.config or {}
    return str(config.get("model_type") or "unknown")


CLASSES = "vLLM's own classes"
BUFFERS = "llama.cpp's own buffers"
ASKED = frozenset({CLASSES, BUFFERS})
"""Engines that were asked here, not logs that others published."""

ANY_POOL = ClassPool(
    context=8192, pool_bytes=10 * GIB, max_num_batched_tokens=8192, max_num_seqs=1024, kv_dtype="auto"
)
"""For models of which only the weights were asked."""


def measure_classes(models: Models) -> Results:
    """Our figures against what vLLM's own model classes compute: weights of one rank, tokens of pools of known size."""
    results = Results()
    for case in class_cases():
        try:
            plans = [asking.of_classes(case, pool, models) for pool in case.pools or (ANY_POOL,)]
        except SoongError as error:
            results.errors[case.model] = str(error)
            continue
        results.measures.extend(_class_measures(case, plans))
        results.verdicts.extend(_class_verdicts(case, plans))
    return results


def _class_measures(case: ClassCase, plans: list[Plan]) -> Iterator[Measure]:
    footprint = plans[0].candidates[0].footprint
    pairs: list[tuple[str, float, float]] = []
    if footprint is not None:
        pairs.append(("weights", footprint.tensor_bytes, case.weights_bytes))
    for pool, plan in zip(case.pools, plans, strict=False):
        held = plan.candidates[0].footprint
        if pool.tokens and held is not None:
            pairs.append(("tokens_of_pool", held.kv_pool_tokens or 0, pool.tokens))
    for quantity, predicted, figure in pairs:
        yield Measure(
            case=f"{case.model} TP {case.tensor_parallel}",
            by=SOONG,
            quantity=quantity,
            predicted=predicted,
            published=figure,
            engine=CLASSES,
            family=family_of(plans[0]),
            format=plans[0].model.quantization_label,
            tensor_parallel=case.tensor_parallel,
            gpu=plans[0].candidates[0].gpu.id,
        )


def _class_verdicts(case: ClassCase, plans: list[Plan]) -> Iterator[Verdict]:
    for pool, plan in zip(case.pools, plans, strict=False):
        footprint = plan.candidates[0].footprint
        if footprint is not None:
            yield Verdict(
                case=f"{case.model} TP {case.tensor_parallel} {pool.context} {pool.pool_bytes}",
                by=SOONG,
                engine=CLASSES,
                said="starts" if footprint.max_sequences or not footprint.refusal else "refuses",
                outcome="refuses" if pool.refused else "starts",
            )


def measure_buffers(folder: Path) -> Results:
    """Our figures against the buffers that the real llama.cpp printed; files are written into `folder`."""
    measures = [
        Measure(
            case=case, by=SOONG, quantity=quantity, predicted=size_bytes, published=mib * llama_cpp.MIB,
            engine=BUFFERS, family=architecture, format="GGUF", tensor_parallel=1, gpu=NOT_SAID,
        )
        for case, architecture, quantity, size_bytes, mib in llama_cpp.buffers(folder)
        if mib
    ]  # fmt: skip
    return Results(measures=measures)


Kind = TypeVar("Kind", Measure, Verdict)


def of(found: Iterable[Kind], **wanted: object) -> list[Kind]:
    """Those whose fields have these values."""
    return [one for one in found if all(getattr(one, key) == value for key, value in wanted.items())]
