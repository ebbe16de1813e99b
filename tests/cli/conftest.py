"""Run soong in this process and look at what a person or a script would see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from soong.cli.app import call
from tests.cli.rehearsal import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Ended(NamedTuple):
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as the JSON value it must be."""
        return msgspec.json.decode(self.out)


Soong = "Callable[..., Ended]"


@pytest.fixture
def soong(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Call soong with the given words."""

    def run(*words: str) -> Ended:
        capfd.readouterr()
        code = call(list(words))
        seen = capfd.readouterr()
        return Ended(int(code), seen.out, seen.err)

    return run


@pytest.fixture
def rehearsal(sealed: Path) -> Iterator[Rehearsal]:
    """A sandbox of its own."""
    pytest.importorskip("asyncssh")
    with Rehearsal(sealed) as running:
        yield running
