"""vLLM's CUDA graphs: which sizes are captured, and what they take."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines._vllm_budget import indexer_logits_bytes

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.engines._facts import Facts

FP32_BYTES = 4
HOPPER, DATA_CENTRE_BLACKWELL = (9, 0), 10
DEFAULT_LARGEST = 512
DEEP_GEMM_MAJORS = frozenset({9, 10})
"""Whose kernel writes a sparse indexer's scores of a decode as wide as `max_model_len` (`utils/deep_gemm.py`)."""


class Graphs(NamedTuple):
    """captures: of all modes. whole_bytes: what a full set takes. split_bytes: partial sums of FlashAttention 3.

    first_bytes: what the first full graph of all brings with it. indexer_bytes: a sparse indexer's scores in it.
    """

    captures: int
    whole_bytes: int
    split_bytes: int
    first_bytes: int
    total_bytes: int
    indexer_bytes: int = 0


NO_GRAPHS = Graphs(0, 0, 0, 0, 0)


@lru_cache(maxsize=1024)
def captured_graphs(limit: int, sequences: int, dense_step_up_to: int, modes: int) -> tuple[int, int]:
    """How many CUDA graphs are captured, and the tokens of the largest.

    Sizes are 1, 2, 4, every 8th, then every 16th up to the limit; full graphs of decoding stop at the number of
    sequences (vLLM 0.33 `config/vllm.py _set_cudagraph_sizes`, `v1/cudagraph_dispatcher.py`).
    """
    sizes = [1, 2, 4, *range(8, dense_step_up_to, 8), *range(dense_step_up_to, limit + 1, 16)]
    fitting = [size for size in sizes if size <= limit]
    full = [size for size in fitting if size <= sequences]
    return len(fitting) + (len(full) if modes > 1 else 0), fitting[-1]


def largest_graph(facts: Facts, gpu: Gpu, rules: dict[str, Any], *, tokens: int, sequences: int) -> int:
    """The largest batch captured: twice the sequences up to 512; more on data-centre Blackwell and for gpt-oss.

    Source: `config/vllm.py _set_cudagraph_sizes`, `model_executor/models/config.py GptOssForCausalLMConfig`.
    """
    if facts.model_type == "gpt_oss":
        return min(int(rules["graph_largest_gpt_oss"]), tokens)
    major = (gpu.compute_capability or (0, 0))[0]
    largest = rules["graph_largest_blackwell"] if major == DATA_CENTRE_BLACKWELL else DEFAULT_LARGEST
    return min(2 * sequences, int(largest), tokens)


def graphs(
    facts: Facts,
    gpu: Gpu,
    rules: dict[str, Any],
    terms: dict[str, Any],
    *,
    tokens: int,
    sequences: int,
    context_tokens: int = 0,
) -> Graphs:
    """What CUDA graphs take: a part for each graph and layer, FlashAttention 3's split sums, and what comes first.

    The profile run skips attention, so the first full graph loads its kernels and makes its workspaces (0.20
    `v1/worker/gpu_model_runner.py profile_cudagraph_memory`); on Blackwell those of recurrent layers and mixtures show.
    Models that answer with vectors or scores are captured piece by piece alone, decoders of what an encoder hears as
    whole passes of decoding alone (0.17 to 0.33 `config/vllm.py`: "Pooling models do not support full cudagraphs").
    """
    modes = rules["graph_modes"] if facts.writes_text else 1
    limit = largest_graph(facts, gpu, rules, tokens=tokens, sequences=sequences)
    count, widest = captured_graphs(limit, sequences, rules["graph_dense_step_up_to"], modes)
    if modes > 1 and facts.whole_prompts:
        count -= captured_graphs(limit, sequences, rules["graph_dense_step_up_to"], 1)[0]
    whole = (
        terms["base_bytes"]
        + terms["layer_bytes"] * facts.graph_layers
        + terms["mixture_bytes"] * facts.mixture
    )
    split = 0
    if (gpu.compute_capability or (0, 0))[0] == HOPPER[0] and modes > 1:
        split = terms["split_count"] * min(widest, sequences) * facts.attention_width * FP32_BYTES
    first = terms["first_bytes"] if rules["graphs_in_budget"] and modes > 1 and _loads_more(facts, gpu) else 0
    scores = 0
    if (gpu.compute_capability or (0, 0))[0] in DEEP_GEMM_MAJORS and modes > 1:
        scores = indexer_logits_bytes(facts.kinds, min(widest, sequences), context_tokens)
    total = int(whole * count // terms["full_captures"] + split + first + scores)
    return Graphs(count, int(whole), int(split), int(first), total, scores)


def _loads_more(facts: Facts, gpu: Gpu) -> bool:
    blackwell = (gpu.compute_capability or (0, 0))[0] >= DATA_CENTRE_BLACKWELL
    return blackwell and (facts.mixture or any(kind.state_bytes for kind in facts.kinds))
