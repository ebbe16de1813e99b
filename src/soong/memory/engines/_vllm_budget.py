"""vLLM's memory beside weights and cache: batch defaults, profile run, CUDA graphs, the rest.

The engine measures these in a profile run (`v1/worker/gpu_worker.py determine_available_memory`); here they
are models of what that run allocates, with constants from real logs (data/engines.toml).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from soong.memory.engines._constants import by_group_size

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.engines._facts import Facts

GIB = 1 << 30
BF16_BYTES = 2
FP32_BYTES = 4

LARGE_GPU_BYTES, LARGEST_GPU_BYTES = 70 * GIB, 160 * GIB
GB10, HOPPER, DATA_CENTRE_BLACKWELL = (12, 1), (9, 0), 10


def batch_defaults(gpu: Gpu) -> tuple[int, int]:
    """Tokens of one forward pass and sequences at once, as `vllm serve` sets them for a GPU.

    Source: vLLM 0.33 `engine/arg_utils.py get_batch_defaults`, the OpenAI API server's column.
    """
    if gpu.memory_bytes >= LARGEST_GPU_BYTES:
        return 16384, 1024
    large = gpu.memory_bytes >= LARGE_GPU_BYTES and "a100" not in gpu.id and gpu.compute_capability != GB10
    return (8192, 1024) if large else (2048, 256)


def activation_bytes(
    facts: Facts, rules: dict[str, Any], terms: dict[str, Any], *, tokens: int, sequences: int
) -> int:
    """The peak that the profile run finds above the weights.

    Two moments compete: the forward pass of `tokens` tokens, and the sampler on `sequences` rows of logits
    of the whole vocabulary (`v1/worker/gpu_model_runner.py _dummy_run, _dummy_sampler_run`). The workspace
    of a mixture's kernels (`fused_moe/modular_kernel.py`) and the encoder cache stay through both.
    """
    row = tokens * BF16_BYTES
    hidden = facts.hidden_size * row
    sampler = (
        int(rules["sampler_bytes_per_logit"] * sequences * facts.vocab_size) + terms["base_bytes"] + hidden
    )
    forward = terms["forward_base_bytes"] + terms["residual_copies"] * hidden
    if not facts.mixture:
        forward += terms["mlp_copies"] * facts.mlp_width * row
    peak = max(sampler, forward) + _mixture_workspace_bytes(facts, row)
    if facts.multimodal:
        peak += hidden + int(terms["vision_bytes"])
    return int(peak)


def _mixture_workspace_bytes(facts: Facts, row: int) -> int:
    """The two buffers of a mixture's kernels: tokens × experts per token rows, each as wide as needed.

    Source: vLLM 0.33 `layers/fused_moe/fused_moe.py TritonExperts.workspace_shapes`.
    """
    wide = max(2 * facts.expert_width, facts.hidden_size)
    narrow = max(facts.expert_width, facts.hidden_size)
    return row * facts.experts_per_token * (wide + narrow)


@lru_cache(maxsize=1024)
def captured_graphs(
    sequences: int, tokens: int, dense_step_up_to: int, modes: int, largest: int
) -> tuple[int, int]:
    """How many CUDA graphs are captured, and the tokens of the largest.

    Sizes are 1, 2, 4, every 8th, then every 16th up to twice the sequences at most; full graphs of decoding
    stop at the number of sequences (vLLM 0.33 `config/vllm.py _set_cudagraph_sizes`,
    `v1/cudagraph_dispatcher.py`).
    """
    limit = min(2 * sequences, largest, tokens)
    sizes = [1, 2, 4, *range(8, dense_step_up_to, 8), *range(dense_step_up_to, largest + 1, 16)]
    fitting = [size for size in sizes if size <= limit]
    full = [size for size in fitting if size <= sequences]
    return len(fitting) + (len(full) if modes > 1 else 0), fitting[-1]


def graph_bytes(
    facts: Facts, gpu: Gpu, rules: dict[str, Any], terms: dict[str, Any], *, tokens: int, sequences: int
) -> int:
    """What CUDA graphs take: a part for each graph and layer, and FlashAttention 3's split sums."""
    capability = gpu.compute_capability or (0, 0)
    largest = 1024 if capability[0] == DATA_CENTRE_BLACKWELL else 512
    modes = rules["graph_modes"]
    count, widest = captured_graphs(sequences, tokens, rules["graph_dense_step_up_to"], modes, largest)
    whole = terms["base_bytes"] + terms["layer_bytes"] * facts.layers + terms["mixture_bytes"] * facts.mixture
    total = whole * count // terms["full_captures"]
    if capability[0] == HOPPER[0] and modes > 1:
        total += terms["split_count"] * min(widest, sequences) * facts.attention_width * FP32_BYTES
    return int(total)


def nvlinked(gpu: Gpu) -> bool:
    """Whether a group talks over NVLink; assumed where nothing is known, since it takes more memory."""
    return not gpu.interconnect or "nvlink" in gpu.interconnect.lower()


def context_bytes(rules: dict[str, Any], gpu: Gpu, gpus: int) -> int:
    """What a GPU has lost before the engine takes its first reading: driver context and, in a group, NCCL."""
    group = by_group_size(rules["group_context_bytes"], gpus) if nvlinked(gpu) else 0
    return int(rules["driver_context_bytes"] + group)


def non_torch_bytes(rules: dict[str, Any], gpu: Gpu, gpus: int) -> int:
    """What grows outside PyTorch in the profile run: workspaces, a group's communication buffers."""
    table = rules["non_torch_bytes"]
    if gpus == 1:
        return by_group_size(table, 1)
    if not nvlinked(gpu):
        return int(rules["non_torch_without_nvlink_bytes"])
    if gpu.compute_capability is not None and gpu.compute_capability < HOPPER:
        return min(by_group_size(table, gpus), int(rules["non_torch_older_nvlink_bytes"]))
    return by_group_size(table, gpus)
