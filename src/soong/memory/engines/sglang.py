"""SGLang's memory: what weights and pools may take, what stays for the rest, and the flags that make the plan true.

`mem_fraction_static` is what weights and pools may take of the memory that was free before loading
(`mem_cache/kv_cache_configurator.py _profile_available_bytes` in 0.5.23, `profile_max_num_token` before); activations,
CUDA graphs and the request table live in the rest. Defaults are in `_sglang_defaults`, pools in `_sglang_pools`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from soong.memory.engines import _facts, _sglang_defaults, _sglang_pools, _vllm_budget
from soong.memory.engines._constants import by_group_size, engine_tables, rules, version_tuple
from soong.memory.footprint import Footprint
from soong.memory.kv_cache import kv_bytes_per_token, state_bytes_per_sequence
from soong.models.architecture import CompressedCache, LatentCache

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel, Workload
    from soong.memory.kv_cache import LayerKind

NAME = "sglang"
MIB = 1 << 20
GIB = 1 << 30
BF16_BYTES, FLOAT32_BYTES = 2, 4
FP4_SCALE_GROUP = 32

REQUEST_SLOT_EXTRA_TOKENS, REQUEST_SLOT_BYTES = 4, 4
"""The int32 table that maps each request's positions to pool slots (`_build_req_to_token_pool`)."""

SMALL_CARD_BYTES = 40 * GIB
"""Cards below lose less to the driver's context than larger ones."""

MOST_FRACTION = 0.999
"""Of `--mem-fraction-static`, which must stay below 1, in the steps that are written."""

MOST_OFF = 0.02
"""CUDA's total and nvidia-smi's differ by less than this part of a card."""

AMD = "amd"
"""Its cards capture no prefill by default (`cuda_graph_config.py default_prefill_backend`) and lose more to a group."""

ABSORBED, WIDE_ABSORBED_SINCE = "kv_b_proj", (0, 4, 7)

FP8_BY_CHECKPOINT = "modelopt"
"""The format whose `kv_cache_quant_algo` SGLang reads; others' wishes for an FP8 cache are not read."""


class _Prepared(Struct, frozen=True):
    facts: _facts.Facts
    rules: dict[str, Any]
    cell: _sglang_pools.Cell
    page_tokens: int
    state_bytes: int
    """Of one request slot, all layers."""
    slots_per_request: int
    context_limit_tokens: int
    kv_bytes_per_token: int
    state_bytes_per_sequence: int
    weights_uncertainty_bytes: int
    gpu_uncertainty_bytes: int
    first_graph_bytes: int
    """How much more than computed the first graph may take, with the kernels that are made ready for it."""
    pool_uncertainty_bytes: int
    terms: dict[tuple[Any, ...], _Terms]
    """How memory is divided, by all that decides it: the GPU's memory and links, and the flags."""


_prepared: dict[tuple[Any, ...], _Prepared] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory under SGLang.

    Args:
        model: what is served.
        gpu: one of the GPUs.
        workload: what must fit.
        settings: engine, version and flags.

    Returns:
        The footprint; `starts` is False where no pool is left or the GPU runs out; `refusal` also speaks where the
        engine starts with a pool that is shorter than the asked context, and refuses such requests one by one.
    """
    prepared = _prepared_for(model, gpu, workload, settings)
    terms = _terms(prepared, gpu, workload, settings)
    requests = _sglang_pools.requests(
        terms.pool_tokens,
        terms.slots if prepared.state_bytes else None,
        workload.context_tokens,
        settings,
        for_each=prepared.slots_per_request,
        compressed=prepared.cell.ring_row_bytes > 0,
    )
    table = (requests + 1) * (workload.context_tokens + REQUEST_SLOT_EXTRA_TOKENS) * REQUEST_SLOT_BYTES
    return _report(prepared, terms, workload, settings, requests=requests, table_bytes=table)


def _prepared_for(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> _Prepared:
    kv_type = kv_dtype(model, gpu, workload, settings)
    key = (
        model.key, kv_type, gpu.compute_capability, gpu.vendor, gpu.unified_memory, settings.version,
        settings.tensor_parallel, settings.pipeline_parallel, settings.dtype, settings.expert_parallel,
    )  # fmt: skip
    return _prepared.get(key) or _facts.kept(_prepared, key, lambda: _prepare(model, gpu, settings, kv_type))


def cache_kinds(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings
) -> tuple[LayerKind, ...]:
    """The layers' caches as this GPU's kernels keep them; arguments as for `footprint`."""
    return _prepared_for(model, gpu, workload, settings).facts.kinds


def kv_dtype(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> str:
    """The type of keys and values; `auto` is the model's own, with three exceptions.

    Sparse MLA is kept in FP8 on Blackwell (`_dsa_kv_cache_dtype_default`); a checkpoint's wish for FP8 counts only
    where SGLang reads it (`mem_cache/kv_cache_dtype.py`), and not before 0.5.6.
    """
    if workload.kv_dtype == "auto":
        if _is_sparse(model):
            return "fp8_e4m3" if _on_blackwell(gpu) else "bfloat16"
        read = rules(NAME, settings.version)["fp8_cache_by_checkpoint"]
        if not (read and model.quantization.method == FP8_BY_CHECKPOINT):
            own = model.architecture.dtype if settings.dtype == "auto" else settings.dtype
            return "bfloat16" if own == "float32" and settings.dtype == "auto" else own
    return _facts.kv_dtype(model, workload, settings)


def _is_sparse(model: ServedModel) -> bool:
    """Whether an indexer picks the tokens that are attended to; remembered, since every plan asks for each GPU."""
    found = _sparse.get(model.key)
    if found is None:
        if len(_sparse) >= _facts.MOST_PREPARED:
            _sparse.clear()
        caches = model.architecture.caches
        found = any(isinstance(cache, LatentCache) and cache.indexer_layers for cache in caches)
        _sparse[model.key] = found
    return found


_sparse: dict[str, bool] = {}


def _on_blackwell(gpu: Gpu) -> bool:
    return (gpu.compute_capability or (0,))[0] >= _sglang_defaults.DATA_CENTRE_BLACKWELL


class _Terms(Struct, frozen=True, gc=False):
    """How one GPU's memory is divided, whatever the workload.

    rest_bytes: for pools, before the recurrent state is taken. free_bytes: before the request table is taken.
    """

    total_bytes: int
    context_bytes: int
    fraction: float | None
    rest_bytes: int
    state_bytes: int
    slots: int
    pool_bytes: int
    pool_tokens: int
    activations_bytes: int
    graphs_bytes: int
    free_bytes: int


def _terms(prepared: _Prepared, gpu: Gpu, workload: Workload, settings: EngineSettings) -> _Terms:
    """The division for one GPU and one set of flags; remembered, since all contexts share it."""
    key = (
        gpu.id, gpu.memory_bytes, gpu.interconnect, settings.memory_fraction, settings.kv_cache_memory_bytes,
        settings.enforce_eager, settings.max_num_batched_tokens, settings.max_num_seqs,
        prepared.rules["prefill_graphs_up_to_context"] and workload.context_tokens,
    )  # fmt: skip
    found = prepared.terms.get(key)
    if found is None:
        if len(prepared.terms) >= _facts.MOST_TERMS:
            prepared.terms.clear()
        found = prepared.terms[key] = _divide(prepared, gpu, workload, settings)
    return found


def _divide(prepared: _Prepared, gpu: Gpu, workload: Workload, settings: EngineSettings) -> _Terms:
    facts, constants = prepared.facts, prepared.rules
    context = context_bytes(constants, gpu, settings.tensor_parallel * settings.pipeline_parallel)
    images = constants["multimodal_reserved_bytes"] if _sglang_defaults.takes_images(facts) else 0
    fraction: float | None = None
    given, rest = settings.kv_cache_memory_bytes, 0
    if given is None or settings.memory_fraction is not None:
        fraction = settings.memory_fraction or _sglang_defaults.default_fraction(
            facts, constants, reported_mib(gpu), settings, workload.context_tokens
        )
        rest = int((gpu.memory_bytes - context) * fraction) - facts.weights_bytes - images
    if given is not None:  # as tokens, cut to what a fraction allows (`_apply_token_constraints`)
        rest = given if fraction is None else min(given, rest)
        fraction = None
    slots, state, pool, pool_tokens = _pools(prepared, rest, settings)
    activations, graphs = _transient(prepared, gpu, workload, settings)
    taken = context + facts.weights_bytes + pool + state + activations + images + graphs
    return _Terms(
        total_bytes=gpu.memory_bytes,
        context_bytes=context,
        fraction=fraction,
        rest_bytes=rest,
        state_bytes=state,
        slots=slots,
        pool_bytes=pool,
        pool_tokens=pool_tokens,
        activations_bytes=activations + images,
        graphs_bytes=graphs,
        free_bytes=gpu.memory_bytes - taken,
    )


def _pools(prepared: _Prepared, rest_bytes: int, settings: EngineSettings) -> tuple[int, int, int, int]:
    """Slots of recurrent state, their bytes, and bytes and tokens of the pool, out of what both may take."""
    slots = _sglang_pools.state_slots(rest_bytes, prepared.state_bytes, prepared.rules)
    state = (slots + prepared.rules["state_padding_slots"]) * prepared.state_bytes if slots else 0
    pool = max(rest_bytes - state, 0)
    return slots, state, pool, _pool_tokens(prepared, pool, settings)


def _pool_tokens(prepared: _Prepared, pool_bytes: int, settings: EngineSettings) -> int:
    """Tokens of the pool; a model without a growing cache has as many as its context (`_zero_kv_max_tokens`)."""
    if not prepared.cell.token_bytes:
        return prepared.context_limit_tokens
    return _sglang_pools.pool_tokens(prepared.cell, pool_bytes, prepared.page_tokens, settings)


def context_bytes(constants: dict[str, Any], gpu: Gpu, gpus: int) -> int:
    """What a GPU has lost before loading: driver context and, in a group, the links' buffers.

    SGLang prints the latter as the memory of "Init torch distributed". Where the host shares the memory, it goes by
    what the system says is available (0.5.23 `utils/common.py get_available_gpu_memory`), less by its own use.
    """
    if gpu.unified_memory:
        return int(constants["unified_memory_context_bytes"])
    if gpu.vendor == AMD:
        table = "group_of_amd_context_bytes"
    else:
        table = "group_context_bytes" if _vllm_budget.nvlinked(gpu) else "group_without_nvlink_context_bytes"
    driver = "small_card_context_bytes" if gpu.memory_bytes < SMALL_CARD_BYTES else "driver_context_bytes"
    return int(constants[driver] + by_group_size(constants[table], gpus))


def reported_mib(gpu: Gpu) -> int:
    """The card's size as nvidia-smi states it, a little more than CUDA can use; SGLang's defaults go by it."""
    total = gpu.memory_bytes // MIB
    reported = engine_tables()[NAME]["reported_mib"].get(gpu.id, total)
    return reported if 0 <= reported - total < MOST_OFF * reported else total


def _report(
    prepared: _Prepared,
    terms: _Terms,
    workload: Workload,
    settings: EngineSettings,
    *,
    requests: int,
    table_bytes: int,
) -> Footprint:
    loaded, pool_tokens = prepared.facts.weights_bytes, terms.pool_tokens
    weights = prepared.facts.tensor_bytes if terms.fraction is None else loaded
    activations, graphs = terms.activations_bytes, terms.graphs_bytes
    runtime = terms.context_bytes + table_bytes
    free = terms.free_bytes - table_bytes
    failure = _failure(prepared, terms, free)
    refusal = failure or _refusal_of_requests(pool_tokens, workload)
    unsure = _uncertainty(prepared, runtime, activations, graphs)
    states = _workload_state_bytes(prepared, workload)
    used = states + _workload_token_bytes(prepared, workload, settings)
    return Footprint(  # by place, which is ten times as quick as by name
        terms.total_bytes,
        runtime + loaded - weights,  # runtime_bytes
        weights,  # weights_bytes
        prepared.facts.tensor_bytes,
        loaded,  # loaded_bytes
        terms.pool_bytes,  # kv_pool_bytes
        terms.state_bytes,
        activations,  # activations_bytes
        graphs,  # cuda_graphs_bytes
        free,  # free_bytes
        terms.fraction,  # memory_fraction
        pool_tokens if not failure or settings.kv_cache_memory_bytes is not None else None,  # kv_pool_tokens
        None,  # max_concurrency
        prepared.kv_bytes_per_token,
        prepared.state_bytes_per_sequence,
        used,  # workload_kv_bytes
        runtime + loaded + activations + graphs + used,  # need_bytes
        min(prepared.context_limit_tokens, pool_tokens),  # max_context_tokens
        min(requests, pool_tokens // max(1, workload.context_tokens)),  # max_sequences
        not failure,  # starts
        refusal,
        unsure,  # uncertainty_bytes
        0 if terms.fraction is None else prepared.pool_uncertainty_bytes,
        not refusal or _may_start(prepared, terms, workload, settings, free + unsure),
        None,  # startable_sequences
        states,  # workload_state_bytes
        requests,  # most_running
    )


def _workload_token_bytes(prepared: _Prepared, workload: Workload, settings: EngineSettings) -> int:
    """What the workload's sequences fill of the token pool, each in pages of its own."""
    page = prepared.page_tokens
    each = -(-workload.tokens_each // page) * page
    tokens = max(-(-workload.context_tokens // page) * page, each * workload.sequences)
    fixed = _sglang_pools.fixed_bytes(prepared.cell, settings)
    return fixed + math.ceil(prepared.cell.token_bytes * tokens)


def _workload_state_bytes(prepared: _Prepared, workload: Workload) -> int:
    """What they fill of the state pool, with the slots that are nobody's."""
    slots = prepared.slots_per_request * workload.sequences + prepared.rules["state_padding_slots"]
    return int(slots * prepared.state_bytes)


def _prepare(model: ServedModel, gpu: Gpu, settings: EngineSettings, kv_type: str) -> _Prepared:
    constants = rules(NAME, settings.version)
    if gpu.vendor == AMD:
        constants = {**constants, "prefill_graphs": False}
    kept = replace(model, architecture=_sglang_pools.as_kept(model.architecture, constants))
    facts = _facts.gather(kept, gpu, settings, kv_type)
    if kv_type.startswith("fp8") and _is_sparse(model) and _on_blackwell(gpu):
        facts = _facts.raw_latent(facts)
    alone = settings.tensor_parallel * settings.pipeline_parallel == 1
    loading = _absorbed_bytes(model, facts, gpu, settings) + alone * constants["loading_kernels_bytes"]
    if model.quantization.method == "modelopt":  # nothing else has them, and most plans need not load that
        from soong.memory.engines import _sglang_loading

        loading += _sglang_loading.placeholder_bytes(model, gpu, settings)
    if facts.mixture:
        from soong.memory.engines import _sglang_experts

        loading += _sglang_experts.kept_bytes(model, gpu, settings)
    facts = replace(facts, weights_bytes=facts.weights_bytes + loading)
    wide = 0 if _on_blackwell(gpu) else _wide_scales_bytes(model, settings)
    if constants["fp4_scales_in_float32"]:
        facts, wide = replace(facts, weights_bytes=facts.weights_bytes + wide), 0
    unsure = _weights_uncertainty_bytes(model, facts, gpu)
    table = engine_tables()[NAME]["uncertainty"]
    gpu_unsure = int(table["unified_memory_bytes" if gpu.unified_memory else "unseen_gpu_bytes"])
    return _Prepared(
        facts=facts,
        rules=constants,
        cell=_sglang_pools.cell_of(facts, constants),
        page_tokens=_sglang_defaults.page_tokens(facts, gpu),
        state_bytes=sum(kind.layers * kind.state_bytes for kind in facts.kinds),
        slots_per_request=_sglang_pools.slots_per_request(facts.kinds, constants),
        context_limit_tokens=model.architecture.context_limit_tokens or 1 << 24,
        kv_bytes_per_token=kv_bytes_per_token(facts.kinds),
        state_bytes_per_sequence=state_bytes_per_sequence(facts.kinds),
        weights_uncertainty_bytes=unsure,
        gpu_uncertainty_bytes=gpu_unsure,
        first_graph_bytes=_first_graph_bytes(model, facts, gpu),
        pool_uncertainty_bytes=unsure + gpu_unsure + wide,
        terms={},
    )


def _first_graph_bytes(model: ServedModel, facts: _facts.Facts, gpu: Gpu) -> int:
    """A margin, for MLA's kernels that only Hopper and data-centre Blackwell have, and FP4's on smaller Blackwell.

    Measured, not read: `data/engines.toml` sglang.uncertainty tells on which launches it rests.
    """
    major = (gpu.compute_capability or _vllm_budget.HOPPER)[0]
    table = engine_tables()[NAME]["uncertainty"]
    if facts.mixture and facts.latent_width and major in {9, _sglang_defaults.DATA_CENTRE_BLACKWELL}:
        return int(table["latent_first_graph_bytes"])
    return int(table["fp4_first_graph_bytes"]) if _vllm_budget.in_small_fp4(model, gpu) else 0


def _absorbed_bytes(model: ServedModel, facts: _facts.Facts, gpu: Gpu, settings: EngineSettings) -> int:
    """What MLA keeps twice: `kv_b_proj`, and its halves turned for decoding (`w_kc`, `w_vc`).

    FP8 stays FP8, with one scale, but blocks of FP8 become bfloat16 on NVIDIA's cards. Source: SGLang 0.5.23
    `models/deepseek_common/deepseek_weight_loader.py post_load_weights`; `models/deepseek_v2.py` of 0.4.7, where that
    of 0.4.6 has one scale.
    """
    layers = sum(kind.layers for kind in facts.kinds if kind.name == "latent")
    if not layers:
        return 0
    width = next(
        (cache.latent_dim for cache in model.architecture.caches if isinstance(cache, LatentCache)), 0
    )
    weights = (weight for weight in model.architecture.weights if weight.path.endswith(ABSORBED))
    forms = [form.kind for weight in weights for form, _ in model.quantization.spread(weight) if form]
    wide = gpu.vendor != AMD and version_tuple(settings.version) >= WIDE_ABSORBED_SINCE
    in_fp8 = any(kind.startswith("fp8") and not (wide and kind == "fp8_block") for kind in forms)
    return layers * facts.latent_width * width * (1 if in_fp8 else BF16_BYTES)


def _wide_scales_bytes(model: ServedModel, settings: EngineSettings) -> int:
    """What DeepSeek-V4's FP4 experts take more when their scales, a byte for 32 numbers, become float32.

    So `layers/quantization/fp8.py Fp8MoEMethod.create_weights` keeps them before Blackwell; since 0.5.19 a kernel with
    byte scales is the default, of which no log is known yet, so that it counts as uncertainty.
    """
    experts = [weight for weight in model.architecture.weights if weight.part == "experts" and weight.served]
    compressed = any(isinstance(cache, CompressedCache) for cache in model.architecture.caches)
    if not compressed or all(form.kind != "mxfp4" for form in model.quantization.formats):
        return 0
    elements = sum(weight.elements * weight.count for weight in experts)
    per_gpu = elements // (settings.tensor_parallel * settings.pipeline_parallel)
    return per_gpu // FP4_SCALE_GROUP * (FLOAT32_BYTES - 1)


def most_running(gpu: Gpu, settings: EngineSettings) -> int:  # noqa: ARG001 - as the other engines
    """The largest pool of requests that the engine makes by itself; a small pool of tokens has room for fewer."""
    return _sglang_pools.MOST_REQUESTS


def pass_tokens(gpu: Gpu, settings: EngineSettings) -> int:
    """The `chunked_prefill_size` that the engine takes for a GPU by itself."""
    return _sglang_defaults.batch(reported_mib(gpu), settings, rules(NAME, settings.version)).tokens


def _transient(
    prepared: _Prepared, gpu: Gpu, workload: Workload, settings: EngineSettings
) -> tuple[int, int]:
    """Activations of the largest forward pass, and what CUDA graphs take beside them.

    Captured prefills keep their activations in the graphs' own memory, one after the other in the same place, so that
    they add 8 MiB each and no second set of activations (`reserve_for_graph_mb`).
    """
    facts, constants = prepared.facts, prepared.rules
    terms = engine_tables()[NAME]["terms"]
    tokens, decode_batch = _sglang_defaults.batch(reported_mib(gpu), settings, constants)
    activations = _activation_bytes(facts, terms, tokens, decode_batch)
    if settings.enforce_eager:
        return activations, 0
    captured = _sglang_defaults.prefill_graphs(facts, constants, settings, tokens, workload.context_tokens)
    graphs = terms["graphs_base_bytes"] + terms["graph_bytes"] * _sglang_defaults.decode_graphs(decode_batch)
    return activations, int(graphs + captured * _sglang_defaults.PREFILL_GRAPH_MIB * MIB)


def _activation_bytes(facts: _facts.Facts, terms: dict[str, Any], tokens: int, decode_batch: int) -> int:
    """The larger of a forward pass of one prefill chunk and of the logits of one decode batch."""
    row = tokens * BF16_BYTES
    forward = terms["residual_copies"] * facts.hidden_size * row
    if facts.mixture:
        widths = max(2 * facts.expert_width, facts.hidden_size) + facts.hidden_size
        forward += row * facts.experts_per_token * widths
    else:
        forward += terms["mlp_copies"] * facts.mlp_width * row
    logits = terms["logits_copies"] * decode_batch * facts.vocab_size * FLOAT32_BYTES
    return int(max(forward, logits))


def _failure(prepared: _Prepared, terms: _Terms, free: int) -> str:
    """Why the engine does not start; empty when it does."""
    pool_tokens = terms.pool_tokens
    if terms.rest_bytes <= 0 or pool_tokens <= 0 or (prepared.state_bytes and terms.slots <= 0):
        return "not enough memory for the token pool; increase --mem-fraction-static"
    if free < 0:
        return f"out of memory: {-free / GIB:.2f} GiB more than the GPU has"
    if _sglang_pools.sliding_pool_too_small(prepared.cell, pool_tokens, prepared.page_tokens):
        return "the sliding-window pool cannot hold one window"
    return ""


def _may_start(
    prepared: _Prepared, terms: _Terms, workload: Workload, settings: EngineSettings, most_free: int
) -> bool:
    """Whether it would start and take such requests, if the figures were off as far as they may be."""
    rest = terms.rest_bytes + (0 if terms.fraction is None else prepared.pool_uncertainty_bytes)
    slots, _, _, tokens = _pools(prepared, rest, settings)
    most = replace(terms, rest_bytes=rest, slots=slots, pool_tokens=tokens)
    return not _failure(prepared, most, most_free) and not _refusal_of_requests(tokens, workload)


def _refusal_of_requests(pool_tokens: int, workload: Workload) -> str:
    """The engine starts with any context length, and refuses a request that its pool cannot hold."""
    if pool_tokens >= workload.context_tokens:
        return ""
    return f"a request of {workload.context_tokens} tokens is longer than the pool of {pool_tokens} tokens"


def _weights_uncertainty_bytes(model: ServedModel, facts: _facts.Facts, gpu: Gpu) -> int:
    """How far the loaded weights may be off: more where experts are repacked, most where the host shares the memory."""
    table = engine_tables()[NAME]["uncertainty"]
    if gpu.unified_memory:
        return int(table["unified_memory_fraction"] * facts.weights_bytes)
    if facts.mixture and any(form.kind == "nvfp4" for form in model.quantization.formats):
        return int(table["nvfp4_mixture_fraction"] * facts.weights_bytes)
    word = "quantized_mixture_fraction" if facts.mixture and facts.quantized else "weights_fraction"
    return int(table[word] * facts.weights_bytes)


def _uncertainty(prepared: _Prepared, runtime: int, activations: int, graphs: int) -> int:
    table = engine_tables()[NAME]["uncertainty"]
    captured = max(table["cuda_graphs_fraction"] * graphs, prepared.first_graph_bytes) if graphs else 0
    return int(
        table["activations_fraction"] * activations
        + captured
        + table["runtime_fraction"] * runtime
        + prepared.weights_uncertainty_bytes
        + prepared.gpu_uncertainty_bytes
    )


def with_pool_flags(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings
) -> EngineSettings:
    """The flags that make a pool given in bytes: its tokens, its slots of state, and a fraction that allows both.

    A limit of tokens goes to the full pool, which the sliding one follows by its share
    (`HybridSWAPoolConfigurator._solve_pool_sizes`), and is cut to what the fraction allows
    (`kv_cache_configurator.py _apply_token_constraints`); slots of state are taken before
    (`_handle_max_mamba_cache`). So the fraction is raised where the default one allows less. SGLang 0.5.23.
    """
    given = settings.kv_cache_memory_bytes
    if given is None:
        return settings
    prepared = _prepared_for(model, gpu, workload, settings)
    terms = _terms(prepared, gpu, workload, settings)
    limited = replace(
        settings,
        pool_tokens=terms.pool_tokens if prepared.cell.token_bytes else None,
        state_slots=terms.slots if prepared.state_bytes else None,
    )
    usual = _terms(prepared, gpu, workload, replace(settings, kv_cache_memory_bytes=None))
    lacking = given + prepared.pool_uncertainty_bytes - usual.rest_bytes
    if settings.memory_fraction is not None or lacking <= 0:
        return limited
    needed = (usual.fraction or 0) + lacking / (gpu.memory_bytes - usual.context_bytes)
    return replace(limited, memory_fraction=min(math.ceil(needed * 1000) / 1000, MOST_FRACTION))


def launch_argv(model_name: str, workload: Workload, settings: EngineSettings) -> tuple[str, ...]:
    """The command that starts the server as it was planned.

    SGLang has no float16 among its cache types, and had no bfloat16 before 0.5.4: such a cache comes with a model in
    that type. A pool given in bytes becomes tokens and slots of state (`with_pool_flags`).
    """
    by_model = (
        {"float16"} if rules(NAME, settings.version)["bfloat16_cache_flag"] else {"float16", "bfloat16"}
    )
    dtype = workload.kv_dtype if workload.kv_dtype in by_model else settings.dtype
    argv = ["python", "-m", "sglang.launch_server", "--model-path", model_name]
    argv += ["--context-length", str(workload.context_tokens)]
    if settings.tensor_parallel > 1:
        argv += ["--tp-size", str(settings.tensor_parallel)]
    if settings.pipeline_parallel > 1:
        argv += ["--pp-size", str(settings.pipeline_parallel)]
    if settings.expert_parallel and settings.tensor_parallel > 1:
        argv += ["--ep-size", str(settings.tensor_parallel)]
    if settings.memory_fraction is not None:
        argv += ["--mem-fraction-static", f"{settings.memory_fraction:g}"]
    if workload.kv_dtype not in {"auto", *by_model}:
        argv += ["--kv-cache-dtype", "fp8_e4m3" if workload.kv_dtype == "fp8" else workload.kv_dtype]
    if dtype != "auto":
        argv += ["--dtype", dtype]
    for flag, number in (
        ("--chunked-prefill-size", settings.max_num_batched_tokens),
        ("--max-running-requests", settings.max_num_seqs),
        ("--max-total-tokens", settings.pool_tokens),
        ("--max-mamba-cache-size", settings.state_slots),
    ):
        if number:
            argv += [flag, str(number)]
    switches = (
        ("--disable-cuda-graph", settings.enforce_eager),
        ("--language-model-only", settings.text_only),
    )
    return (*argv, *(switch for switch, given in switches if given))
