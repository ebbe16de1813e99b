"""Does choosing pay, and how long does it take?

Prints the two tables that docs/choosing.md quotes: what the choice costs for the models of the model page against two
habits, and the time to place every model and format of the catalogue over 100,000 offers, by each rank. Each rank is
timed in processes of its own, so that nothing is left over from another: a first time is one in which the tables are
read and nothing of any model is. Rerun: make bench
"""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from soong.gpus.catalogue import all_gpus
from soong.models.catalogue import all_models
from soong.offers.offer import Offer
from soong.offers.sources import offers_to_plan
from soong.plan.everywhere import best_models, cheapest_machines, placed_everywhere
from soong.plan.planner import make_plan
from soong.plan.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soong.gpus.gpu import Gpu
    from soong.plan.plan import Candidate, Plan

MODELS = (
    "llama-3.1-8b",
    "qwen2.5-coder-32b-int4",
    "qwen2.5-coder-32b",
    "codellama-34b",
    "deepseek-r1-70b",
    "llama-3.1-70b",
    "mistral-7b",
)
"""Those of the model page, in its order."""

MANY = 100_000


def main() -> None:
    """Measure and print."""
    _print_savings()
    print()
    _print_times()


# ── what the choice costs ────────────────────────────────────────────────────────────────────────────


def smallest_memory(plan: Plan) -> Candidate | None:
    """The machine with the least memory in all that fits; of equals the cheapest."""
    fitting = [one for one in plan.candidates if one.verdict == "fits" and one.offer]
    return min(fitting, key=lambda one: (one.gpu.label_gb * one.gpu_count, _price(one)), default=None)


def by_rule_of_thumb(plan: Plan) -> Candidate | None:
    """The cheapest machine whose gigabytes hold the rule of thumb's, whatever an engine would say to it."""
    holding = [
        one
        for one in plan.candidates
        if plan.rule_of_thumb.with_headroom_gb <= one.gpu.label_gb * one.gpu_count
    ]
    return min(holding, key=_price, default=None)


def _price(candidate: Candidate) -> float:
    return candidate.offer.usd_per_hour if candidate.offer else float("inf")


def _print_savings() -> None:
    offers = offers_to_plan()
    newest = max(offer.as_of for offer in offers)
    print(f"Prices of {newest}, SGLang, each model's default context, dollars an hour")
    columns = ("model", "soong", "smallest memory that fits", "rule of thumb")
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---|---|")
    for model in MODELS:
        plan = make_plan(Request(model=model), offers=offers, allow_network=False)
        ours = plan.chosen
        cells = [_words(ours), _words(smallest_memory(plan), ours), _words(by_rule_of_thumb(plan), ours)]
        print(f"| {model} | " + " | ".join(cells) + " |")


def _words(candidate: Candidate | None, ours: Candidate | None = None) -> str:
    """`gpu_1x_a10 1.29 (+18%)`, and the verdict where it is not that it fits."""
    if candidate is None:
        return "none"
    line = f"{candidate.name} {_price(candidate):.2f}"
    if ours is not None:
        more = _price(candidate) / _price(ours) - 1
        line += f" ({more:+.0%})" if more else " (same)"
    return line if candidate.verdict == "fits" else f"{line}, {candidate.verdict}"


# ── how long it takes ────────────────────────────────────────────────────────────────────────────────


def synthetic_offers(count: int = MANY, seed: int = 1) -> tuple[Offer, ...]:
    """Offers of every GPU that is known, in 40 clouds and regions, at prices around that of their memory."""
    chance = random.Random(seed)  # noqa: S311 - prices, not secrets
    gpus = all_gpus()

    def price(gpu: Gpu, gpu_count: int) -> float:
        return round(chance.uniform(0.5, 2) * gpu_count * gpu.memory_bytes / 40e9, 3)

    def offer(place: int) -> Offer:
        gpu, gpu_count = chance.choice(gpus), chance.choice((1, 2, 4, 8))
        return Offer(
            cloud=f"cloud-{place % 8}",
            instance_type=f"type-{place}",
            region=f"region-{place % 40}",
            gpu=gpu.id,
            gpu_count=gpu_count,
            usd_per_hour=price(gpu, gpu_count),
            as_of="2026-11-23",
            source="made up",
            launchable=place % 3 > 0,
        )

    return tuple(offer(place) for place in range(count))


def seconds_of(work: Callable[[], object]) -> float:
    """CPU seconds of one run."""
    start = time.process_time()
    work()
    return time.process_time() - start


ASKED: dict[str, dict[str, Any]] = {
    "by price": {},
    "by price, 40 tokens/s for each": {"target_tokens_per_second": 40.0},
    "by cost per token": {"rank": "cost-per-token"},
    "by cost per token, 40 tokens/s for each": {"rank": "cost-per-token", "target_tokens_per_second": 40.0},
    "by time": {"rank": "time"},
}
"""What is asked of the search: a name for people, and the request."""


def _print_times() -> None:
    offers = synthetic_offers()
    kinds, rows = cheapest_machines(offers, Request(model="")), sum(len(one.formats) for one in all_models())
    print(
        f"{len(offers):,} offers ({len(kinds)} kinds of machine), {rows} models and formats, one core, seconds:"
    )
    print(f"  {'best machine of every model and format':42} {'first':>6} {'again':>6} {'best 9':>7}")
    for name in ASKED:
        times = [_in_a_process_of_its_own(name) for _ in range(RUNS)]
        first, again, nine = (min(column) for column in zip(*times, strict=True))
        print(f"  {name:42} {first:6.2f} {again:6.2f} {nine:7.2f}")
    print(f"  {'one plan over all offers, all rows':42} {seconds_of(lambda: _one_plan(offers)):6.2f}")


RUNS = 3
"""The best of these counts: another program can only make a run slower."""


def _in_a_process_of_its_own(name: str) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.choosing", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def print_seconds_of(name: str) -> None:
    """Seconds to place everything the first time and again, and to find the best nine models the first time."""
    gc.disable()  # as in every command
    offers, request = synthetic_offers(), Request(model="", **ASKED[name])
    reader, writer = os.pipe()
    if os.fork() == 0:  # a first time of its own
        os.write(writer, str(seconds_of(lambda: best_models(offers, request, NINE))).encode())
        os._exit(0)
    nine = os.read(reader, 100).decode()
    first = seconds_of(lambda: placed_everywhere(offers, request))
    again = seconds_of(lambda: placed_everywhere(offers, request))
    print(first, again, nine)


NINE = 9
"""As many as `soong recommend` shows."""


def _one_plan(offers: Sequence[Offer]) -> Plan:
    return make_plan(Request(model="llama-3.1-8b"), offers=offers, allow_network=False)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_seconds_of(sys.argv[1])
    else:
        main()
