"""The table of a plan: which rows a person is shown, and which columns the terminal has room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong import units
from soong.cli.text import screen_width, style, table, width

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.plan.plan import Candidate, Plan

STYLES = {"fits": "green", "tight": "yellow", "too-small": "red", "unsupported": "magenta"}

MOST_ROWS = 30
"""As many rows as stand on one screen with what is above and below them; `--all` shows the rest."""


class Shown(msgspec.Struct, frozen=True):
    """The rows a person is shown, by index, and how many are not: dominated ones, unsuitable ones, and the rest."""

    rows: tuple[int, ...]
    dominated: int
    unsuitable: int
    beyond: int


def shown_rows(plan: Plan, *, show_all: bool) -> Shown:
    """What to show of a plan: the recommended row, the front, and all that would come before the recommended one.

    Folded are the rows that another beats in price and speed, and those that will not do and come after the
    recommended one. Where no speed is known nothing can be beaten, and nothing is folded.
    """
    everything = range(len(plan.candidates))
    front = set(plan.front)
    if show_all or not front:
        rows = tuple(everything) if show_all else tuple(everything)[:MOST_ROWS]
        return Shown(rows, 0, 0, len(everything) - len(rows))
    last = plan.choice if plan.choice is not None else len(everything)
    hopeless = {index for index in everything[:last] if is_plainly_too_small(plan.candidates[index])}
    nearest = set(sorted(hopeless)[-MOST_TOO_SMALL:])
    kept, dominated, unsuitable = [], 0, 0
    for index in everything:
        candidate = plan.candidates[index]
        beaten = candidate.will_do and candidate.throughput is not None and index not in front
        before = index < last and not beaten and (index not in hopeless or index in nearest)
        if index == plan.choice or index in front or before:
            kept.append(index)
        elif beaten:
            dominated += 1
        else:
            unsuitable += 1
    rows = _at_most(kept, plan.choice)
    return Shown(rows, dominated, unsuitable, len(kept) - len(rows))


MOST_TOO_SMALL = 5
"""Of the cheaper machines that are plainly too small as many as show the way; a page of them says no more."""


def is_plainly_too_small(candidate: Candidate) -> bool:
    """The table's columns say it already: the need is more than the card."""
    footprint = candidate.footprint
    too_small = candidate.verdict == "too-small"
    return too_small and footprint is not None and footprint.need_bytes > footprint.total_bytes


def _at_most(kept: list[int], choice: int | None) -> tuple[int, ...]:
    """The rows about the recommended one, where they are too many for a screen."""
    if len(kept) <= MOST_ROWS:
        return tuple(kept)
    at = kept.index(choice) if choice in kept else 0
    start = max(0, min(at - MOST_ROWS // 2, len(kept) - MOST_ROWS))
    return tuple(kept[start : start + MOST_ROWS])


def folded_line(shown: Shown) -> str:
    """`12 dominated rows folded (…); --all shows them`; empty where every row is shown."""
    parts = []
    if shown.dominated:
        parts.append(f"{_rows(shown.dominated, 'dominated')} folded (another is as cheap and as fast)")
    if shown.unsuitable:
        parts.append(f"{shown.unsuitable} that will not do")
    if shown.beyond:
        parts.append(_rows(shown.beyond, "more"))
    return f"{', '.join(parts)}; --all shows them" if parts else ""


def _rows(count: int, kind: str) -> str:
    return f"{count} {kind} row{'' if count == 1 else 's'}"


def candidates_table(plan: Plan, rows: tuple[int, ...]) -> str:
    """The rows best first, the recommended one marked, with as many columns as the terminal holds."""
    candidates = [plan.candidates[index] for index in rows]
    columns = [column for column in COLUMNS if _is_of_use(column, candidates, plan)]
    return fitting_table(
        [(column, [column.cell(candidate, plan) for candidate in candidates]) for column in columns]
    )


def fitting_table(filled: list[tuple[Column, list[str]]]) -> str:
    """A table of the columns that the terminal has room for; those with the largest `leaves` give way first.

    Args:
        filled: columns with their cells.
    """
    filled = list(filled)
    sizes = {column.name: max(map(width, [column.name, *cells])) + 3 for column, cells in filled}
    room = screen_width() - 1
    while sum(sizes.values()) > room:
        leaving = max(filled, key=lambda one: one[0].leaves)
        if leaving[0].leaves == 0:
            break
        filled.remove(leaving)
        del sizes[leaving[0].name]
    lines = [list(row) for row in zip(*(cells for _, cells in filled), strict=True)]
    right = tuple(place for place, (column, _) in enumerate(filled) if column.at_right)
    return table([column.name for column, _ in filled], lines, right=right, whole=(0,))


class Column:
    """One column; those with the largest `leaves` give way first where the terminal is narrow, 0 never does.

    cell: the text of one row. A plain class: this is on the way of every plan, and named tuples take long to define.
    """

    def __init__(self, name: str, leaves: int, cell: Callable[..., str], *, at_right: bool = True) -> None:
        self.name = name
        self.leaves = leaves
        self.cell = cell
        self.at_right = at_right


def _is_of_use(column: Column, candidates: list[Candidate], plan: Plan) -> bool:
    """Whether a column says anything in this plan."""
    if column.name in {"tok/s", "$/M out"}:
        return any(candidate.throughput for candidate in candidates)
    if column.name == "Batch":
        return plan.request.searches_batch and any(candidate.throughput for candidate in candidates)
    if column.name == "Cloud":
        return len({candidate.offer.cloud for candidate in candidates if candidate.offer}) > 1
    return column.name != "Job" or plan.request.has_job


def _type(candidate: Candidate, plan: Plan) -> str:
    return style(f"▶ {candidate.name}", "bold") if candidate is plan.chosen else f"  {candidate.name}"


def _cloud(candidate: Candidate, _: Plan) -> str:
    return candidate.offer.cloud if candidate.offer else ""


def _gpu(candidate: Candidate, _: Plan) -> str:
    return f"{candidate.gpu_count}x {candidate.gpu.name}"


def _price(candidate: Candidate, _: Plan) -> str:
    offer = candidate.offer
    if offer is None:
        return "no price"
    return f"{offer.usd_per_hour:.2f}{'' if candidate.launchable else PRICE_ONLY}{SPOT if offer.spot else ''}"


def _verdict(candidate: Candidate, _: Plan) -> str:
    if candidate.verdict == "fits" and candidate.meets_target is False:
        return style("too slow", "yellow")
    return style(candidate.verdict, STYLES[candidate.verdict])


def _need(candidate: Candidate, _: Plan) -> str:
    return units.format_gib(candidate.footprint.need_bytes) if candidate.footprint else ""


def _context(candidate: Candidate, _: Plan) -> str:
    longest = candidate.footprint.max_context_tokens if candidate.footprint else None
    return f"{longest:,}" if candidate.starts and longest else ""


def _sequences(candidate: Candidate, _: Plan) -> str:
    many = candidate.footprint.max_sequences if candidate.footprint else None
    return f"{many:,}" if candidate.starts and many is not None else ""


def _batch(candidate: Candidate, _: Plan) -> str:
    return f"{candidate.throughput.load.sequences:,}" if candidate.throughput else ""


def _rate(candidate: Candidate, _: Plan) -> str:
    return rate(candidate.throughput.decode_tokens_per_second_per_user) if candidate.throughput else ""


def _cost(candidate: Candidate, _: Plan) -> str:
    cost = candidate.usd_per_million_output_tokens
    return "" if cost is None else dollars(cost)


def _job(candidate: Candidate, plan: Plan) -> str:
    hours = candidate.hours_of_job(plan.request)
    return "" if hours is None else span(hours)


COLUMNS = (
    Column("Type", 0, _type, at_right=False),
    Column("Cloud", 2, _cloud, at_right=False),
    Column("GPU", 6, _gpu, at_right=False),
    Column("$/hour", 0, _price),
    Column("Verdict", 0, _verdict, at_right=False),
    Column("Need/GPU", 3, _need),
    Column("Context", 5, _context),
    Column("Seqs", 4, _sequences),
    Column("Batch", 1, _batch),
    Column("tok/s", 0, _rate),
    Column("$/M out", 0, _cost),
    Column("Job", 0, _job),
)


PRICE_ONLY, SPOT = "†", "~"
MARKS = {
    PRICE_ONLY: "price only: soong cannot rent it, `soong export` writes the file for a tool that can",
    SPOT: "spot: may be taken away at any moment",
}


def marks_line(plan: Plan, rows: tuple[int, ...]) -> str:
    """What the marks beside prices mean, where there are any."""
    candidates = [plan.candidates[index] for index in rows]
    found = [mark for mark in MARKS if any(mark in _price(candidate, plan) for candidate in candidates)]
    return "; ".join(f"{mark} {MARKS[mark]}" for mark in found)


def days_line(plan: Plan, rows: tuple[int, ...]) -> str:
    """The day of every price that is shown, by cloud; the age of old ones: `Prices: lambda 79 days old, ...`."""
    from soong.offers.freshness import age_words, is_stale

    days: dict[str, dict[str, None]] = {}
    offers = [offer for index in rows if (offer := plan.candidates[index].offer) is not None]
    for offer in sorted(offers, key=lambda one: one.as_of, reverse=True):
        days.setdefault(offer.cloud, {}).setdefault(age_words(offer))
    if not offers:
        return ""
    words = [
        f"{cloud} {' to '.join(dict.fromkeys([*list(ages)[:1], *list(ages)[-1:]]))}"
        for cloud, ages in days.items()
    ]
    newer = "; newer ones: soong offers --live or --refresh" if any(map(is_stale, offers)) else ""
    return style(f"Prices: {', '.join(words)}{newer}", "dim")


rate, dollars = units.format_rate, units.format_dollars


def span(hours: float) -> str:
    """`45 s`, `12m`, `3h20m`, `5.2 days`."""
    if hours * 60 < 2:
        return f"{hours * 3600:.0f} s"
    return units.format_hours(hours) if hours < 48 else f"{hours / 24:,.1f} days"
