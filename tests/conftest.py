"""Every test is sealed from the developer's own files, environment and network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test; returns soong's folder in it."""
    for name in list(os.environ):
        if name.startswith(("SOONG_", "HF_", "HUGGING_FACE_", "XDG_")):
            monkeypatch.delenv(name)
    home = tmp_path / "soong-home"
    monkeypatch.setenv("SOONG_HOME", str(home))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return home
