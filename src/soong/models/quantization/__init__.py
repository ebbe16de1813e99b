"""How the tensors of a repository are stored: number formats, scales, and which modules each is for."""

from soong.models.quantization.formats import Format, checkpoint_matrix_bytes
from soong.models.quantization.quantization import Quantization, checkpoint_bytes, matrix_sides
from soong.models.quantization.reading import read_quantization, uniform, unquantised

__all__ = [
    "Format",
    "Quantization",
    "checkpoint_bytes",
    "checkpoint_matrix_bytes",
    "matrix_sides",
    "read_quantization",
    "uniform",
    "unquantised",
]
