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
    from soong.memory.footprint import ServedModel
    from soong.memory.kv_cache import LayerKind

GIB = 1 << 30
FP32_BYTES = 4
AMPERE, HOPPER = (8, 0), (9, 0)
DATA_CENTRE_BLACKWELL, SMALL_BLACKWELL = 10, 12
FUSED_GROUPS = frozenset({2, 4, 8})
"""Groups that vLLM has a largest message for: 0.17 `config/compilation.py flashinfer_max_size`."""


def nvlinked(gpu: Gpu) -> bool:
    """Whether a group talks over NVLink, or AMD's like of it; assumed where nothing is known, as it takes more memory.

    RCCL takes 1 GiB for its first communicator and 0.65 GiB for one more on MI250X (LUMI-AI-Guide issue 111), NCCL 1.0
    and 0.5 on H100. MiniMax-M2.5 on four MI300X, eager, on 0.16: 0.5 GiB that is not PyTorch's, as over NVLink.
    """
    words = gpu.interconnect.lower()
    return not words or "nvlink" in words or "infinity fabric" in words


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


def non_torch_bytes(
    rules: dict[str, Any],
    gpu: Gpu,
    gpus: int,
    *,
    graphs_profiled: bool = False,
    compiled: bool = True,
    stages: int = 1,
) -> int:
    """What grows outside PyTorch in the profile run: workspaces, a group's communication buffers.

    Where the host shares the memory, what it takes meanwhile counts too.

    Args:
        rules: of the engine's version (`data/engines.toml` vllm.since).
        gpu: one of the GPUs.
        gpus: GPUs that share each layer.
        graphs_profiled: CUDA graphs are tried out before the second reading, so that what loads with them counts
            (0.18 to 0.26 `v1/worker/gpu_worker.py determine_available_memory`; later only the trial itself does).
        compiled: not run eagerly, so that the compiler's passes make their buffers.
        stages: of a pipeline.
    """
    shared = int(rules["unified_memory_non_torch_bytes"]) if gpu.unified_memory else 0
    tries = rules["graphs_tried_before_reading"] and (gpu.vendor != "amd" or rules["graphs_of_amd_tried"])
    tried = "graph_trial_" if graphs_profiled and tries else ""
    fused = fused_all_reduce_bytes(rules, gpu, gpus, stages) if compiled else 0
    return shared + fused + _own_non_torch_bytes(rules, gpu, gpus, tried)


def fused_all_reduce_bytes(rules: dict[str, Any], gpu: Gpu, gpus: int, stages: int) -> int:
    """FlashInfer's buffers for sums over the group that are fused with what follows them.

    The compiler makes them where GPUs of compute capability 9.0 or 10.x reach each other through an NVSwitch, whose
    multicast they need (vLLM 0.19 `config/vllm.py enable_allreduce_rms_fusion`, which before asks for 10.0 itself;
    `compilation/passes/fusion/allreduce_rms_fusion.py`; FlashInfer `comm/trtllm_ar.py`).
    """
    capability = gpu.compute_capability or HOPPER
    of_family = capability[0] == DATA_CENTRE_BLACKWELL and (
        capability[1] == 0 or rules["fused_all_reduce_in_family"]
    )
    fuses = capability == HOPPER or of_family
    switched = gpu.vendor != "amd" and nvlinked(gpu) and "bridge" not in gpu.interconnect.lower()
    if not (fuses and switched and gpus in FUSED_GROUPS):
        return 0
    return int(rules["fused_all_reduce_bytes"]) if stages == 1 or rules["fused_all_reduce_in_stages"] else 0


def _own_non_torch_bytes(rules: dict[str, Any], gpu: Gpu, gpus: int, tried: str) -> int:
    table = rules[f"{tried}non_torch_bytes"]
    older = gpu.compute_capability is not None and gpu.compute_capability < HOPPER
    if gpus == 1:
        alone = by_group_size(table, 1)
        little = older and not (tried and nvlinked(gpu))
        return min(alone, int(rules[f"{tried}non_torch_of_cards_bytes"])) if little else alone
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

    grouped: GPUs share each layer over NVLink. grouped_cards: they do without it. second_runner: the model runs in
    vLLM's newer runner. small_fp4: in NVFP4, on Blackwell that is not a data centre's. budgeted: the engine sizes the
    pool itself, from a budget. graphs_counted: which it gives graphs a part of.
    """

    facts: Facts
    gpu: Gpu
    activations: Activations
    encoder: EncoderRun
    graphs: Graphs
    runtime_bytes: int
    sequences: int
    grouped: bool
    grouped_cards: bool
    second_runner: bool
    small_fp4: bool
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


def in_small_fp4(model: ServedModel, gpu: Gpu) -> bool:
    """Whether weights in NVFP4 run on Blackwell's workstation and consumer cards, whose kernels are made ready late."""
    packed = any(form.kind == "nvfp4" for form in model.quantization.formats)
    return packed and (gpu.compute_capability or HOPPER)[0] == SMALL_BLACKWELL


def indexer_logits_bytes(kinds: tuple[LayerKind, ...], sequences: int, context_tokens: int) -> int:
    """A sparse indexer's scores when decoding is captured: a float32 for each row and each key a context may have.

    Source: vLLM 0.33 `model_executor/layers/sparse_attn_indexer.py`, fp8_fp4_paged_mqa_logits with max_model_len. The
    one log with an estimate of graphs beside it has them once or twice (GLM-5.2, 819,200 tokens, GB200, 0.26: 4.99 GiB
    where 1.84 are all else and the scores 1.56), so that they count as error, too.

    Args:
        kinds: the model's layers.
        sequences: rows of the largest graph of decoding.
        context_tokens: `max_model_len`.
    """
    ratios = [k.ratio for k in kinds if k.name == "indexer" or (k.name == "compressed" and k.shape)]
    return FP32_BYTES * sequences * (context_tokens // min(ratios)) if ratios else 0


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
    repacked = "" if parts.facts.quantized else "plain_"
    fragments = shares[f"{repacked}fragments_fraction"] * copies
    context = _gpu_error(shares, parts.gpu) + shares["runtime_fraction"] * parts.runtime_bytes
    return context + fragments + _graph_error(rules, shares, parts) + _warm_up_error(rules, parts)


def _graph_error(rules: dict[str, Any], shares: dict[str, float], parts: Parts) -> float:
    if not parts.graphs.total_bytes:
        return 0.0
    unread: float = rules["graphs_unread_bytes"]
    if not parts.graphs_counted:
        cards = shares["graphs_of_cards_bytes"] if parts.grouped_cards else 0.0
        unread = max(unread, cards, shares["fp4_graphs_bytes"] if parts.small_fp4 else 0.0)
    return shares["cuda_graphs_fraction"] * parts.graphs.total_bytes + unread


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
    older = (parts.gpu.compute_capability or HOPPER) < AMPERE
    return shares["encoder_older_fraction" if older else "encoder_fraction"] * parts.encoder.peak_bytes


FUSED_SAVES_BYTES_PER_LOGIT = 24
"""38 bytes of a logit against 14: `[[vllm.since]]` sampler_bytes_per_logit."""
