"""What serving needs of a machine, whether it is reached by SSH or is this computer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

FOLDER = ".soong"
"""In the home of the machine's user: everything that soong puts there; nobody else may read it."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What a command on the machine answered."""

    code: int
    out: str
    err: str


class Machine(Protocol):
    """A machine with a shell. Paths are taken from the home of its user."""

    def run(self, command: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0) -> Ran:
        """Run one command, its words kept as they are.

        Raises:
            RemoteError: no connection. TimedOutError: not done within `seconds`.
        """
        ...

    def put(
        self,
        content: bytes | Path,
        remote: str,
        *,
        mode: int = 0o600,
        tell: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Write a file there, all of it or none of it; a large local file is resumed where it broke off.

        Args:
            content: the bytes, or a local file. remote: where. mode: its permissions.
            tell: hears the bytes sent so far, and in all.

        Raises:
            RemoteError: no connection, no room, or the file came out wrong.
        """
        ...

    def follow(self, remote: str, *, offset: int = 0, seconds: float = 1.0) -> Iterator[bytes]:
        """What is appended to a file, for ever: pieces as they come, and an empty one after each quiet `seconds`.

        The file may not be there yet. A connection that breaks is made again; what was read is not read twice. The
        caller ends it by closing the iterator.

        Raises:
            RemoteError: the machine shows another host key.
        """
        ...
