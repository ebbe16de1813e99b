"""Nothing is launched before something on this computer has proved that it can end the lease."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from soong.errors import SoongError
from soong.lease import guardian
from soong.lease.guardian import Guard, GuardianError, heartbeat, mechanisms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path / "soong"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(guardian, "FIRE_SECONDS", 0.3)
    return tmp_path


class Scripted:
    """A mechanism whose round does what the test says."""

    def __init__(self, kind: str, fire: Callable[[str], None], *, is_here: bool = True) -> None:
        self.guard = Guard(kind=kind, words=f"a {kind}", survives_reboot=True)
        self.is_here = is_here
        self.removed = 0
        self._fire = fire

    def is_available(self) -> bool:
        return self.is_here

    def install(self, cloud: str) -> None:
        pass

    def fire(self, cloud: str) -> None:
        self._fire(cloud)

    def remove(self, cloud: str) -> None:
        self.removed += 1


def sound(cloud: str) -> None:
    heartbeat.beat(cloud, nonce=heartbeat.asked(cloud))


def silent(_: str) -> None:
    pass


def blind(cloud: str) -> None:
    heartbeat.beat(cloud, nonce=heartbeat.asked(cloud), problem="there is no key")


def broken(_: str) -> None:
    raise SoongError("`systemctl` refused")


def late(cloud: str) -> None:
    """A round that was on its way before it was asked for proves nothing about this one."""
    heartbeat.beat(cloud, nonce="an older one")


def test_the_first_that_proves_itself_is_armed() -> None:
    first, second = Scripted("timer", sound), Scripted("process", sound)
    assert guardian.arm("lambda", [first, second]).kind == "timer"
    beat = heartbeat.last("lambda")
    assert beat is not None
    assert beat.is_fresh(time.time())
    assert not beat.is_fresh(time.time() + 301)


@pytest.mark.parametrize("fire", [silent, blind, broken, late])
def test_one_that_does_not_is_taken_away_and_the_next_is_tried(fire: Callable[[str], None]) -> None:
    said: list[str] = []
    bad, good = Scripted("timer", fire), Scripted("process", sound)
    assert guardian.arm("lambda", [bad, good], tell=said.append).kind == "process"
    assert bad.removed == 1
    assert len(said) == 1


def test_nothing_is_armed_where_nothing_proves_itself() -> None:
    with pytest.raises(GuardianError) as caught:
        guardian.arm("lambda", [Scripted("timer", blind), Scripted("agent", sound, is_here=False)])
    assert "timer: there is no key" in str(caught.value)
    assert "agent" not in str(caught.value)


def fake_tool(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> Path:
    """A command of that name first on the path; writes what it was asked into a file."""
    folder = home / "bin"
    folder.mkdir(exist_ok=True)
    tool = folder / name
    log = home / f"{name}.log"
    tool.write_text(f"#!/bin/sh\necho \"$*\" >> '{log}'\n" + textwrap.dedent(script))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    log.touch()
    return log


def test_systemd_gets_a_timer_that_carries_no_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", "secret_planted_key_1234")
    monkeypatch.setenv("SOONG_LAMBDA_API_URL", 'http://127.0.0.1:1/with%20"odd"')
    log = fake_tool(home, monkeypatch, "systemctl", "exit 0\n")
    systemd = mechanisms.Systemd()
    assert systemd.is_available()
    systemd.install("lambda")
    systemd.fire("lambda")
    folder = home / ".config" / "systemd" / "user"
    service = (folder / "soong-guardian-lambda.service").read_text()
    timer = (folder / "soong-guardian-lambda.timer").read_text()
    assert f'"{sys.executable}" "-P" "-m" "soong.cli" "reap" "--cloud" "lambda" "--guardian"' in service
    assert 'Environment="SOONG_LAMBDA_API_URL=http://127.0.0.1:1/with%%20\\"odd\\""' in service
    assert "OnCalendar=minutely" in timer
    assert "Persistent=true" in timer
    assert "planted" not in service + timer
    asked = log.read_text().splitlines()
    assert "--user enable --now soong-guardian-lambda.timer" in asked
    assert "--user start --no-block soong-guardian-lambda.service" in asked
    systemd.remove("lambda")
    assert list(folder.iterdir()) == []


def test_systemd_that_does_not_run_is_not_available(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(home, monkeypatch, "systemctl", "echo 'Failed to connect to bus' >&2\nexit 1\n")
    assert not mechanisms.Systemd().is_available()


CRONTAB = """\
table="$(dirname "$0")/../table"
if [ "$1" = "-l" ]; then [ -f "$table" ] && cat "$table" || exit 1; else cat > "$table"; fi
"""


def test_cron_keeps_every_other_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(home, monkeypatch, "crontab", CRONTAB)
    table = home / "table"
    mine = "# my lines\n0 3 * * * backup --all\nMAILTO=ada"
    table.write_text(mine + "\n")
    cron = mechanisms.Cron()
    cron.install("lambda")
    cron.install("lambda")
    lines = table.read_text().splitlines()
    assert lines[:3] == mine.splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("* * * * * SOONG_HOME=")
    assert lines[3].endswith("# soong guardian lambda")
    cron.remove("lambda")
    assert table.read_text().rstrip("\n") == mine


def test_cron_fires_as_cron_will(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line runs by /bin/sh with almost no environment: here it reports that there is no key."""
    monkeypatch.setattr(guardian, "FIRE_SECONDS", 30.0)
    monkeypatch.setattr(mechanisms, "_runs", lambda _: True)
    fake_tool(home, monkeypatch, "crontab", CRONTAB)
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", "secret_planted_key_1234")
    heartbeat.ask("lambda", "one")
    cron = mechanisms.Cron()
    cron.install("lambda")
    cron.fire("lambda")
    deadline = time.monotonic() + 30
    while heartbeat.last("lambda") is None and time.monotonic() < deadline:
        time.sleep(0.05)
    beat = heartbeat.last("lambda")
    assert beat is not None, "no round left its pulse"
    assert beat.nonce == "one"
    assert "no key" in beat.problem


def test_one_watch_for_each_cloud() -> None:
    code = (
        "import sys\nfrom soong.lease.guardian import heartbeat\n"
        "with heartbeat.alone('lambda') as alone:\n    print(alone, flush=True)\n    sys.stdin.read()\n"
    )
    assert not heartbeat.is_watching("lambda")
    watch = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watch.stdout is not None
    assert watch.stdout.readline() == "True\n"
    assert heartbeat.is_watching("lambda")
    assert not heartbeat.is_watching("sandbox")
    watch.kill()
    watch.communicate()
    assert not heartbeat.is_watching("lambda")
