"""How much of each GPU an engine will use, term by term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.quantization import Quantization

WeightsBasis = Literal["headers", "config", "rule-of-thumb"]


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as one repository offers it: its build, its number format, and what its files weigh.

    key: a short hash of all that decides the memory; prepared figures are kept under it.
    weights_bytes: the size of the checkpoint's tensors; None until it is measured or counted.
    weights_basis: where that size comes from.
    kv_dtype: the type that the repository asks its KV cache to be kept in ("fp8"); empty for the model's own.
    """

    key: str
    architecture: Architecture
    quantization: Quantization
    weights_bytes: int | None = None
    weights_basis: WeightsBasis = "config"
    kv_dtype: str = ""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoint must be able to hold.

    context_tokens: the longest sequence (prompt and answer together), the engine's max-model-len /
    context-length.
    sequences: how many sequences at once.
    usual_tokens: how long those are, prompt and answer together, where they are not as long as the context: the pool
    must then hold that many of this length, or one that fills the context, whichever takes more.
    kv_dtype: `auto` (the model's own type, or what its files ask for), `bfloat16`, `float16`, `fp8`.
    """

    context_tokens: int
    sequences: int = 1
    usual_tokens: int | None = None
    kv_dtype: str = "auto"

    @property
    def tokens_each(self) -> int:
        """How long one of the sequences is."""
        return min(self.usual_tokens or self.context_tokens, self.context_tokens)


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which engine, which rules, which flags. None means: the engine's own default.

    name: vllm, sglang or llama.cpp. version: "0.33.0"; picks the rules.
    memory_fraction: gpu_memory_utilization, or mem_fraction_static.
    kv_cache_memory_bytes: fixes the KV pool per GPU, as vLLM's --kv-cache-memory-bytes does.
    enforce_eager: no CUDA graphs. max_num_batched_tokens: tokens of one forward pass (SGLang: chunked
    prefill size).
    expert_parallel: the GPUs of a tensor-parallel group hold some routed experts whole, and not a part of each.
    max_num_seqs: sequences decoded at once (SGLang: max running requests; llama.cpp: parallel slots).
    dtype: `auto`, or `float16` to cast a bfloat16 model for a GPU without bfloat16.
    text_only: what sees or hears is left out, vLLM's --language-model-only; only where that changes something.
    pool_tokens, state_slots: SGLang's --max-total-tokens and --max-mamba-cache-size, which make a pool that was asked
    for in bytes; they follow from `kv_cache_memory_bytes` and change no figure.
    """

    name: str
    version: str
    memory_fraction: float | None = None
    kv_cache_memory_bytes: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    enforce_eager: bool = False
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    dtype: str = "auto"
    expert_parallel: bool = False
    text_only: bool = False
    pool_tokens: int | None = None
    state_slots: int | None = None


class Footprint(msgspec.Struct, frozen=True, gc=False):
    """Memory of one GPU (the fullest of those that share the model), as the engine accounts for it.

    total_bytes = runtime + weights + kv_pool + state + activations + cuda_graphs + free (all `_bytes`).

    Attributes:
        memory_fraction: the engine fraction used; None where a fixed pool or llama.cpp makes it meaningless.
        weights_bytes: what the engine prints after loading; where the pool is given in bytes, no engine measures the
            GPU, and this is `tensor_bytes` alone: the rest of `loaded_bytes` is then in `runtime_bytes`.
        tensor_bytes: the tensors of the model on this GPU, exactly, as the engine shapes them before loading.
        loaded_bytes: the same with tables, the kernels' own layouts and the allocator's rounding, as it prints them.
        kv_pool_bytes: what the engine gives to keys and values. state_bytes: recurrent state inside or
        beside it.
        kv_pool_tokens: the tokens the engine itself prints at start-up; None when it would not start, unless the pool
            was given.
        max_concurrency: the engine's own "maximum concurrency" at this context; None when not printed.
        kv_bytes_per_token: for one more token of one sequence, on this GPU, all layers that grow.
        state_bytes_per_sequence: recurrent state and full windows, on this GPU.
        workload_kv_bytes: what the workload's sequences fill of the pool, each as long as it is said to be.
        need_bytes: runtime + weights + activations + graphs + workload_kv: what the verdict is about.
        max_context_tokens: longest single sequence this pool holds, at most the model's limit.
        max_sequences: how many sequences of the workload's context the pool holds, at most `most_running`.
        starts: the engine starts with this context. refusal: its reason when it does not, or, where it starts all the
            same (SGLang), why it refuses a request of this context.
        may_start: it refuses nothing, or by less than the figures may be off.
        uncertainty_bytes: how far `free_bytes` may be off, with what the engine takes of it for a moment as it starts.
        pool_uncertainty_bytes: how far `kv_pool_bytes` may be off; 0 where the pool is given.
        startable_sequences: how many sequences surely have a block of recurrent state, where each that may run must
            have one or the engine does not start (vLLM).
        workload_state_bytes: the part of `workload_kv_bytes` that must lie in `state_bytes`, where recurrent state and
            tokens have pools of their own that lend nothing to each other (SGLang); 0 where one pool holds both.
        most_running: how many sequences it runs at once, however short they are; None where only the pool says.
        starts_later: it may refuse the first start by more than the figures may be off, but a later one has more
            memory, since kernels need not be compiled any more (vLLM).
    """

    total_bytes: int
    runtime_bytes: int
    weights_bytes: int
    tensor_bytes: int
    loaded_bytes: int
    kv_pool_bytes: int
    state_bytes: int
    activations_bytes: int
    cuda_graphs_bytes: int
    free_bytes: int
    memory_fraction: float | None
    kv_pool_tokens: int | None
    max_concurrency: float | None
    kv_bytes_per_token: int
    state_bytes_per_sequence: int
    workload_kv_bytes: int
    need_bytes: int
    max_context_tokens: int | None
    max_sequences: int | None
    starts: bool
    refusal: str
    uncertainty_bytes: int
    pool_uncertainty_bytes: int
    may_start: bool = False
    startable_sequences: int | None = None
    workload_state_bytes: int = 0
    most_running: int | None = None
    starts_later: bool = False
