"""vLLM, 0.10 to 0.33: the size of its KV cache, whether it starts, the flags that make the plan true.

The engine takes `ceil(total × gpu_memory_utilization)` as its budget (`v1/worker/utils.py request_memory`),
subtracts weights, what grew outside PyTorch, the profile run's peak (`_vllm_profile`, `_vllm_encoder`) and, since
0.20, CUDA graphs (`_vllm_graphs`; `v1/worker/gpu_worker.py determine_available_memory`), and gives the rest to one
pool of KV blocks (`_vllm_pool`). What the driver and NCCL took before (`_vllm_budget`), graphs in older versions and
the sampler's warm-up must fit in what the budget leaves.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines import _facts, _vllm_budget
from soong.memory.engines._constants import engine_tables, rules, version_tuple
from soong.memory.engines._vllm_encoder import EncoderRun, encoder_run, grows_with_context, least_batch_tokens
from soong.memory.engines._vllm_fit import (
    Held,
    Sized,
    longest_context,
    refusal_of_pool,
    short_of_pool,
    size,
)
from soong.memory.engines._vllm_graphs import (
    DATA_CENTRE_BLACKWELL,
    DEFAULT_LARGEST,
    NO_GRAPHS,
    Graphs,
    graphs,
)
from soong.memory.engines._vllm_pool import Pool, PoolRules, build_pool
from soong.memory.engines._vllm_profile import (
    Activations,
    Batch,
    activations,
    batch_defaults,
    counts_graphs,
    runs_in_second_runner,
)
from soong.memory.footprint import Footprint
from soong.memory.kernel_layouts import BLACKWELL
from soong.memory.kv_cache import kv_bytes_per_token, state_bytes_per_sequence

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.engines._vllm_explained import Part
    from soong.memory.footprint import EngineSettings, ServedModel, Workload
    from soong.memory.kv_cache import LayerKind

NAME = "vllm"
LONGEST_CONTEXT_TOKENS = 1 << 24
"""The upper end of the search for the longest context when the model states none."""


class _Prepared(NamedTuple):
    """All that does not depend on the workload or on how much memory the GPU has."""

    facts: _facts.Facts
    pool: Pool
    rules: dict[str, Any]
    kv_bytes_per_token: int
    state_bytes_per_sequence: int
    context_bytes: int
    non_torch_bytes: int
    graph_trial_non_torch_bytes: int
    eager_non_torch_bytes: int
    context_limit_tokens: int
    least_batch_tokens: int
    sparse: bool
    small_fp4: bool
    uncertainty: dict[str, float]
    terms: dict[tuple[Any, ...], _Terms]
    """How memory is divided, by all that decides it: the GPU's memory, the batch and the flags."""


_prepared: dict[tuple[Any, ...], _Prepared] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory under vLLM.

    Args:
        model: what is served.
        gpu: one of the GPUs.
        workload: what must fit.
        settings: engine, version and flags.

    Returns:
        The footprint; `starts` is False, with vLLM's own reason, where the engine would refuse.
    """
    prepared = _prepared_for(model, gpu, workload, settings)
    terms = _terms(prepared, gpu, workload, settings)
    held = Held(prepared.pool, prepared.rules, terms.blocks, terms.in_flight_tokens)
    sized = size(held, workload)
    held_whole = terms.most_running if sized.sequences is None else sized.sequences
    sized = sized._replace(sequences=min(terms.most_running, held_whole))
    short = short_of_pool(held, workload, terms.pool_bytes, prepared.facts.kinds, sized.per_sequence)
    refusal = terms.refusal or refusal_of_pool(workload, terms.pool_bytes, short)
    # Refused by less than the figures may be off, or than a later start has more: nobody can say.
    may_start = terms.may_start and short <= terms.pool_uncertainty_bytes + terms.compiled_saves_bytes
    starts_later = may_start and (terms.starts_later or short > terms.pool_uncertainty_bytes)
    # A pool of a given size has its tokens, whether or not the rest finds room on this GPU.
    given = settings.kv_cache_memory_bytes is not None
    counted = terms.pool_bytes > 0 and (may_start or (short <= 0 and given))
    unsure = terms.uncertainty_bytes + terms.warm_up_bytes
    if prepared.sparse and not settings.enforce_eager:
        rows = min(_batch(prepared, gpu, workload, settings)[1], DEFAULT_LARGEST)
        unsure += _vllm_budget.indexer_logits_bytes(prepared.facts.kinds, rows, workload.context_tokens)
    return _report(
        prepared,
        gpu,
        terms,
        sized,
        refusal,
        may_start=may_start,
        starts_later=starts_later,
        counted=counted,
        unsure_bytes=unsure,
    )


def _prepared_for(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> _Prepared:
    kv_type = kv_dtype(model, gpu, workload, settings)
    key = (
        model.key, kv_type, gpu.compute_capability, gpu.interconnect, gpu.vendor, gpu.unified_memory, settings.version,
        settings.tensor_parallel, settings.pipeline_parallel, settings.dtype, settings.expert_parallel,
    )  # fmt: skip
    return _prepared.get(key) or _facts.kept(_prepared, key, lambda: _prepare(model, gpu, settings, kv_type))


def cache_kinds(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings
) -> tuple[LayerKind, ...]:
    """The layers' caches as this GPU's kernels keep them; arguments as for `footprint`."""
    return _prepared_for(model, gpu, workload, settings).facts.kinds


def kv_dtype(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> str:
    """The type of keys and values; `auto` is the model's own but for sparse classes on data-centre Blackwell.

    Source: vLLM 0.32 `model_executor/models/config.py` GlmMoeDsaForCausalLM, 0.33 Glm5NextModelConfig.
    """
    kv_type = _facts.kv_dtype(model, workload, settings)
    if workload.kv_dtype != "auto":
        return kv_type
    if kv_type == "fp8":
        return "fp8_e4m3"  # so named where files ask (`utils/torch_utils.py`); kernels tell the two apart
    blackwell = gpu.compute_capability is not None and gpu.compute_capability[0] == DATA_CENTRE_BLACKWELL
    in_fp8 = blackwell and model.architecture.name in rules(NAME, settings.version)["fp8_cache_on_blackwell"]
    return "fp8_e4m3" if in_fp8 else kv_type


class _Terms(NamedTuple):
    """How the GPU's memory is divided, whatever the context.

    loaded_bytes: weights as printed. activations_bytes: the profile run's peak; warm_up_bytes: what the sampler takes
    beyond it for a moment once the pool is allocated. compiled_saves_bytes: of the peak, where kernels are at hand.
    budget_bytes: 0 where the pool is fixed. blocks: of the pool. sequences_to_hold: of which each must have a block,
    or it does not start; startable_sequences: how many surely have.
    max_context_tokens: the longest sequence that they hold. refusal: why the budget cannot be had, or nothing;
    may_start: there is none, or it is within the error. starts_later: within it only with what kernels at hand save.
    most_running: sequences at once.
    """

    loaded_bytes: int
    runtime_bytes: int
    activations_bytes: int
    warm_up_bytes: int
    compiled_saves_bytes: int
    graphs_bytes: int
    budget_bytes: int
    pool_bytes: int
    free_bytes: int
    fraction: float | None
    in_flight_tokens: int
    blocks: int = 0
    max_context_tokens: int | None = None
    uncertainty_bytes: int = 0
    pool_uncertainty_bytes: int = 0
    refusal: str = ""
    may_start: bool = True
    sequences_to_hold: int = 0
    startable_sequences: int | None = None
    starts_later: bool = False
    most_running: int = 0


class Moments(NamedTuple):
    """What a launch takes beside weights and cache, opened: for the sum and for those who ask how it came about."""

    batch: Batch
    encoder: EncoderRun
    activations: Activations
    graphs: Graphs
    context_bytes: int
    non_torch_bytes: int


def moments(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Moments:
    """The parts of activations, graphs and runtime, in bytes; arguments as for `footprint`."""
    prepared = _prepared_for(model, gpu, workload, settings)
    tokens, sequences = _batch(prepared, gpu, workload, settings)
    return _moments(prepared, gpu, settings, _PassSize(tokens, sequences, workload.context_tokens))


def parts(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> tuple[Part, ...]:
    """Activations, graphs and runtime opened into lines with their figures; arguments as for `footprint`."""
    from soong.memory.engines import _vllm_explained as explained

    prepared = _prepared_for(model, gpu, workload, settings)
    opened = moments(model, gpu, workload, settings)
    full = engine_tables()[NAME]["graphs"]["full_captures"]
    return (
        *explained.activation_parts(prepared.facts, prepared.rules, opened.activations, opened.batch),
        *explained.graph_parts(prepared.facts, opened.graphs, full),
        *explained.runtime_parts(opened.context_bytes, opened.non_torch_bytes),
    )


class _PassSize(NamedTuple):
    """Tokens of a pass, sequences at once, and the longest of them; the last is 0 where it decides nothing."""

    tokens: int
    sequences: int
    context_tokens: int


def _moments(prepared: _Prepared, gpu: Gpu, settings: EngineSettings, size: _PassSize) -> Moments:
    tokens, sequences, context_tokens = size
    tables = engine_tables()[NAME]
    capability = gpu.compute_capability or _vllm_budget.HOPPER
    processors = tables["processors"].get(f"{capability[0]}.{capability[1]}", tables["processors"]["9.0"])
    run = Batch(
        tokens,
        sequences,
        processors,
        compiled=not settings.enforce_eager,
        context_tokens=context_tokens,
        flash_mla=gpu.vendor == "nvidia" and capability[0] in {_vllm_budget.HOPPER[0], DATA_CENTRE_BLACKWELL},
    )
    encoder = encoder_run(prepared.facts, prepared.rules, tokens, settings.tensor_parallel, context_tokens)
    captured = NO_GRAPHS
    if not settings.enforce_eager:
        captured = graphs(
            prepared.facts, gpu, prepared.rules, tables["graphs"], tokens=tokens, sequences=sequences,
            context_tokens=context_tokens,
        )  # fmt: skip
    peak = activations(prepared.facts, prepared.rules, tables["activations"], run, encoder)
    if settings.enforce_eager:
        outside = prepared.eager_non_torch_bytes
    elif captured.captures and not runs_in_second_runner(prepared.facts, prepared.rules):
        outside = prepared.graph_trial_non_torch_bytes
    else:
        outside = prepared.non_torch_bytes
    return Moments(run, encoder, peak, captured, prepared.context_bytes, outside)


def _terms(prepared: _Prepared, gpu: Gpu, workload: Workload, settings: EngineSettings) -> _Terms:
    """The division for one batch and one set of flags; remembered, since most contexts share it."""
    tokens, sequences = _batch(prepared, gpu, workload, settings)
    grows = prepared.sparse or grows_with_context(prepared.facts)
    longest = workload.context_tokens if grows else 0
    key = (
        gpu.memory_bytes, tokens, sequences, settings.memory_fraction, settings.kv_cache_memory_bytes,
        settings.enforce_eager, longest,
    )  # fmt: skip
    found = prepared.terms.get(key)
    if found is None:
        if len(prepared.terms) >= _facts.MOST_TERMS:
            prepared.terms.clear()
        opened = _moments(prepared, gpu, settings, _PassSize(tokens, sequences, longest))
        divided = _divide(prepared, gpu, settings, opened)
        found = prepared.terms[key] = _with_pool(
            prepared, gpu, _with_errors(prepared, gpu, settings, divided, opened)
        )
    return found


def _with_errors(
    prepared: _Prepared, gpu: Gpu, settings: EngineSettings, terms: _Terms, opened: Moments
) -> _Terms:
    parts = _vllm_budget.Parts(
        facts=prepared.facts,
        gpu=gpu,
        activations=opened.activations,
        encoder=opened.encoder,
        graphs=opened.graphs,
        runtime_bytes=terms.runtime_bytes,
        sequences=opened.batch.sequences,
        grouped=settings.tensor_parallel > 1 and _vllm_budget.nvlinked(gpu),
        grouped_cards=settings.tensor_parallel > 1 and not _vllm_budget.nvlinked(gpu),
        second_runner=runs_in_second_runner(prepared.facts, prepared.rules),
        small_fp4=prepared.small_fp4,
        budgeted=terms.fraction is not None and bool(prepared.pool.groups),
        graphs_counted=counts_graphs(prepared.facts, prepared.rules, gpu.vendor),
    )
    error = _vllm_budget.uncertainty(prepared.rules, prepared.uncertainty, parts)
    return terms._replace(uncertainty_bytes=error.free_bytes, pool_uncertainty_bytes=error.pool_bytes)


def _with_pool(prepared: _Prepared, gpu: Gpu, terms: _Terms) -> _Terms:
    """The terms with what follows from them."""
    has_pool = bool(prepared.pool.groups)
    blocks = max(terms.pool_bytes, 0) // prepared.pool.bytes_per_block if has_pool else 1
    refusal, short, error = _refusal_of_budget(prepared, gpu, terms)
    of_pool = not refusal or (terms.pool_bytes <= 0 and has_pool)
    startable = None
    if terms.sequences_to_hold:
        block_bytes = prepared.pool.bytes_per_block
        startable = max(0, terms.pool_bytes - terms.pool_uncertainty_bytes) // block_bytes
        if of_pool and terms.sequences_to_hold > blocks:
            refusal = refusal or _too_few_blocks(terms.sequences_to_hold, blocks)
            short = terms.sequences_to_hold * block_bytes - terms.pool_bytes
            error = terms.pool_uncertainty_bytes
    saved = terms.compiled_saves_bytes if of_pool else 0
    return terms._replace(
        blocks=blocks,
        max_context_tokens=longest_context(
            prepared.pool, blocks, terms.in_flight_tokens, prepared.context_limit_tokens
        ),
        refusal=refusal,
        may_start=short <= error + saved,
        starts_later=error < short <= error + saved,
        startable_sequences=startable,
    )


def _divide(prepared: _Prepared, gpu: Gpu, settings: EngineSettings, opened: Moments) -> _Terms:
    facts, non_torch = prepared.facts, opened.non_torch_bytes
    weights = facts.weights_bytes + facts.batch_buffer_bytes * opened.batch.tokens
    runtime = prepared.context_bytes + non_torch
    captured, peak = opened.graphs.total_bytes, opened.activations.peak_bytes
    fraction: float | None = None
    budget = 0
    if settings.kv_cache_memory_bytes is None:
        fraction = settings.memory_fraction or prepared.rules["memory_fraction"]
        budget = math.ceil(gpu.memory_bytes * fraction)
        counted = captured if counts_graphs(facts, prepared.rules, gpu.vendor) else 0
        pool = budget - weights - non_torch - peak - counted
    else:
        pool = settings.kv_cache_memory_bytes
    if not prepared.pool.groups:  # an encoder: nothing is profiled, nothing kept (`v1/engine/core.py`)
        pool = 0
    return _Terms(
        loaded_bytes=weights,
        runtime_bytes=runtime,
        activations_bytes=peak,
        warm_up_bytes=max(0, opened.activations.warm_up_bytes - peak),
        compiled_saves_bytes=peak - opened.activations.compiled_peak_bytes if fraction is not None else 0,
        graphs_bytes=captured,
        budget_bytes=budget,
        pool_bytes=pool,
        free_bytes=gpu.memory_bytes - runtime - weights - max(pool, 0) - peak - captured,
        fraction=fraction,
        in_flight_tokens=prepared.rules["in_flight_batches"] * opened.batch.tokens,
        sequences_to_hold=_sequences_to_hold(facts, prepared.rules, opened),
        most_running=opened.batch.sequences,
    )


def _report(
    prepared: _Prepared,
    gpu: Gpu,
    terms: _Terms,
    sized: Sized,
    refusal: str,
    *,
    may_start: bool,
    starts_later: bool,
    counted: bool,
    unsure_bytes: int,
) -> Footprint:
    loaded = terms.loaded_bytes
    weights = prepared.facts.tensor_bytes if terms.fraction is None else loaded
    fixed = terms.runtime_bytes + loaded + terms.activations_bytes + terms.graphs_bytes
    return Footprint(  # by place, which is ten times as quick as by name
        gpu.memory_bytes,  # total_bytes
        terms.runtime_bytes + loaded - weights,
        weights,  # weights_bytes
        prepared.facts.tensor_bytes,
        loaded,  # loaded_bytes
        max(terms.pool_bytes, 0),  # kv_pool_bytes
        0,  # state_bytes
        terms.activations_bytes,
        terms.graphs_bytes,  # cuda_graphs_bytes
        terms.free_bytes,
        terms.fraction,  # memory_fraction
        sized.tokens if counted else None,  # kv_pool_tokens
        sized.concurrency if counted else None,  # max_concurrency
        prepared.kv_bytes_per_token,
        prepared.state_bytes_per_sequence,
        sized.workload_bytes,  # workload_kv_bytes
        fixed + sized.workload_bytes,  # need_bytes
        terms.max_context_tokens,
        sized.sequences,  # max_sequences
        not refusal,  # starts
        refusal,
        unsure_bytes,  # uncertainty_bytes
        terms.pool_uncertainty_bytes,
        may_start,
        terms.startable_sequences,
        0,  # workload_state_bytes
        terms.most_running,
        starts_later,
    )


def most_running(gpu: Gpu, settings: EngineSettings) -> int:
    """The `max_num_seqs` that the engine takes for a GPU by itself."""
    return batch_defaults(gpu, rules(NAME, settings.version))[1]


def pass_tokens(gpu: Gpu, settings: EngineSettings) -> int:
    """The `max_num_batched_tokens` that the engine takes for a GPU by itself."""
    return batch_defaults(gpu, rules(NAME, settings.version))[0]


def _batch(prepared: _Prepared, gpu: Gpu, workload: Workload, settings: EngineSettings) -> tuple[int, int]:
    """Tokens of one forward pass and sequences at once, defaults filled in as the engine does."""
    tokens, sequences = batch_defaults(gpu, prepared.rules)
    if settings.max_num_seqs:
        sequences = settings.max_num_seqs
    if settings.max_num_batched_tokens:
        return settings.max_num_batched_tokens, min(sequences, settings.max_num_batched_tokens)
    if prepared.facts.whole_prompts:  # no chunked prefill: `engine/arg_utils.py`
        tokens = max(tokens, workload.context_tokens)
    tokens = max(tokens, prepared.least_batch_tokens)
    tokens = max(1, min(tokens, sequences * workload.context_tokens))
    return tokens, min(sequences, tokens)


def _prepare(model: ServedModel, gpu: Gpu, settings: EngineSettings, kv_type: str) -> _Prepared:
    constants = rules(NAME, settings.version)
    outside = partial(
        _vllm_budget.non_torch_bytes,
        constants,
        gpu,
        settings.tensor_parallel,
        stages=settings.pipeline_parallel,
    )
    facts = _facts.gather(model, gpu, settings, kv_type)
    if not facts.writes_text:  # not scheduled ahead: `config/vllm.py`, "asynchronous scheduling ... pooling"
        constants = {**constants, "in_flight_batches": 1}
    sparse = any(kind.name == "indexer" for kind in facts.kinds)
    if sparse and kv_type.startswith("fp8") and _raw_sparse(gpu, settings.version, kv_type):
        facts = _facts.raw_latent(facts)
    pool = build_pool(
        facts.kinds,
        PoolRules(
            hybrid=constants["hybrid_pools"],
            common_group_ratio=constants["common_group_ratio"],
            state_blocks=constants["mamba_blocks_per_sequence"],
            mamba2_checkpoint_blocks=constants["mamba2_checkpoint_blocks"],
            latent_block_tokens=_latent_block_tokens(gpu, kv_type),
            kda_checkpoint_blocks=constants["kda_checkpoint_blocks"],
            in_flight_batches=constants["in_flight_batches"],
            pages_by_bytes=constants["compressed_pages_by_bytes"],
        ),
    )
    return _Prepared(
        facts=facts,
        pool=pool,
        rules=constants,
        kv_bytes_per_token=kv_bytes_per_token(facts.kinds),
        state_bytes_per_sequence=state_bytes_per_sequence(facts.kinds),
        context_bytes=_vllm_budget.context_bytes(
            constants, gpu, settings.tensor_parallel, mixture=facts.mixture
        ),
        non_torch_bytes=outside(),
        graph_trial_non_torch_bytes=outside(graphs_profiled=True),
        eager_non_torch_bytes=outside(compiled=False),
        context_limit_tokens=model.architecture.context_limit_tokens or LONGEST_CONTEXT_TOKENS,
        least_batch_tokens=least_batch_tokens(facts, constants),
        small_fp4=_vllm_budget.in_small_fp4(model, gpu),
        sparse=_vllm_budget.indexer_logits_bytes(facts.kinds, 1, LONGEST_CONTEXT_TOKENS) > 0,
        uncertainty=engine_tables()[NAME]["uncertainty"],
        terms={},
    )


def _raw_sparse(gpu: Gpu, version: str, kv_type: str) -> bool:
    """Whether the sparse MLA kernel keeps FP8 entries without scales, FlashInfer's instead of FlashMLA's.

    Source: vLLM 0.33 `platforms/cuda.py _get_backend_priorities`: on Blackwell FlashInfer's comes first for an FP8
    cache (vllm-project/vllm pull request 37252, in 0.19); FlashMLA's knows "fp8", not "fp8_e4m3"
    (`v1/attention/backends/mla/flashmla_sparse.py`), so on Hopper the files' wish falls to
    `flashinfer_mla_sparse_sm90.py` (0.30; 0.29 has it not).
    """
    major = (gpu.compute_capability or _vllm_budget.HOPPER)[0]
    if major == BLACKWELL[0]:
        return version_tuple(version) >= _RAW_SPARSE_BLACKWELL
    return (
        major == _vllm_budget.HOPPER[0]
        and kv_type == "fp8_e4m3"
        and version_tuple(version) >= _RAW_SPARSE_HOPPER
    )


_RAW_SPARSE_BLACKWELL = (0, 19)
_RAW_SPARSE_HOPPER = (0, 30)


def _latent_block_tokens(gpu: Gpu, kv_type: str) -> int:
    """Block size of the MLA kernel that is picked (`platforms/cuda.py _get_backend_priorities`).

    Hopper: FlashAttention MLA takes 16, FlashMLA (for FP8 caches) 64. Blackwell's FlashInfer MLA takes 32.
    """
    major = (gpu.compute_capability or _vllm_budget.HOPPER)[0]
    if major == DATA_CENTRE_BLACKWELL:
        return 32
    return 64 if major == _vllm_budget.HOPPER[0] and kv_type.startswith("fp8") else 16


def _refusal_of_budget(prepared: _Prepared, gpu: Gpu, terms: _Terms) -> tuple[str, int, int]:
    """Why the engine's budget cannot be had (`request_memory`), or nothing; bytes short, and their error."""
    gib = _vllm_budget.GIB
    at_start = gpu.memory_bytes - prepared.context_bytes
    if terms.budget_bytes > at_start:
        reason = (
            f"free memory at start ({at_start / gib:.2f} GiB) is less than the desired GPU memory utilization "
            f"({terms.budget_bytes / gib:.2f} GiB)"
        )
        error = min(terms.uncertainty_bytes, prepared.context_bytes - 1)  # no CUDA context takes nothing
        return reason, terms.budget_bytes - at_start, error
    if terms.pool_bytes <= 0 and prepared.pool.groups:
        reason = "no available memory for the cache blocks: weights and activations fill the engine's budget"
        return reason, -terms.pool_bytes, terms.pool_uncertainty_bytes
    free = terms.free_bytes - terms.warm_up_bytes
    if free < 0:
        reason = f"out of memory: {-free / gib:.2f} GiB more than the GPU has"
        return reason, -free, terms.uncertainty_bytes
    return "", 0, 0


def _sequences_to_hold(facts: _facts.Facts, constants: dict[str, Any], opened: Moments) -> int:
    """How many sequences must have a block of recurrent state: all that may run, where whole passes are captured.

    Source: vLLM 0.20 to 0.33 `config/compilation.py` resolve_cudagraph_mode_and_sizes; 0.19 captures fewer instead.
    """
    if (
        not constants["state_block_per_sequence"]
        or constants["graph_modes"] == 1
        or not opened.graphs.captures
    ):
        return 0
    return opened.batch.sequences if any(kind.state_bytes for kind in facts.kinds) else 0


def _too_few_blocks(sequences: int, blocks: int) -> str:
    """The refusal of more sequences than blocks of recurrent state."""
    return (
        f"max_num_seqs ({sequences}) exceeds available Mamba cache blocks ({blocks}): "
        f"lower --max-num-seqs to at most {blocks}"
    )


def launch_argv(model_name: str, workload: Workload, settings: EngineSettings) -> tuple[str, ...]:
    """The command that starts the server as it was planned."""
    argv = ["vllm", "serve", model_name, "--max-model-len", str(workload.context_tokens)]
    if settings.tensor_parallel > 1:
        argv += ["--tensor-parallel-size", str(settings.tensor_parallel)]
    if settings.pipeline_parallel > 1:
        argv += ["--pipeline-parallel-size", str(settings.pipeline_parallel)]
    if settings.expert_parallel and settings.tensor_parallel > 1:
        argv.append("--enable-expert-parallel")
    if settings.kv_cache_memory_bytes is not None:
        argv += ["--kv-cache-memory-bytes", str(settings.kv_cache_memory_bytes)]
    else:
        fraction = settings.memory_fraction or rules(NAME, settings.version)["memory_fraction"]
        argv += ["--gpu-memory-utilization", f"{fraction:g}"]
    if workload.kv_dtype != "auto":
        argv += ["--kv-cache-dtype", workload.kv_dtype]
    if settings.dtype != "auto":
        argv += ["--dtype", settings.dtype]
    if settings.max_num_batched_tokens:
        argv += ["--max-num-batched-tokens", str(settings.max_num_batched_tokens)]
    if settings.max_num_seqs:
        argv += ["--max-num-seqs", str(settings.max_num_seqs)]
    switches = (("--enforce-eager", settings.enforce_eager), ("--language-model-only", settings.text_only))
    return (*argv, *(switch for switch, given in switches if given))
