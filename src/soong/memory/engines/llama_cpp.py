"""llama.cpp with every layer on the GPUs: tensors as the GGUF stores them, caches and the compute buffer.

`llama-server` allocates all it needs at start and prints it: "model buffer size" (`_llama_weights`), "KV buffer size"
and "RS buffer size" (`_llama_cache`), "compute buffer size" (`_llama_graph`, the graph under ggml's own allocator).
The context is fixed, so nothing is left to a pool; what does not fit fails to allocate. A slot's context is capped at
the model's own (`tools/server/server-context.cpp`). Several GPUs take layers in turn, the output counting as one more
(`src/llama-model.cpp`).
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines import _facts, _llama_cache, _llama_explained
from soong.memory.engines._constants import engine_tables, rules, version_tuple
from soong.memory.engines._llama_explained import context_note
from soong.memory.engines._llama_graph import INPUT_COPIES, Batch, Shape, compute_buffer_bytes
from soong.memory.engines._llama_shape import read_shape
from soong.memory.engines._llama_weights import gpu_of_layer, groups, layer_bytes, layer_count, weights_by_gpu
from soong.memory.footprint import Footprint
from soong.models.architecture import AttentionCache, LatentCache

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.engines._llama_cache import CacheKind
    from soong.memory.footprint import EngineSettings, ServedModel, Workload
    from soong.models.architecture import Architecture
    from soong.models.quantization import Quantization

__all__ = ("context_note", "explained", "footprint", "launch_argv", "remarks")

NAME = "llama.cpp"
GIB = 1 << 30
F16_BYTES = 2
F32_BYTES = 4
CACHE_TYPES = {"auto": "F16", "float16": "F16", "bfloat16": "BF16", "fp8": "Q8_0", "int8": "Q8_0"}
"""llama.cpp keeps F16 unless told otherwise; it has no FP8 cache, its 8-bit type is q8_0."""

MIXTURES = {"int4": "Q4_K_M", "fp4": "MXFP4_MOE", "int8": "Q8_0", "fp8": "Q8_0"}
"""The file that is nearest to a word of the catalogue."""

PLAIN_FILES = {"float16": "F16", "float32": "F32"}

FLASH_HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 256})
"""Head sizes, of keys and values alike: `ggml-cuda/fattn.cu` ggml_cuda_get_best_fattn_kernel."""

FLASH_PAIRS = {(192, 128): 8, (320, 256): 32, (512, 512): 2, (576, 512): 2}
"""Key and value sizes that need so many query heads for each key head: the same function."""

WORD_FLAG_SINCE = (6325,)
"""Before llama.cpp pull request 15434 (2025-08) `--flash-attn` took no value."""


BATCH_TOKENS = 2048
"""`--batch-size` unless told otherwise, which bounds the micro batch: `common/common.h`, `src/llama-context.cpp`."""


class _Prepared(NamedTuple):
    """What does not change from plan to plan. gpu_layers: of each GPU."""

    weights: tuple[int, ...]
    gpu_layers: tuple[int, ...]
    layers: int
    kinds: tuple[CacheKind, ...]
    shape: Shape
    flash: bool


class _Share(NamedTuple):
    """The buffers of one GPU, in bytes."""

    weights: int
    pool: int
    state: int
    compute: int
    one_slot: int

    @property
    def total(self) -> int:
        return self.weights + self.pool + self.state + self.compute


_prepared: dict[tuple[Any, ...], _Prepared] = {}
_computed: dict[tuple[Any, ...], int] = {}
_from_the_back: dict[tuple[Any, ...], tuple[int, ...]] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory under llama.cpp, every layer offloaded; the fullest where several share the layers.

    Args:
        model: what is served.
        gpu: one of the GPUs.
        workload: what must fit.
        settings: engine, version and flags.

    Returns:
        The footprint; `starts` is False where the buffers exceed the GPU.
    """
    constants = rules(NAME, settings.version)
    gpus = settings.tensor_parallel * settings.pipeline_parallel
    type_name = CACHE_TYPES.get(workload.kv_dtype, "F16")
    key = (model.key, type_name, gpus)
    prepared = _facts.kept(_prepared, key, lambda: _prepare(model, type_name, gpus))
    batch_tokens = _micro_batch_tokens(constants, workload, settings)
    compute = _compute_bytes(prepared, constants, workload, type_name, batch_tokens, gpus)
    shares = [_share(prepared, place, workload, batch_tokens, compute) for place in range(gpus)]
    share = max(shares, key=lambda one: one.total)
    runtime = int(constants["driver_context_bytes"])
    if not constants["scratch_reserved"]:
        runtime += _scratch_bytes(prepared, workload, type_name, batch_tokens)
    free = gpu.memory_bytes - runtime - share.total
    never = _never_starts(prepared, workload, type_name)
    left = _Left(runtime, free, never, batch_tokens, _before_rules(settings.version))
    return _made(model, gpu, workload, prepared, share, left)


class _Left(NamedTuple):
    """never: why it starts with no memory whatever, or nothing."""

    runtime: int
    free: int
    never: str
    batch_tokens: int
    before_rules: bool

    @property
    def refusal(self) -> str:
        short = f"out of memory: {-self.free / GIB:.2f} GiB more than the GPU has" if self.free < 0 else ""
        return self.never or short


def _made(
    model: ServedModel, gpu: Gpu, workload: Workload, prepared: _Prepared, share: _Share, left: _Left
) -> Footprint:
    limits = _limits(model, workload, prepared, share, left)
    cells = _llama_cache.padded(workload.context_tokens)
    per_token = limits.token_bytes
    uncertainty = _uncertainty(model, left, share)
    return Footprint(  # by place, which is ten times as quick as by name
        gpu.memory_bytes,  # total_bytes
        left.runtime,  # runtime_bytes
        share.weights,  # weights_bytes
        share.weights,  # tensor_bytes
        share.weights,  # loaded_bytes
        share.pool,  # kv_pool_bytes
        share.state,  # state_bytes
        share.compute,  # activations_bytes
        0,  # cuda_graphs_bytes
        left.free,  # free_bytes
        None,  # memory_fraction
        None if left.refusal else cells * workload.sequences,  # kv_pool_tokens
        None,  # max_concurrency
        per_token,  # kv_bytes_per_token
        -(-share.state // workload.sequences)
        + max(0, share.one_slot - per_token * cells),  # state_bytes_per_sequence
        share.pool + share.state,  # workload_kv_bytes
        gpu.memory_bytes - left.free,  # need_bytes
        limits.context_tokens,  # max_context_tokens
        limits.sequences,  # max_sequences
        not left.refusal,  # starts
        left.refusal,
        uncertainty,  # uncertainty_bytes
        0,  # pool_uncertainty_bytes
        not left.refusal or (not left.never and left.free + uncertainty >= 0),  # may_start
    )


class _Limits(NamedTuple):
    """token_bytes: of one more token on this GPU."""

    token_bytes: int
    context_tokens: int | None
    sequences: int | None


def _limits(
    model: ServedModel, workload: Workload, prepared: _Prepared, share: _Share, left: _Left
) -> _Limits:
    """The longest context of one slot, and the slots of this context, that the room beside the rest holds."""
    here = share.pool / max(1, _pool_bytes(prepared, workload, left.batch_tokens))
    token_bytes = round(_token_bytes(prepared.kinds) * here)
    room = left.free + share.pool
    limit = model.architecture.context_limit_tokens
    longest = limit
    if token_bytes:
        cells = _llama_cache.padded(workload.context_tokens)
        fixed = share.one_slot - token_bytes * cells
        longest = int((room - fixed) // (token_bytes + F16_BYTES * left.batch_tokens))
        longest = max(0, min(longest, limit or longest))
    one = share.one_slot + -(-share.state // workload.sequences)
    return _Limits(
        token_bytes, longest, max(0, min((room + share.state) // one, _most_slots())) if one else None
    )


def _never_starts(prepared: _Prepared, workload: Workload, type_name: str) -> str:
    most = _most_slots()
    if workload.sequences > most:
        return f"llama.cpp keeps at most {most} sequences at once (LLAMA_MAX_SEQ)"
    if not prepared.flash and type_name == "Q8_0":
        return "a quantized cache needs flash attention, which has no kernel for this head size"
    return ""


def _prepare(model: ServedModel, type_name: str, gpus: int) -> _Prepared:
    architecture = model.architecture
    layers = layer_count(architecture)
    placed = [gpu_of_layer(number, layers, gpus) for number in range(layers)]
    return _Prepared(
        weights=weights_by_gpu(architecture, _storage(model), gpus),
        gpu_layers=tuple(placed.count(place) for place in range(gpus)),
        layers=max(1, layers),
        kinds=_llama_cache.cache_kinds(architecture, type_name),
        shape=read_shape(architecture),
        flash=has_flash_attention(architecture),
    )


def _storage(model: ServedModel) -> Quantization:
    """The GGUF's own types; of a repository without GGUF, those of the file that it would be converted to."""
    from soong.models import gguf_mixture

    storage = model.quantization
    if storage.method == "gguf":
        return storage
    if not storage.formats:
        return gguf_mixture.mixture(model.architecture, PLAIN_FILES.get(storage.dtype, "BF16"))
    return gguf_mixture.mixture(model.architecture, MIXTURES.get(storage.compute, "Q8_0"))


def has_flash_attention(architecture: Architecture) -> bool:
    """Whether CUDA has a fused attention for the model's heads; without, llama.cpp turns it off by itself."""
    heads = architecture.attention_heads
    for cache in architecture.caches:
        if isinstance(cache, AttentionCache):
            sizes, ratio = (cache.key_dim, cache.value_dim), heads // max(1, cache.kv_heads)
        elif isinstance(cache, LatentCache):
            sizes, ratio = (cache.latent_dim + cache.rope_dim, cache.latent_dim), heads
        else:
            continue
        even = sizes[0] == sizes[1] and sizes[0] in FLASH_HEADS
        least = FLASH_PAIRS.get(sizes, 0)
        if not even and not (least and ratio >= least and ratio % least == 0):
            return False
    return True


def _micro_batch_tokens(constants: dict[str, Any], workload: Workload, settings: EngineSettings) -> int:
    """`--ubatch-size`, at most the whole context, in equal parts for the slots: `llama-context.cpp` graph_reserve."""
    whole = _llama_cache.padded(workload.context_tokens) * workload.sequences
    asked = min(settings.max_num_batched_tokens or constants["micro_batch_tokens"], whole)
    return -(-int(asked) // workload.sequences) * workload.sequences


def _compute_bytes(
    prepared: _Prepared,
    constants: dict[str, Any],
    workload: Workload,
    type_name: str,
    batch_tokens: int,
    gpus: int,
) -> int:
    """The compute buffer for one micro batch of all slots, remembered.

    Masks are the only tensors that grow with the context, unless the attention's scores or scratch stand in the buffer;
    all layers hold them, so the graph without them is laid out once, and its growth added.
    """
    batch = _batch(prepared, constants, workload, type_name, batch_tokens, gpus)
    masks = 0
    if batch.flash and not batch.scratch_bytes and constants["outputs_limited"]:
        masks = sum(batch.mask_bytes) * batch.copies
        batch = batch._replace(mask_bytes=(0,) * len(batch.mask_bytes), cells=0)
    key = (prepared.shape, batch)
    return masks + _facts.kept(_computed, key, lambda: compute_buffer_bytes(prepared.shape, batch))


def _batch(
    prepared: _Prepared,
    constants: dict[str, Any],
    workload: Workload,
    type_name: str,
    batch_tokens: int,
    gpus: int,
) -> Batch:
    attending = [kind for kind in prepared.kinds if kind.token_bytes]
    cells = {
        bool(kind.window): _llama_cache.cells(kind, workload.context_tokens, batch_tokens)
        for kind in attending
    }
    number_bytes = constants["mask_number_bytes"] if prepared.flash else F32_BYTES
    outputs = workload.sequences if constants["outputs_limited"] else batch_tokens
    scratch = _scratch_bytes(prepared, workload, type_name, batch_tokens)
    return Batch(
        tokens=batch_tokens,
        outputs=min(batch_tokens, outputs),
        sequences=workload.sequences,
        mask_bytes=tuple(count * batch_tokens * number_bytes for count in cells.values()),
        cells=max(cells.values(), default=0),
        scratch_bytes=scratch if constants["scratch_reserved"] else 0,
        flash=prepared.flash,
        copies=INPUT_COPIES if gpus > 1 else 1,
    )


def _scratch_bytes(prepared: _Prepared, workload: Workload, type_name: str, batch_tokens: int) -> int:
    """Keys and values of one layer in float16, which the attention of a prompt works with.

    Source: llama.cpp `ggml-cuda/fattn-common.cuh` ggml_cuda_flash_attn_ext_get_f16_extra_data.
    """
    if type_name == "F16" or not prepared.flash:
        return 0
    numbers = (
        kind.numbers * _llama_cache.cells(kind, workload.context_tokens, batch_tokens)
        for kind in prepared.kinds
    )
    return max(numbers, default=0) * workload.sequences * F16_BYTES


def _share(prepared: _Prepared, place: int, workload: Workload, batch_tokens: int, compute: int) -> _Share:
    """The buffers of one GPU; every kind of layer is taken to be spread evenly."""
    kinds = _kinds_of(prepared, place)
    one = _llama_cache.slot_bytes(kinds, workload.context_tokens, batch_tokens)
    state = sum(kind.layers * kind.state_bytes for kind in kinds) * workload.sequences
    return _Share(prepared.weights[place], one * workload.sequences, state, compute, one)


def _kinds_of(prepared: _Prepared, place: int) -> tuple[CacheKind, ...]:
    part, whole = prepared.gpu_layers[place], prepared.layers
    if part == whole:
        return prepared.kinds
    return tuple(kind._replace(layers=-(-kind.layers * part // whole)) for kind in prepared.kinds)


def _pool_bytes(prepared: _Prepared, workload: Workload, batch_tokens: int) -> int:
    one = _llama_cache.slot_bytes(prepared.kinds, workload.context_tokens, batch_tokens)
    return one * workload.sequences


def _token_bytes(kinds: tuple[CacheKind, ...]) -> int:
    """Of one more token of a long context, all GPUs together."""
    return sum(kind.layers * kind.token_bytes // kind.ratio for kind in kinds if not kind.window)


def _uncertainty(model: ServedModel, left: _Left, share: _Share) -> int:
    table = engine_tables()[NAME]["uncertainty"]
    weights = (
        0
        if model.weights_basis == "headers" and model.quantization.method == "gguf"
        else table["assumed_weights_fraction"] * share.weights
    )
    return int(
        table["activations_fraction"] * share.compute
        + table["runtime_fraction"] * left.runtime
        + weights
        + table["unseen_gpu_bytes"]
        + (table["old_build_fraction"] * (share.pool + share.compute) if left.before_rules else 0)
    )


def explained(
    model: ServedModel, workload: Workload, settings: EngineSettings
) -> tuple[_llama_explained.Line, ...]:
    """The footprint's terms opened into lines; those of a section add up to its term.

    Args:
        model, workload, settings: as for `footprint`.
    """
    constants = rules(NAME, settings.version)
    gpus = settings.tensor_parallel * settings.pipeline_parallel
    type_name = CACHE_TYPES.get(workload.kv_dtype, "F16")
    prepared = _prepare(model, type_name, gpus)
    tokens = _micro_batch_tokens(constants, workload, settings)
    compute = _compute_bytes(prepared, constants, workload, type_name, tokens, gpus)
    shares = [_share(prepared, place, workload, tokens, compute) for place in range(gpus)]
    place = max(range(gpus), key=lambda number: shares[number].total)
    held = groups(model.architecture, _storage(model))
    context, late = int(constants["driver_context_bytes"]), 0
    if not constants["scratch_reserved"]:
        late = _scratch_bytes(prepared, workload, type_name, tokens)
    return (
        *_llama_explained.weight_lines(
            held, sum(one.size_bytes for one in held if not one.on_host), prepared.weights[place]
        ),
        *_llama_explained.cache_lines(_kinds_of(prepared, place), workload, tokens, type_name),
        *_llama_explained.compute_lines(
            _batch(prepared, constants, workload, type_name, tokens, gpus), compute
        ),
        _llama_explained.Line("runtime", "CUDA context", context, "taken by driver and library, measured"),
        _llama_explained.Line("runtime", "scratch", late, "to unpack a cache, when first needed"),
    )


def remarks(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings, *, lacking: Footprint | None
) -> tuple[str, ...]:
    """Builds that are older than the rules, and what can be done on a GPU that is too small."""
    found = []
    if lacking is not None and settings.tensor_parallel * settings.pipeline_parallel == 1:
        found.append(_partial(model, gpu, workload, settings, lacking))
    if _before_rules(settings.version):
        since = engine_tables()[NAME]["modelled_since"]
        found.append(
            f"{settings.version} is older than the rules, which begin with {since}: figures may be far off"
        )
    return tuple(filter(None, found))


def _before_rules(version: str) -> bool:
    return version_tuple(version) < version_tuple(engine_tables()[NAME]["modelled_since"])


def _partial(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings, whole: Footprint
) -> str:
    """How many layers the GPU holds with the rest on the CPU; empty where none.

    `--n-gpu-layers` counts from the back, the output first (`src/llama-model.cpp` load_tensors). When a prompt is read,
    the GPU computes the CPU's layers too: their matrices or their cache pass through the compute buffer in turn
    (`ggml-backend.cpp`, op_offload), of which one layer's are allowed for.
    """
    held = _facts.kept(_from_the_back, (model.key,), lambda: _summed_from_the_back(model))
    if whole.free_bytes >= 0 or len(held) <= LEAST_SUMS:
        return ""
    passing = max(held[0], _largest_cache_bytes(model, workload, settings))
    room = gpu.memory_bytes - whole.runtime_bytes - whole.activations_bytes - passing
    caches, layers = whole.kv_pool_bytes + whole.state_bytes, len(held) - LEAST_SUMS
    count = bisect_right(
        range(1, len(held)), room, key=lambda number: held[number] + caches * (number - 1) // layers
    )
    if not count:
        return ""
    return f"fits with `-ngl {count}` of {layers + 1} layers, the rest on the CPU, which is slow"


LEAST_SUMS = 2
"""The largest layer and the output: a model without layers has no more."""


def _largest_cache_bytes(model: ServedModel, workload: Workload, settings: EngineSettings) -> int:
    """Keys and values of one layer, all slots."""
    tokens = _micro_batch_tokens(rules(NAME, settings.version), workload, settings)
    type_name = CACHE_TYPES.get(workload.kv_dtype, "F16")
    key = (model.key, type_name, 1)
    kinds = _facts.kept(_prepared, key, lambda: _prepare(model, type_name, 1)).kinds
    of_layers = (
        kind.token_bytes * _llama_cache.cells(kind, workload.context_tokens, tokens)
        for kind in kinds
        if kind.token_bytes
    )
    return max(of_layers, default=0) * workload.sequences


def _summed_from_the_back(model: ServedModel) -> tuple[int, ...]:
    """The largest layer; then the bytes of the last 1, 2, ... layers, the output being the last."""
    *layers, output = layer_bytes(model.architecture, _storage(model))
    return (max(layers, default=0), *accumulate([output, *reversed(layers)]))


def most_running(gpu: Gpu, settings: EngineSettings) -> int:  # noqa: ARG001 - the engines' common form
    """The most slots that llama.cpp keeps."""
    return _most_slots()


def _most_slots() -> int:
    return int(engine_tables()[NAME]["most_slots"])


def launch_argv(model_name: str, workload: Workload, settings: EngineSettings) -> tuple[str, ...]:
    """The command that starts the server as it was planned.

    Flags as `common/arg.cpp` of build 10662 reads them. `--parallel` of any number keeps the slots' caches apart
    (`tools/server/server.cpp` shares one only where the number is left to it); a context and layers that are given
    are not changed by `--fit` (`common/fit.cpp`).

    Args:
        model_name: a file's path, or ORG/NAME:MIXTURE on the Hub. workload, settings: what was planned.
    """
    hub = model_name.count("/") == 1 and not model_name.endswith(".gguf")
    argv = ["llama-server", "--hf-repo" if hub else "--model", model_name]
    if hub and version_tuple(settings.version) >= WORD_FLAG_SINCE:
        argv.append(
            "--no-mmproj"
        )  # else a vision tower is loaded from the same repository, which was not planned
    argv += ["--n-gpu-layers", "999", *_split_flags(settings.tensor_parallel * settings.pipeline_parallel)]
    argv += [
        "--ctx-size",
        str(_llama_cache.padded(workload.context_tokens) * workload.sequences),
        "--parallel",
        str(workload.sequences),
    ]
    if settings.max_num_batched_tokens:
        argv += ["--ubatch-size", str(settings.max_num_batched_tokens)]
        if settings.max_num_batched_tokens > BATCH_TOKENS:
            argv += ["--batch-size", str(settings.max_num_batched_tokens)]
    return (*argv, *_cache_flags(workload, settings))


def _split_flags(gpus: int) -> tuple[str, ...]:
    """Equal parts, which llama.cpp would else take from what is free at the start; one GPU where one was planned."""
    if gpus == 1:
        return "--split-mode", "none"
    return "--split-mode", "layer", "--tensor-split", ",".join(["1"] * gpus)


def _cache_flags(workload: Workload, settings: EngineSettings) -> list[str]:
    old = version_tuple(settings.version) < WORD_FLAG_SINCE
    flash = ["--flash-attn"] if old else []
    type_name = CACHE_TYPES.get(workload.kv_dtype, "F16").lower()
    if type_name == "f16":
        return flash
    flash = flash or (["--flash-attn", "on"] if type_name == "q8_0" else [])
    return ["--cache-type-k", type_name, "--cache-type-v", type_name, *flash]
