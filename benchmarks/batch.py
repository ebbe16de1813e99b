"""How many plans a second one core answers, and whether memory stays flat.

Two mixes: every catalogue model on one named GPU (one candidate), and every model against all offers.
Prints the table that docs/speed.md quotes. Rerun: make bench
"""

from __future__ import annotations

import json
import resource
import time
from itertools import cycle, islice
from typing import Any

from soong.models.catalogue import all_models
from soong.plan.batch import answer_lines, collect_rarely

CONTEXTS = (2048, 4096, 8192)


def requests(count: int, **options: Any) -> list[bytes]:
    """`count` request lines over all catalogue models and a few contexts."""
    ids = [model.id for model in all_models()]
    pairs = zip(islice(cycle(ids), count), cycle(CONTEXTS), strict=False)
    return [json.dumps({"model": model, "context": context, **options}).encode() for model, context in pairs]


def peak_mib() -> float:
    """The most memory this process has held, in MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, lines: list[bytes]) -> None:
    """Answer the lines and print one row."""
    for _ in answer_lines(lines[:200], defaults={}, allow_network=False):
        pass
    before = peak_mib()
    start = time.process_time()
    answers = sum(1 for _ in answer_lines(lines, defaults={}, allow_network=False))
    took = time.process_time() - start
    print(f"{name:44} {answers / took:12,.0f} {before:12.0f} {peak_mib():12.0f}")


def main() -> None:
    """Measure and print."""
    collect_rarely()  # as `soong plan --batch` does
    print(f"{'mix':44} {'plans/s':>12} {'MiB before':>12} {'MiB after':>12}")
    for engine in ("vllm", "sglang"):
        measure(f"{engine}, one GPU", requests(20_000, engine=engine, gpu="h100-80gb-sxm5"))
        measure(f"{engine}, all offers", requests(4_000, engine=engine))


if __name__ == "__main__":
    main()
