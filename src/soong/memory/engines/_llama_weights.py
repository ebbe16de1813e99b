"""llama.cpp's tensors on each GPU: sizes by ggml type, layers shared out, the token embedding left on the host.

Source: llama.cpp `src/llama-model.cpp` load_tensors (which layer goes where: the output counts as one layer more, the
input stays on the CPU), `src/models/` (an output projection that is missing is the token embedding once more, on the
GPU), `ggml-cuda.cu` ggml_backend_cuda_buffer_type_get_alloc_size (padding).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.memory.engines._ggml_alloc import CUDA_ALIGNMENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.models.architecture import Architecture, Weight
    from soong.models.quantization import Quantization

ROW_PADDING_NUMBERS = 512
"""`ggml-cuda/common.cuh` MATRIX_ROW_PADDING: the last row of a quantised tensor is filled up to this."""

PLAIN_NAMES = {4: "F32", 2: "F16 or BF16", 1: "I8"}
"""Types of tensors that are not packed, by bytes of a number."""

ELSEWHERE = frozenset({"vision", "audio", "projector"})
"""Kept in a file of their own (mmproj), which this launch does not load."""


def weights_by_gpu(architecture: Architecture, quantization: Quantization, gpus: int) -> tuple[int, ...]:
    """Bytes of "model buffer size" on each of so many equal GPUs.

    Args:
        architecture: the model. quantization: how its GGUF stores it. gpus: that share the layers.
    """
    layers = layer_count(architecture)
    held = [0] * gpus
    for weight, total in _on_gpu(architecture, quantization):
        if gpus == 1 or not weight.layers:
            held[-1] += total
            continue
        each = total / len(weight.layers)
        for number in weight.layers:
            held[gpu_of_layer(number, layers, gpus)] += round(each)
    return tuple(held)


def layer_bytes(architecture: Architecture, quantization: Quantization) -> tuple[int, ...]:
    """Bytes of each decoder layer's tensors, then of the output: what `--n-gpu-layers` counts, from the back."""
    count = layer_count(architecture)
    held = [0.0] * (count + 1)
    for weight, total in _on_gpu(architecture, quantization):
        for number in weight.layers or (count,):
            held[min(number, count)] += total / max(1, len(weight.layers))
    return tuple(map(round, held))


class Group(NamedTuple):
    """Tensors of one purpose in one type. part: `attention`, `mlp`, ..., `output` for a tied embedding's copy."""

    part: str
    type_name: str
    tensors: int
    size_bytes: int
    on_host: bool = False


def groups(architecture: Architecture, quantization: Quantization) -> tuple[Group, ...]:
    """All tensors by purpose and type, padding included; those left on the host are marked."""
    sums: dict[tuple[str, str, bool], list[int]] = {}

    def count(weight: Weight, part: str, *, on_host: bool) -> None:
        for type_name, tensors, size in _by_type(weight, quantization):
            held = sums.setdefault((part, type_name, on_host), [0, 0])
            held[0] += tensors
            held[1] += size

    for weight, _ in _on_gpu(architecture, quantization):
        count(weight, "output" if weight.part in {"embedding", "lm_head"} else weight.part, on_host=False)
    for weight in architecture.served_weights():
        if weight.part == "embedding":
            count(weight, "embedding", on_host=True)
    return tuple(
        Group(part, type_name, tensors, size, on_host)
        for (part, type_name, on_host), (tensors, size) in sums.items()
    )


def gpu_of_layer(number: int, layers: int, gpus: int) -> int:
    """The GPU that holds a layer, of equal ones; the output is layer number `layers`."""
    return min(gpus - 1, number * gpus // (layers + 1))


def layer_count(architecture: Architecture) -> int:
    """Decoder layers."""
    numbers = [max(weight.layers, default=-1) for weight in architecture.served_weights() if _inside(weight)]
    return max(numbers, default=-1) + 1


def _on_gpu(architecture: Architecture, quantization: Quantization) -> Iterator[tuple[Weight, int]]:
    """The weights that are offloaded, with their bytes; a tied embedding counts as the output it is copied to."""
    tied = not any(weight.part == "lm_head" for weight in architecture.weights)
    for weight in architecture.served_weights():
        if weight.part in ELSEWHERE or (
            weight.part == "embedding" and not (tied and _is_output(weight, architecture))
        ):
            continue
        yield weight, sum(size for _, _, size in _by_type(weight, quantization))


def _inside(weight: Weight) -> bool:
    return weight.part not in ELSEWHERE and weight.part != "mtp"


def _is_output(weight: Weight, architecture: Architecture) -> bool:
    return weight.shape[0] == architecture.vocab_size and weight.shape[-1] == architecture.hidden_size


def _by_type(weight: Weight, quantization: Quantization) -> Iterator[tuple[str, int, int]]:
    """Type, tensors and bytes of a weight, each layer's a tensor of its own; experts of a layer are one tensor."""
    for form, layers in quantization.spread(weight):
        if form is None:
            number_bytes = quantization.number_bytes(weight)
            one, padding = weight.elements * number_bytes * weight.copies, 0
            name = PLAIN_NAMES.get(number_bytes, "F32")
        else:
            one = -(-int(weight.elements * weight.copies * form.bits) // 8)
            name = form.label
            padding = int(-weight.shape[-1] % ROW_PADDING_NUMBERS * form.bits) // 8 if form.bits < 16 else 0
        size = -(-(one + padding) // CUDA_ALIGNMENT_BYTES) * CUDA_ALIGNMENT_BYTES
        yield name, layers, layers * size
