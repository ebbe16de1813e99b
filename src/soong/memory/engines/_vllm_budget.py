"""vLLM's memory that PyTorch does not hold, and how far the terms may be off.

The engine reads free memory when it starts and after its profile run (`v1/worker/gpu_worker.py`, `utils/mem_utils.py
memory_profiling`); what the driver and a group's communicators take before the first reading lies outside its budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from soong.memory.engines._constants import by_group_size

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.engines._facts import Facts
    from soong.memory.engines._vllm_encoder import EncoderRun
    from soong.memory.engines._vllm_graphs import Graphs
    from soong.memory.engines._vllm_profile import Activations

GIB = 1 << 30
HOPPER = (9, 0)


def nvlinked(gpu: Gpu) -> bool:
    """Whether a group talks over NVLink; assumed where nothing is known, since it takes more memory."""
    return not gpu.interconnect or "nvlink" in gpu.interconnect.lower()


def context_bytes(rules: dict[str, Any], gpu: Gpu, gpus: int, *, mixture: bool = False) -> int:
    """What a GPU has lost before the engine takes its first reading: driver context and, in a group, NCCL.

    A mixture's GPUs form an expert group beside the tensor-parallel one (`distributed/parallel_state.py
    initialize_model_parallel`), with buffers of its own.
    """
    if gpus == 1 or not nvlinked(gpu):
        return int(rules["driver_context_bytes"])
    group = by_group_size(rules["group_context_bytes"], gpus)
    experts = rules["expert_group_context_bytes"] if mixture else 0
    return int(rules["driver_context_bytes"] + group + experts)


def non_torch_bytes(rules: dict[str, Any], gpu: Gpu, gpus: int, *, graphs_profiled: bool = False) -> int:
    """What grows outside PyTorch in the profile run: workspaces, a group's communication buffers.

    Where the host shares the memory, what it takes meanwhile counts too.

    Args:
        rules: of the engine's version (`data/engines.toml` vllm.since).
        gpu: one of the GPUs.
        gpus: GPUs that share each layer.
        graphs_profiled: CUDA graphs are tried out before the second reading, so that what loads with them counts
            (0.18 to 0.26 `v1/worker/gpu_worker.py determine_available_memory`; later only the trial itself does).
    """
    shared = int(rules["unified_memory_non_torch_bytes"]) if gpu.unified_memory else 0
    tried = "graph_trial_" if graphs_profiled and rules["graphs_tried_before_reading"] else ""
    return shared + _own_non_torch_bytes(rules, gpu, gpus, tried)


def _own_non_torch_bytes(rules: dict[str, Any], gpu: Gpu, gpus: int, tried: str) -> int:
    table = rules[f"{tried}non_torch_bytes"]
    older = gpu.compute_capability is not None and gpu.compute_capability < HOPPER
    if gpus == 1:
        alone = by_group_size(table, 1)
        return (
            min(alone, int(rules[f"{tried}non_torch_of_cards_bytes"]))
            if older and not nvlinked(gpu)
            else alone
        )
    if not nvlinked(gpu):
        return int(rules["non_torch_without_nvlink_bytes"])
    if older:
        return min(by_group_size(table, gpus), int(rules["non_torch_older_nvlink_bytes"]))
    return by_group_size(table, gpus)


class Uncertainty(Struct, frozen=True, gc=False):
    """How far the pool may be off, and how far what stays free outside it may be; bytes."""

    pool_bytes: int
    free_bytes: int


class Parts(Struct, frozen=True, gc=False):
    """The terms of one launch that may be off.

    grouped: GPUs share each layer over NVLink. second_runner: the model runs in vLLM's newer runner.
    budgeted: the engine sizes the pool itself, from a budget. graphs_counted: which it gives graphs a part of.
    """

    facts: Facts
    gpu: Gpu
    activations: Activations
    encoder: EncoderRun
    graphs: Graphs
    runtime_bytes: int
    sequences: int
    grouped: bool
    second_runner: bool
    budgeted: bool
    graphs_counted: bool


def uncertainty(rules: dict[str, Any], shares: dict[str, float], parts: Parts) -> Uncertainty:
    """The error of the terms, each as measured (`data/engines.toml` vllm.uncertainty).

    The pool is what the terms leave of the budget, so their errors are its own, and cancel in what stays free. That
    is off by the graphs where the budget leaves them out, by the context, and by what the allocator cannot use again
    when the sampler warms up. A pool given in bytes leaves every error to the free part.
    """
    inside = _inside_error(rules, shares, parts)
    outside = _outside_error(rules, shares, parts)
    if not parts.budgeted:
        return Uncertainty(0, int(inside + outside))
    counted = _estimate_error(shares, parts.graphs) if parts.graphs_counted else 0
    return Uncertainty(int(inside + counted + _warm_up_error(rules, parts)), int(outside))


def _inside_error(rules: dict[str, Any], shares: dict[str, float], parts: Parts) -> float:
    """Of weights, activations and what is not PyTorch's; and of the driver's total."""
    facts = parts.facts
    error = (
        shares["activations_fraction"] * parts.activations.peak_bytes
        + shares["runtime_fraction"] * parts.runtime_bytes
        + shares["weights_fraction"] * facts.weights_bytes
        + _gpu_error(shares, parts.gpu)
        + _encoder_error(shares, parts)
    )
    if parts.gpu.unified_memory:
        error += shares["unified_memory_bytes"]
    if parts.grouped:
        error += rules["group_unread_bytes"]
    if parts.second_runner:
        error += rules["second_runner_unread_bytes"]
    if rules["sampler_may_be_fused"]:
        error += FUSED_SAVES_BYTES_PER_LOGIT * parts.sequences * facts.vocab_size
    return error


def _outside_error(rules: dict[str, Any], shares: dict[str, float], parts: Parts) -> float:
    """Of graphs and context, and what the allocator cannot use again."""
    copies: float = rules["sampler_bytes_per_logit"] * parts.sequences * parts.facts.vocab_size
    fragments = shares["fragments_fraction"] * copies
    context = _gpu_error(shares, parts.gpu) + shares["runtime_fraction"] * parts.runtime_bytes
    return context + fragments + _graph_error(rules, shares, parts.graphs) + _warm_up_error(rules, parts)


def _graph_error(rules: dict[str, Any], shares: dict[str, float], graphs: Graphs) -> float:
    if not graphs.total_bytes:
        return 0.0
    return shares["cuda_graphs_fraction"] * graphs.total_bytes + float(rules["graphs_unread_bytes"])


def _estimate_error(shares: dict[str, float], graphs: Graphs) -> float:
    """The engine takes from its budget what two captures of each kind foretell (`profile_cudagraph_memory`)."""
    taken = graphs.total_bytes
    return max(shares["cuda_graphs_fraction"] * taken, min(shares["graphs_estimate_bytes"], taken))


def _warm_up_error(rules: dict[str, Any], parts: Parts) -> int:
    """What the kernels of linear attention hold in some versions once they were tuned."""
    tuned = any(kind.state_kind in {"gdn", "kda", "kda-bounded"} for kind in parts.facts.kinds)
    return int(rules["recurrent_warm_up_bytes"]) if tuned else 0


def _gpu_error(shares: dict[str, float], gpu: Gpu) -> float:
    return shares["hopper_bytes" if gpu.compute_capability == HOPPER else "unseen_gpu_bytes"]


def _encoder_error(shares: dict[str, float], parts: Parts) -> float:
    if not parts.facts.multimodal:
        return 0.0
    if not parts.encoder.known:
        return shares["multimodal_bytes"]
    return shares["encoder_fraction"] * parts.encoder.peak_bytes


FUSED_SAVES_BYTES_PER_LOGIT = 24
"""38 bytes of a logit against 14: `[[vllm.since]]` sampler_bytes_per_logit."""
