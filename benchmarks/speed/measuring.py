"""Predictions beside what was measured."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import msgspec
from benchmarks.speed.cases import QUEUED_SEQUENCES, Case

from soong.speed import roofline
from soong.speed.efficiency import packaged_efficiencies
from soong.speed.prepared import prepared_with
from soong.speed.throughput import Load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.speed.efficiency import Efficiencies
    from soong.speed.prepared import Prepared


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


def load_of(case: Case, *, steady: bool = False) -> Load:
    """The load that a run was measured under, of one replica; `steady`: a burst as if it never ended."""
    run = case.run
    sequences = max(1, (run.sequences or QUEUED_SEQUENCES) // case.replicas)
    return Load(
        input_tokens=run.input_tokens,
        output_tokens=run.output_tokens,
        sequences=sequences,
        requests=sequences if run.load == "burst" and not steady else 0,
    )


def predict(case: Case, efficiencies: Efficiencies | None = None, *, steady: bool = False) -> Result | None:
    """Soong's figure for one run.

    Args:
        case: the run. efficiencies: a table of one's own; None for the packaged one.
        steady: take a burst for a steady load, as `soong plan` does where nobody says `--requests`.
    """
    prepared = prepared_with(
        efficiencies or packaged_efficiencies(),
        case.served,
        case.gpu,
        case.settings,
        kv_dtype=case.run.kv_dtype,
    )
    if prepared is None:
        return None
    if case.run.engine != case.run.serving_engine:
        prepared = _without_crowding(prepared)
    found = roofline.answered(prepared, load_of(case, steady=steady))
    total = found.decode_tokens_per_second * case.replicas
    predicted = total if case.run.is_total else found.decode_tokens_per_second_per_user
    return Result(case, predicted, case.run.measured, found.load.sequences)


def _without_crowding(prepared: Prepared) -> Prepared:
    """As for vLLM, but for what its FlashAttention 2 alone is known to lose: another engine stands for itself there."""
    return msgspec.structs.replace(prepared, crowding_seconds=0.0, crowding_windows=())


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
