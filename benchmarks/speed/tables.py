"""The tables that the bench prints and docs/throughput.md holds."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.speed.cases import PUBLISHED
from benchmarks.speed.measuring import Result, load_of, median, quantile

from soong.speed import roofline
from soong.speed.prepared import FEW_USERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.speed.cases import Case, LeftOut

Row = tuple[str, ...]

NEAR_FACTOR = 1.5
APART = 1.2
"""Prices per token that differ by less than 20 % are no order to get right."""


class Table(NamedTuple):
    """A title, the columns' heads, and rows of text."""

    title: str
    heads: Row
    rows: Sequence[Row]


HEADS = ("", "runs", "median error", "within 1.5×", "within 2×", "measured / predicted, p10 to p90")


def _figures(name: str, results: Sequence[Result]) -> Row:
    ratios = [result.ratio for result in results]
    return (
        name,
        str(len(results)),
        f"{median([result.error for result in results]):.1%}",
        f"{sum(result.factor <= NEAR_FACTOR for result in results) / len(results):.0%}",
        f"{sum(result.factor <= 2 for result in results) / len(results):.0%}",
        f"{quantile(ratios, 0.1):.2f} to {quantile(ratios, 0.9):.2f}",
    )


def ours(results: Sequence[Result]) -> list[Result]:
    """Runs of the engines that soong plans."""
    return [result for result in results if result.case.run.engine == result.case.run.serving_engine]


def undoubted(results: Sequence[Result]) -> list[Result]:
    """Runs whose own page does not belie the GPU that it names."""
    return [result for result in results if not result.case.run.doubt]


class Compared(NamedTuple):
    """Predictions of the same runs by fits that knew less or more.

    unseen: without the run's model. steady: the same, with bursts taken for steady loads. gpu, source: without the
    run's GPU, without all of its source. before: by the kernels' measurements alone. known: with all runs.
    """

    unseen: Sequence[Result]
    steady: Sequence[Result]
    gpu: Sequence[Result]
    source: Sequence[Result]
    before: Sequence[Result]
    known: Sequence[Result]


def summary(compared: Compared) -> Table:
    """The figures that matter most."""
    unseen = compared.unseen
    bursts = [result for result in unseen if result.case.run.load == "burst"]
    closed = [result for result in ours(unseen) if result.case.run.load != "burst"]
    return Table(
        "In all",
        HEADS,
        [
            _figures("models left out of the fit: all runs", unseen),
            _figures("… of vLLM, SGLang and llama.cpp", ours(unseen)),
            _figures("… of these, steady loads alone", closed),
            _figures("… bursts, asked as bursts", bursts),
            _figures("… bursts, without those that name a GPU in doubt", undoubted(bursts)),
            _figures("… all runs, a burst taken for a steady load", compared.steady),
            _figures("GPUs left out of the fit: all runs", compared.gpu),
            _figures("sources left out of the fit: all runs", compared.source),
            _figures("before any fit: all runs", compared.before),
            _figures("known to the fit: all runs", compared.known),
            _figures("… of vLLM, SGLang and llama.cpp", ours(compared.known)),
        ],
    )


def by(title: str, results: Sequence[Result], key: Callable[[Result], str]) -> Table:
    """One row for each value of `key`."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return Table(title, HEADS, [_figures(name, groups[name]) for name in sorted(groups)])


def prices() -> dict[str, float]:
    """Dollars an hour for one GPU of a kind: the cheapest offer of any cloud on the days that the file names."""
    rows = map(json.loads, (PUBLISHED / "prices.jsonl").read_text().splitlines())
    return {row["gpu"]: row["usd_per_gpu_hour"] for row in rows}


def pairs(results: Sequence[Result]) -> list[tuple[Result, Result, bool]]:
    """Runs of one model under one load on two kinds of GPU, and whether the cheaper one per token is named rightly."""
    price = prices()
    groups: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for result in results:
        run = result.case.run
        if run.gpu in price:
            key = (
                run.family, run.collection, run.engine, run.load, run.sequences, run.input_tokens,
                run.output_tokens, run.is_total,
            )  # fmt: skip
            groups[key].append(result)
    found = []
    for group in groups.values():
        for place, one in enumerate(group):
            for other in group[place + 1 :]:
                if one.case.run.gpu == other.case.run.gpu:
                    continue
                measured = _dollars(one, one.measured, price) / _dollars(other, other.measured, price)
                if max(measured, 1 / measured) < APART:
                    continue
                predicted = _dollars(one, one.predicted, price) / _dollars(other, other.predicted, price)
                found.append((one, other, (measured > 1) == (predicted > 1)))
    return found


def _dollars(result: Result, speed: float, price: dict[str, float]) -> float:
    return price[result.case.run.gpu] * result.case.run.gpu_count / speed


def order(known: Sequence[Result], unseen: Sequence[Result]) -> Table:
    """How often the cheaper GPU per token is named rightly."""
    rows = []
    for name, results in (
        ("models left out of the fit", unseen),
        ("… of vLLM, SGLang and llama.cpp", ours(unseen)),
        ("… steady loads alone", [one for one in unseen if one.case.run.load != "burst"]),
        ("… without runs that name a GPU in doubt", undoubted(unseen)),
        ("known to the fit", known),
    ):
        found = pairs(results)
        right = sum(agrees for *_, agrees in found)
        rows.append((name, str(len(found)), f"{right / len(found):.1%}" if found else "none"))
    return Table("Order of two kinds of GPU by price per token", ("", "pairs over 20 % apart", "right"), rows)


def first_tokens(found: Sequence[Case]) -> Table:
    """Times to the first token, as the packaged table has them."""
    groups: dict[str, list[float]] = defaultdict(list)
    for case in found:
        run = case.run
        if run.ttft_ms is None or (run.sequences or FEW_USERS + 1) > FEW_USERS:
            continue
        answer = roofline.throughput(case.served, case.gpu, load_of(case), case.settings, run.gpu_count)
        if answer is not None:
            groups[run.engine].append(run.ttft_ms / 1e3 / answer.time_to_first_token_seconds)
    rows = []
    for name, ratios in sorted(groups.items()):
        error = median([abs(1 / ratio - 1) for ratio in ratios])
        near = sum(1 / NEAR_FACTOR <= ratio <= NEAR_FACTOR for ratio in ratios) / len(ratios)
        rows.append((name, str(len(ratios)), f"{error:.0%}", f"{near:.0%}"))
    return Table(
        "Time to the first token, up to eight users", ("", "runs", "median error", "within 1.5×"), rows
    )


WORST = 10


def worst(results: Sequence[Result], reasons: dict[str, str]) -> Table:
    """The runs that are farthest off, one for each setup."""
    rows: list[Row] = []
    seen = set()
    for result in sorted(results, key=lambda one: -one.factor):
        run = result.case.run
        setup = (run.family, run.gpu, run.engine, run.gpu_count)
        if setup in seen:
            continue
        seen.add(setup)
        rows.append(
            (
                run.as_called,
                f"{run.gpu_count} × {run.gpu}",
                run.engine,
                f"{run.sequences or 'queued'} × {run.input_tokens}/{run.output_tokens}",
                f"{result.measured:,.0f}",
                f"{result.predicted:,.0f}",
                reasons.get(run.id, run.doubt or "not understood"),
            )
        )
        if len(rows) == WORST:
            break
    return Table(
        "The ten that are farthest off, of models left out of the fit",
        ("model", "GPUs", "engine", "load", "measured", "predicted", "why"),
        rows,
    )


def left_out(left: Sequence[LeftOut]) -> Table:
    """What is not compared, and why."""
    counts: dict[str, int] = defaultdict(int)
    for one in left:
        counts[one.why] += 1
    rows = [(why, str(count)) for why, count in sorted(counts.items(), key=lambda item: -item[1])]
    return Table("Left out", ("why", "runs"), rows)


def every(results: Sequence[Result]) -> Table:
    """One row for each run."""
    rows = [
        (
            result.case.run.as_called,
            result.case.run.format,
            f"{result.case.run.gpu_count} × {result.case.run.gpu}",
            result.case.run.engine,
            f"{result.case.run.sequences or 'queued'} × {result.case.run.input_tokens}/{result.case.run.output_tokens}",
            str(result.batch),
            f"{result.measured:,.1f}",
            f"{result.predicted:,.1f}",
            f"{result.ratio:.2f}",
        )
        for result in results
    ]
    heads = ("model", "format", "GPUs", "engine", "load", "at once", "measured", "predicted", "ratio")
    return Table("Every run", heads, rows)


def as_text(table: Table) -> str:
    """For a terminal."""
    rows = [table.heads, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([table.title, "", *lines])


def as_markdown(table: Table) -> str:
    """For a page."""
    lines = [
        f"| {' | '.join(row)} |" for row in (table.heads, tuple("---" for _ in table.heads), *table.rows)
    ]
    return "\n".join([f"**{table.title}**", "", *lines])
