"""Directories: one variable moves them all; reading needs nothing to exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from soong.errors import SoongError
from soong.settings import paths


def test_one_variable_moves_every_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    assert paths.config_dir() == tmp_path / "config"
    assert paths.state_dir() == tmp_path / "state"
    assert paths.cache_dir() == tmp_path / "cache"
    assert paths.config_file("models.toml") == str(tmp_path / "config" / "models.toml")


def test_asking_makes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path / "not-there"))
    paths.config_dir()
    assert not (tmp_path / "not-there").exists()
    assert paths.made(paths.config_dir()).is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="the shortcut is for Linux")
@pytest.mark.parametrize("xdg", [None, "", "/elsewhere"])
def test_the_shortcut_agrees_with_platformdirs(monkeypatch: pytest.MonkeyPatch, xdg: str | None) -> None:
    monkeypatch.delenv("SOONG_HOME", raising=False)
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
        if xdg is not None:
            monkeypatch.setenv(variable, xdg)
    assert paths.config_dir() == platformdirs.user_config_path("soong", appauthor=False)
    assert paths.state_dir() == platformdirs.user_state_path("soong", appauthor=False)
    assert paths.cache_dir() == platformdirs.user_cache_path("soong", appauthor=False)


def test_other_systems_ask_platformdirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOONG_HOME", raising=False)
    monkeypatch.setattr(paths, "_ON_LINUX", False)
    assert paths.config_dir() == platformdirs.user_config_path("soong", appauthor=False)


def test_a_place_that_cannot_be_made_names_the_way_round(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SoongError) as caught:
        paths.made(tmp_path / "file" / "config")
    assert str(tmp_path / "file" / "config") in caught.value.message
    assert "SOONG_HOME" in caught.value.hints[0]


def test_reading_the_tables_imports_neither_platformdirs_nor_toml() -> None:
    code = (
        "import sys, soong.gpus.catalogue as c, soong.offers.snapshot as s; c.find_gpu('h100'); "
        "s.packaged_offers();"
        "print([m for m in ('platformdirs', 'tomllib', 'tomlkit', 'pathlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, env=_env()
    )
    assert done.stdout.strip() == "[]", done.stderr


def _env() -> dict[str, str]:
    import msgspec

    import soong

    roots = [str(Path(module.__file__ or "").parent.parent) for module in (soong, msgspec)]
    return {"PYTHONPATH": ":".join(roots), "SOONG_HOME": "/nonexistent"}
