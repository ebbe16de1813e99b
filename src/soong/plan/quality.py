"""What a number format costs in quality, as published evaluations found it: `data/quality.toml`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong import tables
from soong.models.model import SIXTEEN_BIT

if TYPE_CHECKING:
    from soong.models.model import Format, Model


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What is lost against the 16-bit model.

    Attributes:
        of: the weights or the KV cache. format: the catalogue's word, or a GGUF file's mixture.
        least_percent, most_percent: the range that the sources span.
        measure: of the average score of `benchmarks`, or by how much the `perplexity` grows.
        source, as_of: who measured it on what, and the day it was read.
    """

    of: Literal["weights", "kv_cache"]
    format: str
    least_percent: float
    most_percent: float
    measure: Literal["benchmarks", "perplexity"]
    source: str
    as_of: str

    @property
    def expected_percent(self) -> float:
        """The middle of the range."""
        return (self.least_percent + self.most_percent) / 2

    @property
    def words(self) -> str:
        """`1 to 5% of benchmark scores`, `4.83% more perplexity`."""
        if self.measure == "perplexity":
            return f"{self.most_percent:g}% more perplexity"
        if self.least_percent == self.most_percent:
            return f"{self.most_percent:g}% of benchmark scores"
        return f"{self.least_percent:g} to {self.most_percent:g}% of benchmark scores"


NOTHING_LOST = Loss(
    of="weights",
    format="",
    least_percent=0.0,
    most_percent=0.0,
    measure="benchmarks",
    source="the model as its authors publish it",
    as_of="",
)


class _Table(msgspec.Struct, frozen=True):
    loss: tuple[Loss, ...]


def losses() -> tuple[Loss, ...]:
    """Every published figure that soong knows."""
    table: _Table = tables.packaged_document("quality", _Table)
    return table.loss


def weights_loss(model: Model, row: Format) -> Loss | None:
    """What one repository of a model loses; None where nobody is known to have measured its format."""
    if row.quantization in SIXTEEN_BIT or row.quantization == "fp32" or row.repository == model.hf_path:
        return NOTHING_LOST
    return _found("weights", row.quantization)


def kv_cache_loss(kv_dtype: str) -> Loss | None:
    """What a cache in this type loses; NOTHING_LOST for those of 16 bits, None where nobody has measured."""
    return _found("kv_cache", kv_dtype) if kv_dtype.startswith("fp8") else NOTHING_LOST


def _found(of: str, word: str) -> Loss | None:
    return next((loss for loss in losses() if loss.of == of and loss.format == word), None)
