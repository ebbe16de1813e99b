"""What PyTorch's allocator takes from the driver for a model's tensors.

vLLM prints what its tensors hold, SGLang by how much free memory fell, and free memory falls by whole segments: a
small tensor shares one of 2 MiB with others, a middling one gets a corner of 20 MiB, a large one is rounded up. Source:
PyTorch 2.13 `c10/cuda/CUDACachingAllocator.cpp` and `c10/core/AllocatorConfig.h`: kSmallSize, kSmallBuffer,
kLargeBuffer, kMinLargeAlloc, kRoundLarge; get_free_block, should_split.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20

LARGE_BLOCK_BYTES, LARGE_STEP_BYTES, SPLIT_BYTES = 10 * MIB, 2 * MIB, MIB
"""Tensors from 10 MiB on are asked for in steps of 2 MiB, and a rest of up to 1 MiB counts as used."""

SMALL_SEGMENT_BYTES, MIDDLE_SEGMENT_BYTES = 2 * MIB, 20 * MIB
"""Segments of tensors up to 1 MiB, and of those from there to 10 MiB."""

SETTLED_LAYERS = 3
"""Layers after which free blocks are the same from one to the next."""

BLOCK_BYTES = 512
"""Every block is a multiple of it (kMinBlockSize)."""


def rounding_bytes(size_bytes: int, *, whole_from_bytes: int | None = None) -> int:
    """What counts as used beside one tensor: the rest of its block, where that is not split off.

    Args:
        size_bytes: of the tensor.
        whole_from_bytes: the size from which no block is split (`max_split_size_mb`); None: all are.
    """
    rest = -size_bytes % LARGE_STEP_BYTES if size_bytes >= LARGE_BLOCK_BYTES else 0
    whole = whole_from_bytes is not None and size_bytes >= whole_from_bytes
    return rest if whole or rest <= SPLIT_BYTES else 0


def reused_rounding_bytes(replaced: Sequence[tuple[int, int]], *, whole_from_bytes: int) -> int:
    """What a layer's tensors take beside their own size when each goes into a block that a larger one left behind.

    Blocks from `whole_from_bytes` on are not split, so a tensor has the whole of the smallest free one that is less
    than a middling segment larger: `max_non_split_rounding_size` of get_free_block.

    Args:
        replaced: of each module of a layer, in the order they are read, the size first loaded and the size kept.
        whole_from_bytes: `max_split_size_mb` in bytes.
    """
    free, waste = list[int](), 0

    def take(size: int) -> int:
        place = bisect_left(free, size)
        if place < len(free) and free[place] < size + MIDDLE_SEGMENT_BYTES:
            return free.pop(place)
        return size

    for layer in range(SETTLED_LAYERS):
        for loaded, kept in replaced:
            if loaded < whole_from_bytes:
                continue
            first = take(_up(loaded, LARGE_STEP_BYTES))
            if kept >= whole_from_bytes:
                size = _up(kept, LARGE_STEP_BYTES)
                waste += (take(size) - size) * (layer == SETTLED_LAYERS - 1)
            insort(free, first)
    return waste


def segments_bytes(tensors: Sequence[tuple[int, int]]) -> int:
    """All segments that hold at least one tensor; segments that are empty again are given back.

    Args:
        tensors: the size of each tensor of a layer in bytes, and how many layers have it, in the order that a layer
            allocates them.
    """
    small = sum(_up(size, BLOCK_BYTES) * layers for size, layers in tensors if size <= SPLIT_BYTES)
    whole = sum(
        _up(size, LARGE_STEP_BYTES) * layers for size, layers in tensors if size >= MIDDLE_SEGMENT_BYTES
    )
    shared = [(size, layers) for size, layers in tensors if SPLIT_BYTES < size < MIDDLE_SEGMENT_BYTES]
    return _up(small, SMALL_SEGMENT_BYTES) + whole + _shared_segments(shared)


def _shared_segments(tensors: Sequence[tuple[int, int]]) -> int:
    """Segments of tensors that find room beside others: each takes the smallest free block that holds it."""
    total, free = 0, list[int]()
    for layer in range(max((layers for _, layers in tensors), default=0)):
        for exact, layers in tensors:
            if layer >= layers:
                continue
            size = _up(exact, BLOCK_BYTES)
            place = bisect_left(free, size)
            if place < len(free):
                block = free.pop(place)
            else:
                block = MIDDLE_SEGMENT_BYTES if size < LARGE_BLOCK_BYTES else _up(size, LARGE_STEP_BYTES)
                total += block
            if block - size > SPLIT_BYTES:
                insort(free, block - size)
    return total


class _Block:
    """A piece of a segment, used or free, between its neighbours in the segment."""

    __slots__ = ("after", "before", "free", "key", "size", "small")

    def __init__(self, size: int, *, small: bool) -> None:
        self.size, self.small, self.free, self.key = size, small, False, 0
        self.before: _Block | None = None
        self.after: _Block | None = None


class CachingAllocator:
    """PyTorch's allocator, tensor by tensor: what stays reserved when some of them are given back.

    Free blocks are taken smallest first, split, and joined with free neighbours again; a segment goes back to the
    driver only when all of it is free (`release_cached_blocks`, as `torch.cuda.empty_cache` asks for).
    """

    def __init__(self) -> None:
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}
        self._keys = 0
        self.reserved_bytes = 0

    def take(self, size_bytes: int) -> _Block:
        """A block for one tensor."""
        size = _up(max(size_bytes, 1), BLOCK_BYTES)
        small = size <= SPLIT_BYTES
        free = self._free[small]
        place = bisect_left(free, (size,))
        block = free.pop(place)[2] if place < len(free) else self._segment(size, small=small)
        block.free = False
        rest = block.size - size
        if rest >= BLOCK_BYTES if small else rest > SPLIT_BYTES:
            other = _Block(rest, small=small)
            other.before, other.after = block, block.after
            if block.after is not None:
                block.after.before = other
            block.after, block.size = other, size
            self._keep(other)
        return block

    def give(self, block: _Block) -> None:
        """A tensor's block is free again."""
        free = self._free[block.small]
        for other in (block.after, block.before):
            if other is None or not other.free:
                continue
            free.pop(bisect_left(free, (other.size, other.key)))
            block.size += other.size
            if other is block.after:
                block.after = other.after
                if other.after is not None:
                    other.after.before = block
            else:
                block.before = other.before
                if other.before is not None:
                    other.before.after = block
        self._keep(block)

    def held_bytes(self) -> int:
        """What is reserved once all wholly free segments are given back."""
        whole = (
            block.size
            for free in self._free.values()
            for _, _, block in free
            if block.before is None and block.after is None
        )
        return self.reserved_bytes - sum(whole)

    def _segment(self, size: int, *, small: bool) -> _Block:
        if small:
            segment = SMALL_SEGMENT_BYTES
        else:
            segment = MIDDLE_SEGMENT_BYTES if size < LARGE_BLOCK_BYTES else _up(size, LARGE_STEP_BYTES)
        self.reserved_bytes += segment
        return _Block(segment, small=small)

    def _keep(self, block: _Block) -> None:
        block.free = True
        self._keys += 1
        block.key = self._keys
        insort(self._free[block.small], (block.size, block.key, block))


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
