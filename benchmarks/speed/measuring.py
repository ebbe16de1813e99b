"""Predictions beside what was measured."""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING

import msgspec
from benchmarks.speed.cases import QUEUED_SEQUENCES, Case

from soong.speed import roofline
from soong.speed.efficiency import packaged_efficiencies
from soong.speed.throughput import Load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.speed.efficiency import Efficiencies
    from soong.speed.roofline import Prepared


class Result(msgspec.Struct, frozen=True):
    """One run. predicted, measured: tokens a second, of all users or of one. batch: sequences that run at once."""

    case: Case
    predicted: float
    measured: float
    batch: int

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted

    @property
    def error(self) -> float:
        """How far off, as a share of what was measured."""
        return abs(self.predicted / self.measured - 1)

    @property
    def factor(self) -> float:
        """How far off as a factor, from 1 up."""
        return max(self.ratio, 1 / self.ratio)

    @property
    def log_ratio(self) -> float:
        """The natural logarithm of `ratio`."""
        return log(self.ratio)


def load_of(case: Case) -> Load:
    """The load that a run was measured under, of one replica."""
    run = case.run
    sequences = run.sequences or QUEUED_SEQUENCES
    return Load(
        input_tokens=run.input_tokens,
        output_tokens=run.output_tokens,
        sequences=max(1, sequences // case.replicas),
    )


def predict(case: Case, efficiencies: Efficiencies | None = None, *, steady: bool = False) -> Result | None:
    """Soong's figure for one run.

    Args:
        case: the run. efficiencies: a table of one's own; None for the packaged one.
        steady: take a burst for a steady load, as `soong plan` does, which cannot know of one.
    """
    prepared = roofline.prepared_with(
        efficiencies or packaged_efficiencies(),
        case.served,
        case.gpu,
        case.settings,
        kv_dtype=case.run.kv_dtype,
    )
    if prepared is None:
        return None
    load = load_of(case)
    found = roofline.answered(prepared, load)
    total = found.decode_tokens_per_second
    if case.run.load == "burst" and not steady:
        total = burst_tokens_per_second(prepared, load, found.load.sequences)
    predicted = total * case.replicas if case.run.is_total else found.decode_tokens_per_second_per_user
    return Result(case, predicted, case.run.measured, found.load.sequences)


def burst_tokens_per_second(prepared: Prepared, load: Load, batch: int) -> float:
    """Output tokens a second from the first request to the last answer, where all come at once and none after.

    Answers of such tests (ShareGPT) end like radioactive atoms, so that a batch that nobody fills up shrinks by the
    same share in every step; each size between is passed in `output_tokens / size` steps.
    """
    steps = load.output_tokens
    context = load.input_tokens + steps / 2
    prompts = load.sequences * roofline.prompt_seconds(prepared, load.input_tokens, load.sequences)
    full = (load.sequences - batch) / batch * steps * roofline.step_seconds(prepared, batch, context)
    stretch = log(batch) / DRAIN_STEPS
    sizes = [exp((place + 0.5) * stretch) for place in range(DRAIN_STEPS)]
    draining = steps * stretch * sum(roofline.step_seconds(prepared, size, context) for size in sizes)
    return load.sequences * steps / (prompts + full + draining)


DRAIN_STEPS = 16


def results_of(
    found: Iterable[Case], efficiencies: Efficiencies | None = None, *, steady: bool = False
) -> list[Result]:
    """All that could be predicted."""
    made = (predict(case, efficiencies, steady=steady) for case in found)
    return [result for result in made if result is not None]


def median(values: Sequence[float]) -> float:
    """The middle one."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of all lies."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
