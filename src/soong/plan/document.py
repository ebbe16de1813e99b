"""A plan as JSON: `soong.plan/1`. Stable names with their units; a figure that is not known is null, never left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soong.memory.footprint import Footprint
    from soong.models.resolve import ResolvedModel
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate, Plan

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
}


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as plain values in the order of the contract."""
    return {
        "schema": SCHEMA,
        "model": _model(plan.model),
        "workload": {
            "context_tokens": plan.workload.context_tokens,
            "sequences": plan.workload.sequences,
            "kv_dtype": plan.workload.kv_dtype,
        },
        "engine": {
            "name": plan.settings.name,
            "version": plan.settings.version,
            "memory_fraction": _memory_fraction(plan),
        },
        "rule_of_thumb": {
            "weights_gb": plan.rule_of_thumb.weights_gb,
            "kv_cache_gb": plan.rule_of_thumb.kv_cache_gb,
            "overhead_gb": plan.rule_of_thumb.overhead_gb,
            "activations_gb": plan.rule_of_thumb.activations_gb,
            "total_gb": plan.rule_of_thumb.total_gb,
            "with_headroom_gb": plan.rule_of_thumb.with_headroom_gb,
        },
        "candidates": [_candidate(candidate) for candidate in plan.candidates],
        "choice": plan.choice,
        "left_out": [{"gpu": left.gpu, "reason": left.reason} for left in plan.left_out],
    }


def _model(model: ResolvedModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "source": model.source,
        "architecture": model.architecture.name if model.architecture else None,
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


def _candidate(candidate: Candidate) -> dict[str, Any]:
    footprint = candidate.footprint
    return {
        "gpu": candidate.gpu.id,
        "gpu_count": candidate.gpu_count,
        "tensor_parallel": candidate.tensor_parallel,
        "verdict": candidate.verdict,
        "reasons": candidate.reasons,
        "per_gpu": _per_gpu(footprint) if footprint else _NO_FOOTPRINT,
        "tensor_bytes_per_gpu": footprint.tensor_bytes if footprint else None,
        "loaded_bytes_per_gpu": footprint.loaded_bytes if footprint else None,
        "kv_bytes_per_token": footprint.kv_bytes_per_token if footprint else None,
        "state_bytes_per_sequence": footprint.state_bytes_per_sequence if footprint else None,
        "kv_pool_tokens": footprint.kv_pool_tokens if footprint else None,
        "max_context_tokens": footprint.max_context_tokens if footprint else None,
        "max_sequences": footprint.max_sequences if footprint else None,
        "uncertainty_bytes": footprint.uncertainty_bytes if footprint else None,
        "throughput": _NO_THROUGHPUT,
        "offer": _offer(candidate.offer) if candidate.offer else None,
        "usd_per_million_output_tokens": None,
        "engine_argv": candidate.engine_argv,
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


def _offer(offer: Offer) -> dict[str, Any]:
    return {
        "cloud": offer.cloud,
        "instance_type": offer.instance_type,
        "region": offer.region,
        "usd_per_hour": offer.usd_per_hour,
        "as_of": offer.as_of,
        "live": offer.live,
        "available": offer.available,
    }
