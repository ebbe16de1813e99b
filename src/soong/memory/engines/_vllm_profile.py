"""vLLM's profile run: the peak that it finds above the weights, moment by moment.

Read in vLLM 0.10 to 0.33, `v1/worker/gpu_model_runner.py profile_run`: the vision encoder runs once at its largest,
then one forward pass of all tokens, then the sampler on `max_num_seqs` rows of logits. The three moments do not
overlap, but what the encoder and a mixture's kernels keep stays through the later ones. The first start of a model
on a machine compiles it before the forward pass, which is a moment of its own. From 0.22 some models run in
another runner (`v1/worker/gpu/model_runner.py`), which until 0.32 leaves the sampler's parameters out of its profile
and pays for them when it warms up, after the pool was sized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines._vllm_encoder import NO_ENCODER
from soong.memory.kv_cache import FP8_SPARSE_LATENT_BYTES

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.engines._facts import Facts
    from soong.memory.engines._vllm_encoder import EncoderRun

GIB = 1 << 30
BF16_BYTES = 2
FP32_BYTES = 4

LARGE_GPU_BYTES, LARGEST_GPU_BYTES = 70 * GIB, 160 * GIB
GB10 = (12, 1)

LATENT_WORKSPACE_TOKENS = 64 * 1024
"""`layers/attention/mla_attention.py determine_chunked_prefill_workspace_size`: its upper end, which contexts of 8192
and more reach."""

LONG_CONTEXT_TOKENS = 256 * 1024
"""0.32 `config/vllm.py` sparse_mla_prefill_workspace_factor: 5 up to here and 2 beyond, eight contexts of keys each."""

FLASH_MLA_ENTRY, FLASH_MLA_LATENT, FLASH_MLA_HEADS = 576, 512, 64
"""Numbers of an entry that FlashMLA has unpacked, of its latent part, and the multiple of heads on Hopper."""


def batch_defaults(gpu: Gpu, rules: dict[str, Any]) -> tuple[int, int]:
    """Tokens of one forward pass and sequences at once, as `vllm serve` sets them for a GPU.

    Source: vLLM `engine/arg_utils.py get_batch_defaults`, the OpenAI API server's column; 16384 tokens on the largest
    GPUs since 0.28. A GB10 counts as small: NVML does not tell its memory (0.33 names it; a log of 0.25 shows it).
    """
    if gpu.memory_bytes >= LARGEST_GPU_BYTES and rules["largest_batch_tier"]:
        return 16384, 1024
    large = gpu.memory_bytes >= LARGE_GPU_BYTES and "a100" not in gpu.id and gpu.compute_capability != GB10
    return (8192, 1024) if large else (2048, 256)


class Activations(NamedTuple):
    """The moments of the profile run, and the sampler's at warm-up, all in bytes.

    counters: what the second runner's penalties keep; budgeted_counters: 0 where the engine forgets them. encoder: the
    vision encoder at work. kept: what stays through forward pass and sampler. compile: kernels timed on random copies
    of their inputs, in a start that finds none compiled. forward: the pass of all tokens. sampler: on its rows.
    warm_up: the same after the pool is allocated, with workspace and counters.
    """

    counters_bytes: int
    budgeted_counters_bytes: int
    encoder_bytes: int
    kept_bytes: int
    compile_bytes: int
    forward_bytes: int
    sampler_bytes: int
    warm_up_bytes: int

    @property
    def peak_bytes(self) -> int:
        """What the engine takes from its budget."""
        return max(self.compiled_peak_bytes, self.budgeted_counters_bytes + self.compile_bytes)

    @property
    def compiled_peak_bytes(self) -> int:
        """What it takes in a later start, which finds its kernels compiled."""
        later = self.kept_bytes + max(self.forward_bytes, self.sampler_bytes)
        return self.budgeted_counters_bytes + max(self.encoder_bytes, later)


class Batch(NamedTuple):
    """What one profile run is about.

    processors: the GPU's, each of which gets a row of the top-p kernel's buffer. compiled: not with --enforce-eager.
    context_tokens: `max_model_len`, which sparse indexers alone ask. flash_mla: sparse MLA may run in FlashMLA.
    """

    tokens: int
    sequences: int
    processors: int
    compiled: bool = True
    context_tokens: int = 0
    flash_mla: bool = False


def activations(
    facts: Facts, rules: dict[str, Any], terms: dict[str, Any], batch: Batch, encoder: EncoderRun
) -> Activations:
    """Every moment's bytes.

    Args:
        facts: the model on this GPU.
        rules: of the engine's version (`data/engines.toml` vllm.since).
        terms: the measured constants (`data/engines.toml` vllm.activations).
        batch: tokens and sequences.
        encoder: the vision encoder's run; zeros for models of text.
    """
    second = runs_in_second_runner(facts, rules)
    if second and not rules["second_runner_profiles_encoder"]:
        encoder = NO_ENCODER
    stays = rules["packed_workspace_kept" if facts.packed_experts else "mixture_workspace_kept"]
    workspace = mixture_workspace_bytes(facts, batch.tokens, stays=stays)
    passing, staying = (0, workspace) if stays else (workspace, 0)
    indexer = indexer_workspace_bytes(facts, rules, batch.context_tokens)
    staying = max(staying, indexer, flash_mla_workspace_bytes(facts, rules, batch))  # one for all who ask
    passing += rules["indexer_profile_bytes"] if indexer else 0
    kept = encoder.kept_bytes + staying
    slots = state_slots_bytes(facts, rules, batch.sequences)
    forward = forward_bytes(facts, terms, batch.tokens) + passing + slots
    profiled = rules["second_runner_bytes_per_logit"] if second else rules["sampler_bytes_per_logit"]
    sampler = warm = pooler_bytes(facts, batch.tokens)
    counters = 0
    if facts.writes_text:
        sampler = sampler_bytes(facts, rules, terms, batch, profiled, batch.tokens)
        warm = sampler_bytes(facts, rules, terms, batch, rules["sampler_bytes_per_logit"], batch.sequences)
        counters = counters_bytes(facts, batch.sequences) if second else 0
    return Activations(
        counters_bytes=counters,
        budgeted_counters_bytes=counters if rules["second_runner_counts_in_budget"] else 0,
        encoder_bytes=encoder.peak_bytes,
        kept_bytes=kept,
        compile_bytes=compile_bytes(facts, rules, batch),
        forward_bytes=forward,
        sampler_bytes=sampler,
        warm_up_bytes=warm + staying + counters,
    )


def compile_bytes(facts: Facts, rules: dict[str, Any], batch: Batch) -> int:
    """A copy of the token embedding, and the rows that its first kernel makes of a batch.

    vLLM lets Inductor time fused kernels (`config/compilation.py` benchmark_combo_kernel) on random copies of their
    inputs (`torch/_inductor/codegen/triton_combo_kernel.py codegen_kernel_benchmark`); with PyTorch 2.11, the embedding
    is among them. One launch of Qwen3-8B on 0.27.1 (RTX 4090): peak 1.18 GiB compiling, 0.19 with kernels at hand.
    """
    if not (rules["compile_copies_embedding"] and batch.compiled and facts.compiled_embedding_bytes):
        return 0
    return facts.compiled_embedding_bytes + BF16_BYTES * batch.tokens * facts.hidden_size


def sampler_bytes(
    facts: Facts, rules: dict[str, Any], terms: dict[str, Any], batch: Batch, per_logit: float, tokens: int
) -> int:
    """Logits and their copies, the hidden states they come from, and cuBLAS's workspace.

    Copies (`v1/sample/sampler.py`, `v1/sample/ops/topk_topp_sampler.py`): the logits in 16 bits, in float32, their
    probabilities and the random numbers beside them, 14 bytes; sorting them instead, as until 0.16, 38. The fused
    kernel adds a row for each of the GPU's processors (`ops/topk_topp_triton.py`).
    """
    logits = int(per_logit * batch.sequences * facts.vocab_size)
    if rules["sampler_buffer"] and per_logit == rules["sampler_bytes_per_logit"]:
        logits += FP32_BYTES * min(batch.processors, batch.sequences) * facts.vocab_size
    hidden = BF16_BYTES * facts.hidden_size * (tokens + 2 * batch.sequences)
    return logits + hidden + int(terms["cublas_workspace_bytes"])


def pooler_bytes(facts: Facts, tokens: int) -> int:
    """A batch's hidden states in float32 and once more divided by their length: of models that answer with vectors.

    Source: vLLM 0.33 `layers/pooler/tokwise/heads.py`, which the profile run passes to every token
    (`v1/worker/gpu_model_runner.py _dummy_pooler_run`); no logits are sampled.
    """
    return tokens * facts.hidden_size * (BF16_BYTES + 2 * FP32_BYTES)


def counters_bytes(facts: Facts, sequences: int) -> int:
    """Counts of every token for every sequence, a bit for those of its prompt, and one for a grammar's.

    Source: vLLM 0.22 to 0.33 `v1/worker/gpu/sample/penalties.py`, `v1/worker/gpu/structured_outputs.py`.
    """
    words = -(-facts.vocab_size // 32)
    return sequences * FP32_BYTES * (facts.vocab_size + 2 * words)


def forward_bytes(facts: Facts, terms: dict[str, Any], tokens: int) -> int:
    """The widest point of a layer: residual rows, an MLP's gate, up and product; MLA's unpacked past in its place.

    Half of the residual rows are what passes between layers, before and after; hyper-connections pass several streams
    and hand one on to a block (`model_executor/kernels/mhc/tilelang.py` residual_cur, layer_input).
    """
    row = tokens * BF16_BYTES
    widest = 0 if facts.mixture else terms["mlp_copies"] * facts.mlp_width * row
    unpacked = LATENT_WORKSPACE_TOKENS * facts.latent_width * BF16_BYTES
    streams = max(facts.residual_width, facts.hidden_size)
    residual = terms["residual_copies"] / 2 * (facts.hidden_size + streams) * row
    return int(terms["forward_base_bytes"] + residual + max(widest, unpacked))


def mixture_workspace_bytes(facts: Facts, tokens: int, *, stays: bool) -> int:
    """The two buffers of a mixture's kernels: tokens × experts per token rows, each as wide as needed.

    Source: vLLM 0.33 `layers/fused_moe/fused_moe.py TritonExperts.workspace_shapes`, from one workspace that stays
    (`v1/worker/workspace.py`). Where kernels are called as a function (0.13 `fused_experts_impl`, 0.20
    `fused_marlin_moe.py`), the second buffer holds the product alone, and none outlasts the layer.
    """
    wide = max(2 * facts.expert_width, facts.hidden_size)
    narrow = max(facts.expert_width, facts.hidden_size) if stays else facts.expert_width
    return tokens * BF16_BYTES * facts.experts_per_token * (wide + narrow)


def indexer_workspace_bytes(facts: Facts, rules: dict[str, Any], context_tokens: int) -> int:
    """What a sparse indexer gathers keys in, of the workspace that stays: 40 contexts, of long ones later 16.

    Source: vLLM 0.13 `v1/attention/backends/mla/indexer.py get_max_prefill_buffer_size`; the profile run asks for it
    (0.20 `layers/sparse_attn_indexer.py`). GLM-5.2 at 819,200 tokens on 0.26 (GB200): peak 6.31 GiB, 4.03 of it this.
    """
    keys = (
        kind for kind in facts.kinds if kind.name == "indexer" or (kind.name == "compressed" and kind.shape)
    )
    widest = max((context_tokens // kind.ratio * kind.token_bytes for kind in keys), default=0)
    return _contexts_kept(rules, context_tokens) * widest


def _contexts_kept(rules: dict[str, Any], context_tokens: int) -> int:
    long = "long_" if context_tokens > LONG_CONTEXT_TOKENS else ""
    return int(rules[f"indexer_{long}contexts_kept"])


def flash_mla_workspace_bytes(facts: Facts, rules: dict[str, Any], batch: Batch) -> int:
    """What FlashMLA unpacks FP8 entries with scales into: contexts of entries, and queries and answers, in 16 bits.

    Source: vLLM 0.13 to 0.33 `v1/attention/backends/mla/flashmla_sparse.py` get_prefill_workspace_size (five contexts,
    an eighth of the indexer's, later two of long ones) and what its kernel asks for as it is made. Read, not measured.
    """
    scaled = (k for k in facts.kinds if k.name == "latent" and k.token_bytes == FP8_SPARSE_LATENT_BYTES)
    if not batch.flash_mla or not any(scaled):
        return 0
    heads = facts.attention_width // FLASH_MLA_LATENT
    filled = -(-heads // FLASH_MLA_HEADS) * FLASH_MLA_HEADS
    numbers = _contexts_kept(rules, batch.context_tokens) // 8 * batch.context_tokens * FLASH_MLA_ENTRY
    if rules["flash_mla_queries_kept"]:
        numbers += batch.tokens * heads * FLASH_MLA_ENTRY
    if rules["flash_mla_answers_kept"]:
        numbers += batch.tokens * (filled * (FLASH_MLA_ENTRY + FLASH_MLA_LATENT) + heads * FLASH_MLA_LATENT)
    return BF16_BYTES * numbers


def state_slots_bytes(facts: Facts, rules: dict[str, Any], sequences: int) -> int:
    """Recurrent state for every sequence, beside the pool: models with such layers before 0.10.2.

    They ran in the first engine, whose `model_executor/models/mamba_cache.py` keeps a slot for each of
    `max_num_seqs`; "Tried to allocate 33.75 GiB" for Nemotron-Nano-9B-v2 is 27 layers × 256 × 5,242,880 bytes.
    """
    if not rules["state_slot_per_sequence"]:
        return 0
    return sequences * sum(kind.layers * kind.state_bytes for kind in facts.kinds)


def counts_graphs(facts: Facts, rules: dict[str, Any], vendor: str = "nvidia") -> bool:
    """Whether the pool is what the budget leaves after the graphs; never on ROCm before 0.26."""
    if not rules["graphs_in_budget"] or (vendor == "amd" and not rules["graphs_of_amd_tried"]):
        return False
    return bool(rules["second_runner_graphs_in_budget"]) or not runs_in_second_runner(facts, rules)


def runs_in_second_runner(facts: Facts, rules: dict[str, Any]) -> bool:
    """Whether the model runs in the second runner (`config/vllm.py use_v2_model_runner`)."""
    which: str = rules["second_runner"]
    listed = facts.name in rules["second_runner_architectures"]
    recurrent = any(kind.state_bytes for kind in facts.kinds)
    if which == "listed-unquantized":
        return listed and not facts.quantized
    if which == "listed":
        return listed
    if which == "dense":
        return (listed or not facts.mixture) and not recurrent
    return which == "all"
