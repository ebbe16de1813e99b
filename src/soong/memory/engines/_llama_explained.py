"""A llama.cpp launch as lines with their figures, in the words of its own log; each section adds up to its term."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.memory.engines._llama_cache import cells, padded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from soong.memory.engines._llama_cache import CacheKind
    from soong.memory.engines._llama_graph import Batch
    from soong.memory.engines._llama_weights import Group
    from soong.memory.footprint import Workload


class Line(NamedTuple):
    """One item of a section: `host` and `weights`, `cache`, `state`, `compute` or `runtime`."""

    section: str
    name: str
    size_bytes: int
    note: str


def weight_lines(held: Iterable[Group], whole_bytes: int, share_bytes: int) -> Iterator[Line]:
    """Tensors by purpose and type; what other GPUs hold is taken off, so that the lines add up to one GPU's."""
    for group in sorted(held, key=lambda one: -one.size_bytes):
        plural = "s" if group.tensors > 1 else ""
        note = f"{group.tensors:,} tensor{plural} in {group.type_name}"
        yield Line("host" if group.on_host else "weights", group.part, group.size_bytes, note)
    if share_bytes != whole_bytes:
        yield Line(
            "weights", "other GPUs", share_bytes - whole_bytes, "the layers that are not on the fullest"
        )


def cache_lines(
    kinds: Iterable[CacheKind], workload: Workload, micro_batch_tokens: int, type_name: str
) -> Iterator[Line]:
    """Keys and values by kind of layer, and recurrent states; on one GPU."""
    slots = workload.sequences
    for kind in kinds:
        if kind.state_bytes:
            size = kind.layers * kind.state_bytes * slots
            note = f"{kind.layers} layers × {kind.state_bytes:,} bytes × {_slots(slots)}, in F32"
            yield Line("state", "recurrent state", size, note)
        if kind.token_bytes:
            count = cells(kind, workload.context_tokens, micro_batch_tokens)
            size = kind.layers * kind.token_bytes * count * slots
            note = f"{kind.layers} layers × {kind.token_bytes:,} bytes × {count:,} cells × {_slots(slots)}"
            yield Line("cache", _kind_name(kind), size, f"{note}, in {type_name}")


def _slots(count: int) -> str:
    return f"{count} slot" if count == 1 else f"{count} slots"


def _kind_name(kind: CacheKind) -> str:
    if kind.window:
        return f"window of {kind.window:,}"
    return f"one in {kind.ratio}" if kind.ratio > 1 else "all tokens"


def compute_lines(batch: Batch, total_bytes: int) -> Iterator[Line]:
    """The compute buffer: masks, which stay through the graph, and what the allocator needs for the rest."""
    copies = f" × {batch.copies} copies" if batch.copies > 1 else ""
    masks = sum(batch.mask_bytes) * batch.copies
    for size in batch.mask_bytes:
        note = f"cells × {batch.tokens:,} tokens of a micro batch{copies}"
        yield Line("compute", "attention mask", size * batch.copies, note)
    attention = "flash attention" if batch.flash else "scores in full, for want of flash attention"
    unpacked = f", {batch.scratch_bytes:,} bytes to unpack the cache" if batch.scratch_bytes else ""
    note = (
        f"{batch.tokens:,} tokens through the widest layer, logits of {batch.outputs}, {attention}{unpacked}"
    )
    yield Line("compute", "graph at its peak", total_bytes - masks, note)


def context_note(workload: Workload) -> str:
    """How the asked context becomes `--ctx-size`."""
    cells_each, slots = padded(workload.context_tokens), workload.sequences
    return (
        f"{workload.context_tokens:,} tokens asked, {cells_each:,} cells a slot (steps of 256) × {slots}"
        f" = --ctx-size {cells_each * slots}"
    )
