"""The sandbox's time: faster than life, never backwards, the same for everyone."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from soong.clouds.sandbox.clock import BRAKE_SPEED, SandboxClock, Timekeeper

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clock.json"


def test_it_runs_as_fast_as_it_is_told(path: Path) -> None:
    keeper = Timekeeper(path, speed=1000.0)
    began, real = keeper.now(), time.time()
    time.sleep(0.05)
    passed, real_passed = keeper.now() - began, time.time() - real
    assert passed == pytest.approx(real_passed * 1000, rel=0.2)


def test_a_client_sees_what_the_server_sees(path: Path) -> None:
    keeper, clock = Timekeeper(path, speed=60.0), SandboxClock(path)
    assert clock.now() == pytest.approx(keeper.now(), abs=5)
    keeper.skip(1e6)
    assert clock.now() == pytest.approx(keeper.now(), abs=5)


def test_a_change_of_speed_makes_no_jump(path: Path) -> None:
    keeper = Timekeeper(path, speed=1e5)
    before = keeper.now()
    keeper.set_speed(0.01)
    after = keeper.now()
    assert before <= after < before + 1e5
    assert keeper.now() - after < 1


def test_it_goes_on_where_it_was_after_a_kill(path: Path) -> None:
    keeper = Timekeeper(path, speed=1.0)
    keeper.skip(1e7)
    again = Timekeeper(path)
    assert again.now() >= keeper.now() - 1
    assert again.reading.speed == 1.0


def test_a_clean_stop_stops_it(path: Path) -> None:
    keeper, clock = Timekeeper(path, speed=1e6), SandboxClock(path)
    keeper.freeze()
    stood = clock.now()
    keeper.brake()
    keeper.release()
    time.sleep(0.01)
    assert clock.now() == stood
    again = Timekeeper(path)
    assert again.now() >= stood
    assert clock.now() >= stood


def test_it_never_runs_backwards_when_the_computers_clock_does(path: Path) -> None:
    Timekeeper(path, speed=1.0)
    reading = json.loads(path.read_text())
    path.write_text(json.dumps({**reading, "real": reading["real"] + 1000.0}))
    assert SandboxClock(path).now() == reading["anchor"]
    assert Timekeeper(path).now() >= reading["anchor"]


def test_it_slows_down_while_real_work_is_done(path: Path) -> None:
    keeper = Timekeeper(path, speed=600.0)
    keeper.brake()
    keeper.brake()
    keeper.release()
    assert (keeper.reading.pace, keeper.reading.speed) == (BRAKE_SPEED, 600.0)
    keeper.release()
    keeper.release()
    assert keeper.reading.pace == 600.0
    keeper.set_speed(1.0)
    keeper.brake()
    assert keeper.reading.pace == 1.0


def test_a_wait_ends_when_its_time_has_come(path: Path) -> None:
    keeper, clock = Timekeeper(path, speed=1000.0), SandboxClock(path)
    began = keeper.now()
    clock.sleep(60)
    assert 60 <= keeper.now() - began < 600
    clock.sleep(-5)


def test_a_wait_that_has_begun_follows_a_skip(path: Path) -> None:
    keeper, clock = Timekeeper(path, speed=1.0), SandboxClock(path)
    waiting = threading.Thread(target=clock.sleep, args=(3600.0,), daemon=True)
    waiting.start()
    ends_at = time.monotonic() + 5
    while waiting.is_alive() and time.monotonic() < ends_at:
        keeper.skip(3600.0)
        waiting.join(0.3)
    assert not waiting.is_alive()


def test_a_wait_does_not_hang_on_a_clock_that_stands_still(path: Path) -> None:
    keeper, clock = Timekeeper(path, speed=1000.0), SandboxClock(path)
    keeper.freeze()
    waiting = threading.Thread(target=clock.sleep, args=(20.0,), daemon=True)
    waiting.start()
    waiting.join(5)
    assert not waiting.is_alive()
