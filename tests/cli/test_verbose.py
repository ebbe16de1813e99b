"""`--verbose` tells what is asked of whom, on stderr, and never a secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from soong import tracing
from soong.cli import verbose
from tests.cli.rehearsal import MODEL
from tests.clouds.server import FakeLambda, data, error

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

KEY = "secret_plantedkey_0123456789abcdef0123456789abcdef.PlantedPlantedPlanted"
TOKEN = "hf_PlantedPlantedPlantedPlanted42"
PYTHON = Path(sys.executable).name


@pytest.fixture
def unhooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the interpreter's events, which this process could never be rid of again."""
    monkeypatch.setattr(verbose, "_hooked", [True])


@pytest.mark.slow
def test_a_start_tells_its_requests_and_its_programs(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    words = ("start", "--model", MODEL, "--cloud", "sandbox", "--yes", "--no-serve", "--json", "--verbose")
    out, err = rehearsal.spawn(*words).communicate(timeout=120)
    assert json.loads(out)["cloud"] == "sandbox"
    told = [line for line in err.splitlines() if line.startswith("· ")]
    launches = [line for line in told if "/instance-operations/launch: " in line]
    assert launches
    assert re.fullmatch(
        r"· POST http://127\.0\.0\.1:\d+/api/v1/instance-operations/launch: 200, .* s", launches[0]
    )
    assert any(re.match(r"· runs ssh .*BatchMode=yes.* python3 -$", line) for line in told), told
    assert rehearsal.running.key not in err
    assert TOKEN not in err
    _, err = rehearsal.spawn("ssh", "--cloud", "sandbox", "-v", "--", "true", f"--token={TOKEN}").communicate(
        timeout=60
    )
    assert "· becomes ssh\n" in err
    assert TOKEN not in err


PERSONS_OWN = """
import sys
from types import SimpleNamespace
from soong.cli import env, notify, output, run, verbose
from soong.settings import secrets

verbose.begin()
env.variables_of = lambda _: {}
kind, program, token = sys.argv[1:]
if kind == "key":
    secrets._from_command(f"{program} vault cat --token={token}")
elif kind == "notice":
    notify._run(f"{program} --token {token}", "done")
else:
    out = output.Output(quiet=True, as_json=False, no_input=True, color=False)
    run._ran([program, "x.py", "--api-key", token], SimpleNamespace(), out)
"""


@pytest.mark.parametrize("kind", ["key", "notice", "run"])
@pytest.mark.parametrize("program", ["ssh", "tar", "systemctl", "python"])
def test_of_the_programs_that_soong_runs_too_a_person_may_run_any(
    tmp_path: Path, kind: str, program: str
) -> None:
    """Through the interpreter's real events. python: the very one that runs soong, as a link to it would be."""
    planted = tmp_path / program
    planted.write_text("#!/bin/sh\necho secret_of_the_vault\n")
    planted.chmod(0o755)
    file = sys.executable if program == "python" and kind == "run" else str(planted)
    ended = subprocess.run(
        [sys.executable, "-c", PERSONS_OWN, kind, file, TOKEN], capture_output=True, text=True, check=False
    )
    told = [line for line in ended.stderr.splitlines() if line.startswith("· ")]
    assert told == [f"· runs {Path(file).name}"], ended.stderr
    assert TOKEN not in ended.stderr.replace("can't open file", "")


@pytest.mark.usefixtures("unhooked", "sealed")
def test_requests_are_told_with_what_came_of_them(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", KEY)
    with FakeLambda() as server:
        monkeypatch.setenv("SOONG_LAMBDA_API_URL", server.url)
        server.on("GET", "/instances", data([]))
        seen = soong("-v", "status", "--cloud", "lambda")
        server.on("GET", "/instances", error("global/invalid-api-key", 401, f"bad key {KEY}", off_spec=True))
        refused = soong("status", "--cloud", "lambda", "-v")
        silent = soong("status", "--cloud", "lambda")
    assert re.search(rf"^· GET {server.url}/api/v1/instances: 200, \d+\.\d\d s$", seen.err, re.MULTILINE), (
        seen.err
    )
    assert f"· GET {server.url}/api/v1/instances: 401, " in refused.err
    assert "· " not in silent.err
    assert KEY not in seen.err + refused.err


@pytest.mark.usefixtures("unhooked", "sealed")
def test_a_place_that_nobody_answers_at_is_told_too(
    soong: Soong, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FakeLambda() as server:
        gone = server.url
    monkeypatch.setenv("HF_ENDPOINT", gone)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert f"· GET {gone}/" in soong("plan", "org/name", "-v").err


def test_neither_user_nor_query_of_an_address_is_told() -> None:
    told: list[str] = []
    tracing.listen(told.append)
    try:
        with tracing.Request(
            "GET", f"https://ada:{KEY}@cdn.example/file?X-Signature={TOKEN}#{TOKEN}"
        ) as asked:
            asked.answered(206)
    finally:
        tracing.listen(None)
    assert [line.rpartition(", ")[0] for line in told] == ["GET https://cdn.example/file: 206"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (tracing.own(["/usr/bin/ssh", "-o", "A=b", "soong-x", "echo 1"]), "ssh -o A=b soong-x 'echo 1'"),
        (tracing.own([sys.executable, "-P", "-m", "soong.x"]), f"{PYTHON} -P -m soong.x"),
        (["/usr/bin/ssh", "vault", "cat", f"--token={TOKEN}"], "ssh"),
        ([b"/usr/bin/tar", b"--token", TOKEN.encode()], "tar"),
        ([sys.executable, "x.py", "--api-key", TOKEN], PYTHON),
        (["/usr/bin/pass", "show", "lambda"], "pass"),
        ("notify-send done", "notify-send"),
        ([], "a program without a name"),
        ("", "a program without a name"),
    ],
)
def test_of_a_persons_own_commands_the_name_alone_is_told(argv: list[str] | str, told: str) -> None:
    heard: list[str] = []
    tracing.listen(heard.append)
    try:
        verbose._heard("subprocess.Popen", (None, argv, None, None))
        verbose._heard("open", ("/etc/passwd", "r", 0))
    finally:
        tracing.listen(None)
    assert heard == [f"runs {told}"]
