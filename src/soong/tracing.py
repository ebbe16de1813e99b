"""What is asked of whom, for a person who wants to watch: told here, heard where the command line listens."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_listeners: list[Callable[[str], None]] = []


def listen(tell: Callable[[str], None] | None) -> None:
    """Tell this listener of whatever is asked from now on; nobody where it is None."""
    _listeners[:] = [tell] if tell is not None else []


def say(words: str) -> None:
    """Tell whoever listens. words: one line without a secret."""
    for tell in _listeners:
        tell(words)


class OwnProgram(str):
    """The first word of a command line that may be told whole."""

    __slots__ = ()


def own(words: Sequence[str]) -> list[str]:
    """A command line that soong puts together itself, none of its words a secret, marked as one that may be told whole.

    Of every other, such as a person's own command, whoever listens is told the program's name alone.
    """
    return [OwnProgram(words[0]), *words[1:]]


class Request:
    """One request over HTTP and what came of it, told when it is over.

    Args:
        method: GET, say. url: told without user, query and fragment, which may carry keys and signatures.
    """

    def __init__(self, method: str, url: str) -> None:
        self._method = method
        self._url = url
        self._outcome = ""

    def __enter__(self) -> Self:
        """The request begins."""
        self._began = monotonic()
        return self

    def answered(self, status: int) -> None:
        """An answer came."""
        self._outcome = str(status)

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """It is over."""
        if _listeners:
            outcome = self._outcome or (kind.__name__ if kind is not None else "no answer")
            say(f"{self._method} {_bare(self._url)}: {outcome}, {monotonic() - self._began:.2f} s")


def _bare(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
