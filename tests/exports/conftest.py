"""Files as the command writes them, and an engine that is none to run them with."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from soong.cli.app import call

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = Path(__file__).parents[1] / "serve" / "fake_engine.py"


class Ended(NamedTuple):
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as the JSON value it must be."""
        return msgspec.json.decode(self.out)


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Call `soong export` with the given words."""

    def run(*words: str) -> Ended:
        capfd.readouterr()
        code = call(["export", *words])
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with programs under the engines' names that write down how they were called, then serve as the fake one.

    `seen` beside it holds the words and the environment of the last call.
    """
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("vllm", "python", "llama-server"):
        _program(
            folder / name,
            f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/words"\nenv > "{tmp_path}/environment"\n'
            f'exec "{sys.executable}" "{ENGINE}" "$@"\n',
        )
    _program(folder / "nvidia-smi", "#!/bin/sh\nfor gpu in 0 1 2 3 4 5 6 7; do echo $gpu; done\n")
    return folder


def _program(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
