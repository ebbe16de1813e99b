"""A plan as plots in the terminal, and as files."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from soong.cli.text import screen_width, style
from soong.errors import NothingFitsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.output import Output
    from soong.pictures.saving import Kind
    from soong.plan.plan import Plan


def check(files: Sequence[str], *, plot: bool, picture: str | None, force: bool) -> None:
    """Refuse what cannot be drawn or written before anything is planned.

    Raises:
        UsageError: a file that cannot be written, or options without what they are about.
    """
    if not files:
        if force:
            raise UsageError(
                "`--force` is about a file that is written over", hints=("--save plan.svg --force",)
            )
        if picture is not None and not plot:
            hints = (f"--plot --picture {picture}", f"--save {picture}.svg")
            raise UsageError("`--picture` says what `--plot` or `--save` draws", hints=hints)
        return
    from soong.pictures.saving import check_file

    for file in files:
        check_file(file, force=force)
    if len({os.path.realpath(file) for file in files}) < len(files):
        raise UsageError(
            "two of the files that `--save` names are one",
            why=", ".join(files),
            hints=("--save memory.svg --save speed.svg",),
        )


def save(plan: Plan, files: Sequence[str], out: Output, *, picture: Kind | None, force: bool) -> None:
    """Write each file, and tell of it.

    Raises:
        SoongError: see `soong.pictures.saving.save`.
    """
    from soong import __version__
    from soong.pictures import saving

    for file in files:
        remarks = saving.save(plan, file, kind=picture, force=force, drawn_on=_today(), version=__version__)
        for remark in remarks:
            out.say(f"note: {remark}")
        out.say(f"wrote {file}")


def plots(plan: Plan, *, picture: Kind | None) -> str:
    """Both plots, or the one that was asked for, as wide as the terminal.

    Raises:
        NothingFitsError: the one that was asked for cannot be drawn. UsageError: plotille is not installed.
    """
    from soong import __version__
    from soong.pictures import terminal
    from soong.pictures.memory_curves import memory_view
    from soong.pictures.price_dots import speed_view
    from soong.pictures.subject import caption

    words = caption(plan, drawn_on=_today(), version=__version__)
    columns, ascii_only = screen_width(), not _has_unicode()
    parts = [style(line, "bold") for line in _wrapped([words.title], columns)]
    parts += [style(line, "dim") for line in _wrapped([words.workload], columns)]
    if picture != "speed":
        view = memory_view(plan, most=terminal.MOST_CURVES)
        parts += ["", terminal.memory_plot(view, columns=columns, ascii_only=ascii_only)]
    if picture != "memory":
        try:
            speed = speed_view(plan)
            parts += ["", terminal.speed_plot(speed, columns=columns, ascii_only=ascii_only)]
            words = words.with_notes(speed.note)
        except NothingFitsError as nothing:
            if picture == "speed":
                raise
            parts += ["", f"Price against speed is not drawn: {nothing.message}."]
    text = "\n".join([*parts, "", *(style(line, "dim") for line in _wrapped(words.footer, columns))])
    return terminal.plain(text) if ascii_only else text


def _wrapped(lines: Sequence[str], columns: int) -> list[str]:
    from textwrap import wrap

    return [part for line in lines for part in wrap(line, max(columns, 20))]


def _today() -> str:
    return datetime.now().astimezone().date().isoformat()


def _has_unicode() -> bool:
    """Whether the terminal shows more than ASCII: by the locale where one is set, else by what Python found."""
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    told = locale or getattr(sys.stdout, "encoding", None) or ""
    return "utf" in told.lower()
