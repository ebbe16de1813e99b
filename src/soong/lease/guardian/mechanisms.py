"""What a computer may have to run the reaper again and again."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from soong import tracing
from soong.errors import SoongError
from soong.lease.guardian import Guard, heartbeat
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Iterable

PASSED_ON = ("SOONG_HOME", "SOONG_LAMBDA_API_URL", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
"""What a timer needs to find the same ledger and the same account. Never a key: that must stand in a file or come
from a command, or the timer proves to be no use and the next mechanism is tried."""

TOOL_SECONDS = 20.0
_STARTED: list[subprocess.Popen[bytes]] = []
"""Rounds outlive the process that started them; kept so that the interpreter does not complain about that."""


def of_this_computer(*, rehearsal: bool = False) -> tuple[Systemd | Launchd | Cron | Process, ...]:
    """Every mechanism, best first. A rehearsal uses a process of its own: its clock is too fast for timers."""
    return (Process(),) if rehearsal else (Systemd(), Launchd(), Cron(), Process())


def command(cloud: str, *words: str) -> list[str]:
    """The reaper as any shell can call it."""
    return tracing.own(
        [sys.executable, "-P", "-m", "soong.cli", "reap", "--cloud", cloud, "--guardian", *words]
    )


class Systemd:
    """A user timer of systemd, each minute; catches up after sleep."""

    guard = Guard(kind="systemd", words="a systemd timer of this computer", survives_reboot=True)

    def is_available(self) -> bool:
        """Whether a systemd of this user is running."""
        return shutil.which("systemctl") is not None and _answers(["systemctl", "--user", "show-environment"])

    def install(self, cloud: str) -> None:
        """Write service and timer, and start the timer."""
        unit = self._unit(cloud)
        settings = "".join(
            f"Environment={_systemd_quoted(f'{key}={value}')}\n" for key, value in _passed_on()
        )
        run = " ".join(_systemd_quoted(word) for word in command(cloud))
        head = f"[Unit]\nDescription=Ends soong leases on {cloud}\n\n"
        service = f"{head}[Service]\nType=oneshot\n{settings}ExecStart={run}\n"
        timer = (
            f"[Unit]\nDescription=Ends soong leases on {cloud}\n\n"
            "[Timer]\nOnCalendar=minutely\nPersistent=true\nAccuracySec=10s\n\n[Install]\nWantedBy=timers.target\n"
        )
        _write(self._folder() / f"{unit}.service", service)
        _write(self._folder() / f"{unit}.timer", timer)
        _run(["systemctl", "--user", "daemon-reload"])
        _run(["systemctl", "--user", "enable", "--now", f"{unit}.timer"])

    def fire(self, cloud: str) -> None:
        """Start the service as the timer does."""
        _run(["systemctl", "--user", "start", "--no-block", f"{self._unit(cloud)}.service"])

    def remove(self, cloud: str) -> None:
        """Stop the timer and delete both files."""
        unit = self._unit(cloud)
        timer = self._folder() / f"{unit}.timer"
        if timer.exists():
            _answers(["systemctl", "--user", "disable", "--now", f"{unit}.timer"])
            timer.unlink(missing_ok=True)
            (self._folder() / f"{unit}.service").unlink(missing_ok=True)

    def _unit(self, cloud: str) -> str:
        return f"soong-guardian-{cloud}"

    def _folder(self) -> Path:
        base = os.environ.get("XDG_CONFIG_HOME", "").strip() or str(Path.home() / ".config")
        return Path(base) / "systemd" / "user"


class Launchd:
    """A launchd agent of macOS, each minute."""

    guard = Guard(kind="launchd", words="a launchd agent of this computer", survives_reboot=True)

    def is_available(self) -> bool:
        """Whether this is macOS."""
        return sys.platform == "darwin" and shutil.which("launchctl") is not None

    def install(self, cloud: str) -> None:
        """Write the agent and load it."""
        import plistlib

        agent = {
            "Label": self._label(cloud),
            "ProgramArguments": command(cloud),
            "EnvironmentVariables": dict(_passed_on()),
            "StartInterval": 60,
            "RunAtLoad": True,
        }
        file = self._file(cloud)
        _write(file, plistlib.dumps(agent).decode())
        _answers(["launchctl", "bootout", f"{self._domain()}/{self._label(cloud)}"])
        _run(["launchctl", "bootstrap", self._domain(), str(file)])

    def fire(self, cloud: str) -> None:
        """Run the agent now."""
        _run(["launchctl", "kickstart", f"{self._domain()}/{self._label(cloud)}"])

    def remove(self, cloud: str) -> None:
        """Unload the agent and delete it."""
        if self._file(cloud).exists():
            _answers(["launchctl", "bootout", f"{self._domain()}/{self._label(cloud)}"])
            self._file(cloud).unlink(missing_ok=True)

    def _label(self, cloud: str) -> str:
        return f"soong.guardian.{cloud}"

    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def _file(self, cloud: str) -> Path:
        return Path.home() / "Library" / "LaunchAgents" / f"{self._label(cloud)}.plist"


class Cron:
    """A line in the user's crontab, each minute."""

    guard = Guard(kind="cron", words="a cron job of this computer", survives_reboot=True)

    def is_available(self) -> bool:
        """Whether there is a crontab command and a cron daemon runs."""
        return shutil.which("crontab") is not None and _runs(("cron", "crond", "fcron", "busybox-crond"))

    def install(self, cloud: str) -> None:
        """Put the line into the crontab, in place of an older one."""
        _run(["crontab", "-"], stdin="\n".join([*self._others(cloud), f"* * * * * {self._line(cloud)}", ""]))

    def fire(self, cloud: str) -> None:
        """Run the line as cron will: with an empty environment, by /bin/sh."""
        bare = {"HOME": str(Path.home()), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
        _STARTED.append(
            subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", self._line(cloud)],
                env=bare,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def remove(self, cloud: str) -> None:
        """Take the line out, and leave every other line as it is."""
        others = self._others(cloud)
        if len(others) != len(self._lines()):
            _run(["crontab", "-"], stdin="\n".join([*others, ""]))

    def _line(self, cloud: str) -> str:
        words = [f"{key}={shlex.quote(value)}" for key, value in _passed_on()] + [shlex.join(command(cloud))]
        return " ".join(words).replace("%", r"\%") + f" >/dev/null 2>&1 {self._mark(cloud)}"

    def _mark(self, cloud: str) -> str:
        return f"# soong guardian {cloud}"

    def _lines(self) -> list[str]:
        listed = subprocess.run(  # noqa: S603
            [shutil.which("crontab") or "crontab", "-l"], capture_output=True, text=True, check=False
        )
        return listed.stdout.splitlines() if listed.returncode == 0 else []

    def _others(self, cloud: str) -> list[str]:
        return [line for line in self._lines() if not line.endswith(self._mark(cloud))]


class Process:
    """A process of its own that outlives the terminal, not a reboot."""

    guard = Guard(kind="process", words="a background process of this computer", survives_reboot=False)

    def is_available(self) -> bool:
        """Always."""
        return True

    def install(self, cloud: str) -> None:
        """Nothing stays on the disk."""

    def fire(self, cloud: str) -> None:
        """Start the process; where one is running already, the new one leaves the work to it and ends."""
        _end_failing(cloud)
        log = paths.made(heartbeat.folder()) / f"{cloud}.log"
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            _STARTED.append(
                subprocess.Popen(  # noqa: S603
                    command(cloud, "--watch"),
                    stdin=subprocess.DEVNULL,
                    stdout=descriptor,
                    stderr=descriptor,
                    cwd="/",
                    start_new_session=True,
                )
            )
        finally:
            os.close(descriptor)

    def remove(self, cloud: str) -> None:
        """It ends by itself when no lease is left."""


def _end_failing(cloud: str) -> None:
    """End a watch whose last round failed: it may hold a key that has been replaced since."""
    beat = heartbeat.last(cloud)
    if beat is not None and beat.problem and beat.pid and heartbeat.is_watching(cloud):
        import signal

        with contextlib.suppress(OSError):
            os.kill(beat.pid, signal.SIGTERM)


def _passed_on() -> list[tuple[str, str]]:
    return [(key, os.environ[key]) for key in PASSED_ON if os.environ.get(key)]


def _systemd_quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise paths.cannot_write(file, error) from error


def _run(words: list[str], *, stdin: str | None = None) -> None:
    try:
        ended = subprocess.run(  # noqa: S603
            tracing.own(words),
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SoongError(f"`{words[0]}` did not run: {error}") from error
    if ended.returncode != 0:
        last = (ended.stderr.strip() or ended.stdout.strip() or f"code {ended.returncode}").splitlines()[-1]
        raise SoongError(f"`{shlex.join(words[:3])}` refused: {last}")


def _answers(words: list[str]) -> bool:
    try:
        _run(words)
    except SoongError:
        return False
    return True


def _runs(names: Iterable[str]) -> bool:
    """Whether a process of one of these names runs, as /proc or ps tell."""
    wanted = set(names)
    proc = Path("/proc")
    if (proc / "self").exists():
        for entry in proc.glob("[0-9]*/comm"):
            try:
                if entry.read_text().strip() in wanted:
                    return True
            except OSError:
                continue
        return False
    return any(_answers(["pgrep", "-x", name]) for name in wanted)
