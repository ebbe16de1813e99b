"""What soong says of a published case: the same question that a user of `soong plan` would ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.cases import GIB, ClassCase, ClassPool, Log, Models

from soong.memory import engines
from soong.plan.candidates import served_model, settings_for
from soong.plan.planner import make_plan
from soong.plan.request import read_request

if TYPE_CHECKING:
    from soong.plan.plan import Plan

FLAGS = {
    "gpu_memory_utilization": "memory_fraction",
    "mem_fraction_static": "memory_fraction",
    "max_model_len": "context",
    "max_seq_len": "context",
    "context_length": "context",
    "max_num_seqs": "max_num_seqs",
    "max_running_requests": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "chunked_prefill_size": "max_num_batched_tokens",
    "enforce_eager": "enforce_eager",
    "disable_cuda_graph": "enforce_eager",
    "kv_cache_dtype": "kv_dtype",
    "enable_expert_parallel": "expert_parallel",
    "language_model_only": "text_only",
}
"""An engine's flag to the option of `soong plan` that means the same."""

UNKNOWN_GPU_BYTES = 80 * GIB
"""For figures that do not depend on the GPU, where the source does not say on which it ran."""


def options_of(log: Log, models: Models) -> dict[str, Any]:
    """The request that asks for this start-up."""
    options: dict[str, Any] = {
        "model": models.name(log.repository),
        "engine": log.engine,
        "engine_version": log.engine_version,
        "quantization": log.quantization,
        "tensor_parallel": log.tensor_parallel,
        "pipeline_parallel": log.pipeline_parallel,
        "gpu": log.gpu or "unknown",
        "gpu_memory": _gpu_bytes(log),
        "context": log.concurrency.context_length if log.concurrency else None,
    }
    options.update(
        {FLAGS[flag]: value for flag, value in log.flags.items() if flag in FLAGS and _says(value)}
    )
    return options


def _says(value: object) -> bool:
    """Whether a flag's value chooses something: `auto` and -1 leave it to the engine."""
    return value not in {"auto", -1}


def _gpu_bytes(log: Log) -> int | None:
    if log.gpu_memory_gib is not None:
        return round(log.gpu_memory_gib * GIB)
    return None if log.gpu else UNKNOWN_GPU_BYTES


def launch(log: Log, models: Models) -> Plan:
    """The plan of the launch as it was.

    Where no context is stated, vLLM takes the model's limit and starts only if its pool holds one such sequence. SGLang
    starts with any context, so there the planner's usual one is asked for.

    Raises:
        SoongError: soong cannot plan it.
    """
    options = options_of(log, models)
    plan = _plan(options)
    limit = plan.model.context_limit_tokens if log.engine == "vllm" else None
    if options["context"] is None and limit and limit != plan.workload.context_tokens:
        options["context"] = limit
        plan = _plan(options)
    default = None if options.get("memory_fraction") else _default_fraction(plan)
    return plan if default is None else _plan({**options, "memory_fraction": default})


def _default_fraction(plan: Plan) -> float | None:
    """The engine's own fraction, where the planner would advise another; the launch as it was took the engine's."""
    candidate, served = plan.candidates[0], served_model(plan.model)
    footprint = candidate.footprint
    if served is None or footprint is None:
        return None
    settings = settings_for(
        plan.request, plan.model, candidate.tensor_parallel, expert_parallel=candidate.expert_parallel
    )
    default = engines.footprint(served, candidate.gpu, plan.workload, settings).memory_fraction
    return default if default != footprint.memory_fraction else None


def given_pool(log: Log, models: Models, pool_bytes: int) -> Plan:
    """The plan with the pool that the engine printed.

    Raises:
        SoongError: soong cannot plan it.
    """
    return _plan({**options_of(log, models), "kv_cache_memory": pool_bytes, "memory_fraction": None})


def of_classes(case: ClassCase, pool: ClassPool, models: Models) -> Plan:
    """The plan that answers what vLLM's own classes were asked.

    Raises:
        SoongError: soong cannot plan it.
    """
    return _plan(
        {
            "model": models.name(case.model),
            "engine": "vllm",
            "engine_version": "0.32.0",
            "gpu": "h100-80gb-sxm5",
            "tensor_parallel": case.tensor_parallel,
            "context": pool.context,
            "kv_cache_memory": pool.pool_bytes,
            "max_num_batched_tokens": pool.max_num_batched_tokens,
            "max_num_seqs": pool.max_num_seqs,
            "kv_dtype": pool.kv_dtype,
        }
    )


def _plan(options: dict[str, Any]) -> Plan:
    return make_plan(read_request(options), allow_network=False)
