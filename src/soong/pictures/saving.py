"""A plan's pictures as a file: which form its name asks for, what is drawn, and nothing overwritten by accident."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from soong import units
from soong.errors import SoongError, UsageError
from soong.pictures.memory_curves import memory_view
from soong.pictures.price_dots import speed_view
from soong.pictures.subject import caption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from soong.pictures.figures import Area
    from soong.pictures.memory_curves import MemoryView
    from soong.pictures.price_dots import SpeedView
    from soong.pictures.subject import Caption
    from soong.plan.plan import Plan

Kind = Literal["memory", "speed", "both"]
KINDS: tuple[Kind, ...] = ("memory", "speed", "both")
SUFFIXES = {
    ".svg": "for slides and pages: words stay words",
    ".html": "a page of its own: light and dark, with the figures as tables",
    ".png": "for programs without SVG",
    ".pdf": "for print",
}


def check_file(file: str, *, force: bool) -> None:
    """Make sure, before anything is computed, that a picture can be written there.

    Raises:
        UsageError: the suffix is none of ours, the folder is not there, or a file is and `force` is not said.
    """
    path = Path(file)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        said = f"`{suffix}`" if suffix else "no suffix"
        raise UsageError(
            f"cannot tell what to write into {file}",
            why=f"its name ends in {said}",
            hints=tuple(f"`{path.stem or 'plan'}{known}` {what}" for known, what in SUFFIXES.items()),
            docs="pictures.md",
        )
    if path.is_dir():
        raise UsageError(f"{file} is a folder", hints=(f"--save {path / 'plan.svg'}",))
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hints=(f"mkdir -p {path.parent}",))
    if path.exists() and not force:
        raise UsageError(f"{file} is there already", hints=("the same with `--force` writes over it",))


def kind_of(file: str, kind: Kind | None) -> Kind:
    """What to draw: what was said, else what the file is called (`memory.svg`, `speed.png`), else both."""
    if kind is not None:
        return kind
    stem = Path(file).stem.lower()
    return next((one for one in KINDS if stem == one), "both")


def save(
    plan: Plan, file: str, *, kind: Kind | None, force: bool, drawn_on: str, version: str
) -> tuple[str, ...]:
    """Draw a plan into a file, in one step: nobody sees half of it.

    Args:
        kind: what to draw; None where the file's name decides. force: write over a file.
        drawn_on: the day, ISO. version: of soong.

    Returns:
        Remarks: what could not be drawn, and why.

    Raises:
        UsageError: see `check_file`; or matplotlib is not installed. NothingFitsError: there is nothing to draw.
        SoongError: the file cannot be written.
    """
    from soong.settings.files import replace_bytes

    check_file(file, force=force)
    kind, suffix = kind_of(file, kind), Path(file).suffix.lower()
    words = caption(plan, drawn_on=drawn_on, version=version)
    remarks: tuple[str, ...] = ()
    speed: SpeedView | None = None
    if kind != "memory":
        speed, remarks = _speed(plan, needed=kind == "speed")
    memory = (
        memory_view(plan, most=_most_curves(beside=speed is not None and suffix != ".html"))
        if kind != "speed"
        else None
    )
    content = _html(words, memory, speed) if suffix == ".html" else _drawn(words, memory, speed, suffix)
    try:
        replace_bytes(Path(file), content)
    except SoongError as error:
        raise SoongError(
            f"cannot write {file}", why=error.why, hints=("choose another folder for `--save`",)
        ) from error
    return remarks


def _speed(plan: Plan, *, needed: bool) -> tuple[SpeedView | None, tuple[str, ...]]:
    from soong.errors import NothingFitsError

    try:
        return speed_view(plan), ()
    except NothingFitsError as nothing:
        if needed:
            raise
        return None, (f"price against speed is not drawn: {nothing.message}",)


def _most_curves(*, beside: bool) -> int:
    from soong.pictures.figure_memory import MOST_BESIDE, MOST_CURVES

    return MOST_BESIDE if beside else MOST_CURVES


def _html(words: Caption, memory: MemoryView | None, speed: SpeedView | None) -> bytes:
    from soong.pictures.page import page

    drawings = []
    if memory is not None:
        drawings.append(_drawn(words, memory, None, ".svg").decode())
    if speed is not None:
        drawings.append(_drawn(words, None, speed, ".svg").decode())
    return page(words, drawings, memory=memory, speed=speed).encode()


def _drawn(words: Caption, memory: MemoryView | None, speed: SpeedView | None, suffix: str) -> bytes:
    from soong.pictures import figures
    from soong.pictures.figure_memory import draw_memory
    from soong.pictures.figure_speed import draw_speed
    from soong.pictures.svg import finished

    def draw(figure: Figure, whole: Area) -> None:
        left, right = (whole, whole) if memory is None or speed is None else figures.halves(whole)
        if memory is not None:
            draw_memory(figure, left, memory)
        if speed is not None:
            draw_speed(figure, right, speed)

    words = words.with_notes(memory.note if memory else "", speed.note if speed else "")
    drawn = figures.drawn(words, draw, form=suffix.removeprefix("."))
    if suffix != ".svg":
        return drawn
    described = " ".join([words.workload, *words.footer])
    return finished(drawn.decode(), title=words.title, description=described, tips=_tips(speed)).encode()


def _tips(speed: SpeedView | None) -> Mapping[str, str]:
    from soong.pictures.figure_speed import dot_id

    if speed is None:
        return {}
    return {
        dot_id(
            place
        ): f"{dot.name}: ${dot.usd_per_hour:.2f}/hour, {dot.each_words} for each of {dot.sequences:,}, "
        f"{units.format_rate(dot.tokens_per_second)} of all, prompts included "
        f"({units.format_rate(dot.low)} to {units.format_rate(dot.high)}), {dot.cost_words} per million output tokens"
        for place, dot in enumerate(speed.dots)
    }
