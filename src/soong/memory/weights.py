"""The bytes of weights that one GPU holds once an engine has loaded a model.

Tensor parallelism divides most matrices, but not evenly: the vocabulary is padded, key and value heads are
repeated once the GPUs outnumber them, norms and routers stand whole on every GPU. Kernels keep packed numbers
in layouts of their own, with scales widened or padded. Sources, unless a line says otherwise: vLLM 0.33
`layers/linear.py`, `layers/vocab_parallel_embedding.py`, `layers/quantization/`, `layers/fused_moe/oracle/`;
SGLang 0.5 has the same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.architecture import AttentionCache, LatentCache, Part
from soong.models.quantization.formats import BNB_BLOCK, MX_GROUP, ceil_div, groups, numbers_bytes
from soong.models.quantization.matching import fused
from soong.models.quantization.quantization import TOWERS, matrix_sides

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.models.architecture import Architecture, Weight
    from soong.models.quantization import Format, Quantization
    from soong.models.quantization.formats import Kind

VOCABULARY_PADDING = 64
"""vLLM `vocab_parallel_embedding.py` DEFAULT_VOCAB_PADDING_SIZE; SGLang the same."""

CACHE_SCALES_BYTES = 4 * 4
"""Four float32 scales (query, key, value, probability) of each attention layer: vLLM `layers/attention`."""

TRITON_MXFP4_SINCE = (0, 32)
"""From this version Hopper runs MXFP4 experts in Triton, aligned to 64: `fused_moe/oracle/mxfp4.py`."""

SHORT_ROTARY_SINCE = (0, 32)
"""The version whose interleaved M-RoPE tables are known to stop at the context's end: `models/qwen3_vl.py`."""

MIB = 1 << 20

LARGE_BLOCK_BYTES, LARGE_STEP_BYTES, SPLIT_BYTES = 10 * MIB, 2 * MIB, MIB
"""PyTorch asks the driver for tensors from 10 MiB on in steps of 2 MiB, and counts a rest of up to 1 MiB as used.

Source: PyTorch 2.13 `c10/cuda/CUDACachingAllocator.cpp` kMinLargeAlloc, kRoundLarge, kSmallSize, should_split.
"""

HOPPER, BLACKWELL = (9, 0), (10, 0)


class WeightShare(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of one GPU, the fullest where pipeline stages differ.

    total_bytes: all parameters. parts: the same by purpose.
    buffers_bytes: what is computed and kept beside them: rotary tables, matrices that MLA unpacks.
    padding_bytes: what kernels add when they repack tensors after loading.
    rounding_bytes: what the allocator adds to large tensors.
    notes: what makes this more than an even share, for people.
    """

    total_bytes: int
    parts: dict[Part, int]
    buffers_bytes: int = 0
    padding_bytes: int = 0
    rounding_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def loaded_bytes(self) -> int:
        """What the engine reports after loading the model: parameters and all that comes with them."""
        return self.total_bytes + self.buffers_bytes + self.padding_bytes + self.rounding_bytes


class _Rank(msgspec.Struct, frozen=True):
    """One GPU of a tensor-parallel group and what its kernels need."""

    size: int
    engine: str
    version: tuple[int, ...]
    capability: tuple[int, int]


def weights_per_gpu(
    architecture: Architecture,
    quantization: Quantization,
    *,
    tensor_parallel: int,
    engine: str,
    engine_version: str,
    compute_capability: tuple[int, int] | None = None,
    pipeline_parallel: int = 1,
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
    """
    rank = _Rank(tensor_parallel, engine, _version(engine_version), compute_capability or HOPPER)
    if pipeline_parallel > 1:
        return _fullest_stage(architecture, quantization, rank, pipeline_parallel)
    return _share(architecture, tuple(architecture.served_weights()), quantization, rank)


def _version(text: str) -> tuple[int, ...]:
    digits = [part for part in text.partition("+")[0].split(".")[:2] if part.isdigit()]
    return tuple(map(int, digits)) if len(digits) == 2 else (999,)


def _share(
    architecture: Architecture, weights: tuple[Weight, ...], quantization: Quantization, rank: _Rank
) -> WeightShare:
    parts: dict[Part, int] = {}
    for weight in weights:
        parts[weight.part] = parts.get(weight.part, 0) + _held_bytes(weight, quantization, rank)
    if rank.engine == "vllm":
        parts["attention"] = parts.get("attention", 0) + _cache_scale_bytes(architecture)
    return WeightShare(
        total_bytes=sum(parts.values()),
        parts=parts,
        buffers_bytes=_rotary_bytes(architecture, rank)
        + _absorbed_bytes(architecture, weights, quantization, rank),
        padding_bytes=_repacking_bytes(weights, quantization, rank),
        rounding_bytes=_rounding_bytes(weights, quantization, rank),
        notes=_notes(architecture, rank),
    )


def _cache_scale_bytes(architecture: Architecture) -> int:
    layers = (
        cache.layers for cache in architecture.caches if isinstance(cache, AttentionCache | LatentCache)
    )
    return CACHE_SCALES_BYTES * sum(layers)


def _rotary_bytes(architecture: Architecture, rank: _Rank) -> int:
    early = rank.engine == "vllm" and rank.version < SHORT_ROTARY_SINCE
    return architecture.early_rotary_bytes if early else architecture.rotary_bytes


def _absorbed_bytes(
    architecture: Architecture, weights: tuple[Weight, ...], quantization: Quantization, rank: _Rank
) -> int:
    """16-bit copies of a packed MLA `kv_b_proj` for decoding; an unpacked one is only viewed differently.

    Source: vLLM 0.33 `layers/attention/mla_attention.py` split_kv_b_proj; SGLang 0.5 `models/deepseek_v2.py` w_kc.
    """
    if not any(isinstance(cache, LatentCache) for cache in architecture.caches):
        return 0
    total = 0
    for weight in weights:
        if weight.path.endswith("kv_b_proj"):
            rows, columns = _local_sides(weight, rank.size)
            packed = sum(layers for form, layers in quantization.spread(weight) if form is not None)
            total += rows * columns * _number_bytes(weight, quantization) * packed
    return total


def _repacking_bytes(weights: tuple[Weight, ...], quantization: Quantization, rank: _Rank) -> int:
    """What Marlin adds to NVFP4 experts on GPUs without FP4 tensor cores: 64-aligned intermediate sizes.

    Source: vLLM 0.33 `quantization/utils/marlin_utils_fp4.py` prepare_nvfp4_moe_layer_for_marlin.
    """
    if rank.capability >= BLACKWELL:
        return 0
    total = 0
    for weight in weights:
        if weight.part != "experts" or not weight.linear:
            continue
        rows, columns = _local_sides(weight, rank.size)
        wide = (rows, _up(columns, 64)) if weight.shard == "row" else (_up(rows, 64), columns)
        for form, layers in quantization.spread(weight):
            if form is not None and form.kind == "nvfp4":
                more = _packed_bytes(form, *wide, weight, rank) - _packed_bytes(
                    form, rows, columns, weight, rank
                )
                total += more * layers * weight.copies
    return total


def _rounding_bytes(weights: tuple[Weight, ...], quantization: Quantization, rank: _Rank) -> int:
    """What the allocator adds to the tensors as the engine fuses them."""
    tensors: dict[tuple[str, Format | None], tuple[int, int]] = {}
    for weight in weights:
        if len(weight.shape) < 2:
            continue
        name = _engine_tensor(weight)
        for form, layers in _spread(weight, quantization, rank):
            sides = _kernel_sides(form, weight, rank)
            number_bytes = _number_bytes(weight, quantization)
            one = numbers_bytes(form, *sides) if form else sides[0] * sides[1] * number_bytes
            size, _ = tensors.get((name, form), (0, layers))
            tensors[name, form] = size + one * weight.copies, layers
    return sum(_rest_bytes(size) * layers for size, layers in tensors.values())


def _engine_tensor(weight: Weight) -> str:
    """The tensor that a weight is a part of: queries, keys and values are one, as are a layer's experts."""
    if weight.part == "experts":
        return f"{weight.path.partition('.0.')[0]} {weight.shard}"
    return fused(weight.path)


def _rest_bytes(size: int) -> int:
    rest = -size % LARGE_STEP_BYTES if size >= LARGE_BLOCK_BYTES else 0
    return rest if rest <= SPLIT_BYTES else 0


def _held_bytes(weight: Weight, quantization: Quantization, rank: _Rank) -> int:
    """All copies of one weight on one GPU."""
    total = 0
    for form, layers in _spread(weight, quantization, rank):
        rows, columns = _kernel_sides(form, weight, rank)
        if form is None:
            one = rows * columns * _number_bytes(weight, quantization)
        else:
            one = _packed_bytes(form, rows, columns, weight, rank)
        total += one * layers
    return total * weight.copies


def _kernel_sides(form: Format | None, weight: Weight, rank: _Rank) -> tuple[int, int]:
    """Output and input size on one GPU, as aligned as the kernel wants them."""
    rows, columns = _local_sides(weight, rank.size)
    if form is not None and weight.part == "experts":
        return _padded_expert(form, rows, columns, weight.shard, rank)
    return rows, columns


def _spread(weight: Weight, quantization: Quantization, rank: _Rank) -> tuple[tuple[Format | None, int], ...]:
    """The formats that the engine gives a weight, which for one case are not the checkpoint's.

    vLLM's `quantization/fp8.py` looks for full names alone, so it makes FP8 of towers that a list names as a whole.
    """
    if weight.linear and weight.part in TOWERS and quantization.method == "fp8" and rank.engine == "vllm":
        return quantization.spread_exactly(weight)
    return quantization.spread(weight)


def _number_bytes(weight: Weight, quantization: Quantization) -> int:
    """Of one unquantised number: both engines load float32 models in 16 bits unless told otherwise.

    Source: vLLM 0.33 `config/model.py` _resolve_auto_dtype, SGLang 0.5 `configs/model_config.py`.
    """
    return quantization.number_bytes(weight) if weight.dtype else 2


def _local_sides(weight: Weight, tensor_parallel: int) -> tuple[int, int]:
    """Output and input size on one GPU."""
    rows, columns = matrix_sides(weight)
    shard = weight.shard
    if shard == "vocab":
        rows = ceil_div(rows, VOCABULARY_PADDING) * VOCABULARY_PADDING
        return ceil_div(rows, tensor_parallel), columns
    if tensor_parallel == 1 or shard == "replicated":
        return rows, columns
    if shard == "row":
        return rows, ceil_div(columns, tensor_parallel)
    if shard == "kv" and weight.heads:
        return rows // weight.heads * max(1, weight.heads // tensor_parallel), columns
    return ceil_div(rows, tensor_parallel), columns


def _packed_bytes(form: Format, rows: int, columns: int, weight: Weight, rank: _Rank) -> int:
    """One quantised matrix as kernels keep it."""
    numbers = numbers_bytes(form, rows, columns)
    if form.kind == "nvfp4":
        tiled = rank.capability >= BLACKWELL and weight.part != "experts"
        return numbers + _nvfp4_scales(form, rows, columns, tiled=tiled)
    scales = _SCALES.get(form.kind)
    return numbers + (scales(form, rows, columns) if scales else 0)


def _nvfp4_scales(form: Format, rows: int, columns: int, *, tiled: bool) -> int:
    """8-bit scales and two float32 numbers; tensor cores read the scales in tiles of 128 rows by 4."""
    count = columns // form.group  # a group that tensor parallelism cuts has no scale of its own
    if tiled:
        rows, count = _up(rows, 128), _up(count, 4)
    return rows * count + 4 + 4 * form.static_input


def _tensor_scales(form: Format, _rows: int, _columns: int) -> int:
    return 4 + 4 * form.static_input


def _row_scales(_form: Format, rows: int, _columns: int) -> int:
    return 4 * rows  # float32, whatever the checkpoint has


def _block_scales(form: Format, rows: int, columns: int) -> int:
    return 4 * ceil_div(rows, form.block[0]) * ceil_div(columns, form.block[1])


def _exponents(_form: Format, rows: int, columns: int) -> int:
    return rows * ceil_div(columns, MX_GROUP)


def _maxima(_form: Format, rows: int, columns: int) -> int:
    return 4 * ceil_div(rows * columns, BNB_BLOCK)


def _integer_scales(form: Format, rows: int, columns: int) -> int:
    """16-bit scales, zero points packed like the numbers, and with act-order the groups and their sorting."""
    count = groups(form, columns)
    zeros = count * ceil_div(int(rows * form.bits), 8) if form.zero_points else 0
    order = 2 * 4 * columns if form.act_order else 0
    return 2 * rows * count + zeros + order


def _scales_and_biases(form: Format, rows: int, columns: int) -> int:
    return 2 * 2 * rows * groups(form, columns)


_SCALES: dict[Kind, Callable[[Format, int, int], int]] = {
    "fp8_tensor": _tensor_scales,
    "fp8_channel": _row_scales,
    "int8_channel": _row_scales,
    "bnb_8bit": _row_scales,
    "fp8_block": _block_scales,
    "mxfp8": _exponents,
    "mxfp4": _exponents,
    "bnb_4bit": _maxima,
    "awq": _integer_scales,
    "gptq": _integer_scales,
    "packed": _integer_scales,
    "mlx": _scales_and_biases,
}
"""What stands beside the numbers of one matrix after loading, in bytes."""


def _padded_expert(form: Format, rows: int, columns: int, shard: str, rank: _Rank) -> tuple[int, int]:
    """Expert sizes as MXFP4 kernels align them; tensor parallelism divides the intermediate side."""
    if form.kind != "mxfp4":
        return rows, columns
    hidden_to, middle_to = _mxfp4_alignment(rank)
    if shard == "row":
        return _up(rows, hidden_to), _up(columns, middle_to)
    return _up(rows, middle_to), _up(columns, hidden_to)


def _mxfp4_alignment(rank: _Rank) -> tuple[int, int]:
    """Alignment of the hidden and of the intermediate size: vLLM `fused_moe/oracle/mxfp4.py`."""
    if rank.engine == "vllm" and HOPPER <= rank.capability < BLACKWELL and rank.version >= TRITON_MXFP4_SINCE:
        return 1, 64
    return 256, 128  # Marlin, and TensorRT-LLM's kernels on Blackwell


def _up(number: int, step: int) -> int:
    return ceil_div(number, step) * step


def _notes(architecture: Architecture, rank: _Rank) -> tuple[str, ...]:
    if rank.size == 1:
        return ()
    notes = []
    kv_heads = min(
        (weight.heads for weight in architecture.weights if weight.shard == "kv"), default=rank.size
    )
    if 0 < kv_heads < rank.size:
        notes.append(f"{kv_heads} key-value heads are repeated on {rank.size} GPUs")
    padded = _up(architecture.vocab_size, VOCABULARY_PADDING)
    if padded != architecture.vocab_size:
        notes.append(f"the vocabulary is padded from {architecture.vocab_size:,} to {padded:,} rows")
    return tuple(notes)


def _fullest_stage(
    architecture: Architecture, quantization: Quantization, rank: _Rank, stages: int
) -> WeightShare:
    """The share of the largest pipeline stage; towers stand on each, a tied embedding on first and last."""
    layers = _decoder_layers(architecture)
    shares = []
    for stage, held in enumerate(_stage_layers(layers, stages)):
        first, last = stage == 0, stage == stages - 1
        weights = tuple(
            kept
            for weight in architecture.served_weights()
            if (kept := _on_stage(weight, held, architecture, first=first, last=last)) is not None
        )
        shares.append(_share(architecture, weights, quantization, rank))
    return max(shares, key=lambda share: share.total_bytes)


def _decoder_layers(architecture: Architecture) -> int:
    towers = {"vision", "audio", "projector"}
    return 1 + max(
        max(weight.layers, default=0) for weight in architecture.weights if weight.part not in towers
    )


def _stage_layers(layers: int, stages: int) -> list[range]:
    """Layers of each stage; a rest goes to the stages before the last: vLLM `distributed/utils.py`."""
    each, rest = divmod(layers, stages)
    sizes = [each] * stages
    for place in range(2, rest + 2):
        sizes[-place if place <= stages else -1] += 1
    starts = [sum(sizes[:stage]) for stage in range(stages)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _on_stage(
    weight: Weight, held: range, architecture: Architecture, *, first: bool, last: bool
) -> Weight | None:
    if weight.part in {"vision", "audio", "projector"}:
        return weight
    if weight.layers:
        kept = tuple(layer for layer in weight.layers if layer in held)
        return msgspec.structs.replace(weight, layers=kept) if kept else None
    if weight.part == "embedding":
        tied = all(other.part != "lm_head" for other in architecture.weights)
        return weight if first or (last and tied) else None
    return weight if last else None


def tensor_parallel_problem(
    architecture: Architecture, tensor_parallel: int, quantization: Quantization | None = None
) -> str | None:
    """Why the engine refuses to divide this model among so many GPUs; None where it does not.

    Source: vLLM 0.33 `config/model.py` verify_with_parallel_config, `layers/linear.py` divide,
    `quantization/utils/fp8_utils.py` validate_fp8_block_shape, `auto_awq.py`.
    """
    if tensor_parallel == 1:
        return None
    heads = architecture.attention_heads
    if heads and heads % tensor_parallel:
        return f"{heads} attention heads cannot be divided among {tensor_parallel} GPUs"
    for weight in architecture.served_weights():
        problem = _weight_problem(weight, tensor_parallel, quantization)
        if problem:
            return problem
    return None


def _weight_problem(weight: Weight, size: int, quantization: Quantization | None) -> str | None:
    shard, name = weight.shard, weight.path.rpartition(".")[2]
    if shard == "replicated":
        return None
    if shard == "vocab":
        padded = _up(weight.shape[0], VOCABULARY_PADDING)
        return (
            f"a vocabulary of {padded:,} rows cannot be divided among {size} GPUs" if padded % size else None
        )
    if shard == "kv":
        uneven = weight.heads and weight.heads % size and size % weight.heads
        return f"{weight.heads} key-value heads cannot be divided among {size} GPUs" if uneven else None
    rows, columns = matrix_sides(weight)
    side = columns if shard == "row" else rows
    if side % size:
        return f"`{name}` of width {side:,} cannot be divided among {size} GPUs"
    return _group_problem(weight, side // size, quantization) if quantization and weight.linear else None


def _group_problem(weight: Weight, local: int, quantization: Quantization) -> str | None:
    """Groups and blocks of scales must not be cut."""
    name = weight.path.rpartition(".")[2]
    for form, _ in quantization.spread(weight):
        if form is None:
            continue
        step = form.block[1 if weight.shard == "row" else 0] if form.kind == "fp8_block" else 0
        if form.kind in {"awq", "gptq"} and weight.shard == "row" and not form.act_order:
            step = form.group
        if step and local % step:
            return f"`{name}` keeps {local:,} columns a GPU, which cuts its quantization groups of {step}"
    return None
