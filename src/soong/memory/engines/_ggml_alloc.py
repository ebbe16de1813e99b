"""ggml's graph allocator: where each tensor of a compute graph goes, and so how long the buffer must be.

The rules of `ggml/src/ggml-alloc.c` (ggml_gallocr_alloc_graph_impl, ggml_dyn_tallocr_alloc): a tensor takes the
smallest hole that holds it, else the end of the buffer; an element-wise operation writes over an operand of its own
size that nobody else reads; a tensor's place is free once all that read it are computed.
"""

from __future__ import annotations

from typing import NamedTuple

CUDA_ALIGNMENT_BYTES = 128
"""`ggml-cuda.cu` ggml_backend_cuda_buffer_type_get_alignment."""

ENDLESS_BYTES = 1 << 62


class _Node(NamedTuple):
    """One tensor. size_bytes 0: it writes elsewhere, as the copy of keys into the cache does."""

    size_bytes: int
    parents: tuple[int, ...]
    over_operand: bool
    kept: bool


class Graph:
    """Tensors in the order in which they are computed."""

    __slots__ = ("_nodes",)

    def __init__(self) -> None:
        self._nodes: list[_Node] = []

    def add(self, size_bytes: int, *parents: int, over: bool = False, kept: bool = False) -> int:
        """A tensor and those it is computed from.

        Args:
            size_bytes: its size; 0 for an operation whose result is not in this buffer.
            parents: what it reads.
            over: it may be written over one of them.
            kept: it stays until the end.

        Returns:
            Its number, for those that read it.
        """
        size = -(-size_bytes // CUDA_ALIGNMENT_BYTES) * CUDA_ALIGNMENT_BYTES
        self._nodes.append(_Node(size, parents, over, kept))
        return len(self._nodes) - 1

    def buffer_bytes(self) -> int:
        """The buffer that holds the graph."""
        readers = self._readers()
        space = _Space()
        placed: dict[int, int] = {}
        for number, node in enumerate(self._nodes):
            self._place(number, node, readers, placed, space)
            for parent in node.parents:
                readers[parent] -= 1
                if readers[parent] == 0 and parent in placed and not self._nodes[parent].kept:
                    space.release(placed.pop(parent), self._nodes[parent].size_bytes)
        return space.longest_bytes

    def _readers(self) -> list[int]:
        readers = [0] * len(self._nodes)
        for node in self._nodes:
            for parent in node.parents:
                readers[parent] += 1
        return readers

    def _place(
        self, number: int, node: _Node, readers: list[int], placed: dict[int, int], space: _Space
    ) -> None:
        if not node.size_bytes:
            return
        if node.over_operand:
            for parent in node.parents:
                operand = self._nodes[parent]
                same = operand.size_bytes == node.size_bytes and not operand.kept
                if same and parent in placed and readers[parent] == 1:
                    placed[number] = placed.pop(parent)
                    return
        placed[number] = space.take(node.size_bytes)


class _Space:
    """A buffer with holes: `[start, length]`, in order; the last has no end."""

    __slots__ = ("_holes", "longest_bytes")

    def __init__(self) -> None:
        self._holes: list[list[int]] = [[0, ENDLESS_BYTES]]
        self.longest_bytes = 0

    def take(self, size: int) -> int:
        """The start of the tightest hole that holds `size` bytes; of equal ones the last."""
        holes = self._holes
        best = len(holes) - 1
        for place in range(len(holes) - 1):
            if holes[place][1] >= size and (best == len(holes) - 1 or holes[place][1] <= holes[best][1]):
                best = place
        start = holes[best][0]
        holes[best][0] += size
        holes[best][1] -= size
        if not holes[best][1]:
            del holes[best]
        self.longest_bytes = max(self.longest_bytes, start + size)
        return start

    def release(self, start: int, size: int) -> None:
        """Give back what was taken; holes that touch become one."""
        holes = self._holes
        place = 0
        while place < len(holes) and holes[place][0] < start:
            place += 1
        before = holes[place - 1] if place else None
        if before and sum(before) == start:
            before[1] += size
            if place < len(holes) and sum(before) == holes[place][0]:
                before[1] += holes.pop(place)[1]
        elif place < len(holes) and start + size == holes[place][0]:
            holes[place][0] = start
            holes[place][1] += size
        else:
            holes.insert(place, [start, size])
