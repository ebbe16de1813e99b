"""Times in engines' logs: which lines are young enough."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SGLANG = re.compile(r"\[(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)")
"""SGLang 0.5.23 `srt/utils/common.py` configure_logger: `[2026-11-23 13:40:12 TP0] ...`."""
VLLM = re.compile(r"(?:INFO|WARNING|ERROR|DEBUG) (\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)")
"""vLLM 0.33.0 `logger.py` _DATE_FORMAT: `INFO 11-23 13:40:12 [file.py:1] ...`, without the year."""


def younger(lines: Iterable[str], after: float) -> Iterator[str]:
    """The lines written at or after `after`, seconds since 1970; one without a time belongs to the line before it.

    The machine's clock is taken for UTC, as Lambda's images have it. Lines before the first time are shown.
    """
    is_young = True
    for line in lines:
        at = time_of(line, after)
        is_young = is_young if at is None else at >= after
        if is_young:
            yield line


def time_of(line: str, near: float) -> float | None:
    """When a line was written, seconds since 1970; None where it does not say.

    Args:
        near: a moment in the same half year, for lines that leave the year out.

    >>> time_of("[2026-11-23 13:40:12 TP0] Load weight begin.", 0.0)
    1795441212.0
    """
    found = SGLANG.search(line)
    if found:
        return _at(*map(int, found.groups()))
    found = VLLM.search(line)
    if not found:
        return None
    year = datetime.fromtimestamp(near, UTC).year if near else datetime.now(UTC).year
    return _at(year, *map(int, found.groups()))


def _at(*parts: int) -> float | None:
    try:
        return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]
    except ValueError:
        return None
