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
EVERY = 7
"""Of the telling steps of a start; prime to the number of enders, so that each ender meets each kind of step."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    found = Bench(tmp_path)
    yield found
    found.close()


def test_a_start_that_is_killed_leaves_no_machine_past_its_end(bench: Bench) -> None:
    steps = bench.steps_of("start")
    assert "after ledger: ready" in steps, "the start did not run to its end"
    kills = telling_steps(steps)[::EVERY]
    runs = [bench.run("start", {}, kill, ENDERS[number % 3]) for number, kill in enumerate(kills)]
    assert [run for run in runs if run.problems] == []
    assert sum(bool(run.killed_at) for run in runs) == len(kills)


@pytest.mark.parametrize(
    "fault", ["lost-answer", "provider-error-launched", "late-tags", "cuda-802", "terminate-ignored"]
)
def test_killed_at_the_launch_under_a_fault(bench: Bench, fault: str) -> None:
    steps = bench.steps_of("start")
    after_launch = 1 + max(number for number, name in enumerate(steps) if "launch" in name)
    runs = [bench.run("start", {"name": fault}, after_launch, ender) for ender in ENDERS]
    assert [run for run in runs if run.problems] == []


@pytest.mark.parametrize("command", ["extend", "stop"])
def test_an_extend_or_stop_that_is_killed(bench: Bench, command: str) -> None:
    steps = bench.steps_of(command)
    kills = telling_steps(steps)[::3]
    runs = [bench.run(command, {}, kill, ENDERS[number % 3]) for number, kill in enumerate(kills)]
    assert [run for run in runs if run.problems] == []
    assert sum(bool(run.killed_at) for run in runs) == len(kills)
