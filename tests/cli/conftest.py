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


@pytest.fixture(autouse=True)
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clouds of these tests count no requests, and hear from a client that does not wait before it repeats itself.

    `test_lambda_pacing` sees to the pace, `test_lambda_client` to the waits.
    """
    from soong.clouds.lambda_cloud.client import LambdaClient, Limits
    from soong.clouds.lambda_cloud.pacing import Pace

    for called, name, value in (
        (Pace.__init__, "request_seconds", 0.0),
        (LambdaClient.__init__, "limits", Limits(first_wait_seconds=0.01)),
    ):
        defaults = called.__kwdefaults__
        assert defaults is not None
        assert name in defaults
        monkeypatch.setitem(defaults, name, value)


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
