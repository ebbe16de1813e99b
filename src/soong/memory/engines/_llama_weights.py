"""llama.cpp's tensors on each GPU: sizes by ggml type, layers shared out, the token embedding left on the host.

Source: llama.cpp `src/llama-model.cpp` load_tensors (which layer goes where: the output counts as one layer more, the
input stays on the CPU), `src/models/` (an output projection that is missing is the token embedding once more, on the
GPU), `ggml-cuda.cu` ggml_backend_cuda_buffer_type_get_alloc_size (padding).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.memory.engines._ggml_alloc import CUDA_ALIGNMENT_BYTES

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.quantization import Quantization

ROW_PADDING_NUMBERS = 512
"""`ggml-cuda/common.cuh` MATRIX_ROW_PADDING: the last row of a quantised tensor is filled up to this."""

ELSEWHERE = frozenset({"vision", "audio", "projector"})
"""Kept in a file of their own (mmproj), which this launch does not load."""


def weights_by_gpu(architecture: Architecture, quantization: Quantization, gpus: int) -> tuple[int, ...]:
    """Bytes of "model buffer size" on each of so many equal GPUs.

    Args:
        architecture: the model. quantization: how its GGUF stores it. gpus: that share the layers.
    """
    layers = layer_count(architecture)
    held = [0] * gpus
    tied = not any(weight.part == "lm_head" for weight in architecture.weights)
    for weight in architecture.served_weights():
        if weight.part in ELSEWHERE or (
            weight.part == "embedding" and not (tied and _is_output(weight, architecture))
        ):
            continue
        total = _bytes(weight, quantization)
        if not weight.layers:
            held[-1] += total
            continue
        each = total / len(weight.layers)
        for number in weight.layers:
            held[gpu_of_layer(number, layers, gpus)] += round(each)
    return tuple(held)


def gpu_of_layer(number: int, layers: int, gpus: int) -> int:
    """The GPU that holds a layer, of equal ones; the output is layer number `layers`."""
    return min(gpus - 1, number * gpus // (layers + 1))


def layer_count(architecture: Architecture) -> int:
    """Decoder layers."""
    numbers = [max(weight.layers, default=-1) for weight in architecture.served_weights() if _inside(weight)]
    return max(numbers, default=-1) + 1


def _inside(weight: Weight) -> bool:
    return weight.part not in ELSEWHERE and weight.part != "mtp"


def _is_output(weight: Weight, architecture: Architecture) -> bool:
    return weight.shape[0] == architecture.vocab_size and weight.shape[-1] == architecture.hidden_size


def _bytes(weight: Weight, quantization: Quantization) -> int:
    """All copies of a weight, each layer's a tensor of its own; experts of a layer are one tensor."""
    total = 0
    for form, layers in quantization.spread(weight):
        if form is None:
            one, padding = weight.elements * quantization.number_bytes(weight) * weight.copies, 0
        else:
            one = -(-int(weight.elements * weight.copies * form.bits) // 8)
            padding = int(-weight.shape[-1] % ROW_PADDING_NUMBERS * form.bits) // 8 if form.bits < 16 else 0
        total += layers * (-(-(one + padding) // CUDA_ALIGNMENT_BYTES) * CUDA_ALIGNMENT_BYTES)
    return total
