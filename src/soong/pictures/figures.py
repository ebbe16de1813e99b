"""Pictures for a slide, drawn with matplotlib: 16:9, words as words, nothing that a projector would lose."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.errors import UsageError
from soong.pictures.palette import LIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from soong.pictures.subject import Caption

WIDTH_INCHES, HEIGHT_INCHES = 12.8, 7.2
"""A slide of 16:9; at 100 dots an inch a screen of 1280 × 720."""

POINTS_PER_INCH = 72
"""The unit of SVG files that matplotlib writes; words that are measured before drawing must be measured in it."""

DOTS_PER_INCH = 200
"""Of PNG files: 2560 × 1440."""

MARGIN = 0.045
INSTALL = "pip install 'soong[plots]'"

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every computer
    "font.size": 11,
    "svg.fonttype": "none",
    "svg.hashsalt": "soong",
    "text.color": LIGHT.ink,
    "axes.labelcolor": LIGHT.faint,
    "axes.edgecolor": LIGHT.faint,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": LIGHT.faint,
    "ytick.color": LIGHT.faint,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "grid.color": LIGHT.grid,
    "grid.linewidth": 0.8,
    "figure.facecolor": LIGHT.paper,
    "axes.facecolor": LIGHT.paper,
    "savefig.facecolor": LIGHT.paper,
}


METADATA: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": "soong", "Producer": None},
}
"""No moment of drawing: the same plan gives the same file."""


class Area(NamedTuple):
    """A part of the figure, in fractions of its width and height from the lower left."""

    left: float
    bottom: float
    right: float
    top: float


WHOLE = Area(MARGIN + 0.025, 0.135, 1 - MARGIN, 0.83)


def halves(whole: Area) -> tuple[Area, Area]:
    """Two areas side by side, for two pictures in one."""
    middle = (whole.left + whole.right) / 2
    return whole._replace(right=middle - 0.015), whole._replace(left=middle + 0.06)


def drawn(caption: Caption, draw: Callable[[Figure, Area], None], *, form: str) -> bytes:
    """A whole picture, with the caption's words around what `draw` puts into the middle.

    Args:
        form: svg, png or pdf.

    Raises:
        UsageError: matplotlib is not installed; says how to get it.
    """
    mpl = _matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=POINTS_PER_INCH)
        FigureCanvasSVG(figure)
        _write_caption(figure, caption)
        draw(figure, WHOLE)
        content, told = BytesIO(), METADATA[form] | {"Title": caption.title}
        figure.savefig(content, format=form, dpi=DOTS_PER_INCH, metadata=told)
    return content.getvalue()


def _matplotlib() -> Any:
    import logging

    # It tells of fonts that it looks for and caches that it makes: talk for its own developers.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UsageError(
            "pictures are drawn with matplotlib, which is not installed",
            hints=(INSTALL, "`--plot` draws in the terminal and needs no matplotlib"),
            docs="pictures.md",
        ) from error
    return mpl


def _write_caption(figure: Figure, caption: Caption) -> None:
    _line(figure, 0.955, caption.title, size=19, color=LIGHT.ink, weight="bold")
    _line(figure, 0.912, caption.workload, size=11.5, color=LIGHT.faint)
    for line, words in enumerate(reversed(caption.footer)):
        _line(figure, 0.022 + line * 0.023, words, size=8.5, color=LIGHT.faint)


def _line(
    figure: Figure, height: float, words: str, *, size: float, color: str, weight: str = "normal"
) -> None:
    """One line across the picture, in smaller letters where it would be too long."""
    text = figure.text(MARGIN, height, words, fontsize=size, fontweight=weight, va="center", color=color)
    room = (1 - 2 * MARGIN) * WIDTH_INCHES * POINTS_PER_INCH
    wide = text.get_window_extent().width
    if wide > room:
        text.set_fontsize(size * room / wide)
