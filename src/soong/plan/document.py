"""A plan as JSON: `soong.plan/1`. Stable names with their units; a figure that is not known is null, never left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong.models.answers import writes_text
from soong.offers.freshness import age_days, is_stale
from soong.speed.prepared import first_token_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.memory.footprint import Footprint
    from soong.models.resolve import ResolvedModel
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate, Plan
    from soong.plan.quality import Loss
    from soong.plan.request import Request
    from soong.plan.searching import Alternative
    from soong.speed.throughput import Throughput

SCHEMA = "soong.plan/1"

_NO_FOOTPRINT = {
    "total_bytes": None,
    "runtime_bytes": None,
    "weights_bytes": None,
    "kv_pool_bytes": None,
    "state_bytes": None,
    "activations_bytes": None,
    "cuda_graphs_bytes": None,
    "free_bytes": None,
}
_NO_THROUGHPUT = {
    "prefill_tokens_per_second": None,
    "decode_tokens_per_second_per_user": None,
    "decode_tokens_per_second": None,
    "time_to_first_token_seconds": None,
    "sequences": None,
    "input_tokens": None,
    "output_tokens": None,
    "requests": None,
    "burst_seconds": None,
    "low_factor": None,
    "high_factor": None,
    "bound": None,
    "basis": None,
}


def plan_document(plan: Plan, alternatives: Sequence[Alternative] | None = None) -> dict[str, Any]:
    """The plan as plain values, and structs that become the same JSON, in the order of the contract.

    Args:
        plan: the answer. alternatives: what a search found; None where none was made.
    """
    return {
        "schema": SCHEMA,
        "model": _model(plan.model),
        "workload": {
            "context_tokens": plan.workload.context_tokens,
            "sequences": plan.workload.sequences,
            "tokens_each": plan.workload.tokens_each,
            "kv_dtype": plan.workload.kv_dtype,
        },
        "engine": {
            "name": plan.settings.name,
            "version": plan.settings.version,
            "memory_fraction": _memory_fraction(plan),
            "text_only": plan.settings.text_only,
        },
        "rule_of_thumb": {
            "weights_gb": plan.rule_of_thumb.weights_gb,
            "kv_cache_gb": plan.rule_of_thumb.kv_cache_gb,
            "overhead_gb": plan.rule_of_thumb.overhead_gb,
            "activations_gb": plan.rule_of_thumb.activations_gb,
            "total_gb": plan.rule_of_thumb.total_gb,
            "with_headroom_gb": plan.rule_of_thumb.with_headroom_gb,
        },
        "candidates": [_candidate(candidate, plan.request, plan.job_tokens) for candidate in plan.candidates],
        "choice": plan.choice,
        "front": plan.front,
        "rank": plan.request.rank,
        "load": _load(plan),
        "left_out": plan.left_out,
        "alternatives": None if alternatives is None else [_alternative(one) for one in alternatives],
    }


def _model(model: ResolvedModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "source": model.source,
        "architecture": model.architecture.name if model.architecture else None,
        "writes_text": writes_text(model.architecture) if model.architecture else None,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "quantization": model.quantization_label,
        "context_limit_tokens": model.context_limit_tokens,
        "weights_bytes": model.weights_bytes,
        "weights_basis": model.weights_basis,
    }


def _memory_fraction(plan: Plan) -> float | None:
    """The fraction asked for, else the one of the chosen or first candidate: it depends on the GPU."""
    if plan.settings.memory_fraction is not None:
        return plan.settings.memory_fraction
    candidate = plan.chosen or (plan.candidates[0] if plan.candidates else None)
    return candidate.footprint.memory_fraction if candidate and candidate.footprint else None


def _first_token_range(plan: Plan) -> tuple[float, float] | None:
    """Of the shown load; null where each candidate has a batch of its own."""
    return None if plan.request.searches_batch else first_token_range(plan.settings.name, plan.load)


def _load(plan: Plan) -> dict[str, Any]:
    """What the speeds are for; `sequences` is null where each candidate has its own."""
    load = plan.load
    return {
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "sequences": None if plan.request.searches_batch else load.sequences,
        "requests": load.requests or None,
        "lengths": load.lengths if load.requests else None,
        "target_tokens_per_second_per_user": plan.request.target_tokens_per_second,
        "first_token_factors": _first_token_range(plan),
    }


def _candidate(candidate: Candidate, request: Request, job_tokens: int | None) -> dict[str, Any]:
    footprint, speed = candidate.footprint, candidate.throughput
    return {
        "gpu": candidate.gpu.id,
        "gpu_count": candidate.gpu_count,
        "tensor_parallel": candidate.tensor_parallel,
        "pipeline_parallel": request.pipeline_parallel,
        "expert_parallel": candidate.expert_parallel,
        "verdict": candidate.verdict,
        "reasons": candidate.reasons,
        "per_gpu": _per_gpu(footprint) if footprint else _NO_FOOTPRINT,
        "tensor_bytes_per_gpu": footprint.tensor_bytes if footprint else None,
        "loaded_bytes_per_gpu": footprint.loaded_bytes if footprint else None,
        "kv_bytes_per_token": footprint.kv_bytes_per_token if footprint else None,
        "state_bytes_per_sequence": footprint.state_bytes_per_sequence if footprint else None,
        "kv_pool_tokens": footprint.kv_pool_tokens if footprint else None,
        "max_concurrency": footprint.max_concurrency if footprint else None,
        "max_context_tokens": footprint.max_context_tokens if footprint else None,
        "max_sequences": footprint.max_sequences if footprint else None,
        "workload_kv_bytes": footprint.workload_kv_bytes if footprint else None,
        "need_bytes": footprint.need_bytes if footprint else None,
        "uncertainty_bytes": footprint.uncertainty_bytes if footprint else None,
        "pool_uncertainty_bytes": footprint.pool_uncertainty_bytes if footprint else None,
        "throughput": _throughput(speed) if speed else _reading(candidate.reading),
        "offer": _offer_of(candidate.offer) if candidate.offer else None,
        "usd_per_million_output_tokens": candidate.usd_per_million_output_tokens,
        "meets_target": candidate.meets_target,
        "job": _job(candidate, request, job_tokens) if job_tokens else None,
        "engine_argv": candidate.engine_argv,
    }


def _throughput(speed: Throughput) -> dict[str, Any]:
    load = speed.load
    return {
        "prefill_tokens_per_second": speed.prefill_tokens_per_second,
        "decode_tokens_per_second_per_user": speed.decode_tokens_per_second_per_user,
        "decode_tokens_per_second": speed.decode_tokens_per_second,
        "time_to_first_token_seconds": speed.time_to_first_token_seconds,
        "sequences": load.sequences,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "requests": load.requests or None,
        "burst_seconds": speed.burst_seconds,
        "low_factor": speed.low_factor,
        "high_factor": speed.high_factor,
        "bound": speed.bound,
        "basis": speed.basis,
    }


def _reading(speed: Throughput | None) -> dict[str, Any]:
    """Of a model that writes no tokens: how fast it reads them; all null where nothing is known."""
    if speed is None:
        return _NO_THROUGHPUT
    known = ("prefill_tokens_per_second", "low_factor", "high_factor", "basis")
    return {
        **_NO_THROUGHPUT,
        **{name: getattr(speed, name) for name in known},
        "sequences": speed.load.sequences,
        "input_tokens": speed.load.input_tokens,
    }


def _alternative(one: Alternative) -> dict[str, Any]:
    return {
        "as_asked": one.as_asked,
        "quantization": one.label,
        "repository": one.repository,
        "kv_dtype": one.request.kv_dtype,
        "context_tokens": one.context_tokens,
        "words": one.words,
        "weights_loss": _loss(one.weights_loss),
        "kv_cache_loss": _loss(one.kv_cache_loss),
        "candidate": _candidate(one.candidate, one.request, one.job_tokens),
    }


def _loss(loss: Loss | None) -> dict[str, Any] | None:
    """What a format costs in quality; null where no published figure is known."""
    if loss is None:
        return None
    return {
        "least_percent": loss.least_percent,
        "most_percent": loss.most_percent,
        "measure": loss.measure,
        "source": loss.source,
        "as_of": loss.as_of,
    }


def _job(candidate: Candidate, request: Request, job_tokens: int) -> dict[str, Any]:
    """How long so many output tokens take at that speed, and what that costs."""
    hours, offer = candidate.hours_of_job(request), candidate.offer
    return {
        "output_tokens": job_tokens,
        "hours": hours,
        "usd": None if hours is None or offer is None else hours * offer.usd_per_hour,
    }


def _per_gpu(footprint: Footprint) -> dict[str, int]:
    return {
        "total_bytes": footprint.total_bytes,
        "runtime_bytes": footprint.runtime_bytes,
        "weights_bytes": footprint.weights_bytes,
        "kv_pool_bytes": footprint.kv_pool_bytes,
        "state_bytes": footprint.state_bytes,
        "activations_bytes": footprint.activations_bytes,
        "cuda_graphs_bytes": footprint.cuda_graphs_bytes,
        "free_bytes": footprint.free_bytes,
    }


def _offer_of(offer: Offer) -> dict[str, Any]:
    """As `_offer`; remembered, since thousands of plans name the same ones."""
    found = _offers.get(id(offer))
    if found is None or found[0] is not offer:
        if len(_offers) >= MOST_KEPT:
            _offers.clear()
        found = _offers[id(offer)] = (offer, _offer(offer))
    return found[1]


MOST_KEPT = 4096
_offers: dict[int, tuple[Offer, dict[str, Any]]] = {}


def _offer(offer: Offer) -> dict[str, Any]:
    return {
        "cloud": offer.cloud,
        "instance_type": offer.instance_type,
        "region": offer.region,
        "usd_per_hour": offer.usd_per_hour,
        "as_of": offer.as_of,
        "age_days": age_days(offer),
        "stale": is_stale(offer),
        "live": offer.live,
        "available": offer.available,
        "spot": offer.spot,
        "launchable": offer.launchable,
    }
