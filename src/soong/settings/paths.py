"""Where soong keeps things: one function per directory, one variable, `SOONG_HOME`, that moves them all.

Asking for a directory does not make it: reading works in a home that cannot be written. Whoever writes calls
`made`. Paths are plain text where the start of every command reads them, since `pathlib` and `platformdirs`
together cost more than the reading.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from soong.errors import SoongError

if TYPE_CHECKING:
    from pathlib import Path

HOME_VARIABLE = "SOONG_HOME"

_ON_LINUX = sys.platform == "linux"
_XDG = {
    "config": ("XDG_CONFIG_HOME", "~/.config"),
    "state": ("XDG_STATE_HOME", "~/.local/state"),
    "cache": ("XDG_CACHE_HOME", "~/.cache"),
}


def config_dir() -> Path:
    """The user's own settings and tables; `SOONG_HOME/config` where that variable is set."""
    return _path("config")


def state_dir() -> Path:
    """What soong must remember; `SOONG_HOME/state` where that variable is set."""
    return _path("state")


def cache_dir() -> Path:
    """What can be fetched again; `SOONG_HOME/cache` where that variable is set."""
    return _path("cache")


def config_file(name: str) -> str:
    """The full name of a file in the configuration directory; neither need exist."""
    return os.path.join(_directory("config"), name)  # noqa: PTH118 - see the module's docstring


def state_file(name: str) -> str:
    """The full name of a file in the state directory; neither need exist."""
    return os.path.join(_directory("state"), name)  # noqa: PTH118 - see the module's docstring


def cache_file(name: str) -> str:
    """The full name of a file in the cache directory; neither need exist."""
    return os.path.join(_directory("cache"), name)  # noqa: PTH118 - see the module's docstring


def made(directory: Path) -> Path:
    """`directory`, made now if it was not there; each folder that is made is its owner's alone, whatever the umask.

    Raises:
        SoongError: it cannot be made; says how to choose another place.
    """
    try:
        missing = [folder for folder in (directory, *directory.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return directory


def cannot_write(path: object, error: OSError) -> SoongError:
    """The error for a place that refuses to be written, with the way round it."""
    return SoongError(
        f"cannot write {path}",
        why=error.strerror or str(error),
        hints=(f"choose another place: `export {HOME_VARIABLE}=/path/you/can/write`", f"df -h {path}"),
    )


def _path(kind: str) -> Path:
    from pathlib import Path

    return Path(_directory(kind))


def _directory(kind: str) -> str:
    home = os.environ.get(HOME_VARIABLE, "").strip()
    if home:
        return os.path.join(os.path.expanduser(home), kind)  # noqa: PTH111, PTH118 - see the module's docstring
    if _ON_LINUX:
        return _linux_directory(kind)
    return _platform_directory(kind)


def _linux_directory(kind: str) -> str:
    """What platformdirs answers on Linux, without the 10 ms of its import (a test compares them)."""
    variable, fallback = _XDG[kind]
    base = os.environ.get(variable, "").strip() or os.path.expanduser(fallback)  # noqa: PTH111
    return os.path.join(base, "soong")  # noqa: PTH118


def _platform_directory(kind: str) -> str:
    import platformdirs

    ask = {
        "config": platformdirs.user_config_dir,
        "state": platformdirs.user_state_dir,
        "cache": platformdirs.user_cache_dir,
    }[kind]
    return ask("soong", appauthor=False)
