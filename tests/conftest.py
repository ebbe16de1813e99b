"""Every test is sealed from the developer's own files, environment and network."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

HOMES = itertools.count()
LONGEST_FIRST = ("serve", "remote", "crash", "cli", "clouds", "pictures")
"""Folders whose files take the longest: begun last, one of them would keep a single worker busy at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; within a file, and among files of a folder, the order stays."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def sealed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home of its own for each test; returns soong's folder in it.

    It is made by whoever writes there first: most tests never do, and ten thousand folders take long to clear away.
    """
    if "tmp_path" in request.fixturenames:
        folder: Path = request.getfixturevalue("tmp_path")
    else:
        folder = tmp_path_factory.getbasetemp() / "homes" / str(next(HOMES))
    for name in list(os.environ):
        if name.startswith(("SOONG_", "HF_", "HUGGING_FACE_", "XDG_")):
            monkeypatch.delenv(name)
    home = folder / "soong-home"
    monkeypatch.setenv("SOONG_HOME", str(home))
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return home
