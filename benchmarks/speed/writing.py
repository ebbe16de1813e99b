"""Writing a fitted table back as `src/soong/data/speed.toml`, and what else is read off the runs at a fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from benchmarks.speed.fitting import PRIORS, Fit, with_factors, without
from benchmarks.speed.measuring import load_of, median, quantile, results_of

from soong.speed import roofline
from soong.speed.efficiency import Efficiencies, SpeedTable, Spread
from soong.speed.prepared import FEW_USERS, prepared_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.speed.cases import Case
    from benchmarks.speed.measuring import Result

TARGET = Path(__file__).parents[2] / "src" / "soong" / "data" / "speed.toml"

HEADER = """\
# How much of its datasheet a GPU delivers while it serves a model: one row per generation of GPUs, kind of kernel and
# number format, link, or engine; nothing here is about one model. Shares are of the rates in gpus.toml, times in
# microseconds; soong/speed/efficiency.py says what each field means.
#
# Written by `python -m benchmarks.speed --fit`: the measurements of single kernels in benchmarks/speed/priors.toml,
# moved a little so that the published runs in benchmarks/speed/published/runs.jsonl come out right. `source` says
# where a row began. Do not edit here: change the priors or the runs, and fit again.
"""


def finished(fitted: Fit, table: SpeedTable, cases: Sequence[Case]) -> SpeedTable:
    """The fitted table with the engines' first waits and the spread of runs about their predictions."""
    moved = with_factors(table, fitted.found, fitted.values)
    engines = tuple(
        msgspec.structs.replace(engine, first_us=_first_us(engine.name, cases, moved))
        for engine in moved.engine
    )
    whole = msgspec.structs.replace(moved, engine=engines)
    rows = (*spreads(unseen(fitted, table, cases)), *_first_token_spreads(cases, whole))
    return msgspec.structs.replace(whole, spread=rows)


def by_model(case: Case) -> str:
    """What is left out together: all runs of a model."""
    return case.run.family


def by_gpu(case: Case) -> str:
    """What is left out together: all runs on a kind of GPU."""
    return case.gpu.id


def by_source(case: Case) -> str:
    """What is left out together: all runs that one source measured."""
    return case.run.collection


def unseen(
    fitted: Fit,
    table: SpeedTable,
    cases: Sequence[Case],
    *,
    steady: bool = False,
    together: Callable[[Case], str] = by_model,
) -> list[Result]:
    """Every run predicted from a fit that knew none of those that are left out `together` with it."""
    found: list[Result] = []
    for group in dict.fromkeys(map(together, cases)):
        places = {place for place, case in enumerate(cases) if together(case) == group}
        efficiencies = Efficiencies(with_factors(table, fitted.found, without(fitted, places)))
        found += results_of([cases[place] for place in sorted(places)], efficiencies, steady=steady)
    return found


def spreads(results: Sequence[Result]) -> tuple[Spread, ...]:
    """The tenth and the ninetieth of a hundred runs of unseen models, by engine and kind of load."""
    classes: dict[tuple[str, str], list[float]] = {}
    for result in results:
        run = result.case.run
        if run.engine == run.serving_engine:
            load = "burst" if run.load == "burst" else "alone" if result.batch == 1 else "many"
            classes.setdefault((run.engine, load), []).append(result.ratio)
    return tuple(
        Spread(
            engine=engine,
            load=load,
            low=float(f"{min(quantile(ratios, 0.1), 1.0):.3g}"),
            high=float(f"{max(quantile(ratios, 0.9), 1.0):.3g}"),
            runs=len(ratios),
        )
        for (engine, load), ratios in sorted(classes.items())
        if len(ratios) >= LEAST_RUNS
    )


LEAST_RUNS = 10


def _first_token_spreads(cases: Sequence[Case], table: SpeedTable) -> Iterator[Spread]:
    """The same of times to the first token, of runs that the table knows: nothing but one wait an engine is fitted."""
    efficiencies = Efficiencies(table)
    found: dict[str, list[float]] = {}
    for case in cases:
        run = case.run
        prepared = prepared_with(efficiencies, case.served, case.gpu, case.settings)
        if prepared is None or run.ttft_ms is None or (run.sequences or FEW_USERS + 1) > FEW_USERS:
            continue
        seconds = roofline.answered(prepared, load_of(case)).time_to_first_token_seconds
        found.setdefault(run.engine, []).append(run.ttft_ms / 1e3 / seconds)
    for engine, ratios in sorted(found.items()):
        low, high = min(quantile(ratios, 0.1), 1.0), max(quantile(ratios, 0.9), 1.0)
        if len(ratios) >= LEAST_RUNS:
            yield Spread(
                engine=engine,
                load="first-token",
                low=float(f"{low:.3g}"),
                high=float(f"{high:.3g}"),
                runs=len(ratios),
            )


def _first_us(name: str, cases: Sequence[Case], table: SpeedTable) -> float:
    """The middle of what measured first tokens took beyond their prompt's time, of whatever version."""
    efficiencies = Efficiencies(table)
    rest = []
    for case in cases:
        run = case.run
        few = run.ttft_ms is not None and (run.sequences or FEW_USERS + 1) <= FEW_USERS
        if not few or run.engine != name or run.ttft_ms is None:
            continue
        prepared = prepared_with(efficiencies, case.served, case.gpu, case.settings)
        if prepared is not None:
            first = (
                roofline.answered(prepared, load_of(case)).time_to_first_token_seconds
                - prepared.first_seconds
            )
            rest.append(run.ttft_ms * 1e3 - first * 1e6)
    return float(f"{max(median(rest), 0.0):.3g}") if rest else 0.0


def write(table: SpeedTable, target: Path = TARGET) -> None:
    """Put a table where soong reads it."""
    target.write_text(as_toml(table))


def as_toml(table: SpeedTable) -> str:
    """The table as people read it."""
    lines = [HEADER]
    for name in ("generation", "kernel", "link", "engine", "spread"):
        for row in getattr(table, name):
            lines.append(f"\n[[{name}]]")
            lines += [f"{key} = {_value(value)}" for key, value in _fields(row)]
    return "\n".join(lines) + "\n"


def _fields(row: msgspec.Struct) -> list[tuple[str, object]]:
    found = msgspec.structs.asdict(row)
    return [(key, value) for key, value in found.items() if value not in ("", (), None)]


def _value(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


__all__ = ["PRIORS", "as_toml", "by_gpu", "by_model", "by_source", "finished", "spreads", "unseen", "write"]
