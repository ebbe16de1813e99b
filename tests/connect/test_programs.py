"""What is put on a machine: one file each, which any Python there runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING

from soong.connect.programs import programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_the_same_modules_are_the_same_bytes() -> None:
    assert programs() == programs()
    assert list(programs()) == ["boot.py", "gate.py", "cuda_check.py"]


def test_the_archive_runs_by_itself(tmp_path: Path) -> None:
    """Alone in its folder, cut off from every installed package; an unknown word, so it does nothing."""
    file = tmp_path / "boot.py"
    file.write_bytes(programs()["boot.py"])
    ended = subprocess.run(
        [sys.executable, "-I", "-S", str(file), "nonsense"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (2, "usage: boot.py [run] | start | stop\n")


def test_its_modules_find_one_another_at_the_start_and_nothing_else_of_soong() -> None:
    """One that was imported later would be read from a newer archive, at the place where it stood in the older."""
    folder = resources.files("soong.connect.remote").joinpath("boot")
    for module in folder.iterdir():
        if module.name.endswith(".py"):
            for function in _functions(ast.parse(module.read_text(encoding="utf-8"))):
                late = [one for one in ast.walk(function) if isinstance(one, ast.ImportFrom) and one.level]
                assert not late, (module.name, function.name)
            assert "soong." not in "".join(_imported(module.read_text(encoding="utf-8")))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef))


def _imported(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.lstrip().startswith(("import ", "from ")))
