"""One estimator's answer to one case, in the same few figures for everyone: soong, the rule of thumb, the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from benchmarks.accuracy import asking
from benchmarks.accuracy.cases import GIB, Log, Models

from soong.errors import SoongError
from soong.plan.verdict import judge_by_rule_of_thumb

if TYPE_CHECKING:
    from soong.plan.plan import Candidate, Plan


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an estimator says of one start-up, per GPU; None for what it does not say.

    kv_bytes_per_token: what the engine's pool loses for each token it prints.
    tokens_of_pool: tokens of a pool of the printed size. tokens: of the launch, pool predicted too.
    outside_bytes: weights, activations and graphs together. total_bytes: with the pool.
    pool_uncertainty_bytes: how far the estimator itself says its pool may be off.
    error: why there is no answer.
    """

    weights_bytes: int | None = None
    kv_bytes_per_token: float | None = None
    tokens_of_pool: int | None = None
    tokens: int | None = None
    pool_bytes: int | None = None
    activations_bytes: int | None = None
    graphs_bytes: int | None = None
    outside_bytes: int | None = None
    total_bytes: int | None = None
    pool_uncertainty_bytes: int | None = None
    verdict: str | None = None
    error: str = ""


def by_soong(log: Log, models: Models) -> tuple[Answer, Plan | None]:
    """Ours, and the plan behind it."""
    try:
        plan = asking.launch(log, models)
        given = asking.given_pool(log, models, round(log.pool_gib * GIB)) if log.pool_gib else None
    except SoongError as error:
        return Answer(error=str(error)), None
    return _of_candidate(plan.candidates[0], given.candidates[0] if given else None), plan


def _of_candidate(launched: Candidate, given: Candidate | None) -> Answer:
    footprint = launched.footprint
    if footprint is None:
        return Answer(verdict=launched.verdict)
    held = given.footprint if given else None
    tokens = held.kv_pool_tokens if held else None
    pool = footprint.kv_pool_bytes + footprint.state_bytes
    outside = footprint.loaded_bytes + footprint.activations_bytes + footprint.cuda_graphs_bytes
    return Answer(
        weights_bytes=footprint.loaded_bytes,
        kv_bytes_per_token=held.kv_pool_bytes / tokens if held and tokens else None,
        tokens_of_pool=tokens,
        tokens=footprint.kv_pool_tokens,
        pool_bytes=pool,
        activations_bytes=footprint.activations_bytes,
        graphs_bytes=footprint.cuda_graphs_bytes,
        outside_bytes=outside,
        total_bytes=outside + pool,
        pool_uncertainty_bytes=footprint.pool_uncertainty_bytes,
        verdict=launched.verdict,
    )


def by_rule_of_thumb(log: Log, plan: Plan) -> Answer:
    """Parameters × bytes, context / 2048, a tenth for activations, 2 GB: the formula that calculators share."""
    estimate, gpus = plan.rule_of_thumb, log.tensor_parallel * log.pipeline_parallel
    per_token = estimate.kv_cache_gb * 1e9 / plan.workload.context_tokens / gpus
    outside = (
        (estimate.total_gb - estimate.kv_cache_gb) * 1e9 / gpus
    )  # its 2 GB stand for all that is unnamed
    verdict, _ = judge_by_rule_of_thumb(estimate, plan.candidates[0].gpu, gpus)
    return Answer(
        weights_bytes=round(estimate.weights_gb * 1e9 / gpus),
        kv_bytes_per_token=per_token,
        tokens_of_pool=round(log.pool_gib * GIB / per_token) if log.pool_gib else None,
        activations_bytes=round(estimate.activations_gb * 1e9 / gpus),
        outside_bytes=round(outside),
        verdict=verdict,
    )
