"""The bytes of weights that one GPU holds once an engine has loaded a model.

`dividing.py` says which part of each tensor a GPU gets, `kernel_layouts.py` how a quantised one is kept; here they are
added up, with what engines compute and keep beside the tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong.memory.allocator import (
    CachingAllocator,
    reused_rounding_bytes,
    rounding_bytes,
    segments_bytes,
)
from soong.memory.dividing import (
    VOCABULARY_PADDING,
    decoder_layers,
    is_routed,
    local_sides,
    on_stage,
    stage_layers,
    version_tuple,
    whole_experts,
)
from soong.memory.kernel_layouts import (
    BLACKWELL,
    HOPPER,
    TRITON_KERNELS_SINCE,
    Rank,
    kernel_form,
    kernel_sides,
    packed_bytes,
    released_bytes,
    repacking_bytes,
    tile_bytes,
    up,
)
from soong.memory.weight_rules import (
    CACHE_SCALES_BYTES,
    COMPUTED_ROTARY,
    DRAFT_ROOM_UNTIL,
    FLOAT32_BYTES,
    FLOAT32_ROTARY,
    IDLE_KEYS,
    LEAST_WIDTH_SINCE,
    MARLIN_METHODS,
    OWN_KEYS_SINCE,
    PACKED_TOWERS,
    PLAIN_TOWERS,
    REPLICATED_GATES_SINCE,
    ROCM_ALLOCATED_SINCE,
    ROTARY_TABLES,
    SGLANG_PLAIN_ROTARY,
    SGLANG_PLAIN_ROTARY_SINCE,
    SGLANG_WHOLE_TOWERS,
    SHARERS,
    SHORT_ROTARY_SINCE,
    WHOLE_BLOCKS_FROM_BYTES,
    WHOLE_BLOCKS_SINCE,
    WHOLE_MLP_SINCE,
)
from soong.models.architecture import AttentionCache, LatentCache, Part
from soong.models.quantization import unquantised
from soong.models.quantization.formats import numbers_bytes
from soong.models.quantization.matching import fused
from soong.models.quantization.quantization import TOWERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.memory.footprint import EngineSettings
    from soong.models.architecture import Architecture, Weight
    from soong.models.quantization import Format, Quantization


class WeightShare(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of one GPU, the fullest where pipeline stages differ.

    total_bytes: all parameters. parts: the same by purpose.
    buffers_bytes: what is computed and kept beside them: rotary tables, matrices that MLA unpacks.
    padding_bytes: what kernels add when they repack tensors after loading.
    rounding_bytes: what the allocator adds to large tensors.
    released_bytes: those of `total_bytes` that the engine gives back once the checkpoint is read.
    notes: what makes this more than an even share, for people.
    """

    total_bytes: int
    parts: dict[Part, int]
    buffers_bytes: int = 0
    padding_bytes: int = 0
    rounding_bytes: int = 0
    released_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def loaded_bytes(self) -> int:
        """What the engine reports after loading the model: parameters and all that comes with them."""
        beside = self.buffers_bytes + self.padding_bytes + self.rounding_bytes
        return self.total_bytes - self.released_bytes + beside


def weights_per_gpu(
    architecture: Architecture,
    quantization: Quantization,
    *,
    tensor_parallel: int,
    engine: str,
    engine_version: str,
    compute_capability: tuple[int, int] | None = None,
    pipeline_parallel: int = 1,
    vendor: str = "",
    expert_parallel: bool = False,
) -> WeightShare:
    """The weights of one GPU after loading.

    Args:
        architecture: the model.
        quantization: how its repository stores it.
        tensor_parallel: GPUs that each layer is divided among.
        engine: whose rules, "vllm" or "sglang".
        engine_version: such as "0.33.0".
        compute_capability: of the GPU, (9, 0) for an H100; Hopper is assumed where it is not known.
        pipeline_parallel: stages that the layers are divided into.
        vendor: who makes the GPU, "amd" or another.
        expert_parallel: routed experts stay whole, some on each GPU of the group.
    """
    quantization = as_loaded(quantization, engine)
    version, capability = version_tuple(engine_version), compute_capability or HOPPER
    rank = _rank(architecture, quantization, Rank(tensor_parallel, engine, version, capability), vendor)
    weights = _loaded(architecture, rank)
    if expert_parallel:
        weights = whole_experts(weights, tensor_parallel)
    weights = _as_the_class_divides(architecture, weights, rank)
    if pipeline_parallel > 1:
        return _fullest_stage(architecture, weights, quantization, rank, pipeline_parallel)
    return _share(architecture, weights, quantization, rank)


def _rank(architecture: Architecture, quantization: Quantization, rank: Rank, vendor: str) -> Rank:
    """The rank with what this engine does with this class and format on this maker's GPU."""
    name, method = architecture.name, quantization.method
    if rank.engine == "sglang":
        return msgspec.structs.replace(rank, plain_towers=name in SGLANG_WHOLE_TOWERS, by_free_memory=True)
    hopper = vendor != "amd" and HOPPER <= rank.capability < BLACKWELL
    return msgspec.structs.replace(
        rank,
        plain_towers=method in PLAIN_TOWERS.get(name, ()),
        packed_towers=name in PACKED_TOWERS and _made_on_loading(quantization),
        by_free_memory=vendor == "amd" and rank.version < ROCM_ALLOCATED_SINCE,
        triton_experts=method == "mxfp4" and hopper and rank.version >= TRITON_KERNELS_SINCE,
    )


def _as_the_class_divides(
    architecture: Architecture, weights: tuple[Weight, ...], rank: Rank
) -> tuple[Weight, ...]:
    """The weights with those whole that the engine's class does not divide."""
    name = architecture.name
    if rank.engine == "sglang":
        piece = SGLANG_WHOLE_TOWERS.get(name)
        return _with_whole_tower(weights, piece) if piece else weights
    since = WHOLE_MLP_SINCE.get(name)
    return _with_whole_mlp(weights) if since and rank.size > 1 and rank.has(since) else weights


def _made_on_loading(quantization: Quantization) -> bool:
    """Whether the engine packs 16-bit files into FP8 as it reads them."""
    return (
        quantization.assumed
        and quantization.default is not None
        and quantization.default.kind == "fp8_tensor"
    )


def as_loaded(quantization: Quantization, engine: str) -> Quantization:
    """The storage as the engine's loader sees it: 16 bits where vLLM finds no method named."""
    if engine != "vllm" or quantization.named or not quantization.formats:
        return quantization
    return unquantised(quantization.dtype)


def _loaded(architecture: Architecture, rank: Rank) -> tuple[Weight, ...]:
    """The weights that this version's class makes room for."""
    served = tuple(architecture.served_weights())
    if rank.engine != "vllm" or rank.has(OWN_KEYS_SINCE) or architecture.model_type not in SHARERS:
        return served
    idle = (weight for weight in architecture.weights if not weight.served)
    return served + tuple(weight for weight in idle if weight.path.endswith(IDLE_KEYS))


def batch_buffer_bytes(architecture: Architecture, engine: str, engine_version: str) -> int:
    """What is allocated with the weights, and printed with them, for each token of a batch."""
    if engine != "vllm":
        return 0
    until, path = DRAFT_ROOM_UNTIL.get(architecture.name, ((), ""))
    widths = (weight.shape[1] for weight in architecture.weights if path and weight.path.endswith(path))
    drafted = max(widths, default=0) if version_tuple(engine_version) < until else 0
    return 2 * (architecture.input_buffer_numbers + drafted)


def _with_whole_mlp(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(
        msgspec.structs.replace(weight, shard="replicated") if weight.part == "mlp" else weight
        for weight in weights
    )


def _with_whole_tower(weights: tuple[Weight, ...], piece: str) -> tuple[Weight, ...]:
    return tuple(
        msgspec.structs.replace(weight, shard="replicated")
        if weight.part == "vision" and piece in weight.path
        else weight
        for weight in weights
    )


def _share(
    architecture: Architecture, weights: tuple[Weight, ...], quantization: Quantization, rank: Rank
) -> WeightShare:
    parts: dict[Part, int] = {}
    released = padding = 0
    for weight in weights:
        number_bytes = _number_bytes(weight, quantization)
        for piece in _pieces(weight, quantization, rank):
            times = piece.layers * weight.copies
            held = piece.size_bytes(rank, number_bytes) * times
            if piece.form is not None and piece.stored is not None:
                sides = (piece.rows, piece.columns, weight, rank)
                for_a_while = released_bytes(piece.stored, *sides) * times
                released, held = released + for_a_while, held + for_a_while
                padding += repacking_bytes(piece.form, *sides) * times
            if weight.part == "lm_head" and not weight.stored and rank.engine == "vllm":
                released += held  # an embedder's: the class has a head, the adapter for pooling leaves it out
            parts[weight.part] = parts.get(weight.part, 0) + held
    if rank.engine == "vllm":
        parts["attention"] = parts.get("attention", 0) + _cache_scale_bytes(architecture)
    return WeightShare(
        total_bytes=sum(parts.values()),
        parts=parts,
        buffers_bytes=_rotary_bytes(architecture, rank)
        + _absorbed_bytes(architecture, weights, quantization, rank),
        padding_bytes=padding + _tiling_bytes(weights, quantization, rank),
        rounding_bytes=_rounding_bytes(weights, quantization, rank),
        released_bytes=released,
        notes=_notes(architecture, rank),
    )


class _Piece(NamedTuple):
    """The layers of a weight that share a format, and what one GPU holds of each.

    stored: the format in the checkpoint. form: as the kernel has it, with its aligned sizes.
    """

    stored: Format | None
    form: Format | None
    layers: int
    rows: int
    columns: int

    def size_bytes(self, rank: Rank, number_bytes: int) -> int:
        if self.form is None:
            return self.rows * self.columns * number_bytes
        return packed_bytes(self.form, self.rows, self.columns, rank)


def _pieces(weight: Weight, quantization: Quantization, rank: Rank) -> Iterator[_Piece]:
    rows, columns = local_sides(weight, 1 if _replicated(weight, quantization, rank) else rank.size)
    if weight.least and rank.size > 1 and rank.has(LEAST_WIDTH_SINCE):
        rows, columns = _filled_up(weight, rows, columns)
    for form, layers in _spread(weight, quantization, rank):
        if form is None:
            yield _Piece(None, None, layers, rows, columns)
        else:
            sides = kernel_sides(form, rows, columns, weight, rank)
            yield _Piece(form, kernel_form(form, *sides, weight, rank), layers, *sides)


def filled_up_to(weight: Weight, settings: EngineSettings) -> int:
    """How wide the engine keeps a GPU's share of a weight that would be narrower if divided evenly; 0: not so."""
    parallel = settings.tensor_parallel
    since = settings.name == "vllm" and version_tuple(settings.version) >= LEAST_WIDTH_SINCE
    if not (weight.least and since) or parallel == 1 or (settings.expert_parallel and is_routed(weight)):
        return 0
    rows, columns = local_sides(weight, parallel)
    return weight.least if (columns if weight.shard == "row" else rows) < weight.least else 0


def _filled_up(weight: Weight, rows: int, columns: int) -> tuple[int, int]:
    if weight.shard == "row":
        return rows, max(columns, weight.least)
    return max(rows, weight.least), columns


def _cache_scale_bytes(architecture: Architecture) -> int:
    layers = (
        cache.layers + getattr(cache, "idle_layers", 0)
        for cache in architecture.caches
        if isinstance(cache, LatentCache) or (isinstance(cache, AttentionCache) and not cache.streams)
    )
    return CACHE_SCALES_BYTES * sum(layers)


def _rotary_bytes(architecture: Architecture, rank: Rank) -> int:
    if architecture.name in COMPUTED_ROTARY and rank.has(COMPUTED_ROTARY[architecture.name]):
        return 0
    if rank.engine == "sglang":  # in float32: 0.4.9 to 0.5.23 `layers/rotary_embedding`
        if architecture.model_type in SGLANG_PLAIN_ROTARY:
            return _sglang_plain_rotary_bytes(architecture, rank)
        return architecture.rotary_bytes * (1 if architecture.model_type in FLOAT32_ROTARY else 2)
    early = rank.engine == "vllm" and not rank.has(SHORT_ROTARY_SINCE)
    return architecture.early_rotary_bytes if early else architecture.rotary_bytes


def _sglang_plain_rotary_bytes(architecture: Architecture, rank: Rank) -> int:
    """Gemma 3's tables in SGLang: computed with each step at first, then kept for the context, without its scaling."""
    if rank.version < SGLANG_PLAIN_ROTARY_SINCE:
        return 0
    sizes = [cache.key_dim for cache in architecture.caches if isinstance(cache, AttentionCache)]
    return ROTARY_TABLES * max(sizes, default=0) * (architecture.context_limit_tokens or 0) * FLOAT32_BYTES


def _absorbed_bytes(
    architecture: Architecture, weights: tuple[Weight, ...], quantization: Quantization, rank: Rank
) -> int:
    """16-bit copies of a packed MLA `kv_b_proj` for decoding; an unpacked one is only viewed differently.

    Source: vLLM 0.33 `layers/attention/mla_attention.py` split_kv_b_proj; SGLang's copies are in `engines/sglang.py`.
    """
    latent = any(isinstance(cache, LatentCache) for cache in architecture.caches)
    if not latent or rank.engine != "vllm":
        return 0
    total = 0
    for weight in weights:
        if weight.path.endswith("kv_b_proj"):
            rows, columns = local_sides(weight, rank.size)
            packed = sum(layers for form, layers in quantization.spread(weight) if form is not None)
            total += rows * columns * _number_bytes(weight, quantization) * packed
    return total


def _replicated(weight: Weight, quantization: Quantization, rank: Rank) -> bool:
    """Whether a matrix stands whole because its parts would be too narrow for Marlin, quantised itself or not.

    Source: vLLM 0.33 `layers/mamba/gdn/qwen_gdn_linear_attn.py` maybe_disable_tp.
    """
    narrow = weight.path.endswith((".in_proj_b", ".in_proj_a"))
    return narrow and rank.has(REPLICATED_GATES_SINCE) and quantization.method in MARLIN_METHODS


def _tiling_bytes(weights: tuple[Weight, ...], quantization: Quantization, rank: Rank) -> int:
    """What tiles add to the scales of linear layers as the engine fuses them."""
    if rank.capability < BLACKWELL or all(form.kind != "nvfp4" for form in quantization.formats):
        return 0
    fused_rows: dict[tuple[str, Format | None, int], tuple[int, int]] = {}
    for weight in weights:
        if weight.part == "experts":
            continue
        for _, form, layers, rows, columns in _pieces(weight, quantization, rank):
            key = (_engine_tensor(weight), form, columns)
            fused_rows[key] = fused_rows.get(key, (0, 0))[0] + rows, layers * weight.copies
    return sum(
        tile_bytes(form, rows, columns, rank) * layers
        for (_, form, columns), (rows, layers) in fused_rows.items()
    )


def _rounding_bytes(weights: tuple[Weight, ...], quantization: Quantization, rank: Rank) -> int:
    """What the allocator adds to the tensors as the engine fuses them.

    SGLang, and older vLLM on ROCm, print by how much free memory fell, so that whole segments count (SGLang 0.5.23
    `model_executor/model_runner.py` load_model): exact to the last digit for five logs of 0.5.9 and later.
    """
    if rank.by_free_memory:
        sizes = _engine_sizes(weights, quantization, rank)
        held = _held_bytes(weights, quantization, rank) if rank.engine == "sglang" else None
        return (segments_bytes(sizes) if held is None else held) - sum(
            size * layers for size, layers in sizes
        )
    whole_from = WHOLE_BLOCKS_FROM_BYTES if rank.has(WHOLE_BLOCKS_SINCE) else None
    reused = (
        _reused_bytes(weights, quantization, rank) if whole_from and _made_on_loading(quantization) else 0
    )
    return reused + sum(
        rounding_bytes(size, whole_from_bytes=whole_from) * layers
        for size, layers in _engine_sizes(weights, quantization, rank)
    )


def _reused_bytes(weights: tuple[Weight, ...], quantization: Quantization, rank: Rank) -> int:
    """What FP8 made on loading takes more, in the blocks of 16-bit modules that were made FP8 before.

    A module is made FP8 when its last part is read; the parts of a layer stand in a file by their names. A log of 0.28
    prints 9.06 GiB for Qwen3-8B, where tensors and their own blocks are 8.80.
    """
    modules: dict[str, tuple[str, int, int]] = {}
    layers = 1
    for weight in weights:
        if not weight.linear or "{}" not in weight.path:
            continue
        for _, form, of_layers, rows, columns in _pieces(weight, quantization, rank):
            if form is None:
                continue
            name, numbers = _engine_tensor(weight), rows * columns * weight.copies
            last, loaded, kept = modules.get(name, ("", 0, 0))
            modules[name] = (
                max(last, weight.path),
                loaded + 2 * numbers,
                kept + numbers_bytes(form, rows, columns) * weight.copies,
            )
            layers = max(layers, of_layers)
    replaced = [(loaded, kept) for _, loaded, kept in sorted(modules.values())]
    return reused_rounding_bytes(replaced, whole_from_bytes=WHOLE_BLOCKS_FROM_BYTES) * layers


def _engine_sizes(
    weights: tuple[Weight, ...], quantization: Quantization, rank: Rank
) -> list[tuple[int, int]]:
    """The tensors of a layer as the engine fuses them: bytes on one GPU, and how many layers have them."""
    return list(_engine_tensors(weights, quantization, rank, scales=True).values())


def _held_bytes(weights: tuple[Weight, ...], quantization: Quantization, rank: Rank) -> int | None:
    """What stays reserved where SGLang's loading gives tensors back; None where it gives back none of size."""
    if _made_on_loading(quantization):
        return _converted_bytes(weights, quantization, rank)
    indices = _expert_indices(weights, quantization, rank)
    return _held_bytes_after(indices, weights, quantization, rank) if indices else None


def _expert_indices(weights: tuple[Weight, ...], quantization: Quantization, rank: Rank) -> list[int]:
    """Bytes of the indices that a layer's packed experts are made with, by group and sorted, for each side.

    Source: SGLang 0.5.3 to 0.5.23 `compressed_tensors_wNa16_moe.py` create_weights; Marlin needs none.
    """
    sides: dict[str, int] = {}
    if quantization.method != "compressed-tensors":
        return []
    for weight in weights:
        if weight.part == "experts" and any(
            form is not None and form.kind == "packed" for form, _ in quantization.spread(weight)
        ):
            sides[weight.shard] = 4 * weight.copies * local_sides(weight, rank.size)[1]
    return [sides["column"], sides["row"]] * 2 if sides.keys() >= {"column", "row"} else []


def _held_bytes_after(
    passing: list[int], weights: tuple[Weight, ...], quantization: Quantization, rank: Rank
) -> int:
    """What stays reserved when tensors that each layer of experts was made with have been given back."""
    allocator, given = CachingAllocator(), []
    tensors = _engine_tensors(weights, quantization, rank, scales=True)
    mixed = max((len(weight.layers) for weight in weights if weight.part == "experts"), default=0)
    for layer in range(max((layers for _, layers in tensors.values()), default=0)):
        for size, layers in tensors.values():
            if layer < layers:
                allocator.take(size)
        if layer < mixed:
            given += [allocator.take(size) for size in passing]
    for block in given:
        allocator.give(block)
    return allocator.held_bytes()


def _converted_bytes(weights: tuple[Weight, ...], quantization: Quantization, rank: Rank) -> int:
    """What stays reserved when a model is loaded in 16 bits and then packed matrix by matrix into FP8.

    A packed matrix goes where one before it was, and keeps that segment from the driver. Source: SGLang 0.5.3 to 0.5.23
    `layers/quantization/fp8.py process_weights_after_loading`; a log of Qwen3-8B prints 9.09 GiB where 8.81 are held.
    """
    allocator = CachingAllocator()
    plain = _engine_tensors(weights, unquantised(quantization.dtype), rank, scales=True)
    packed = {name: size for (name, form, _), (size, _) in
              _engine_tensors(weights, quantization, rank, scales=False).items() if form is not None}  # fmt: skip
    waiting = []
    for layer in range(max((layers for _, layers in plain.values()), default=0)):
        for (name, _, _), (size, layers) in plain.items():
            if layer < layers:
                block = allocator.take(size)
                waiting += [(packed[name], block)] if name in packed else []
    for size, block in waiting:
        allocator.take(size)
        allocator.give(block)
    return allocator.held_bytes()


def _engine_tensors(
    weights: tuple[Weight, ...], quantization: Quantization, rank: Rank, *, scales: bool
) -> dict[tuple[str, Format | None, bool], tuple[int, int]]:
    """The same by name, format and whether it is what stands beside numbers.

    scales: with vectors, and with what stands beside quantised numbers.
    """
    tensors: dict[tuple[str, Format | None, bool], tuple[int, int]] = {}
    for weight in weights:
        if len(weight.shape) < 2 and not scales:
            continue
        name, number_bytes = _engine_tensor(weight), _number_bytes(weight, quantization)
        for _, form, layers, rows, columns in _pieces(weight, quantization, rank):
            one = numbers_bytes(form, rows, columns) if form else rows * columns * number_bytes
            size, _ = tensors.get((name, form, False), (0, layers))
            tensors[name, form, False] = size + one * weight.copies, layers
            if form and scales:
                beside = packed_bytes(form, rows, columns, rank) - one
                size, _ = tensors.get((name, form, True), (0, layers))
                tensors[name, form, True] = size + beside * weight.copies, layers
    return tensors


def _engine_tensor(weight: Weight) -> str:
    """The tensor that a weight is a part of: queries, keys and values are one, as are a layer's experts.

    Layers of another kind have tensors of their own, though they are called alike.
    """
    of = f"{weight.layers[0]} " if weight.layers else ""
    if weight.part == "experts":
        return f"{of}{weight.path.partition('.0.')[0]} {weight.shard}"
    return of + fused(weight.path)


def _spread(weight: Weight, quantization: Quantization, rank: Rank) -> tuple[tuple[Format | None, int], ...]:
    """The formats that the engine gives a weight, which for one case are not the checkpoint's.

    vLLM's `quantization/fp8.py` looks for full names alone, so it makes FP8 of towers that a list names as a whole.
    """
    if rank.plain_towers and weight.part in TOWERS:
        return ((None, max(1, len(weight.layers))),)
    if rank.packed_towers and weight.part in TOWERS and weight.linear:
        return ((quantization.default, max(1, len(weight.layers))),)
    if weight.linear and weight.part in TOWERS and quantization.method == "fp8" and rank.engine == "vllm":
        return quantization.spread_exactly(weight)
    return quantization.spread(weight)


def _number_bytes(weight: Weight, quantization: Quantization) -> int:
    """Of one unquantised number: both engines load float32 models in 16 bits unless told otherwise.

    Source: vLLM 0.33 `config/model.py` _resolve_auto_dtype, SGLang 0.5 `configs/model_config.py`.
    """
    return quantization.number_bytes(weight) if weight.dtype else 2


def _notes(architecture: Architecture, rank: Rank) -> tuple[str, ...]:
    if rank.size == 1:
        return ()
    notes = []
    kv_heads = min(
        (weight.heads for weight in architecture.weights if weight.shard == "kv"), default=rank.size
    )
    if 0 < kv_heads < rank.size:
        notes.append(f"{kv_heads} key-value heads are repeated on {rank.size} GPUs")
    padded = up(architecture.vocab_size, VOCABULARY_PADDING)
    if padded != architecture.vocab_size:
        notes.append(f"the vocabulary is padded from {architecture.vocab_size:,} to {padded:,} rows")
    return tuple(notes)


def _fullest_stage(
    architecture: Architecture,
    weights: tuple[Weight, ...],
    quantization: Quantization,
    rank: Rank,
    stages: int,
) -> WeightShare:
    """The share of the largest pipeline stage; towers stand on each, a tied embedding on first and last."""
    layers = decoder_layers(architecture)
    shares = []
    for stage, held in enumerate(stage_layers(layers, stages)):
        first, last = stage == 0, stage == stages - 1
        on_it = tuple(
            kept
            for weight in weights
            if (kept := on_stage(weight, held, architecture, first=first, last=last)) is not None
        )
        shares.append(_share(architecture, on_it, quantization, rank))
    return max(shares, key=lambda share: share.total_bytes)
