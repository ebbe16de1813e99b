"""A memory bar drawn to scale."""

from __future__ import annotations

from msgspec import Struct

from soong import units


class Slice(Struct, frozen=True, gc=False):
    """One part of a GPU's memory."""

    label: str
    size_bytes: int
    mark: str
    style: str


def cells(sizes: list[int], total: int, width: int) -> list[int]:
    """How many of `width` cells each size gets, by largest remainder, so that the bar is exactly as long as its scale.

    A part of any size gets at least one cell where there is room.
    """
    if total <= 0:
        return [0] * len(sizes)
    exact = [max(0, size) * width / total for size in sizes]
    counts = [int(share) for share in exact]
    counts = [max(count, 1) if size > 0 else 0 for count, size in zip(counts, sizes, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda index: counts[index] - exact[index])
    target = min(width, round(sum(exact)))
    for index in by_remainder:
        if sum(counts) < target and sizes[index] > 0:
            counts[index] += 1
    while sum(counts) > width and max(counts) > 1:
        counts[counts.index(max(counts))] -= 1
    return counts


def legend(slices: list[Slice]) -> str:
    """The parts with their sizes, in the order of the bar, on two lines."""
    parts = [
        f"{part.mark} {part.label} {units.format_gib(part.size_bytes)}" for part in slices if part.size_bytes
    ]
    half = (len(parts) + 1) // 2
    return "\n".join("   ".join(line) for line in (parts[:half], parts[half:]) if line)
