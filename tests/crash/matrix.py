"""Kill soong at every step, under every fault, and look at what is left: the promise that the meter stops.

One sandbox and one ledger stay for a whole round of runs, as they would on a person's computer. After each run the
clock jumps past the lease's end, and somebody who should end the machine gets the chance: the next soong command, a
reaper elsewhere that knows nothing but the tags, or the guardian alone.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from soong.clouds.sandbox import process
from soong.clouds.sandbox.provider import SandboxProvider
from soong.errors import SoongError
from soong.launch import reaping
from soong.lease.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SPEED = 1500.0
STARTS = 5
HOURS = 4
Ender = Literal["command", "reaper", "guardian"]
ENDERS: tuple[Ender, ...] = ("command", "reaper", "guardian")
COMMANDS = {
    "start": ["start", "--model", "llama-3.1-8b", "--hours", str(HOURS), "--cloud", "sandbox", "--yes"],
    "replicas": [
        "start",
        "--model",
        "llama-3.1-8b",
        "--hours",
        str(HOURS),
        "--cloud",
        "sandbox",
        "--yes",
        "--replicas",
        "2",
    ],
    "extend": ["extend", "2", "--cloud", "sandbox", "--yes"],
    "stop": ["stop", "--cloud", "sandbox", "--yes"],
}
BEGINNINGS = {"start": 1, "replicas": 2}
"""Commands that rent, and how many machines; the others need a machine that runs."""
FAULTS: tuple[dict[str, Any], ...] = (
    {},
    {"name": "lost-answer"},
    {"name": "lost-request"},
    {"name": "provider-error-launched"},
    {"name": "server-error"},
    {"name": "rate-limited", "seconds": 2},
    {"name": "no-capacity"},
    {"name": "vanishing", "count": 2},
    {"name": "terminate-unavailable", "count": 2},
    {"name": "terminate-ignored"},
    {"name": "late-tags", "seconds": 300},
    {"name": "cuda-802"},
    {"name": "unhealthy"},
    {"name": "slow-terminate", "seconds": 120},
)


def words_of(command: str, name: str) -> list[str]:
    """The command on a machine of that name: what an earlier run left behind must not be in its way."""
    return [*COMMANDS[command], *(["--name", name] if command in BEGINNINGS else [name])]


class Run(NamedTuple):
    """One run. killed_at: the step's name, empty where it ran to its end. problems: broken promises, empty if none."""

    command: str
    fault: str
    ender: Ender
    killed_at: str
    steps: int
    problems: tuple[str, ...]


class Bench:
    """A home for soong with a sandbox in it.

    Args:
        home: an empty folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.numbers = itertools.count()
        kept = ("PATH", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
        self.environment = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "HOME": str(home),
            "SOONG_HOME": str(home),
        }
        self.folder = home / "state" / "sandbox"
        os.environ["SOONG_HOME"] = str(home)
        self.running = process.start(self.folder, speed=SPEED)
        self.running.ask("POST", "settings", {"rate_limit": False})

    def close(self) -> None:
        self._end_guardian()
        process.stop(self.folder)

    def soong(self, words: list[str], *, kill_at: int = 0) -> list[str]:
        """Run a command, killed at a step; returns the names of the steps it came to."""
        file = self.home / "steps"
        line = [sys.executable, "-m", "tests.crash.child", str(kill_at), str(file), *words]
        subprocess.run(line, cwd=ROOT, env=self.environment, capture_output=True, timeout=120, check=False)
        return file.read_text().splitlines()

    def run(self, command: str, fault: dict[str, Any], kill_at: int, ender: Ender) -> Run:
        """One run: the command killed, the clock moved past the end, the ender's chance, the verdict."""
        before = {line["id"] for line in self._bill()}
        name = f"run-{next(self.numbers)}"
        if command not in BEGINNINGS:
            self._started(name)
        if fault:
            self.running.ask("POST", "faults", {"count": 1, **fault})
        steps = self.soong(words_of(command, name), kill_at=kill_at)
        self.running.ask("DELETE", "faults")
        killed = steps[min(kill_at, len(steps)) - 1] if kill_at > 0 else ""
        problems = [*self._doubled(before), *self._ended(ender, before), *self._unrecorded(before)]
        return Run(command, fault.get("name", "none"), ender, killed, len(steps), tuple(problems))

    def steps_of(self, command: str) -> list[str]:
        """The steps of a command that nothing disturbs; what it launched is ended again."""
        name = f"run-{next(self.numbers)}"
        if command not in BEGINNINGS:
            self._started(name)
        steps = self._started(name, command) if command in BEGINNINGS else self.soong(words_of(command, name))
        self.soong(["stop", "--all", "--cloud", "sandbox", "--yes"])
        return steps

    def _started(self, name: str, command: str = "start") -> list[str]:
        """A start that ran to its end; again, where a busy computer let the fast clock pass the machine's limits."""
        steps: list[str] = []
        tries = 0
        while steps.count("after ledger: ready") < BEGINNINGS[command] and tries < STARTS:
            steps = self.soong(words_of(command, name))
            tries += 1
        return steps

    def _ended(self, ender: Ender, before: set[str]) -> Iterator[str]:
        """What still runs after its end, though somebody had the chance to end it."""
        if ender == "guardian" and not self._guardian_lives():
            ender = "command"
        if ender != "guardian":
            self._end_guardian()
        self.running.ask("POST", "clock", {"skip_seconds": (HOURS + 2) * 3600 + 60})
        over_at = time.time()
        if ender == "command":
            self.soong(["reap", "--cloud", "sandbox"])
        elif ender == "reaper":
            self._reap_elsewhere()
        deadline = time.monotonic() + 30
        while self._alive(before) and time.monotonic() < deadline:
            if ender == "command":
                self.soong(["reap", "--cloud", "sandbox"])
            elif ender == "reaper":
                self._reap_elsewhere()
            time.sleep(0.05)
        for line in self._alive(before):
            yield f"{line['id']} still runs {time.time() - over_at:.0f} s after its end ({ender})"

    def _doubled(self, before: set[str]) -> Iterator[str]:
        """Two machines of one launch, or more machines than the start could have meant: each has an id of its own."""
        seen: dict[str, str] = {}
        for line in self._bill():
            if line["id"] in before:
                continue
            lease = str(line["name"]).split("-u")[0]
            if lease in seen:
                yield f"{lease} was launched twice: {seen[lease]} and {line['id']}"
            seen[lease] = line["id"]

    def _unrecorded(self, before: set[str]) -> Iterator[str]:
        """Machines that the ledger does not know."""
        with Ledger(self.home / "state" / "ledger.sqlite") as ledger:
            known = {rental.id for rental in ledger.rentals(refused=True)}
        for line in self._bill():
            lease_id = str(line["name"]).removeprefix("soong-").split("-u")[0]
            if line["id"] not in before and lease_id not in known:
                yield f"{line['id']} ({line['name']}) is in no record"

    def _reap_elsewhere(self) -> None:
        """What a reaper on another computer does: it has the key and the owner's word, and nothing else."""
        provider = SandboxProvider(self.running)
        owner = (self.home / "state" / "owner").read_text().strip()
        try:
            reaping.reap(provider, owner=owner, patience_seconds=300)
        except SoongError as error:
            sys.stderr.write(f"{error}\n")

    def _bill(self) -> list[dict[str, Any]]:
        return list(self.running.ask("GET", "bill")["machines"])

    def _alive(self, before: set[str]) -> list[dict[str, Any]]:
        return [line for line in self._bill() if line["id"] not in before and line["billed_until"] is None]

    def _guardian_pid(self) -> int | None:
        from soong.lease.guardian import heartbeat

        beat = heartbeat.last("sandbox")
        return beat.pid if beat is not None and heartbeat.is_watching("sandbox") else None

    def _guardian_lives(self) -> bool:
        return self._guardian_pid() is not None

    def _end_guardian(self) -> None:
        pid = self._guardian_pid()
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return


def telling_steps(steps: list[str]) -> list[int]:
    """The numbers of the steps worth being killed at: the first and the last of each name, from 1."""
    first = {name: steps.index(name) for name in steps}
    last = {name: number for number, name in enumerate(steps)}
    return sorted({number + 1 for number in (*first.values(), *last.values())})


def whole(bench: Bench, *, every: int = 1) -> Iterator[Run]:
    """Every command, killed at every telling step, under every fault; each run with the next ender in turn.

    Args:
        every: take only every so-many-th run.
    """
    number = 0
    for command in COMMANDS:
        steps = bench.steps_of(command)
        for fault in FAULTS:
            for kill_at in telling_steps(steps):
                number += 1
                if number % every == 0:
                    yield bench.run(command, fault, kill_at, ENDERS[number // every % len(ENDERS)])
