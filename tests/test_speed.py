"""Start-up is a feature: heavy libraries stay away from the commands that people wait for."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

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
    "gpuhunt",
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


@pytest.mark.parametrize("words", [["models"], ["plan", "llama-3.1-8b"]], ids=" ".join)
def test_msgspec_takes_what_typing_has(words: list[str]) -> None:
    script = IN_PROCESS.format(words=words, heavy=("typing_extensions",))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == ""


def _cpu_seconds(code: str, environment: dict[str, str]) -> float:
    """What one Python process works, in CPU seconds: waiting for a busy machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
@pytest.mark.parametrize("words", [["models"], ["plan", "llama-3.1-8b"]], ids=" ".join)
def test_an_answer_takes_few_times_an_empty_python(words: list[str], tmp_path: Path) -> None:
    """Eight times is the promise; ten here, on the best of many runs, since a test machine is busy.

    Compiled files go to a folder of our own, so that the result does not hang on who may write where.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    answer = f"from soong.cli.app import call; call({words!r})"
    for code in (answer, "pass"):
        _cpu_seconds(code, environment)
    pairs = [(_cpu_seconds(answer, environment), _cpu_seconds("pass", environment)) for _ in range(12)]
    assert min(took for took, _ in pairs) < 10 * min(empty for _, empty in pairs)
