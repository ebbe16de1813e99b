"""Parameters and bytes that soong computes from shapes alone, against what others published.

Every published figure stands in tests/golden or in the catalogue, with its source. docs/accuracy.md holds these tables.

    python -m benchmarks.weights
"""

from __future__ import annotations

import statistics
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy.tables import Table, as_text, percent

from soong.models.catalogue import all_models
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import checkpoint_bytes, read_quantization

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
WITHIN = 0.001
HEAD_TWICE = "its output head is the embedding, and the files hold it a second time; engines load it once"


class Pair(NamedTuple):
    """A model's figure as computed and as published; head: what a second copy of a tied head would add."""

    model: str
    computed: int
    published: int
    head: int = 0

    @property
    def error(self) -> float:
        """Relative, with its sign."""
        return self.computed / self.published - 1


def published_parameters() -> list[Pair]:
    """Parameter counts."""
    rows: list[dict[str, Any]] = []
    for name in ("parameters.toml", "multimodal.toml"):
        rows += tomllib.loads((GOLDEN / name).read_text())["model"]
    return [
        Pair(row["id"], read_architecture(Config(row["config"])).parameters, row["parameters"])
        for row in rows
    ]


def published_bytes() -> list[Pair]:
    """Bytes of a checkpoint's tensors, of every repository in the catalogue that states them."""
    found = []
    for model in all_models():
        for form in model.formats:
            served = model.in_format(form).serving_config
            if form.weights_bytes and served:
                architecture = read_architecture(Config(served))
                storage = read_quantization(Config(served), dtype=architecture.dtype)
                computed = checkpoint_bytes(architecture, storage)
                head = architecture.vocab_size * architecture.hidden_size * 2
                found.append(Pair(form.repository, computed, form.weights_bytes, head))
    return found


def tables() -> list[Table]:
    """How many agree, and every one that does not."""
    figures = {"parameters": published_parameters(), "checkpoint bytes": published_bytes()}
    misses = sorted(
        (pair for pairs in figures.values() for pair in pairs if abs(pair.error) > WITHIN),
        key=lambda pair: -abs(pair.error),
    )
    return [
        Table(
            title="Computed from shapes, against what was published",
            head=("figure", "models", "exact", "within 0.1 %", "median", "worst"),
            rows=tuple(_row(name, pairs) for name, pairs in figures.items()),
        ),
        Table(
            title="Those that differ",
            head=("repository", "computed", "published", "why"),
            rows=tuple((one.model, f"{one.computed:,}", f"{one.published:,}", _why(one)) for one in misses),
        ),
    ]


def _row(name: str, pairs: list[Pair]) -> tuple[str, ...]:
    errors = [abs(pair.error) for pair in pairs]
    good = sum(error <= WITHIN for error in errors)
    exact = sum(error == 0 for error in errors)
    median, worst = statistics.median(errors), max(errors)
    return name, str(len(errors)), str(exact), f"{good / len(errors):.0%}", percent(median), percent(worst)


def _why(pair: Pair) -> str:
    """A second copy of the head, where it accounts for the difference."""
    rest = pair.published - pair.computed - pair.head
    return HEAD_TWICE if pair.head and abs(rest) <= WITHIN * pair.published else "not known"


if __name__ == "__main__":
    print("\n\n".join(map(as_text, tables())))
