"""What one GPU of a group gets of each weight, and why a model may not be divided so.

Tensor parallelism divides most matrices, but not evenly: the vocabulary is padded, key and value heads are
repeated once the GPUs outnumber them, norms and routers stand whole on every GPU. Pipeline stages divide layers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from soong.memory.kernel_layouts import HOPPER, Rank, kernel_form, up
from soong.models.quantization.formats import ceil_div
from soong.models.quantization.quantization import TOWERS, matrix_sides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.models.architecture import Architecture, Weight
    from soong.models.quantization import Quantization

VOCABULARY_PADDING = 64
"""vLLM `vocab_parallel_embedding.py` DEFAULT_VOCAB_PADDING_SIZE; SGLang the same."""

NEWEST = (999,)

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@lru_cache(maxsize=512)
def version_tuple(text: str) -> tuple[int, ...]:
    """`0.19.2rc1.dev206+g95` as (0, 19, 2); the newest where it says nothing."""
    found = _VERSION.match(text)
    return tuple(int(part or 0) for part in found.groups()) if found else NEWEST


def local_sides(weight: Weight, tensor_parallel: int) -> tuple[int, int]:
    """Output and input size on one GPU: vLLM 0.33 `layers/linear.py`, `layers/vocab_parallel_embedding.py`."""
    rows, columns = matrix_sides(weight)
    shard = weight.shard
    if shard == "vocab":
        rows = ceil_div(rows, VOCABULARY_PADDING) * VOCABULARY_PADDING
        return ceil_div(rows, tensor_parallel), columns
    if tensor_parallel == 1 or shard == "replicated" or _whole(weight, tensor_parallel):
        return rows, columns
    if shard == "row":
        return rows, ceil_div(columns, tensor_parallel)
    if shard == "kv" and weight.heads:
        return rows // weight.heads * max(1, weight.heads // tensor_parallel), columns
    return ceil_div(rows, tensor_parallel), columns


def _whole(weight: Weight, tensor_parallel: int) -> bool:
    return bool(weight.whole_unless) and weight.whole_unless % tensor_parallel != 0


def whole_experts(weights: Iterable[Weight], tensor_parallel: int) -> tuple[Weight, ...]:
    """The weights as expert parallelism leaves them to the fullest GPU: some routed experts whole, for a part of each.

    All else is divided as ever, shared experts too, without data parallelism. Source: vLLM 0.33
    `fused_moe/config.py` FusedMoEParallelConfig.make, `fused_moe/expert_map_manager.py` determine_expert_map; SGLang
    0.5.23 `layers/moe/fused_moe_triton/layer.py`, which fuses no shared expert then (`models/deepseek_v2.py`).
    """
    if tensor_parallel == 1:
        return tuple(weights)
    return tuple(
        msgspec.structs.replace(
            weight, copies=ceil_div(weight.copies, tensor_parallel), whole_unless=ALWAYS_WHOLE
        )
        if is_routed(weight)
        else weight
        for weight in weights
    )


def is_routed(weight: Weight) -> bool:
    """Whether it belongs to the experts that a router chooses among."""
    return weight.part == "experts" and weight.copies > 1


ALWAYS_WHOLE = 1
"""As `Weight.whole_unless`: no number of GPUs divides one."""


def decoder_layers(architecture: Architecture) -> int:
    """Layers that pipeline stages share; towers and draft layers are no part of them."""
    return 1 + max(
        max(weight.layers, default=0) for weight in architecture.served_weights() if weight.part not in TOWERS
    )


def stage_layers(layers: int, stages: int) -> list[range]:
    """Layers of each stage; a rest goes to the stages before the last: vLLM `distributed/utils.py`."""
    each, rest = divmod(layers, stages)
    sizes = [each] * stages
    for place in range(2, rest + 2):
        sizes[-place if place <= stages else -1] += 1
    starts = [sum(sizes[:stage]) for stage in range(stages)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def on_stage(
    weight: Weight, held: range, architecture: Architecture, *, first: bool, last: bool
) -> Weight | None:
    """What one stage holds of a weight, None for nothing; towers stand on each, a tied embedding on both ends."""
    if weight.part in TOWERS:
        return weight
    if weight.layers:
        kept = tuple(layer for layer in weight.layers if layer in held)
        return msgspec.structs.replace(weight, layers=kept) if kept else None
    if weight.part == "embedding":
        tied = all(other.part != "lm_head" for other in architecture.weights)
        return weight if first or (last and tied) else None
    return weight if last else None


def tensor_parallel_problem(
    architecture: Architecture,
    tensor_parallel: int,
    quantization: Quantization | None = None,
    *,
    engine: str = "vllm",
    engine_version: str = "",
    expert_parallel: bool = False,
) -> str | None:
    """Why the engine refuses to divide this model among so many GPUs; None where it does not.

    Source: vLLM 0.33 `config/model.py` verify_with_parallel_config, `layers/linear.py` divide,
    `quantization/utils/fp8_utils.py` validate_fp8_block_shape, `auto_awq.py`, `fused_moe/oracle/fp8.py`.

    Args:
        architecture: the model.
        tensor_parallel: GPUs that each layer is divided among.
        quantization: how its repository stores it; None leaves groups and blocks of scales out of the question.
        engine: whose rules, "vllm" or "sglang".
        engine_version: such as "0.33.0"; empty for the newest.
        expert_parallel: routed experts stay whole, some on each GPU.
    """
    if tensor_parallel == 1:
        return None
    heads = architecture.attention_heads
    if heads and heads % tensor_parallel:
        return f"{heads} attention heads cannot be divided among {tensor_parallel} GPUs"
    rank = Rank(tensor_parallel, engine, version_tuple(engine_version), HOPPER)
    for weight in architecture.served_weights():
        apart = expert_parallel and is_routed(weight)
        problem = _apart_problem(weight, rank) if apart else _weight_problem(weight, rank, quantization)
        if problem:
            return problem
    return None


def _apart_problem(weight: Weight, rank: Rank) -> str | None:
    """Only SGLang wants as many experts on each GPU: 0.5.23 `layers/moe/fused_moe_triton/layer.py`."""
    if rank.engine != "sglang" or weight.copies % rank.size == 0:
        return None
    return f"{weight.copies} experts cannot be spread evenly over {rank.size} GPUs"


def _weight_problem(weight: Weight, rank: Rank, quantization: Quantization | None) -> str | None:
    shard, name, size = weight.shard, weight.path.rpartition(".")[2], rank.size
    if shard == "replicated" or _whole(weight, size):
        return None
    if shard == "vocab":
        padded = up(weight.shape[0], VOCABULARY_PADDING)
        uneven = padded % size
        return f"a vocabulary of {padded:,} rows cannot be divided among {size} GPUs" if uneven else None
    if shard == "kv":
        uneven = weight.heads and weight.heads % size and size % weight.heads
        return f"{weight.heads} key-value heads cannot be divided among {size} GPUs" if uneven else None
    rows, columns = matrix_sides(weight)
    side = columns if shard == "row" else rows
    if side % size:
        return f"`{name}` of width {side:,} cannot be divided among {size} GPUs"
    return _group_problem(weight, rank, quantization) if quantization and weight.linear else None


def _group_problem(weight: Weight, rank: Rank, quantization: Quantization) -> str | None:
    """Groups and blocks of scales must not be cut, but for those of experts whose kernel has finer ones."""
    rows, columns = local_sides(weight, rank.size)
    name, local = weight.path.rpartition(".")[2], columns if weight.shard == "row" else rows
    for stored, _ in quantization.spread(weight):
        if stored is None:
            continue
        form = kernel_form(stored, rows, columns, weight, rank)
        step = form.block[1 if weight.shard == "row" else 0] if form.kind == "fp8_block" else 0
        if form.kind in {"awq", "gptq"} and weight.shard == "row" and not form.act_order:
            step = form.group
        if form.kind == "packed" and weight.part == "experts" and weight.shard == "row":
            step = form.group
        if step and local % step:
            return f"`{name}` keeps {local:,} columns a GPU, which cuts its quantization groups of {step}"
    return None
