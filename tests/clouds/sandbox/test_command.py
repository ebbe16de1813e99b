"""`soong sandbox`, as a person and as a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong.cli.app import call
from soong.clouds.sandbox import process
from soong.clouds.sandbox.faults import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.slow


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def once(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = call(["sandbox", *words])
        seen = capfd.readouterr()
        return int(code), seen.out, seen.err

    yield once
    process.stop()


def told(run: Run, *words: str) -> Any:
    """What a script reads."""
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    return msgspec.json.decode(out)


def test_bare_says_that_nothing_runs_and_starts_nothing(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert "not running" in out
    assert "costs nothing" in out
    assert told(run) == {"running": False, "costs_money": False}


def test_start_turn_look_stop(run: Run) -> None:
    started = told(run, "start", "--speed", "60", "--no-rate-limit")
    assert (started["clock"]["speed"], started["costs_money"]) == (60.0, False)
    before = told(run, "clock")["now"]
    assert told(run, "clock", "--skip", "2h", "--speed", "1")["now"] >= before + 7200
    assert told(run, "fault", "lost-answer", "--count", "2")["count"] == 2
    assert run("fault", "unhealthy", "--always")[1] == "unhealthy every time\n"
    listed = told(run, "faults")
    assert set(listed["faults"]) == set(KINDS)
    assert [one["name"] for one in listed["waiting"]] == ["lost-answer", "unhealthy"]
    assert told(run, "fault", "--clear") == {"cleared": 2}
    assert run("fault", "unhealthy", "--instance", "*")[1] == "unhealthy now, instance *\n"
    (a10,) = told(run, "capacity", "gpu_1x_a10", "--none")
    assert a10["regions"] == []
    (a10,) = told(run, "price", "gpu_1x_a10", "$1.50")
    assert a10["cents"] == 150
    status = told(run)
    assert (status["running"], status["instances"], status["settings"]["rate_limit"]) == (True, [], False)
    assert "No machines." in run()[1]
    assert "real money: $0" in run("bill")[1]
    assert told(run, "reset") == {"reset": True}
    (a10,) = told(run, "capacity", "gpu_1x_a10")
    assert (a10["cents"], "us-east-1" in a10["regions"]) == (129, True)
    assert told(run, "stop") == {"stopped": True}


def test_url_is_all_that_another_client_needs(run: Run) -> None:
    from urllib.request import Request, urlopen

    url, key = run("url", "-q")[1].splitlines()
    asked = Request(f"{url}/api/v1/instances", headers={"Authorization": f"Bearer {key}"})
    with urlopen(asked, timeout=10) as answer:
        assert answer.read() == b'{"data":[]}'
    assert run("log")[1].rstrip().endswith("200 GET /instances")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("fault", "lost-anser"), "did you mean `lost-answer`?"),
        (("fault",), "soong sandbox faults"),
        (("clock", "--speed", "0"), "--speed 600"),
        (("start", "--speed", "inf"), "--speed 600"),
        (("clock", "--skip", "soon"), "2h"),
    ],
)
def test_a_wrong_word_is_explained(run: Run, words: tuple[str, ...], hint: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert hint in err or "90m" in err


def test_an_unknown_type_or_region_is_named(run: Run) -> None:
    for place in ("gpu_1x_dream", "gpu_1x_a10/mars-1"):
        code, _, err = run("capacity", place, "--none")
        assert (code, place in err) == (6, True)
