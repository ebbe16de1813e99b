"""The engine and the gate before it: started once, found again, watched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NoReturn

from .environment import python_of
from .fetching import stamp_of
from .orders import HERE, StepError
from .processes import (
    POLL_SECONDS,
    ROLE,
    TERM_SECONDS,
    end_group,
    end_marked,
    marked,
    oom_count,
    start_time,
)
from .progress import SENTENCES, last_lines, reason_of

if TYPE_CHECKING:
    from pathlib import Path

    from .orders import Orders
    from .progress import Progress


class Daemon:
    """A process that outlives this program and is found again by its next life.

    Args:
        name: names its log and its record. argv, env: how it is started. port: where it will listen.
    """

    def __init__(self, name: str, argv: list[str], env: dict[str, str], port: int) -> None:
        self.name, self.argv, self.env, self.port = name, argv, env, port
        self.process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.began = ""
        self.oom_before = oom_count()
        self.log = HERE / f"{name}.log"

    @property
    def record(self) -> Path:
        """Where its number is written down."""
        return HERE / f"{self.name}.json"

    @property
    def digest(self) -> str:
        """Tells whether one that runs is the one that is wanted."""
        return hashlib.sha256(json.dumps([self.argv, self.env], sort_keys=True).encode()).hexdigest()

    def ensure(self) -> bool:
        """Have it run; returns whether it ran already.

        One with other orders, or one that was started but not written down any more, is ended first.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(self.record.read_bytes())
            pid, began = int(said["pid"]), str(said["began"])
            if began and start_time(pid) == began:
                if said["digest"] == self.digest:
                    self.pid, self.began = pid, began
                    return True
                end_group(pid)
        end_marked(self.name)
        check_free(self.port, self.name)
        self.start()
        return False

    def start(self) -> None:
        """Start it, with its own group and log; the log before is kept once."""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".before.log"))
        with self.log.open("wb") as out:
            try:
                self.process = subprocess.Popen(  # noqa: S603
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=HERE,
                    env={**marked(**{ROLE: self.name}), **self.env},
                )
            except OSError as error:
                raise StepError(f"{self.argv[0]} cannot be started: {error}", reason="exited") from None
        self.pid, self.began = self.process.pid, start_time(self.process.pid)
        write_whole(self.record, json.dumps({"pid": self.pid, "began": self.began, "digest": self.digest}))

    def is_alive(self) -> bool:
        """Whether it runs."""
        if self.process is not None:
            return self.process.poll() is None
        return bool(self.began) and start_time(self.pid) == self.began

    def end(self) -> None:
        """End it, and its group."""
        if self.pid:
            end_group(self.pid)

    def death(self) -> StepError:
        """Why it ended."""
        code = self.process.returncode if self.process else None
        lines = last_lines(self.log)
        reason = reason_of(lines, code, oom_kills=oom_count() - self.oom_before)
        how = (
            "for an unknown reason"
            if code is None
            else f"by signal {-code}"
            if code < 0
            else f"with exit code {code}"
        )
        meaning = f" ({SENTENCES[reason]})" if reason in SENTENCES else ""
        self.end()
        return StepError(f"the {self.name} ended {how}{meaning}", reason=reason, exit_code=code, log=lines)


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text)
    half.replace(path)


def choose_ports(orders: Orders) -> tuple[int, int]:
    """The ports of engine and gate: the ordered ones, or free ones that stay the same."""
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = dict(json.loads((HERE / "ports.json").read_bytes()))
    ports: dict[str, int] = {}
    for name, wish in (("engine", orders.engine), ("gate", orders.gate)):
        ports[name] = (
            int(wish.get("port") or 0) or int(before.get(name) or 0) or free_port(set(ports.values()))
        )
    write_whole(HERE / "ports.json", json.dumps(ports))
    return ports["engine"], ports["gate"]


def free_port(taken: set[int]) -> int:
    """A port of the loopback that nobody listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def check_free(port: int, name: str) -> None:
    """Raise when somebody else listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StepError(f"the {name}'s port {port} is taken: {error}", reason="port-taken") from None


def engine_of(orders: Orders, environment: Path, model: str, port: int) -> Daemon:
    """The engine, with the words of its command filled in."""
    words = {
        "{python}": python_of(environment),
        "{bin}": str(environment / "bin"),
        "{model}": model,
        "{port}": str(port),
        "{chat_template}": str(HERE / "chat-template.jinja"),
    }
    if template := str(orders.engine.get("chat_template") or ""):
        write_whole(HERE / "chat-template.jinja", template)
    argv = []
    for word in orders.engine.get("argv") or []:
        text = str(word)
        for name, value in words.items():
            text = text.replace(name, value)
        argv.append(text)
    env = {str(name): str(value) for name, value in (orders.engine.get("env") or {}).items()}
    env.setdefault("PATH", f"{environment / 'bin'}:{os.environ.get('PATH', '')}")
    if orders.weights.get("repository"):
        env.setdefault("HF_HUB_OFFLINE", "1")
    return Daemon("engine", argv, env, port)


def start_engine(
    orders: Orders, environment: Path, model: str, ports: tuple[int, int], progress: Progress
) -> Daemon:
    """The engine runs, and answers."""
    progress.start("engine")
    engine = engine_of(orders, environment, model, ports[0])
    if not engine.argv:
        raise StepError("no command for the engine", reason="orders")
    was_there = engine.ensure()
    deadline = time.monotonic() + orders.ready_seconds
    path = str(orders.engine.get("health") or "/health")
    while answer_of(ports[0], path) != 200:
        if not engine.is_alive():
            raise engine.death()
        if time.monotonic() > deadline:
            engine.end()
            raise StepError(
                f"the engine does not answer after {orders.ready_seconds:.0f} s",
                reason="timeout",
                log=last_lines(engine.log),
            )
        progress.running("".join(last_lines(engine.log, 1))[:200])
        time.sleep(POLL_SECONDS)
    progress.done("ran already" if was_there else "answers")
    return engine


def start_gate(ports: tuple[int, int]) -> Daemon:
    """The gate runs, and lets nobody in without the key."""
    key = HERE / "api_key"
    if not key.exists() or not key.read_text().strip():
        raise StepError("there is no key for the endpoint", reason="orders")
    key.chmod(0o600)
    argv = [sys.executable, str(HERE / "gate.py"), str(ports[1]), str(ports[0]), str(key)]
    gate = Daemon("gate", argv, {"SOONG_KEY_STAMP": str(stamp_of(key))}, ports[1])
    gate.ensure()
    deadline = time.monotonic() + TERM_SECONDS
    while answer_of(ports[1], "/") != 401:
        if not gate.is_alive():
            raise gate.death()
        if time.monotonic() > deadline:
            raise StepError("the gate does not answer", reason="timeout", log=last_lines(gate.log))
        time.sleep(POLL_SECONDS)
    return gate


def answer_of(port: int, path: str) -> int:
    """The status that a loopback address answers with, without a key; 0 for none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except Exception:  # noqa: BLE001 - http.client raises more than it says; no answer is no answer
        return 0


def supervise(engine: Daemon, gate: Daemon) -> NoReturn:
    """Stay, until the engine ends. A gate that died is started again."""
    while True:
        if not engine.is_alive():
            raise engine.death()
        if not gate.is_alive():
            with contextlib.suppress(StepError):
                gate.start()
            time.sleep(1.0)
        time.sleep(POLL_SECONDS)
