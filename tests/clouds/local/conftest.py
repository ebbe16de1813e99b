"""This computer as a cloud, with hardware that the test chooses and a clock that it moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.clouds.local import processes
from soong.clouds.local.hardware import Card, Hardware
from soong.clouds.local.provider import LocalProvider
from soong.gpus.catalogue import find_gpu
from soong.launch.provider import LaunchRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GIB = 1 << 30


class HandClock:
    """A clock that moves when it is told to, or when somebody waits."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def hardware(*gpus: str, problem: str = "") -> Hardware:
    """This computer with these GPUs; with none when none is named. problem: of the last of them."""
    last = len(gpus) - 1
    cards = tuple(
        Card(number, find_gpu(name), problem if number == last else "") for number, name in enumerate(gpus)
    )
    return Hardware(cards, 64 * GIB, 48 * GIB, "x86_64", 8)


def request(instance_type: str = "cpu", *, name: str = "soong-box", user_data: str = "") -> LaunchRequest:
    """A launch of one machine here."""
    return LaunchRequest(
        instance_type=instance_type,
        region="here",
        name=name,
        tags={"soong-id": "0123456789"},
        ssh_key_name="",
        user_data=user_data,
    )


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def computer(tmp_path: Path, clock: HandClock) -> Iterator[Callable[..., LocalProvider]]:
    """Makes the provider of a computer with the named GPUs; what it started ends with the test."""
    folder = tmp_path / "local"

    def make(*gpus: str, problem: str = "") -> LocalProvider:
        return LocalProvider(folder, clock=clock, found=hardware(*gpus, problem=problem))

    yield make
    for record in make().records.all():
        processes.end(record.id)
