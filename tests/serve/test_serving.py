"""From orders to an endpoint on a machine of the sandbox, with a fake engine: what is sent, followed and told."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from soong.connect.machine import programs
from soong.lease.clock import WallClock
from soong.plan.planner import make_plan
from soong.plan.request import read_request
from soong.serve import secrets, serving
from soong.serve.command import engine_command
from soong.serve.orders import Orders, make_orders

if TYPE_CHECKING:
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


@pytest.mark.parametrize("engine", ["sglang", "vllm", "llama.cpp"])
def test_from_orders_to_an_endpoint(
    rented: Rented, engine_environment: Path, tmp_path: Path, engine: str
) -> None:
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
