"""What SGLang chooses by itself: prefill chunk, decode batch, captured sizes, `mem_fraction_static`, page size.

Read beside SGLang 0.5.23 `arg_groups/memory_hook.py`, `cuda_graph_hook.py` and `overrides.py`; before 0.5.19 all of it
stood in `server_args.py`. What moved between versions is in data/engines.toml, each table with its version.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.engines._facts import Facts
    from soong.memory.footprint import EngineSettings

LARGE_GROUP = 4
"""From this tensor-parallel size on, larger decode batches are captured."""

RESERVE_MIB, RESERVE_PER_TOKEN_MIB, LEAST_RESERVED_TOKENS = 512, 1.5, 2048
RESERVE_PER_GPU_MIB = 128
DECODE_GRAPH_MIB, PREFILL_GRAPH_MIB, LATENT_PREFILL_GRAPHS_MIB = 2, 8, 1536
LARGE_CARD_MIB, LARGE_CARD_LEAST_RESERVE_MIB = 60 * 1024, 10 * 1024
"""The reserve of `handle_gpu_memory_settings` and `reserve_for_graph_mb`, since 0.5.3."""

RESERVE_BY_CARD = (
    (35 * 1024, 2.8, 0.1),
    (90 * 1024, 9.5, 0.5),
    (160 * 1024, 12.0, 0.5),
)
"""0.4.7 to 0.5.2: below this many MiB, GiB kept back, and GiB more for each GPU; else 32 GiB."""

RESERVE_OF_LARGEST_MIB = 32 * 1024
"""Of cards beyond the last of these."""

FRACTION_BY_GPUS = ((16, 0.79), (8, 0.81), (4, 0.85), (2, 0.87), (1, 0.88))
FRACTION_BY_GPUS_UP_TO_MIB, FRACTION_OF_LARGER = 81920, 0.88
"""Up to 0.4.6, cards of at most 80 GiB; of larger ones 0.88, raised above 96 GiB."""

VISION_FACTOR, VISION_SENSITIVITY = 0.95, 0.1
VISION_LAYERS, VISION_HIDDEN_SIZE = 24, 1024
VISION_LEAST, VISION_MOST = 0.8, 1.05
"""`adjust_mem_fraction_for_vlm`: the tower against ViT-L/14, whose sizes also stand in for missing words."""

TEXT_ONLY_BY_DEFAULT = {
    "Gemma3ForConditionalGeneration",
    "Llama4ForConditionalGeneration",
    "Step3VLForConditionalGeneration",
    "InklingForConditionalGeneration",
}
"""`configs/model_config.py mm_disabled_models`."""

PREFILL_GRAPH_TOKENS = {"MuseGlimmerForCausalLM": 512, "MuseGlimmerForConditionalGeneration": 512}
"""`apply_muse_glimmer_prefill_cuda_graph_max_bs_default`."""

SPARSE_LATENT_PAGE, COMPRESSED_PAGE, SPARSE_PAGE, BLACKWELL_PAGE = 64, 256, 128, 64
DATA_CENTRE_BLACKWELL, HOPPER = 10, (9, 0)
PAGES_OF_ONE_ON_BLACKWELL = {
    "DeepseekV2ForCausalLM",
    "GraniteMoeHybridForCausalLM",
    "KimiLinearForCausalLM",
    "KimiVLForConditionalGeneration",
    "Lfm2ForCausalLM",
}
"""Models that TensorRT-LLM's attention does not take: they stay with FlashInfer and pages of one token."""


class Batch(NamedTuple):
    """tokens: of one prefill chunk. decode: the largest captured decode batch."""

    tokens: int
    decode: int


def batch(total_mib: int, settings: EngineSettings, rules: dict[str, Any]) -> Batch:
    """Chunked prefill size in tokens, and the largest decode batch that is captured, by the size of the card."""
    card = bisect_right(rules["card_classes_mib"], total_mib)
    large = settings.tensor_parallel >= LARGE_GROUP
    decode = rules["decode_batch_of_large_groups" if large else "decode_batch"][card]
    if settings.max_num_seqs and rules["decode_batch_capped_by_requests"]:
        decode = min(decode, settings.max_num_seqs)
    return Batch(settings.max_num_batched_tokens or rules["chunked_prefill_tokens"][card], decode)


def default_fraction(
    facts: Facts, rules: dict[str, Any], total_mib: int, settings: EngineSettings, context_tokens: int
) -> float:
    """The `mem_fraction_static` that SGLang picks for a card, to three digits as it does.

    Args:
        facts: the model. rules: of the version.
        total_mib: of the card, as nvidia-smi states it. settings: the flags.
        context_tokens: the asked context length, which bounds the captured prefill sizes in 0.5.13 to 0.5.16.
    """
    total = total_mib
    gpus = settings.tensor_parallel * settings.pipeline_parallel
    if rules["fraction_rule"] == "gpus":
        fraction = _fraction_by_gpus(total, gpus)
    elif rules["fraction_rule"] == "card":
        fraction = round((total - _reserve_by_card(total, gpus)) / total, 3)
    else:
        reserved = _reserve_by_batch(facts, rules, total_mib, settings, context_tokens)
        fraction = round((total - reserved) / total, 3)
    if rules["vision_factor"] and takes_images(facts) and facts.vision_shape is not None:
        fraction *= _vision_factor(*facts.vision_shape)
    return fraction


def takes_images(facts: Facts) -> bool:
    """Whether SGLang serves the model as multimodal without being asked."""
    return facts.multimodal and facts.name not in TEXT_ONLY_BY_DEFAULT


def _fraction_by_gpus(total: int, gpus: int) -> float:
    small = total <= FRACTION_BY_GPUS_UP_TO_MIB
    fraction = (
        next(value for least, value in FRACTION_BY_GPUS if gpus >= least) if small else FRACTION_OF_LARGER
    )
    if total > 96 * 1024:
        fraction = min(fraction + 48 * 1024 * (1 - fraction) / total, (total - 18 * 1024) / total)
    return fraction


def _reserve_by_card(total: int, gpus: int) -> float:
    for below, kept, for_each in RESERVE_BY_CARD:
        if total < below:
            return (kept + gpus * for_each) * 1024
    return RESERVE_OF_LARGEST_MIB


def _reserve_by_batch(
    facts: Facts, rules: dict[str, Any], total_mib: int, settings: EngineSettings, context_tokens: int
) -> float:
    tokens, decode = batch(total_mib, settings, rules)
    reserved = RESERVE_MIB + RESERVE_PER_TOKEN_MIB * max(tokens, LEAST_RESERVED_TOKENS)
    reserved += RESERVE_PER_GPU_MIB * settings.tensor_parallel * settings.pipeline_parallel
    if not settings.enforce_eager or rules["eager_keeps_graph_reserve"]:
        reserved += DECODE_GRAPH_MIB * decode
    captured = prefill_graphs(facts, rules, settings, tokens, context_tokens)
    if captured:
        reserved += LATENT_PREFILL_GRAPHS_MIB if _is_latent(facts) else PREFILL_GRAPH_MIB * captured
    return max(reserved, LARGE_CARD_LEAST_RESERVE_MIB) if total_mib > LARGE_CARD_MIB else reserved


def _vision_factor(layers: int, hidden_size: int) -> float:
    tower = (layers or VISION_LAYERS) * (hidden_size or VISION_HIDDEN_SIZE) ** 2
    complexity = tower / (VISION_LAYERS * VISION_HIDDEN_SIZE**2)
    return VISION_FACTOR * max(VISION_LEAST, min(VISION_MOST, 1 - VISION_SENSITIVITY * (complexity - 1)))


def prefill_graphs(
    facts: Facts, rules: dict[str, Any], settings: EngineSettings, tokens: int, context_tokens: int
) -> int:
    """How many prefill sizes are captured; 0 where none is (`apply_cuda_graph_compatibility`)."""
    if not rules["prefill_graphs"] or settings.pipeline_parallel > 1:
        return 0
    if settings.enforce_eager and not rules["eager_keeps_prefill_graphs"]:
        return 0
    if not _prefill_is_captured(facts, rules):
        return 0
    if rules["prefill_graphs_up_to_context"]:
        tokens = min(tokens, context_tokens)
    if _is_latent(facts):
        tokens = min(tokens, rules["latent_prefill_tokens"])
    return _prefill_sizes(min(tokens, PREFILL_GRAPH_TOKENS.get(facts.name, tokens)))


def _is_latent(facts: Facts) -> bool:
    return any(kind.name == "latent" for kind in facts.kinds)


def _prefill_is_captured(facts: Facts, rules: dict[str, Any]) -> bool:
    """Whether this model's prefill is captured (`apply_cuda_graph_compatibility` and what it calls)."""
    if facts.name in rules["compiled_prefill_graphs"]:
        return True
    if takes_images(facts) and facts.name not in rules["multimodal_prefill_graphs"]:
        return False
    if facts.name in rules["prefill_graphs_refused"] or not _latent_is_captured(facts, rules):
        return False
    if any(kind.state_kind.startswith("kda") for kind in facts.kinds) and not rules["kda_prefill_graphs"]:
        return False
    return not any(kind.name == "compressed" for kind in facts.kinds)


def _latent_is_captured(facts: Facts, rules: dict[str, Any]) -> bool:
    captured = rules["latent_prefill_graphs"]
    if captured == "all" or not _is_latent(facts):
        return True
    return captured == "sparse" and any(kind.name == "indexer" for kind in facts.kinds)


@lru_cache(maxsize=256)
def _prefill_sizes(tokens: int) -> int:
    steps = (
        (4, 33, 4),
        (48, 257, 16),
        (288, 513, 32),
        (576, 1025, 64),
        (1280, 4097, 256),
        (4608, tokens + 1, 512),
    )
    return sum(1 for step in steps for size in range(*step) if size <= tokens)


@lru_cache(maxsize=256)
def decode_graphs(batch_size: int) -> int:
    """How many decode batches are captured (`generate_decode_cuda_graph_batch_sizes`)."""
    sizes = [1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, batch_size + 1, 32)]
    fitting = sum(1 for size in sizes if size <= batch_size)
    return fitting if batch_size in sizes else fitting + 1


def page_tokens(facts: Facts, gpu: Gpu) -> int:
    """Tokens of a page of the pool: one, unless the attention backend for the model and card wants more.

    Source: SGLang 0.5.23 `arg_groups/overrides.py _mla_backend_page_constraints`, `_page_size_default`.
    """
    kinds = {kind.name for kind in facts.kinds}
    if "compressed" in kinds:
        return COMPRESSED_PAGE
    capability = gpu.compute_capability or (0, 0)
    if facts.name.startswith("MiniMaxM3"):
        return SPARSE_PAGE if capability >= HOPPER else 1
    if "latent" in kinds and "indexer" in kinds:
        return SPARSE_LATENT_PAGE
    if capability[0] != DATA_CENTRE_BLACKWELL:
        return 1
    if facts.name.startswith("MiMoV2"):
        return SPARSE_PAGE
    if facts.name in PAGES_OF_ONE_ON_BLACKWELL:
        return 1
    return BLACKWELL_PAGE
