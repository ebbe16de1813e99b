"""Memory against context as small panels, one for each kind of machine, with the line where its GPU ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong import units
from soong.pictures.fitting import fitted
from soong.pictures.palette import LIGHT
from soong.pictures.subject import short_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from soong.pictures.figures import Area
    from soong.pictures.memory_curves import MemoryCurve, MemoryView

MOST_CURVES = 6
MOST_BESIDE = 4
"""As many beside another picture."""

PARTS = (
    ("runtime_bytes", "runtime and CUDA graphs", LIGHT.runtime),
    ("weights_bytes", "weights", LIGHT.weights),
    ("activations_bytes", "activations", LIGHT.activations),
    ("kv_bytes", "KV cache", LIGHT.kv),
)
"""From the ground up: what is the same at every context first."""

LEAST_ABOVE, MOST_ABOVE = 1.3, 1.8
"""How far above the GPU's end a panel goes: room for the line's words, and to see a need that passes it."""

ABOVE_NEED = 1.08
"""A panel goes at least so far above the need at the context that was asked for, however large that is."""

SMALLEST_LETTERS, MOST_LINES = 7.5, 3
"""Points, and lines: of what stands over a panel; what is too long even so is cut."""

BEYOND: dict[str, Any] = {"facecolor": "none", "edgecolor": LIGHT.beaten, "hatch": "////", "linewidth": 0.0}
"""Contexts with which the engine does not start: hatched, since a colour alone would be taken for another part."""

NARROW = 0.7
"""A part of the figure below this share of its width has room for two columns of panels."""

TITLES, TITLES_WIDE = 0.112, 0.095
"""Of the figure's height: over the first row of panels, for their titles and under a legend of two lines, or of one."""

PALE = 0.6
"""How much of the colours is taken away where a context does not fit."""

GB = 10**9


def draw_memory(figure: Figure, area: Area, view: MemoryView) -> None:
    """The panels of a view, with one legend above them."""
    columns = _columns(len(view.curves), wide=area.right - area.left >= NARROW)
    rows = -(-len(view.curves) // columns)
    _legend(figure, area, view)
    grid = figure.add_gridspec(
        rows,
        columns,
        left=area.left,
        right=area.right,
        bottom=area.bottom,
        top=area.top - (TITLES if area.right - area.left < NARROW else TITLES_WIDE),
        wspace=0.24,
        hspace=0.7,
    )
    for place, curve in enumerate(view.curves):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        last_row = place + columns >= len(view.curves)
        _panel(axes, curve, view, first=place % columns == 0, last=last_row)


def _columns(count: int, *, wide: bool) -> int:
    if count <= 2:
        return count
    return 2 if count == 4 or not wide else 3


def _legend(figure: Figure, area: Area, view: MemoryView) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=words) for _, words, colour in reversed(PARTS)]
    handles.append(Line2D([], [], color=LIGHT.ink, linewidth=1.8, label="the GPU's memory"))
    asked = f"need at {short_tokens(view.context_tokens)}"
    handles.append(
        Line2D([], [], color=LIGHT.ink, linewidth=0.9, linestyle=(0, (2, 2)), marker="o", label=asked)
    )
    if any(curve.fits_to not in {None, view.limit_tokens} for curve in view.curves):
        handles.append(Line2D([], [], color=LIGHT.limit, linewidth=1.6, label="fits up to here"))
    if any(curve.starts_to != view.limit_tokens for curve in view.curves):
        handles.append(Patch(label="does not start", **BEYOND))
    small = area.right - area.left < NARROW
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(area.left - 0.032, area.top + 0.045),
        ncols=4 if small else len(handles),
        frameon=False,
        fontsize=8.5 if small else 10,
        handlelength=1.1,
        handletextpad=0.6,
        columnspacing=1.5,
        labelcolor=LIGHT.ink,
    )


def _panel(axes: Axes, curve: MemoryCurve, view: MemoryView, *, first: bool, last: bool) -> None:
    unit, name = (units.GIB, "GiB") if curve.exact else (GB, "GB")
    contexts = [point.context_tokens for point in curve.points]
    total = curve.total_bytes / unit
    _areas(axes, curve, contexts, unit)
    axes.set_xscale("log", base=2)
    axes.set_xlim(view.least_tokens, max(view.limit_tokens, view.least_tokens + 1))
    most = max(point.need_bytes for point in curve.points) / unit
    asked = (
        next((one.need_bytes for one in curve.points if one.context_tokens == view.context_tokens), 0) / unit
    )
    usual = min(max(most * 1.06, total * LEAST_ABOVE), total * MOST_ABOVE)
    axes.set_ylim(0, max(usual, asked * ABOVE_NEED))
    axes.axhline(total, color=LIGHT.ink, linewidth=1.8, zorder=2.5)
    axes.annotate(
        f"{total:.1f} {name}" if curve.exact else f"{total:g} {name}",
        (0, total),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=9,
        color=LIGHT.ink,
        zorder=2.6,
        bbox={"facecolor": LIGHT.paper, "alpha": 0.8, "linewidth": 0, "pad": 0.8},
    )
    _ends(axes, curve, view)
    _asked(axes, curve, view, unit)
    _titles(axes, curve)
    ticks = _ticks(view.least_tokens, view.limit_tokens)
    axes.set_xticks(ticks, [short_tokens(tick) for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(_round_steps())
    axes.grid(axis="y")
    if first:
        axes.set_ylabel(f"{name} on each GPU", fontsize=9.5)
    if last:
        axes.set_xlabel("tokens of context", fontsize=9.5)


def _areas(axes: Axes, curve: MemoryCurve, contexts: list[int], unit: int) -> None:
    below = [0.0] * len(contexts)
    for field, _, colour in PARTS:
        above = [low + getattr(point, field) / unit for low, point in zip(below, curve.points, strict=True)]
        axes.fill_between(contexts, below, above, color=colour, edgecolor=LIGHT.paper, linewidth=0.7)
        below = above


def _ends(axes: Axes, curve: MemoryCurve, view: MemoryView) -> None:
    """Where it stops fitting is a line, and paler beyond it; where the engine does not start is hatched."""
    end = view.limit_tokens
    fits, starts = curve.fits_to or view.least_tokens, curve.starts_to or view.least_tokens
    if fits < end:
        axes.axvspan(fits, end, facecolor=LIGHT.paper, alpha=PALE, linewidth=0, zorder=2.2)
    if starts < end:
        axes.axvspan(starts, end, zorder=2.3, **BEYOND)
    if curve.fits_to is not None and fits < end:
        axes.axvline(fits, color=LIGHT.limit, linewidth=1.6, zorder=2.4)


def _asked(axes: Axes, curve: MemoryCurve, view: MemoryView, unit: int) -> None:
    """What is needed at the context that was asked for."""
    point = next((one for one in curve.points if one.context_tokens == view.context_tokens), None)
    if point is None:
        return
    need = point.need_bytes / unit
    place = [view.context_tokens] * 2
    axes.plot(place, [0, need], color=LIGHT.ink, linewidth=0.9, linestyle=(0, (2, 2)), zorder=3)
    axes.plot(
        place[:1], [need], marker="o", markersize=5.5, color=LIGHT.ink, markeredgecolor=LIGHT.paper, zorder=3.2,
        clip_on=False,
    )  # fmt: skip


def _titles(axes: Axes, curve: MemoryCurve) -> None:
    """The machine, whether it is the recommended one, its price, and up to which context it will do."""
    name = f"{curve.name}, recommended" if curve.chosen else curve.name
    colour = LIGHT.limit if curve.chosen else LIGHT.ink
    lower = _over(
        axes, 6, f"{curve.price} · {verdict_words(curve)}", size=9, color=LIGHT.faint, lines=MOST_LINES
    )
    high = lower.get_window_extent().height
    _over(axes, 6 + high + 3, name, size=11.5, color=colour, weight="bold")


def _over(
    axes: Axes, points: float, words: str, *, size: float, color: str, weight: str = "normal", lines: int = 1
) -> Text:
    """Words so many points over a panel, no wider than the panel and the gap behind it."""
    text = axes.annotate(
        words, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points", fontsize=size, color=color,
        fontweight=weight, annotation_clip=False, linespacing=1.15, va="bottom",
    )  # fmt: skip
    fitted(text, axes.get_window_extent().width * 1.08, smallest=SMALLEST_LETTERS, lines=lines)
    return text


def verdict_words(curve: MemoryCurve) -> str:
    """`fits to 36,407 tokens`, and up to where it starts with less to spare: the verdicts of the plan."""
    fits, starts = curve.fits_to, curve.starts_to
    if starts is None:
        return curve.why_not
    if fits is None:
        return f"tight to {starts:,} tokens"
    if fits == starts:
        return f"fits to {fits:,} tokens"
    return f"fits to {fits:,}, tight to {starts:,} tokens"


def _ticks(least: int, end: int) -> list[int]:
    """At most six powers of two."""
    powers = [
        1 << exponent
        for exponent in range(least.bit_length() - 1, end.bit_length())
        if least <= 1 << exponent <= end
    ]
    step = -(-len(powers) // 6)
    return powers[::-step][::-1] if powers else [end]


def _round_steps() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10])
