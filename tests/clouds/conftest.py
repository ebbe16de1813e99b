"""A fake Lambda that has to be asked by the rules, a clock that never makes anyone wait, a client between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.clouds.lambda_cloud.client import LambdaClient, Limits
from soong.clouds.lambda_cloud.provider import LambdaProvider
from soong.settings.secrets import Secret
from tests.clouds.server import FakeLambda

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "secret_planted_0123456789abcdef0123456789abcdef.PlantedPlantedPlanted"
FAST = Limits(connect_seconds=2.0, read_seconds=2.0, launch_seconds=2.0)


class HandClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += max(0.0, seconds)


@pytest.fixture
def server() -> Iterator[FakeLambda]:
    """Fails the test when a request or an answer breaks the specification."""
    with FakeLambda() as running:
        yield running
    assert running.faults == []


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def client(server: FakeLambda, clock: HandClock) -> Iterator[LambdaClient]:
    asking = LambdaClient(Secret(KEY, origin="a test"), url=server.url, clock=clock, limits=FAST)
    yield asking
    asking.close()


@pytest.fixture
def provider(client: LambdaClient) -> LambdaProvider:
    return LambdaProvider(client)
