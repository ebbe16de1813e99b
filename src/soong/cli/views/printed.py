"""What the engine itself will print at its start, for a person to hold the plan against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.memory.footprint import Footprint
    from soong.plan.plan import Candidate, Plan

MIB = 1 << 20


def printed_line(plan: Plan, candidate: Candidate) -> str:
    """One line in the words and units of the engine's log; empty for what does not start."""
    footprint = candidate.footprint
    if footprint is None or not footprint.starts or not footprint.loaded_bytes:
        return ""
    words = {"vllm": _of_vllm, "sglang": _of_sglang, "llama.cpp": _of_llama_cpp}[plan.settings.name]
    each = " on each GPU" if candidate.tensor_parallel > 1 else ""
    return f"{plan.settings.name} will print{each}: {', '.join(words(footprint, plan))}"


def _of_vllm(footprint: Footprint, plan: Plan) -> Iterator[str]:
    yield f"model {footprint.loaded_bytes / GIB:.2f} GiB"
    if footprint.kv_pool_tokens:
        pool = (footprint.kv_pool_bytes + footprint.state_bytes) / GIB
        yield f"KV cache {pool:.2f} GiB, {footprint.kv_pool_tokens:,} tokens"
        if footprint.max_concurrency:
            yield f"{footprint.max_concurrency:.2f}x of {plan.workload.context_tokens:,}"
    if footprint.cuda_graphs_bytes:
        yield f"graphs about {footprint.cuda_graphs_bytes / GIB:.2f} GiB"


def _of_sglang(footprint: Footprint, _plan: Plan) -> Iterator[str]:
    yield f"weights {footprint.loaded_bytes / GIB:.2f} GB"
    if footprint.kv_pool_tokens:
        yield f"max_total_num_tokens={footprint.kv_pool_tokens}"
    if footprint.cuda_graphs_bytes:
        yield f"graphs about {footprint.cuda_graphs_bytes / GIB:.2f} GB"


def _of_llama_cpp(footprint: Footprint, _plan: Plan) -> Iterator[str]:
    yield f"model buffer {footprint.loaded_bytes / MIB:,.2f} MiB"
    if footprint.kv_pool_bytes:
        yield f"KV buffer {footprint.kv_pool_bytes / MIB:,.2f} MiB"
    if footprint.state_bytes:
        yield f"RS buffer {footprint.state_bytes / MIB:,.2f} MiB"
    yield f"compute buffer {footprint.activations_bytes / MIB:,.2f} MiB"
