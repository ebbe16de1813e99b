"""Ask gpuhunt what other clouds charge, as a process of its own: `python -m soong.offers.asking_gpuhunt [PROVIDER...]`.

gpuhunt waits for a silent server as long as the server likes, starts threads and logs as it goes. In a process of its
own all of that has an end: sockets get a time limit that nobody else must share, what it logs is kept apart from what
it finds, and whoever asked can end it. The answer is one msgpack value on stdout.
"""

from __future__ import annotations

import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOCKET_SECONDS = 20.0
"""How long one read may take; a catalogue comes in some megabytes from a store made for it."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A machine as gpuhunt names it: `CatalogItem` of gpuhunt 0.1.34, `_internal/models.py`.

    gpu_memory_gb: of one GPU, 0 where it is not told. cpu_architecture: `x86` or `arm`.
    """

    instance_type: str
    region: str
    usd_per_hour: float
    gpu_count: int
    chip: str
    gpu_memory_gb: float
    spot: bool
    vcpus: int
    cpu_architecture: str
    flags: tuple[str, ...]


class Told(msgspec.Struct, frozen=True):
    """What one provider charges.

    version: of its catalogue, empty where it was asked directly. error: why there are no rows.
    """

    provider: str
    version: str = ""
    rows: tuple[Row, ...] = ()
    error: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What came of it. error: why the published catalogue could not be loaded at all."""

    told: tuple[Told, ...] = ()
    error: str = ""


def ask(named: Sequence[str]) -> Answer:
    """The published catalogue, or, of the providers that are named, what each answers now."""
    return Answer(tuple(_asked(name) for name in named)) if named else _published()


def _published() -> Answer:
    gpuhunt = import_module("gpuhunt")
    catalog = gpuhunt.Catalog(balance_resources=False, auto_reload=False)
    try:
        catalog.load()
    except Exception as error:  # noqa: BLE001 - a stranger's library; whatever it raises is told
        return Answer(error=_in_words(error))
    return Answer(
        tuple(
            Told(name, version=str(found.version), rows=tuple(_rows(found.items)))
            for name, found in catalog.catalog.items()
        )
    )


def _asked(name: str) -> Told:
    gpuhunt = import_module("gpuhunt")
    catalog = gpuhunt.Catalog(balance_resources=False, auto_reload=False)
    try:
        module = import_module(f"gpuhunt.providers.{name}")
        kind = next(kind for kind in vars(module).values() if getattr(kind, "NAME", None) == name)
        catalog.add_provider(kind.from_env())
        return Told(name, rows=tuple(_rows(catalog.query(provider=name, min_gpu_count=1))))
    except Exception as error:  # noqa: BLE001 - as above
        return Told(name, error=_in_words(error))


def _rows(items: Sequence[Any]) -> Iterator[Row]:
    for item in items:
        if item.gpu_count:
            yield Row(
                instance_type=str(item.instance_name),
                region=str(item.location or ""),
                usd_per_hour=float(item.price),
                gpu_count=int(item.gpu_count),
                chip=str(item.gpu_name or ""),
                gpu_memory_gb=float(item.gpu_memory or 0),
                spot=bool(item.spot),
                vcpus=int(item.cpu or 0),
                cpu_architecture=str(getattr(item.cpu_arch, "value", item.cpu_arch)),
                flags=tuple(item.flags),
            )


def _in_words(error: BaseException) -> str:
    """What lies under it all, on one line: `Connection refused`."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        error = error.reason
    plain = (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else f"{error}" or type(error).__name__
    )
    return " ".join(plain.split())[:LONGEST_ERROR]


LONGEST_ERROR = 300


def main(words: Sequence[str]) -> int:
    """Ask, and write the answer to stdout."""
    socket.setdefaulttimeout(SOCKET_SECONDS)
    sys.stdout.buffer.write(msgspec.msgpack.encode(ask(words)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
