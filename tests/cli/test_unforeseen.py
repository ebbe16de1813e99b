"""An error that nobody foresaw: what was rented is ended, or the person is told of it, and the error is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest

from soong.cli import replicas, run, serving_all, start
from soong.errors import SoongError
from tests.cli.rehearsal import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

pytestmark = pytest.mark.slow

ON_CLOUD = ("--cloud", "sandbox", "--yes")


def stumbles(*_: Any, **__: Any) -> Any:
    raise ValueError("odd")


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to serve is made up, and what follows the launch stumbles."""
    monkeypatch.setattr(start, "_served", lambda *_: None)
    monkeypatch.setattr(start, "_go_on", stumbles)
    monkeypatch.setattr(replicas, "go_on", stumbles)


@pytest.mark.usefixtures("unserved")
def test_run_ends_what_it_has_rented(soong: Soong, rehearsal: Rehearsal) -> None:
    ended = soong("run", MODEL, "--engine-env", str(rehearsal.home), *ON_CLOUD, "--", "true")
    assert (ended.code, "ValueError: odd" in ended.err) == (1, True), ended.err
    assert len(rehearsal.bill) == 1
    assert rehearsal.alive == []


@pytest.mark.usefixtures("unserved")
def test_run_shows_both_errors_where_the_end_stumbles_too(
    soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "_ended", full)
    ended = soong("run", MODEL, "--engine-env", str(rehearsal.home), *ON_CLOUD, "--", "true")
    assert ended.code == 1
    assert "the end is not proved: OSError: [Errno 28] No space left on device" in ended.err
    assert "ValueError: odd" in ended.err
    assert rehearsal.bill


@pytest.mark.usefixtures("unserved")
@pytest.mark.parametrize("several", [(), ("--replicas", "2")])
def test_start_tells_of_each_machine_that_runs_on(
    soong: Soong, rehearsal: Rehearsal, several: tuple[str, ...]
) -> None:
    ended = soong("start", "--model", MODEL, *several, *ON_CLOUD)
    assert (ended.code, "ValueError: odd" in ended.err) == (1, True), ended.err
    running = rehearsal.ledger.open_rentals()
    assert len(running) == len(rehearsal.alive) == (2 if several else 1)
    for one in running:
        assert f"Warning: {one.name} is rented and bills $1.09/h until " in ended.err
        assert f"hint: soong stop {one.name}" in ended.err


@pytest.mark.usefixtures("unserved")
def test_the_last_words_of_an_error_are_what_still_bills(
    soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise SoongError("no tunnel", hints=("soong tunnel start", "soong stop"))

    monkeypatch.setattr(start, "_go_on", fails)
    ended = soong("start", "--model", MODEL, *ON_CLOUD)
    (one,) = rehearsal.ledger.open_rentals()
    assert [line[:6] for line in ended.err.splitlines()[-3:]] == ["error:", "hint: ", "hint: "]
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"hint: {one.name} is up all the same and bills $")
    assert last.endswith(f": `soong stop {one.name}` ends it")


@pytest.mark.parametrize("foreseen", [KeyboardInterrupt(), click.exceptions.Exit(0)])
def test_what_is_foreseen_says_itself_what_goes_on(
    soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, foreseen: BaseException
) -> None:
    def leaves(*_: Any) -> Any:
        raise foreseen

    monkeypatch.setattr(start, "_go_on", leaves)
    assert "is rented and bills" not in soong("start", "--model", MODEL, "--no-serve", *ON_CLOUD).err


def test_all_or_nothing_ends_all(soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_served", lambda *_: object())
    monkeypatch.setattr(serving_all, "serve_all", stumbles)
    ended = soong("start", "--model", MODEL, "--replicas", "2", "--all-or-nothing", *ON_CLOUD)
    assert (ended.code, "ValueError: odd" in ended.err) == (1, True), ended.err
    assert len(rehearsal.bill) == 2
    assert rehearsal.alive == []
