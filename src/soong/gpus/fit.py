"""How a model can be spread over the GPUs of one machine."""

from __future__ import annotations

TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)
"""The sizes that divide the head counts of nearly every published model, and that machines are sold in."""


def split(gpu_count: int) -> tuple[int, int]:
    """The (tensor parallel, pipeline parallel) sizes that use all GPUs of a machine.

    Tensor parallel goes as far as it divides the count, since it also makes one request faster; a count such as 6 is
    left to pipeline stages (2 × 3).
    """
    tensor = max(size for size in TENSOR_PARALLEL_SIZES if gpu_count % size == 0)
    return tensor, gpu_count // tensor
