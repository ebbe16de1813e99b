"""Start-up is a feature: heavy libraries stay away from the commands that people wait for."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

HEAVY = (
    "rich",
    "questionary",
    "prompt_toolkit",
    "httpx2",
    "stamina",
    "tomlkit",
    "tomllib",
    "platformdirs",
    "sqlite3",
)
IN_PROCESS = """
import sys
from soong.cli.app import call
call({words!r})
print(",".join(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["models"],
        ["plan", "llama-3.1-8b"],
        ["plan", "llama-3.1-8b", "--json"],
        ["gpus"],
        ["offers"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_no_heavy_library_is_loaded(words: list[str]) -> None:
    script = IN_PROCESS.format(words=words, heavy=HEAVY)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == ""


def _median_seconds(code: str, runs: int = 7) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@pytest.mark.slow
def test_a_plan_takes_few_times_an_empty_python() -> None:
    """Eight times is the promise, on compiled files; twelve here, since a test machine is busy."""
    plan = "from soong.cli.app import call; call(['plan', 'llama-3.1-8b'])"
    subprocess.run([sys.executable, "-c", plan], capture_output=True, check=True)
    assert _median_seconds(plan) < 12 * _median_seconds("pass")
