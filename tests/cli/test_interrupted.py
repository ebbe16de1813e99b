"""Ctrl-C ends soong with 130 and one word from its first line on, before anything of it is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.rehearsal import listens_to_ctrl_c

if TYPE_CHECKING:
    from pathlib import Path

CTRL_C = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)\n"


@pytest.mark.parametrize("module", ["click", "msgspec", "typing"])
def test_while_it_loads(tmp_path: Path, module: str) -> None:
    """The interrupt arrives while that module is imported."""
    (tmp_path / f"{module}.py").write_text(CTRL_C)
    words = [sys.executable, "-c", "from soong.cli import main; main()", "plan", "llama-3.1-8b"]
    ended = subprocess.run(
        words,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=listens_to_ctrl_c,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\ninterrupted\n")


def test_nothing_slow_is_loaded_before_it_can_be_answered() -> None:
    look = (
        "import sys; before = set(sys.modules); import soong.cli; print(*sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=30)
    assert set(ran.stdout.split()) <= {"__future__", "soong", "soong.cli"}
