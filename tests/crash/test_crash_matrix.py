"""A sample of the crash matrix; `make crash` runs the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.matrix import ENDERS, Bench, telling_steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

asyncssh = pytest.importorskip("asyncssh")
pytestmark = pytest.mark.slow
EVERY = 9
"""Of the telling steps of a start; the ender changes with each, and the whole matrix takes all."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One computer for all: what a run leaves behind, the next one meets."""
    with pytest.MonkeyPatch.context() as patch:
        home: Path = tmp_path_factory.mktemp("crash")
        patch.setenv("SOONG_HOME", str(home))
        found = Bench(home)
        yield found
        found.close()


@pytest.fixture(scope="module")
def start_steps(bench: Bench) -> list[str]:
    """The steps of a start that is not the first on its computer: that one also makes a key."""
    bench.steps_of("start")
    return bench.steps_of("start")


@pytest.fixture(autouse=True)
def at_home(sealed: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_HOME", str(bench.home))


def test_a_start_that_is_killed_leaves_no_machine_past_its_end(bench: Bench, start_steps: list[str]) -> None:
    assert "after ledger: ready" in start_steps, "the start did not run to its end"
    kills = telling_steps(start_steps)[::EVERY]
    runs = [bench.run("start", {}, kill, ENDERS[number % 3]) for number, kill in enumerate(kills)]
    assert [run for run in runs if run.problems] == []
    assert sum(bool(run.killed_at) for run in runs) == len(kills)


def test_a_start_of_two_that_is_killed_leaves_neither_past_its_end(bench: Bench) -> None:
    steps = bench.steps_of("replicas")
    assert steps.count("after ledger: ready") == 2, "the start did not run to its end"
    assert steps.count("before ledger: asked") == 1, "both are written down at once"
    launches = [number for number, name in enumerate(steps) if "launch" in name]
    assert len(launches) == 4, "before and after each of two calls"
    assert steps.index("after ledger: asked") < launches[0]
    kills = sorted(
        {steps.index("after ledger: asked") + 1, *(number + 1 for number in launches), len(steps) - 2}
    )
    runs = [bench.run("replicas", {}, kill, ENDERS[number % 3]) for number, kill in enumerate(kills)]
    assert [run for run in runs if run.problems] == []
    assert all(run.killed_at for run in runs)


@pytest.mark.parametrize(
    ("fault", "ender"),
    [
        ("lost-answer", "reaper"),
        ("lost-answer", "command"),
        ("provider-error-launched", "guardian"),
        ("late-tags", "reaper"),
        ("cuda-802", "command"),
        ("terminate-ignored", "guardian"),
    ],
)
def test_killed_at_the_launch_under_a_fault(
    bench: Bench, start_steps: list[str], fault: str, ender: str
) -> None:
    after_launch = 1 + max(number for number, name in enumerate(start_steps) if "launch" in name)
    assert ender in ENDERS
    run = bench.run("start", {"name": fault}, after_launch, ender)
    assert run.problems == ()


@pytest.mark.parametrize("command", ["extend", "stop"])
def test_an_extend_or_stop_that_is_killed(bench: Bench, command: str) -> None:
    steps = bench.steps_of(command)
    kills = telling_steps(steps)[1::5]
    runs = [bench.run(command, {}, kill, ENDERS[number % 3]) for number, kill in enumerate(kills)]
    assert [run for run in runs if run.problems] == []
    assert sum(bool(run.killed_at) for run in runs) == len(kills)
