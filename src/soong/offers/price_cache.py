"""Prices that were fetched, kept for offline use: one file for each cloud in soong's cache directory.

A file is written to the side, synced and moved over the old one, so that a reader sees one whole state, and a failed
fetch leaves the prices of yesterday. It is msgpack: a hundred thousand offers are read in a tenth of a second. A file
that cannot be read counts as none: everything in it can be fetched again.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from soong.offers.offer import Day, Name, Offer  # noqa: TC001 - msgspec reads them
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = "soong.prices/1"
FOLDER = "prices"
ENDING = ".msgpack"
MOST_BYTES = 1 << 30
"""A million offers are 250 MB; a larger file is not ours."""


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """The prices of one cloud on one day.

    Attributes:
        cloud: ours. source: who told them. version: theirs, empty where there is none.
        as_of: the day of the prices, ISO. fetched_at: the moment of the fetch, ISO with UTC's offset.
        offers: those whose GPU is ours. unmapped: how many others there are, by name and reason.
    """

    cloud: Name
    as_of: Day
    fetched_at: str
    source: str
    version: str
    offers: tuple[Offer, ...]
    unmapped: dict[str, int]
    schema: str = SCHEMA


State = tuple[str, int, int]
"""A cache file's path, time and size, to tell one state of it from another."""


def path_of(cloud: str) -> str:
    """Where the prices of a cloud are kept, whether or not there are any; one without such a name has no file."""
    plain = cloud.replace("-", "").replace("_", "")
    usable = plain.isascii() and plain.isalnum() and cloud.islower() and len(cloud) <= LONGEST_NAME
    return os.path.join(folder(), f"{cloud}{ENDING}") if usable else ""  # noqa: PTH118


LONGEST_NAME = 60
"""Names of clouds are short words; a longer one, or one with a path in it, names no file."""


def folder() -> str:
    """The directory of all of them; it need not exist."""
    return paths.cache_file(FOLDER)


def state_of(cloud: str) -> State | None:
    """The state of a cloud's file; None without one."""
    path = path_of(cloud)
    try:
        stat = os.stat(path)  # noqa: PTH116 - one call, no import
    except (OSError, ValueError):
        return None
    return path, stat.st_mtime_ns, stat.st_size


def cached_clouds() -> tuple[str, ...]:
    """The clouds with a file, in order of name."""
    try:
        names = os.listdir(folder())  # noqa: PTH208 - no import
    except OSError:
        return ()
    found = (name.removesuffix(ENDING) for name in names if name.endswith(ENDING))
    return tuple(sorted(cloud for cloud in found if path_of(cloud)))


def read(cloud: str) -> Catalogue | None:
    """What is kept of a cloud; None where there is nothing, or nothing that can be read."""
    state = state_of(cloud)
    if state is None or state[2] > MOST_BYTES:
        return None
    found = _read(*state)
    return found if found is not None and found.cloud == cloud else None


@lru_cache(maxsize=64)
def _read(path: str, _changed_ns: int, _size: int) -> Catalogue | None:
    """One state of a file, read once."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - no import
            found = msgspec.msgpack.decode(file.read(), type=Catalogue)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.schema == SCHEMA else None


def write(catalogues: Sequence[Catalogue]) -> Path:
    """Keep these, each in place of what was kept of its cloud; returns the directory.

    Raises:
        SoongError: the cache cannot be written; says how to choose another place.
    """
    from pathlib import Path

    from soong.settings.files import replace_bytes

    directory = paths.made(Path(folder()))
    for catalogue in catalogues:
        replace_bytes(directory / f"{catalogue.cloud}{ENDING}", msgspec.msgpack.encode(catalogue))
    return directory
