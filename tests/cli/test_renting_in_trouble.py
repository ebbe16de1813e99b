"""A computer that is not well: a full disk, no home, a wrong clock, a cloud that is away; and files for elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.rehearsal import MODEL, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

START = ("start", "--model", MODEL, "--cloud", "sandbox", "--yes")


def limited(words: tuple[str, ...], most_bytes: int) -> subprocess.CompletedProcess[str]:
    """soong where no file can grow over a size: what a full disk does to a program."""
    code = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most_bytes}, {most_bytes}))\n"
        "from soong.cli.app import run\nrun(sys.argv[1:])"
    )
    line = [sys.executable, "-c", code, *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_a_full_disk_launches_nothing(rehearsal: Rehearsal) -> None:
    ended = limited(START, 100)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert rehearsal.bill == []


@pytest.mark.parametrize("words", [("reap",), ("reap", "--guardian")])
def test_a_full_disk_does_not_keep_a_machine_alive(
    soong: Soong, rehearsal: Rehearsal, words: tuple[str, ...]
) -> None:
    assert soong(*START).code == 0
    rehearsal.kill_guardian()
    rehearsal.skip(4)
    ended = limited((*words, "--cloud", "sandbox"), 100)
    assert "Traceback" not in ended.stderr
    assert rehearsal.alive == [], ended.stderr
    until(lambda: soong("status", "--cloud", "sandbox") and rehearsal.ledger.open_rentals() == ())


def test_a_full_disk_does_not_keep_stop_from_ending_a_machine(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    rehearsal.kill_guardian()
    (billed,) = rehearsal.alive
    ended = limited(("stop", "--yes", "--cloud", "sandbox"), 100)
    assert ended.returncode == 0, ended.stderr
    assert "going by the tags alone" in ended.stderr
    assert f"{billed['id']} is gone" in ended.stdout
    assert rehearsal.alive == []


def test_a_home_that_cannot_be_written(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_HOME", "/proc/soong")
    for words in (START, ("status", "--cloud", "sandbox"), ("stop", "--yes", "--cloud", "sandbox")):
        ended = soong(*words)
        assert ended.code == 1, ended
        assert "SOONG_HOME=" in ended.err
        assert "stumbled" not in ended.err
    assert soong("start", "--model", MODEL, "--dry-run").code == 0


def test_a_ledger_that_is_broken(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    rehearsal.kill_guardian()
    for file in (rehearsal.home / "state").glob("ledger.sqlite*"):
        file.write_bytes(b"not a ledger" * 1000)
    assert soong(*START).code == 1
    rehearsal.skip(4)
    ended = soong("reap", "--cloud", "sandbox")
    assert ended.code == 0, "a reaper needs nothing but the key"
    assert "without it" in ended.err
    assert rehearsal.alive == []


def test_a_key_that_is_gone_still_leaves_the_last_known_state(
    soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert soong(*START).code == 0
    (rental,) = rehearsal.ledger.open_rentals()
    with rehearsal.ledger as ledger:
        import msgspec

        other = msgspec.structs.replace(
            rental,
            cloud="lambda",
            name="real",
            asked_at=time.time() - 3600,
            lease=msgspec.structs.replace(rental.lease, id="00000000aa", ends_at=int(time.time()) + 3600),
        )
        ledger.add(other)
    shown = soong("status", "--cloud", "lambda")
    assert shown.code == 3
    assert "real" in shown.out
    assert "last knew" in shown.err
    document = soong("status", "--cloud", "lambda", "--json").json
    assert "no key" in document["problem"]
    assert document["rentals"][0]["cost_usd"] == pytest.approx(1.09, abs=0.02)


def test_a_cloud_that_stumbles_shows_the_last_known_state(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    rehearsal.fault("server-error", path="/instances", count=None)
    shown = soong("status")
    assert shown.code == 6
    assert "llama-3-1-8b" in shown.out
    rehearsal.heal()
    assert soong("status").code == 0


def test_a_lock_that_a_killed_start_left_is_removed(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    held = rehearsal.home / "state" / "held"
    held.mkdir(exist_ok=True)
    (held / "0123456789.lock").touch()
    assert soong("stop", "--yes").code == 0
    assert soong("status", "--cloud", "sandbox").code == 0
    assert list(held.iterdir()) == []


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_a_clock_that_jumps_ends_no_lease_of_the_sandbox_early(
    soong: Soong, rehearsal: Rehearsal, skew: int
) -> None:
    """The beat's age is told by this computer's clock, the lease's end by the cloud's."""
    from soong.lease.guardian import heartbeat

    assert soong(*START).code == 0
    file = rehearsal.home / "state" / "guardian" / "sandbox.nonce"
    os.utime(file, (time.time() + skew, time.time() + skew))
    until(lambda: heartbeat.trouble("sandbox") == "")
    assert len(rehearsal.alive) == 1


@pytest.mark.parametrize("place", ["systemd", "cron", "github-actions", "kubernetes"])
def test_what_an_always_on_place_needs(soong: Soong, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "secret_plantedkey_0123456789abcdef0123456789abcdef.PlantedPlantedPlanted"
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", key)
    document = soong("reap", "--install", place, "--owner", "team", "--json").json
    shown = soong("reap", "--install", place, "--owner", "team")
    assert shown.code == 0
    assert key not in shown.out + shown.err
    assert "lease.reaper" in shown.err
    texts = {file["name"]: file["text"] for file in document["files"]}
    for name, content in texts.items():
        assert "SOONG_LAMBDA_API_KEY" in content or name.endswith((".timer", "crontab -e", ".service"))
        check_syntax(name, content)
    assert any("reap --cloud lambda --owner team" in content for content in texts.values())


def check_syntax(name: str, content: str) -> None:
    if name.endswith((".yml", ".yaml")):
        yaml = pytest.importorskip("yaml")
        assert yaml.safe_load(content)
    elif name.endswith((".service", ".timer")):
        from configparser import ConfigParser

        parser = ConfigParser(interpolation=None, strict=False)
        parser.read_string(content)
        assert "Unit" in parser.sections()
    else:
        assert len(content.split()) > 6
        assert content.count("\n") == 1


def test_there_is_no_such_place(soong: Soong) -> None:
    ended = soong("reap", "--install", "github")
    assert (ended.code, "did you mean `github-actions`?" in ended.err) == (4, True)
