"""`soong start` through to an endpoint on this computer, with a fake engine on a machine of the sandbox."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from soong.launch.preflight import free_port
from tests.cli.rehearsal import MODEL, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

pytestmark = pytest.mark.slow


@pytest.fixture
def start(engine_environment: Path) -> tuple[str, ...]:
    (engine_environment / "weights").mkdir()
    port = str(free_port())
    common = ("--cloud", "sandbox", "--yes", "--engine-env", str(engine_environment))
    return ("start", "--model", MODEL, *common, "--port", port)


def test_start_serves_and_the_endpoint_is_here(
    soong: Soong,
    rehearsal: Rehearsal,
    start: tuple[str, ...],
) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": 240})
    make_filesystem(rehearsal, "models")
    begun = soong(*start, "--filesystem", "models")
    assert begun.code == 0, begun.err
    (orders,) = rehearsal.home.rglob("serve.json")
    assert json.loads(orders.read_text())["filesystem"] == "{root}/lambda/nfs/models"
    (mounted,) = rehearsal.home.rglob("lambda/nfs/models")
    assert mounted.is_symlink(), "it outlives the machine's own folder"
    port = start[-1]
    assert f"`{MODEL}` answers at http://127.0.0.1:{port}/v1" in begun.out
    url = f"http://127.0.0.1:{port}"
    assert [status_of(f"{url}{path}") for path in ("/v1/models", "/health", "/metrics")] == [401] * 3
    variables = soong("env", "--json").json
    assert variables["OPENAI_BASE_URL"] == f"{url}/v1"
    assert status_of(f"{url}/v1/models", variables["OPENAI_API_KEY"]) == 200
    assert f"set -gx OPENAI_BASE_URL {url}/v1" in soong("env", "--shell", "fish").out
    (tunnelled,) = soong("tunnel", "--json").json
    assert (tunnelled["state"], tunnelled["local_port"]) == ("up", int(port))
    logs = soong("logs").out
    assert "the endpoint: done" in logs or "the endpoint" in logs
    assert "argv:" in logs
    assert len(soong("tunnel", "status", "--cloud", "sandbox", "--json").json) == 1
    assert soong("tunnel", "status", "--cloud", "lambda", "--json").json == []
    assert soong("tunnel", "status", "--cloud", "nowhere").code == 4
    assert soong("tunnel", "stop", "--cloud", "lambda").code == 4
    assert soong("tunnel", "stop").code == 0
    assert soong("tunnel", "start").code == 0
    assert status_of(f"{url}/health", variables["OPENAI_API_KEY"]) == 200
    assert soong("stop", "--yes").code == 0
    assert soong("tunnel", "--json").json == []
    assert rehearsal.alive == []
    assert soong("env").code == 4


def test_an_engine_that_fails_is_said_with_what_it_costs(
    soong: Soong,
    rehearsal: Rehearsal,
    start: tuple[str, ...],
    tmp_path: Path,
) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": 240})
    (tmp_path / "fails").write_text("ValueError: No available memory for the cache blocks.\n")
    failed = soong(*start)
    assert failed.code == 6
    assert "bills $1.09/h until" in failed.err
    assert "soong stop" in failed.err
    assert len(rehearsal.alive) == 1


PROGRAM = """
import json, os, sys, urllib.request
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
body = json.dumps({"model": os.environ["OPENAI_MODEL"], "messages": []}).encode()
headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
    print(json.load(answer)["choices"][0]["message"]["content"])
sys.exit(7)
"""


def test_run_gives_the_commands_code_and_leaves_nothing(
    rehearsal: Rehearsal,
    engine_environment: Path,
) -> None:
    (engine_environment / "weights").mkdir()
    rehearsal.running.ask("POST", "clock", {"speed": 240})
    run = ("run", MODEL, "--cloud", "sandbox", "--yes", "--engine-env", str(engine_environment), "--")
    ran = rehearsal.spawn(*run, sys.executable, "-c", PROGRAM)
    out, err = ran.communicate(timeout=90)
    assert (ran.returncode, out) == (7, "Paris is the capital.\n"), err
    assert "is gone" in err
    assert rehearsal.alive == []


def test_run_of_no_program_costs_nothing(
    soong: Soong, rehearsal: Rehearsal, engine_environment: Path
) -> None:
    common = ("--cloud", "sandbox", "--yes", "--engine-env", str(engine_environment))
    refused = soong("run", MODEL, *common, "--", "no-such-program")
    assert refused.code == 2
    assert rehearsal.bill == []


def test_run_that_is_ended_ends_what_it_rented(rehearsal: Rehearsal, engine_environment: Path) -> None:
    (engine_environment / "weights").mkdir()
    rehearsal.running.ask("POST", "clock", {"speed": 240})
    run = ("run", MODEL, "--cloud", "sandbox", "--yes", "--engine-env", str(engine_environment), "--")
    ran = rehearsal.spawn(*run, "sleep", "600")
    until(lambda: any(one.serving == "ready" for one in rehearsal.ledger.open_rentals()), 60)
    ran.terminate()
    _, err = ran.communicate(timeout=60)
    assert ran.returncode in {130, 143}, err
    assert rehearsal.alive == []


def make_filesystem(rehearsal: Rehearsal, name: str) -> None:
    """Storage in the region that the sandbox's machines are in."""
    body = json.dumps({"name": name, "region": "us-east-1"}).encode()
    headers = {"Authorization": f"Bearer {rehearsal.running.key}", "Content-Type": "application/json"}
    made = urllib.request.Request(f"{rehearsal.running.url}/api/v1/filesystems", body, headers)
    with urllib.request.urlopen(made, timeout=10) as answer:
        assert answer.status == 200


def status_of(url: str, key: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)
