"""Write files that other soong processes read: nobody sees half of one, two writers lose nothing."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from soong.errors import SoongError
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def replace_text(path: Path, text: str, *, new_mode: int | None = None) -> None:
    """Put `text` in the file's place in one step; on any failure the old file stands as it was.

    A link is followed, so that a file kept elsewhere (dotfiles) stays there; permissions are kept.

    Args:
        path: the file. text: all of it. new_mode: the permissions of a file that was not there.

    Raises:
        SoongError: it cannot be written; says what to do.
    """
    replace_bytes(path, text.encode(), new_mode=new_mode)


def replace_bytes(path: Path, content: bytes, *, new_mode: int | None = None) -> None:
    """The same for a file that is no text; see `replace_text`."""
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with draft.open("wb") as file:
            if target.exists():
                draft.chmod(target.stat().st_mode & 0o7777)
            elif new_mode is not None:
                draft.chmod(new_mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise paths.cannot_write(path, error) from error


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock file while the block runs; others wait. The kernel frees it if we die.

    Yields:
        The open file's descriptor, for those who keep a few bytes in the lock file itself.

    Raises:
        SoongError: the file cannot be opened or locked; says what to do.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        raise paths.cannot_write(path.parent, error) from error
    try:
        _lock(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise SoongError(
            f"cannot lock {path}",
            why=error.strerror or str(error),
            hints=(
                f"move soong's files to a local disk: `export {paths.HOME_VARIABLE}=/path/on/a/local/disk`",
            ),
        ) from error
