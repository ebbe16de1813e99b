"""What `--verbose` shows on stderr: requests as they are answered, and other programs as they are run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from soong import tracing

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_LINE = 1000

_hooked: list[bool] = []


def begin() -> None:
    """Show what is asked from now on, until `end`."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_heard)  # the interpreter has no way to take one back
    tracing.listen(_write)


def end() -> None:
    """Show nothing any more."""
    tracing.listen(None)


def _write(words: str) -> None:
    line = words.replace("\n", " ")
    sys.stderr.write(f"· {line if len(line) <= LONGEST_LINE else f'{line[:LONGEST_LINE]}…'}\n")
    sys.stderr.flush()


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    """The interpreter's own events; see "Audit events table" in Python's documentation."""
    if event == "subprocess.Popen":
        tracing.say(f"runs {_line(arguments[1])}")
    elif event == "os.exec":
        tracing.say(f"becomes {_line(arguments[1])}")


def _line(argv: Sequence[Any] | str) -> str:
    """A command line as a person would type it; only the program's name where it is not marked as soong's own.

    A person's own commands (for a key, for a notice, after `soong run` or `soong ssh`) may hold secrets, whatever
    program it is.
    """
    import shlex

    words = argv.split() if isinstance(argv, str) else [os.fsdecode(word) for word in argv]
    if not words:
        return "a program without a name"
    program = os.path.basename(words[0])  # noqa: PTH119 - called for each program, maybe before pathlib is loaded
    is_own = isinstance(argv[0], tracing.OwnProgram)
    return shlex.join([program, *words[1:]]) if is_own else program
