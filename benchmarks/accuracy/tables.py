"""The results as tables, once: the terminal and the docs print the same rows."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from benchmarks.accuracy.measuring import ASKED, CLASSES, QUANTITIES, SOONG, Measure, Results, of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

GOAL_PERCENT = {
    ("vllm", "weights"): "1 % on 95 %",
    ("sglang", "weights"): "1 % on 95 %",
    ("vllm", "tokens_of_pool"): "1 % on 97 %",
    ("sglang", "tokens_of_pool"): "1 % on 97 %",
    ("vllm", "tokens_stated"): "median 3 %, 8 % on 90 %",
    ("sglang", "tokens_stated"): "median 3 %, 8 % on 90 %",
    (CLASSES, "weights"): "0.1 % on 97 %",
    (CLASSES, "tokens_of_pool"): "0.1 % on 97 %",
}
"""What we hold ourselves to, on cases that nothing was fitted to."""

WORST = 10
DECIDING = ("weights", "tokens_of_pool", "tokens")
"""The figures by which a case is called bad: the others add up to them."""


ROUNDING = 1e-12
"""Floating point makes 101 / 100 - 1 a little more than 0.01."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A title with a remark, the head and the rows, all of them text, and a note below."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""
    note: str = ""


class Spread(NamedTuple):
    """How far off some figures are; shares of one."""

    cases: int
    median: float
    ninth_tenth: float
    worst: float
    within_1_percent: float
    within_8_percent: float


def spread(measures: Sequence[Measure]) -> Spread | None:
    """None where there is nothing to spread."""
    errors = sorted(abs(measure.error) for measure in measures)
    if not errors:
        return None
    return Spread(
        cases=len(errors),
        median=statistics.median(errors),
        ninth_tenth=errors[min(len(errors) - 1, round(0.9 * (len(errors) - 1)))],
        worst=errors[-1],
        within_1_percent=sum(error <= 0.01 + ROUNDING for error in errors) / len(errors),
        within_8_percent=sum(error <= 0.08 + ROUNDING for error in errors) / len(errors),
    )


def percent(share: float) -> str:
    """Two digits that matter: 0.02 %, 3.3 %, 41 %."""
    value = abs(share) * 100
    digits = 3 if 0 < value < 0.095 else 2 if value < 0.995 else 1 if value < 9.95 else 0
    return f"{share * 100:.{digits}f} %" if value >= 0.0005 else "0 %"


def summary(results: Results) -> Table:
    """What soong predicts, how far off, beside what we hold ourselves to."""
    rows = []
    engines = dict.fromkeys(measure.engine for measure in results.measures)
    for engine in engines:
        for quantity, name in QUANTITIES.items():
            found = spread(of(results.measures, by=SOONG, engine=engine, quantity=quantity))
            if found:
                rows.append((engine, name, *_cells(found), GOAL_PERCENT.get((engine, quantity), "")))
    return Table(
        title="What soong predicts, against what was printed",
        head=("engine", "figure", "cases", "median", "90th", "worst", "within 1 %", "within 8 %", "goal"),
        rows=tuple(rows),
        note=" ".join(filter(None, (_classes_line(results), _uncertainty_line(results)))),
    )


def _cells(found: Spread) -> tuple[str, ...]:
    return (
        str(found.cases),
        percent(found.median),
        percent(found.ninth_tenth),
        percent(found.worst),
        f"{found.within_1_percent:.0%}",
        f"{found.within_8_percent:.0%}",
    )


GROUPED = ("weights", "kv_bytes_per_token", "tokens_of_pool", "tokens", "total")
"""What the tables by engine, format and family show."""


def by_group(results: Results, title: str, label: Callable[[Measure], str]) -> Table:
    """Median and worst error of the deciding figures, for the cases that share a label; the largest groups first."""
    ours = [measure for measure in of(results.measures, by=SOONG) if measure.engine not in ASKED]
    groups: dict[str, list[Measure]] = {}
    for measure in ours:
        groups.setdefault(label(measure), []).append(measure)
    rows = []
    for name, measures in sorted(groups.items(), key=lambda pair: (-len({m.case for m in pair[1]}), pair[0])):
        cells = [name, str(len({measure.case for measure in measures}))]
        cells += [_median_worst(of(measures, quantity=quantity)) for quantity in GROUPED]
        rows.append(tuple(cells))
    return Table(
        title=title,
        head=(title.removeprefix("By "), "cases", *(QUANTITIES[quantity] for quantity in GROUPED)),
        rows=tuple(rows),
        remark="median / worst error",
    )


def _median_worst(measures: Sequence[Measure]) -> str:
    found = spread(measures)
    return f"{percent(found.median)} / {percent(found.worst)}" if found else ""


def side_by_side(results: Results) -> Iterator[Table]:
    """Everyone's error in each figure, and ours on the same cases; who does not give a figure has no row."""
    measures = [one for one in results.measures if one.engine not in ASKED]
    everyone = dict.fromkeys(measure.by for measure in measures)
    for quantity, name in QUANTITIES.items():
        rows = []
        for by in everyone:
            theirs = of(measures, by=by, quantity=quantity)
            answered = {one.case for one in theirs}
            ours = [one for one in of(measures, by=SOONG, quantity=quantity) if one.case in answered]
            found, there = spread(theirs), spread(ours)
            if found and there:
                rows.append((by, *_cells(found), percent(there.median), f"{there.within_1_percent:.0%}"))
        if len(rows) > 1:
            yield Table(
                title=f"Side by side: {name}",
                head=(
                    "estimator", "cases", "median", "90th", "worst", "within 1 %", "within 8 %",
                    "soong there: median", "within 1 %",
                ),
                rows=tuple(rows),
            )  # fmt: skip


SAID = ("fits", "tight", "too-small", "unsupported")
WRONG = {"ok": SAID[2:], "oom": SAID[:1]}
"""What must not have been said of a launch that ran, and of one that did not."""


def verdicts(results: Results) -> Table:
    """What was said of a launch, by what became of it."""
    rows = []
    for by in dict.fromkeys(verdict.by for verdict in results.verdicts):
        for outcome in ("ok", "oom"):
            said = [one.said for one in results.verdicts if one.by == by and one.outcome == outcome]
            if said:
                rows.append(
                    (by, _outcome(outcome), str(len(said)), *(str(said.count(word)) for word in SAID))
                )
    return Table(
        title="Said and done",
        head=("estimator", "what became of it", "cases", *SAID),
        rows=tuple(rows),
        remark="launches whose GPU is known",
    )


def _outcome(outcome: str) -> str:
    return {"ok": "it ran", "oom": "out of memory"}[outcome]


def wrong_verdicts(results: Results, reasons: Mapping[str, str]) -> Table:
    """The launches that soong judged wrongly, by name."""
    wrong = [
        (one.case, one.said, _outcome(one.outcome), reasons.get(one.case, ""))
        for one in of(results.verdicts, by=SOONG)
        if one.engine not in ASKED and one.said in WRONG[one.outcome]
    ]
    return Table(title="Judged wrongly", head=("case", "said", "what became of it", "why"), rows=tuple(wrong))


def worst(results: Results, reasons: Mapping[str, str], sources: Mapping[str, str]) -> Table:
    """The cases with the largest error in any deciding figure, each by its largest."""
    by_case: dict[str, Measure] = {}
    for measure in of(results.measures, by=SOONG):
        if measure.quantity in DECIDING and measure.engine not in ASKED:
            known = by_case.get(measure.case)
            if known is None or abs(measure.error) > abs(known.error):
                by_case[measure.case] = measure
    chosen = sorted(by_case.values(), key=lambda measure: -abs(measure.error))[:WORST]
    rows = tuple(_told(one, reasons, sources) for one in chosen)
    return Table(title=f"The worst {len(rows)}", head=TOLD, rows=rows)


def worst_of_each(results: Results, reasons: Mapping[str, str], sources: Mapping[str, str]) -> Table:
    """The case with the largest error of each figure that the other table does not judge by."""
    published = [one for one in of(results.measures, by=SOONG) if one.engine not in ASKED]
    largest = []
    for quantity in QUANTITIES:
        found = of(published, quantity=quantity)
        if found and not quantity.startswith("tokens_") and quantity != "tokens":
            largest.append(max(found, key=lambda measure: abs(measure.error)))
    rows = tuple(_told(one, reasons, sources) for one in largest)
    return Table(title="The worst of each other figure", head=TOLD, rows=rows)


TOLD = ("case", "figure", "soong", "printed", "error", "why")


def _told(one: Measure, reasons: Mapping[str, str], sources: Mapping[str, str]) -> tuple[str, ...]:
    return (
        f"[{one.case}]({sources[one.case]})" if one.case in sources else one.case,
        QUANTITIES[one.quantity],
        _figure(one.quantity, one.predicted),
        _figure(one.quantity, one.published),
        f"{one.error:+.1%}",
        reasons.get(one.case, "not understood yet"),
    )


def _figure(quantity: str, value: float) -> str:
    if quantity.startswith("tokens") or quantity == "kv_bytes_per_token":
        return f"{value:,.0f}"
    return f"{value / 2**30:.2f} GiB"


def left_out(results: Results, unscored: Mapping[str, str]) -> Table:
    """The cases of which nothing can be said, and why."""
    rows = [*unscored.items(), *results.errors.items()]
    return Table(title="Left out", head=("case", "why"), rows=tuple(rows))


def _classes_line(results: Results) -> str:
    """What vLLM's own classes refuse and accept, in a sentence."""
    verdicts = of(results.verdicts, engine=CLASSES)
    if not verdicts:
        return ""
    agree = sum(one.said == one.outcome for one in verdicts)
    asked = f"Of {len(verdicts)} pools and contexts put to {CLASSES} (0.32.0)"
    return f"{asked}, soong accepts and refuses as they do in {agree}."


def _uncertainty_line(results: Results) -> str:
    """How often the pool lies within the uncertainty that soong states, in a sentence."""
    inside, count = sum(results.within_uncertainty), len(results.within_uncertainty)
    if not count:
        return ""
    return (
        f"The pool of the launch lies within the uncertainty that soong states in {inside} of {count} cases."
    )


def as_text(table: Table) -> str:
    """For a terminal."""
    table = msgspec.structs.replace(table, rows=tuple(tuple(map(_unlinked, row)) for row in table.rows))
    widths = [max(len(row[column]) for row in (table.head, *table.rows)) for column in range(len(table.head))]
    widths[-1] = len(table.head[-1])
    lines = [f"{table.title}{f' ({table.remark})' if table.remark else ''}"]
    lines += (
        ["  ".join(_aligned(row, widths)).rstrip() for row in (table.head, *table.rows)]
        if table.rows
        else ["none"]
    )
    return "\n".join([*lines, table.note] if table.note else lines)


def _unlinked(cell: str) -> str:
    return _LINK.sub(r"\1", cell)


_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def _aligned(row: Iterable[str], widths: Sequence[int]) -> Iterator[str]:
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if index and cell[:1].isdigit() else cell.ljust(width)


def as_markdown(table: Table) -> str:
    """For a page."""
    head = f"**{table.title}**{f' ({table.remark})' if table.remark else ''}"
    if not table.rows:
        return f"{head}: none"
    rule = "|" + "|".join("---:" if _is_number(table, column) else "---" for column in range(len(table.head)))
    rows = [" | ".join(cell.replace("|", "/") for cell in row) for row in table.rows]
    lines = [head, "", f"| {' | '.join(table.head)} |", f"{rule}|", *(f"| {row} |" for row in rows)]
    return "\n".join([*lines, "", table.note] if table.note else lines)


def _is_number(table: Table, column: int) -> bool:
    return bool(table.rows) and all(row[column][:1].isdigit() or not row[column] for row in table.rows)
