"""Fitting the few constants that no kernel measurement gives: robust least squares on logarithms, near their priors.

`priors.toml` holds what microbenchmarks of single kernels say; a fit multiplies some of these figures by factors near
one so that whole published runs come out right. Each factor is held back by a normal prior, each run counts less the
farther off it lies (Huber) and the more runs there are of the same model in the same collection. No linear algebra
library is needed: there are some fifty factors.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from math import exp, log
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from benchmarks.speed.measuring import predict

from soong.speed.efficiency import Efficiencies, SpeedTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.speed.cases import Case

PRIORS = Path(__file__).parent / "priors.toml"

HUBER = 0.15
"""Logarithm of a factor from which on a run is no longer trusted with its square."""

ITERATIONS = 8
STEP = 0.02
CROWDING = 0.5
"""n runs of one model in one collection count as the square root of n."""

FOREIGN = 0.5
"""What runs of TensorRT-LLM count, whose kernels are of the same kind but another's."""

BURST = 0.5
"""What bursts count: how a batch drains is a model of its own."""

NOISE = 0.12
"""How far runs of one setup lie apart, as a logarithm: the same card in two machines, one engine in two versions."""


class Factor(NamedTuple):
    """One figure of the table. rows: table and names of its rows. field: possibly dotted. width: of its prior."""

    table: str
    names: tuple[str, ...]
    field: str
    width: float


def factors(table: SpeedTable) -> list[Factor]:
    """What is fitted."""
    found: list[Factor] = []
    for engine in table.engine:
        names = (engine.name, engine.until)
        if engine.starts is None:
            wide = WIDER_BEFORE if engine.until else 1.0
            found += [
                Factor("engine", names, "step_us", 0.7),
                Factor("engine", names, "sequence_us", 0.4 * wide),
                Factor("engine", names, "request_us", 0.5 * wide),
                Factor("engine", names, "decode", 0.1),
                Factor("engine", names, "prefill", 0.2),
            ]
        else:
            found += [Factor("engine", names, f"starts.{name}", 0.7) for name in STARTS]
            found.append(Factor("engine", names, "step_us", 1.0))
    for generation in table.generation:
        found += [
            Factor("generation", (generation.name,), "layer_us", 0.3),
            Factor("generation", (generation.name,), "mixture_us", 0.3),
            Factor("generation", (generation.name,), "attention_us", 0.2),
            Factor("generation", (generation.name,), "state_us", 0.4),
            Factor("generation", (generation.name,), "start_us", 0.4),
        ]
    found += [
        Factor("kernel", (one.generation, one.part, one.format), "memory", 0.25)
        for one in table.kernel
        if one.part == "llama.cpp"
    ]
    found += [
        Factor("kernel", (one.generation, one.part, one.format), "memory", 0.07)
        for one in table.kernel
        if one.part != "llama.cpp"
    ]
    found += [
        Factor("kernel", (one.generation, one.part, one.format), "compute", 0.15)
        for one in table.kernel
        if one.part != "llama.cpp"
    ]
    found += [
        Factor("kernel", (one.generation, one.part, one.format), "launch_us", 0.2)
        for one in table.kernel
        if one.part != "llama.cpp"
    ]
    found += [
        Factor("link", (link.name,), field, 0.3) for link in table.link for field in ("start_us", "share")
    ]
    return found


WIDER_BEFORE = 1.5
"""Versions before today's are known by bursts alone, which tell little of single kernels: their own costs take it."""

STARTS = ("product", "norm", "attention", "expert", "state")
SHARES = {"memory", "compute", "share"}


def read_priors() -> SpeedTable:
    """The table before any fit."""
    return msgspec.convert(tomllib.loads(PRIORS.read_text()), SpeedTable)


def with_factors(table: SpeedTable, found: Sequence[Factor], values: Sequence[float]) -> SpeedTable:
    """The table with figures multiplied by exp(value)."""
    by_row: dict[tuple[str, tuple[str, ...]], list[tuple[str, float]]] = {}
    for factor, value in zip(found, values, strict=True):
        if value:
            by_row.setdefault((factor.table, factor.names), []).append((factor.field, exp(value)))
    changed = {
        name: tuple(
            _multiplied(row, by_row.get((name, _names(name, row)), [])) for row in getattr(table, name)
        )
        for name in ("generation", "kernel", "link", "engine")
    }
    return msgspec.structs.replace(table, **changed)


def _names(table: str, row: msgspec.Struct) -> tuple[str, ...]:
    if table == "kernel":
        return (row.generation, row.part, row.format)  # type: ignore[attr-defined]
    if table == "engine":
        return (row.name, row.until)  # type: ignore[attr-defined]
    return (row.name,)  # type: ignore[attr-defined]


def _multiplied(row: msgspec.Struct, changes: list[tuple[str, float]]) -> msgspec.Struct:
    for field, factor in changes:
        name, _, inner = field.partition(".")
        value = getattr(row, name)
        if inner:
            new: object = msgspec.structs.replace(value, **{inner: _rounded(getattr(value, inner) * factor)})
        elif isinstance(value, dict):
            new = {key: _capped(name, one * factor) for key, one in value.items()}
        else:
            new = _capped(name, value * factor)
        row = msgspec.structs.replace(row, **{name: new})
    return row


def _capped(name: str, value: float) -> float:
    return _rounded(min(value, 1.0) if name in SHARES else value)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


class Fit(NamedTuple):
    """Where a fit ended. slopes: of each run's logarithm by each factor there, for leaving runs out."""

    found: list[Factor]
    values: list[float]
    slopes: list[list[float]]
    off: list[float]
    weights: list[float]


def fit(cases: Sequence[Case], table: SpeedTable) -> Fit:
    """The factors that make the runs come out best."""
    found = factors(table)
    values = [0.0] * len(found)
    trust = _trust(cases)
    slopes: list[list[float]] = []
    off: list[float] = []
    touched: list[list[int]] = []
    for _ in range(ITERATIONS):
        off, slopes = _linearized(cases, table, found, values, touched)
        touched = touched or [
            [one for one, row in enumerate(slopes) if row[place]] for place in range(len(found))
        ]
        weights = [one * _huber(r) for one, r in zip(trust, off, strict=True)]
        step = _solved(slopes, off, weights, found, values)
        values = [value + max(-0.5, min(0.5, change)) for value, change in zip(values, step, strict=True)]
        if max(map(abs, step)) < STEP / 2:
            break
    off, slopes = _linearized(cases, table, found, values, touched)
    return Fit(found, values, slopes, off, [one * _huber(r) for one, r in zip(trust, off, strict=True)])


def without(fitted: Fit, left_out: set[int]) -> list[float]:
    """The factors had these runs not been known: one more step from the full fit, without them."""
    weights = [0.0 if place in left_out else one for place, one in enumerate(fitted.weights)]
    step = _solved(fitted.slopes, fitted.off, weights, fitted.found, fitted.values)
    return [value + change for value, change in zip(fitted.values, step, strict=True)]


def _trust(cases: Sequence[Case]) -> list[float]:
    crowd = Counter((case.run.family, case.run.collection) for case in cases)
    return [
        crowd[case.run.family, case.run.collection] ** -CROWDING
        * (FOREIGN if case.run.engine == "tensorrt-llm" else 1.0)
        * (BURST if case.run.load == "burst" else 1.0)
        for case in cases
    ]


def _huber(off: float) -> float:
    return 1.0 if abs(off) < HUBER else HUBER / abs(off)


def _linearized(
    cases: Sequence[Case],
    table: SpeedTable,
    found: list[Factor],
    values: list[float],
    touched: list[list[int]],
) -> tuple[list[float], list[list[float]]]:
    """Measured over predicted as logarithms, and how each prediction's logarithm moves with each factor.

    touched: for each factor the runs that it moves, where that is known already.
    """
    base = _logs(cases, table, found, values)
    off = [log(case.run.measured) - one for case, one in zip(cases, base, strict=True)]
    columns = []
    for place in range(len(found)):
        moved = [*values[:place], values[place] + STEP, *values[place + 1 :]]
        chosen = touched[place] if touched else range(len(cases))
        logs = _logs([cases[one] for one in chosen], table, found, moved)
        column = [0.0] * len(cases)
        for one, value in zip(chosen, logs, strict=True):
            column[one] = (value - base[one]) / STEP
        columns.append(column)
    return off, [list(row) for row in zip(*columns, strict=True)]


def _logs(cases: Sequence[Case], table: SpeedTable, found: list[Factor], values: list[float]) -> list[float]:
    efficiencies = Efficiencies(with_factors(table, found, values))
    logs = []
    for case in cases:
        result = predict(case, efficiencies)
        logs.append(log(result.predicted) if result else log(case.run.measured))
    return logs


def _solved(
    slopes: list[list[float]],
    off: list[float],
    weights: list[float],
    found: list[Factor],
    values: list[float],
) -> list[float]:
    """The step of the weighted normal equations with the priors as further rows."""
    size = len(found)
    matrix = [[0.0] * size for _ in range(size)]
    right = [0.0] * size
    for row, r, weight in zip(slopes, off, weights, strict=True):
        if not weight:
            continue
        used = [place for place, slope in enumerate(row) if slope]
        for i in used:
            scaled = weight * row[i] / NOISE**2
            right[i] += scaled * r
            for j in used:
                matrix[i][j] += scaled * row[j]
    for i, factor in enumerate(found):
        matrix[i][i] += factor.width**-2
        right[i] -= values[i] * factor.width**-2
    return _gauss(matrix, right)


def _gauss(matrix: list[list[float]], right: list[float]) -> list[float]:
    """The solution of a positive definite system; Cholesky."""
    size = len(right)
    lower: list[list[float]] = []
    for i in range(size):
        row: list[float] = []
        for j in range(i):
            row.append((matrix[i][j] - sum(map(mul, row, lower[j]))) / lower[j][j])
        row.append((matrix[i][i] - sum(map(mul, row, row))) ** 0.5)
        lower.append(row)
    forward: list[float] = []
    for i in range(size):
        forward.append((right[i] - sum(map(mul, forward, lower[i]))) / lower[i][i])
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(lower[j][i] * solution[j] for j in range(i + 1, size))
        solution[i] = (forward[i] - known) / lower[i][i]
    return solution
