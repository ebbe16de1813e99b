"""From orders to an endpoint on a machine of the sandbox, with a fake engine: what is sent, followed and told."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from soong.connect.programs import programs
from soong.errors import TimedOutError
from soong.lease.clock import WallClock
from soong.plan.planner import make_plan
from soong.plan.request import read_request
from soong.serve import secrets, serving
from soong.serve.command import engine_command
from soong.serve.orders import Orders, make_orders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serve.conftest import Rented

pytestmark = pytest.mark.slow


def orders_for(rented: Rented, environment: Path, tmp_path: Path, engine: str = "sglang") -> Orders:
    plan = make_plan(read_request({"model": "llama-3.1-8b", "engine": engine, "gpu": "a10"}))
    argv = plan.candidates[0].engine_argv
    command = engine_command(argv, plan.model, version=plan.settings.version)
    return make_orders(
        rented.rental.id, command, plan.model, gpus=1, environment=str(environment), remote_file=str(tmp_path)
    )


def test_from_orders_to_an_endpoint_with_each_engine(
    rented: Rented, engine_environment: Path, tmp_path: Path
) -> None:
    for engine in ("sglang", "vllm", "llama.cpp"):
        serves(rented, engine_environment, tmp_path, engine)


def serves(rented: Rented, engine_environment: Path, tmp_path: Path, engine: str) -> None:
    orders = orders_for(rented, engine_environment, tmp_path, engine)
    key = secrets.endpoint_key(rented.rental.id)
    serving.send(rented.machine, orders, programs(), api_key=key)
    folder = rented.home / ".soong"
    assert stat.S_IMODE((folder / "api_key").stat().st_mode) == 0o600
    assert key.reveal() not in (folder / "serve.json").read_text()
    told: list[str] = []
    offset = serving.begin(rented.machine)
    endpoint = serving.wait(rented.machine, orders, WallClock(), offset=offset, tell=told.append)
    assert endpoint.model == "llama-3.1-8b"
    assert endpoint.port
    ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{endpoint.port}/health"]
    assert rented.machine.run(ask).out == "401"
    with_key = [*ask, "-H", f"Authorization: Bearer {key.reveal()}"]
    assert rented.machine.run(with_key).out == "200"
    assert told[-1] == "the endpoint answers"
    serving.end(rented.machine)


def test_lines_of_progress_are_told_and_rubbish_is_passed_over() -> None:
    pieces = iter(
        [
            b'{"step": "weights", "state": "run',
            b'ning", "seconds": 2, "bytes_done": 1073741824,',
            b"",
            b' "bytes_total": 4294967296}\nrubbish\n[1]\n',
        ]
    )
    found = list(serving.lines(pieces))
    assert found[0] is None
    (line,) = found[1:]
    assert line is not None
    assert serving.words_of(line) == "the model's weights: 1.0 of 4.0 GiB, 512 MiB/s, 6 s left"


class Silent:
    """A machine that never says anything more."""

    def follow(self, remote: str, *, offset: int = 0, seconds: float = 1.0) -> Iterator[bytes]:
        while True:
            yield b""


class Hasty:
    """A clock on which each look takes ten minutes."""

    time = 0.0

    def now(self) -> float:
        self.time += 600
        return self.time

    def sleep(self, seconds: float) -> None: ...


def test_an_endpoint_that_never_comes_has_a_limit() -> None:
    plan = make_plan(read_request({"model": "llama-3.1-8b", "engine": "vllm", "gpu": "a10"}))
    command = engine_command(plan.candidates[0].engine_argv, plan.model, version="0.33.0")
    orders = make_orders("0" * 10, command, plan.model, gpus=1, environment="/x")
    with pytest.raises(TimedOutError, match="does not answer after 28 min"):
        serving.wait(Silent(), orders, Hasty())  # type: ignore[arg-type]
