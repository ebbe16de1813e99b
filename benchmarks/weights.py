"""Parameters and bytes that soong computes from shapes alone, against what others published.

Every published figure stands in tests/golden with its source. Prints the table that docs/accuracy.md quotes.
Rerun: make bench
"""

from __future__ import annotations

import statistics
import tomllib
from pathlib import Path
from typing import Any

from soong.models.catalogue import all_models
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import checkpoint_bytes, read_quantization

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
WITHIN = 0.001


def published_parameters() -> dict[str, tuple[int, int]]:
    """Id to (computed, published) parameter counts."""
    rows: list[dict[str, Any]] = []
    for name in ("parameters.toml", "multimodal.toml"):
        rows += tomllib.loads((GOLDEN / name).read_text())["model"]
    return {
        row["id"]: (read_architecture(Config(row["config"])).parameters, row["parameters"]) for row in rows
    }


def published_bytes() -> dict[str, tuple[int, int]]:
    """Repository to (computed, published) bytes of the checkpoint's tensors, of the catalogue."""
    found = {}
    for model in all_models():
        for form in model.formats:
            served = model.in_format(form).serving_config
            if form.weights_bytes and served:
                architecture = read_architecture(Config(served))
                storage = read_quantization(Config(served), dtype=architecture.dtype)
                found[form.repository] = (checkpoint_bytes(architecture, storage), form.weights_bytes)
    return found


def show(name: str, pairs: dict[str, tuple[int, int]]) -> None:
    """One row of the table, and every miss by name."""
    errors = {key: abs(computed / published - 1) for key, (computed, published) in pairs.items()}
    good = sum(error <= WITHIN for error in errors.values())
    exact = sum(error == 0 for error in errors.values())
    median, worst = statistics.median(errors.values()), max(errors.values())
    print(f"{name:28} {len(errors):6} {exact:6} {good / len(errors):13.1%} {median:9.4%} {worst:9.3%}")
    for key, error in sorted(errors.items(), key=lambda item: -item[1]):
        if error > WITHIN:
            print(f"    {key}: {pairs[key][0]:,} computed, {pairs[key][1]:,} published")


def main() -> None:
    """Compare and print."""
    print(f"{'figure':28} {'models':>6} {'exact':>6} {'within 0.1 %':>13} {'median':>9} {'worst':>9}")
    show("parameters", published_parameters())
    show("checkpoint bytes", published_bytes())


if __name__ == "__main__":
    main()
