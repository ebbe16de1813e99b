"""Moments and spans as people read them: what is left, and the clock on the wall."""

from __future__ import annotations

from datetime import UTC, datetime


def wall(at: float, *, now: float) -> str:
    """A moment in the person's own time zone: `18:40`, with the day where it is another one."""
    moment, today = (datetime.fromtimestamp(when, UTC).astimezone() for when in (at, now))
    return moment.strftime("%H:%M" if moment.date() == today.date() else "%a %d %b %H:%M")


def span(seconds: float) -> str:
    """A length of time: `3 h 58 min`, `12 min`, `40 s`; a minus for what is over."""
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    if seconds < 60:
        return f"{sign}{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{sign}{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes:02d} min" if minutes else f"{sign}{hours} h"


def iso(at: float | None) -> str | None:
    """A moment for a script: UTC, ISO 8601, whole seconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
