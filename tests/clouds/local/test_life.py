"""A whole life on this computer through the real program: no SSH, no key, no price, and the same proof of the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from soong.clouds.local import hardware, processes
from soong.clouds.local.provider import open_provider
from soong.lease.guardian import heartbeat
from soong.lease.ledger import open_ledger
from tests.cli.conftest import soong
from tests.clouds.local.conftest import hardware as computer_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

__all__ = ["soong"]

START = ("start", "--model", "llama-3.2-1b", "--cloud", "local", "--context", "4096", "--no-serve", "--yes")
CPU = (*START, "--engine", "llama.cpp")


@pytest.fixture(autouse=True)
def a_computer_without_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever runs these tests; what they started ends with them, the guardian too."""
    monkeypatch.setattr(hardware, "look", computer_with)
    yield
    provider = open_provider()
    with open_ledger() as ledger:
        open_rentals = ledger.open_rentals()
    for record in provider.records.all():
        processes.end(record.id)
    if open_rentals:
        _program("stop", "--all", "--yes", "--cloud", "local")
    _dismiss_the_guardian()


@pytest.mark.slow
def test_a_whole_life_without_a_gpu(soong: Soong) -> None:
    begun = soong(*CPU, "--hours", "2", "--name", "box")
    assert begun.code == 0, begun.err
    assert "box is ready: cpu in here" in begun.out
    assert "this computer: nothing here costs money" in begun.err
    (machine,) = open_provider().instances()
    root = open_provider().machine(machine.id).root
    assert _until((root / "opt" / "soong" / "warden.json").exists), "the warden is armed"

    shown = _program("ssh", "--cloud", "local", "--", "echo", "$SOONG_ROOT; exit 7")
    assert (shown.stdout.strip(), shown.returncode) == (str(root), 7)

    twice = soong(*CPU)
    assert (twice.code, "none of the machines that fit is free" in twice.err) == (5, True)
    assert "5 h more can be added" in soong("extend", "1", "--yes").out
    assert "box" in soong("status").out

    started = processes.living(machine.id)
    assert started
    ended = soong("stop", "--yes", "--json")
    assert ended.code == 0, ended.err
    assert ended.json[0]["confirmed"] is True
    assert ended.json[0]["cost_usd"] == 0
    assert not processes.living(machine.id)
    assert not root.exists()


@pytest.mark.slow
def test_the_guardian_ends_it_at_the_end_of_the_lease(soong: Soong) -> None:
    assert soong(*CPU, "--hours", "0.001").code == 0
    (machine,) = open_provider().instances()
    assert processes.living(machine.id)
    heartbeat.ask("local", "now, and not in a minute: this lease is shorter than a round")
    assert _until(lambda: not processes.living(machine.id), 20)
    assert _until(lambda: open_provider().instances()[0].status == "terminated")
    with open_ledger() as ledger:
        assert _until(lambda: not ledger.open_rentals(), 20)


def test_sglang_without_a_gpu_is_refused_with_the_way_out(soong: Soong) -> None:
    refused = soong(*START, "--engine", "sglang")
    assert refused.code == 5
    assert "take `--engine llama.cpp`" in refused.err
    assert open_provider().instances() == ()


def test_a_model_that_is_larger_than_the_free_memory_is_refused(soong: Soong) -> None:
    refused = soong(*CPU[:2], "llama-3.1-405b", *CPU[3:])
    assert refused.code == 5
    assert "no machine for rent holds llama-3.1-405b" in refused.err


def test_a_plan_takes_the_memory_that_this_computers_card_has(
    soong: Soong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "look", lambda: computer_with("rtx4090-24gb", "rtx4090-24gb"))
    shown = soong("start", "--model", "llama-3.1-8b", "--cloud", "local", "--dry-run", "--json")
    assert shown.code == 0, shown.err
    document = shown.json
    assert document["request"]["instance_type_name"] == "1x-rtx4090-24gb"
    assert {one["usd_per_hour"] for one in document["candidates"]} == {0.0}


def _program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soong.cli", *words],
        capture_output=True, check=False, text=True, env=dict(os.environ), timeout=60,
    )  # fmt: skip


def _dismiss_the_guardian() -> None:
    """End the one of this test's own home; it would stay for a quarter of an hour."""
    beat = heartbeat.last("local")
    if beat is not None and heartbeat.is_watching("local"):
        os.kill(beat.pid, signal.SIGTERM)
    assert _until(lambda: not heartbeat.is_watching("local"))


def _until(is_so: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
