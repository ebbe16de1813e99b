"""One account, one pace: between calls, between processes, by the provider's clock, whatever the file says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from soong.clouds.lambda_cloud.pacing import LAUNCH_SECONDS, REQUEST_SECONDS, Pace
from tests.clouds.conftest import KEY, HandClock
from tests.clouds.server import data

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clouds.server import FakeLambda


def test_the_pace_is_lambdas_and_a_little_slower() -> None:
    assert 1.0 < REQUEST_SECONDS <= 1.1
    assert 12.0 < LAUNCH_SECONDS <= 12.1


def test_the_first_request_does_not_wait(tmp_path: Path) -> None:
    clock = HandClock()
    Pace("a", clock, directory=tmp_path).wait_for_request()
    assert clock.slept == []


def test_two_paces_of_one_account_share_every_moment(tmp_path: Path) -> None:
    clock = HandClock()
    one, two = Pace("a", clock, directory=tmp_path), Pace("a", clock, directory=tmp_path)
    moments = []
    for pace in (one, two, two, one, two):
        pace.wait_for_request()
        moments.append(clock.now() - 1_800_000_000)
    assert moments == pytest.approx([step * REQUEST_SECONDS for step in range(5)])


def test_two_accounts_do_not_wait_for_each_other(tmp_path: Path) -> None:
    clock = HandClock()
    for account in ("a", "b"):
        Pace(account, clock, directory=tmp_path).wait_for_request()
    assert clock.slept == []


def test_a_launch_that_waits_does_not_hold_up_questions(tmp_path: Path) -> None:
    clock = HandClock()
    pace = Pace("a", clock, directory=tmp_path)
    pace.wait_for_launch()
    clock.time += 5
    other = HandClock(clock.now())
    Pace("a", clock, directory=tmp_path)._reserve(1)
    Pace("a", other, directory=tmp_path).wait_for_request()
    assert other.slept == []


def test_silence_asked_for_holds_for_everyone(tmp_path: Path) -> None:
    clock = HandClock()
    Pace("a", clock, directory=tmp_path).hold(20)
    Pace("a", clock, directory=tmp_path).wait_for_request()
    assert clock.slept == [20]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff" * 300, b"nan inf", b"1e308 1e308", b"-5", b"words here", b"9999999999 9999999999"],
)
def test_a_broken_or_foreign_file_stops_nobody(tmp_path: Path, content: bytes) -> None:
    """Moments in a far future were written by another clock: they are not waited for."""
    (tmp_path / "pace-a").write_bytes(content)
    clock = HandClock()
    pace = Pace("a", clock, directory=tmp_path)
    pace.wait_for_request()
    assert clock.slept == []
    pace.wait_for_request()
    assert clock.slept == pytest.approx([REQUEST_SECONDS])


def test_a_place_that_cannot_be_written_paces_alone(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    clock = HandClock()
    pace = Pace("a", clock, directory=blocked / "state")
    pace.wait_for_request()
    pace.wait_for_request()
    assert clock.slept == pytest.approx([REQUEST_SECONDS])


def test_the_file_betrays_no_key_and_belongs_to_us(server: FakeLambda, client: object, sealed: Path) -> None:
    server.on("GET", "/regions", data([]))
    client.regions()  # type: ignore[attr-defined]
    files = list((sealed / "state").iterdir())
    assert [file.name for file in files] == [f"pace-{client.account}"]  # type: ignore[attr-defined]
    assert files[0].stat().st_mode & 0o077 == 0
    assert KEY.encode() not in files[0].read_bytes()


ASK = """
import os, sys, time
from soong.clouds.lambda_cloud.client import LambdaClient
from soong.lease.clock import ScaledClock
from soong.settings.secrets import Secret
url, start, speed, times = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
clock = ScaledClock(start=start, real_start=start, speed=speed)
client = LambdaClient(Secret(os.environ["PLANTED"], origin="a test"), url=url, clock=clock)
for _ in range(times):
    client.regions()
"""


@pytest.mark.slow
def test_two_processes_share_the_pace(server: FakeLambda, sealed: Path) -> None:
    """Each alone would be through in half the time: the server's own watch tells whether they took turns."""
    server.on("GET", "/regions", data([]))
    speed, times = 10.0, 8
    words = [sys.executable, "-c", ASK, server.url, str(time.time()), str(speed), str(times)]
    environment = {**os.environ, "PLANTED": KEY}
    both = [subprocess.Popen(words, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    moments = sorted(request.at for request in server.requests)
    assert len(moments) == 2 * times
    least = (len(moments) - 1) * REQUEST_SECONDS / speed
    assert moments[-1] - moments[0] > 0.8 * least
