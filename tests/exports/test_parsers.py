"""Each file is loaded by the parser of the very tool that it is for, in an environment of its own: `make parsers`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from soong.errors import NothingFitsError, UsageError
from soong.exports import FORMATS, names, written
from soong.exports.deployment import Deployment, Wishes, made
from soong.models.catalogue import all_models
from soong.plan.api import plan_model
from tests.exports.test_files import CASES, MATRIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.exports.conftest import Ended

    Export = Callable[..., Ended]

CACHE = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
FOLDER = Path(os.environ.get("SOONG_PARSERS") or Path(CACHE, "soong-parsers"))
PYTHON = FOLDER / "bin" / "python"
ASKED = Path(__file__).parents[1] / "support" / "ask_parsers.py"
ENGINES = ("sglang", "vllm", "llama.cpp")
SECONDS = 600.0
SLOW_PARSERS = {"kubernetes", "compose", "shell"}
"""A tenth to half a second a file; each engine's script is among the kinds above."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(not PYTHON.exists(), reason="the tools' own parsers are not installed: make parsers"),
]


def _parsed(files: list[tuple[str, str]], home: Path) -> list[Any]:
    """What the tools make of (tool, text)."""
    ran = subprocess.run(
        [PYTHON, ASKED],
        input=json.dumps([{"tool": tool, "text": text} for tool, text in files]),
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        timeout=SECONDS,
    )
    found: list[Any] = json.loads(ran.stdout)
    assert len(found) == len(files)
    return found


def test_every_kind_of_deployment(export: Export, tmp_path: Path) -> None:
    """One GPU, several, machines, replicas, GGUF, a gated model: for each tool that can."""
    texts = [(tool, export(tool, *CASES[case]).out) for tool, case in MATRIX]
    found = dict(zip(MATRIX, _parsed(texts, tmp_path), strict=True))
    assert {key: facts["error"] for key, facts in found.items() if "error" in facts} == {}
    for (tool, case), facts in found.items():
        CHECKS[tool](case, facts)


def _skypilot(case: str, facts: Any) -> None:
    assert facts["nodes"] == (2 if case == "nodes" else 1)
    assert {count for _, count in facts["accelerators"]} == {{"tp": 8, "nodes": 8}.get(case, 1)}
    assert facts["autostop"] == [10, True]
    assert 'case "$SOONG_API_KEY" in' in facts["run"]
    assert facts["secrets"]["SOONG_API_KEY"] == "given"
    assert ("HF_TOKEN" in facts["secrets"]) == (case in {"gated", "one"})
    assert (facts["service"] is not None) == (case == "replicas")
    if case == "replicas":
        assert facts["service"]["path"] == "/health"
        assert facts["service"]["replicas"][0] == 3


def _dstack(case: str, facts: Any) -> None:
    assert facts["known"]
    assert facts["gpu"][2:] == [{"tp": 8, "nodes": 8}.get(case, 1)] * 2
    assert facts["max_duration"] == 4 * 3600
    assert 'case "$SOONG_API_KEY" in' in facts["commands"][0]
    assert facts["idle_duration"] == 600
    assert facts["nodes"] == (2 if case == "nodes" else None)
    assert facts["probes"] == ([] if case == "nodes" else ["/health"])


def _kubernetes(case: str, facts: Any) -> None:
    assert ("LeaderWorkerSet" in facts["kinds"]) == (case == "nodes")


def _compose(case: str, facts: Any) -> None:
    assert not facts["leaks"]
    services = facts["shown"]["services"]
    assert len(services) == (3 if case == "replicas" else 1)
    for service in services.values():
        assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def _shell(_: str, facts: Any) -> None:
    assert facts["warnings"] == 0


CHECKS = {
    "skypilot": _skypilot,
    "dstack": _dstack,
    "kubernetes": _kubernetes,
    "compose": _compose,
    "shell": _shell,
}


def test_no_parser_is_content_with_anything(export: Export, tmp_path: Path) -> None:
    """So that the tests above can fail: the same files with one word changed are refused."""
    changed = {
        "skypilot": ("idle_minutes:", "idle_moments:"),
        "dstack": ("max_duration:", "longest_duration:"),
        "kubernetes": ("enableServiceLinks:", "enableServiceLink:"),
        "compose": ("shm_size:", "shm_sizes:"),
        "shell": ('"$@" &', "$@ &"),
    }
    files = []
    for tool, (word, other) in changed.items():
        text = export(tool, *CASES["one"]).out
        assert word in text
        files.append((tool, text.replace(word, other)))
    assert ["error" in facts for facts in _parsed(files, tmp_path)] == [True] * len(files)


FEATURES = {
    "images": {"DOCKER_IMAGE"},
    "autodown": {"AUTOSTOP", "AUTODOWN"},
    "machines": {"MULTI_NODE"},
    "ports": {"OPEN_PORTS"},
    "spot": {"SPOT_INSTANCE"},
}
"""SkyPilot's own names for what a file may ask of a cloud."""


def test_what_skypilot_lacks_at_a_cloud_is_what_its_own_code_denies(tmp_path: Path) -> None:
    clouds = [row for row in names.table().cloud if row.skypilot]
    found = _parsed([("skypilot-lacks", row.skypilot) for row in clouds], tmp_path)
    denied = {
        row.id: {ours for ours, theirs in FEATURES.items() if theirs & set(facts["lacks"])}
        for row, facts in zip(clouds, found, strict=True)
    }
    assert {row.id: set(row.skypilot_lacks) for row in clouds} == denied


def test_a_model_of_every_family(tmp_path: Path) -> None:
    """The first of each family, on each engine that holds it."""
    seen: dict[str, str] = {}
    for model in all_models():
        seen.setdefault(model.family, model.id)
    files = list(files_of(seen.values()))
    assert len(files) > len(seen)
    wrong = [
        (label, facts["error"])
        for (label, _), facts in zip(files, _parsed([text for _, text in files], tmp_path), strict=True)
        if "error" in facts
    ]
    assert wrong == []


def files_of(models: Any, tools: tuple[str, ...] = FORMATS) -> Iterator[tuple[str, tuple[str, str]]]:
    """A label and (tool, text), for every engine and tool that can; where parsers are slow, for one engine."""
    for model in models:
        for engine in ENGINES:
            deployment = _deployment(model, engine)
            if deployment is None:
                continue
            for tool in tools:
                if tool not in SLOW_PARSERS or engine == "vllm":
                    yield f"{model} {engine} {tool}", (tool, written(deployment, tool))


def _deployment(model: str, engine: str) -> Deployment | None:
    try:
        return made(plan_model(model, engine=engine, allow_network=False), Wishes())
    except (NothingFitsError, UsageError):
        return None
