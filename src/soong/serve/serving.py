"""From orders to an endpoint: send, start, follow what the machine tells, until the engine answers or gives up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from soong import units
from soong.errors import RemoteError, TimedOutError
from soong.serve.machine import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from soong.lease.clock import Clock
    from soong.serve.machine import Machine
    from soong.serve.orders import Orders
    from soong.settings.secrets import Secret

PROGRESS = f"{FOLDER}/progress.jsonl"
ENGINE_LOG = f"{FOLDER}/engine.log"
START_SECONDS = 60.0
LOG_LINES = 400
"""Of the engine's log, when it failed: an out-of-memory error tells its figures within the last screens."""

WORDS = {
    "cuda": "the GPU computes",
    "environment": "the engine's environment",
    "weights": "the model's weights",
    "engine": "the engine",
    "gate": "the gate",
    "ready": "the endpoint",
}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model answers on the machine, behind its gate. port: of the machine's loopback. model: its name."""

    port: int
    model: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the machine's progress. at: the machine's clock; seconds: since the step began.

    state: started, running, done, failed, stopped. reason: of a failure, one word. log: the last words
        of the program that failed.
    """

    step: str
    state: str
    at: float = 0.0
    seconds: float = 0.0
    bytes_done: int | None = None
    bytes_total: int | None = None
    message: str = ""
    reason: str = ""
    exit_code: int | None = None
    log: tuple[str, ...] = ()
    gate_port: int = 0
    engine_port: int = 0

    @property
    def bytes_per_second(self) -> float | None:
        """How fast it came so far; None while that says nothing."""
        if not self.bytes_done or self.seconds < 1:
            return None
        return self.bytes_done / self.seconds


class ServingFailedError(RemoteError):
    """The machine is up, and what it should serve is not.

    Args:
        line: the machine's own words about it. engine_log: the end of the engine's log, as it is.
    """

    code = "serving-failed"

    def __init__(
        self, message: str, *, line: Line, why: str = "", hints: tuple[str, ...] = (), engine_log: str = ""
    ) -> None:
        super().__init__(message, why=why, hints=hints)
        self.line = line
        self.engine_log = engine_log


def send(
    machine: Machine,
    orders: Orders,
    programs: Mapping[str, bytes],
    *,
    api_key: Secret,
    hf_token: Secret | None = None,
    weights_file: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Put everything on the machine that serving needs there; secrets in files of their own.

    Args:
        programs: by file name. api_key: of the endpoint. hf_token: of the Hub, only where the weights need one.
        weights_file: a local file to send to where the orders expect it.

    Raises:
        RemoteError: the machine cannot be reached, or has no room.
    """
    for name, content in programs.items():
        machine.put(content, f"{FOLDER}/{name}", mode=0o700)
    machine.put(api_key.reveal().encode() + b"\n", f"{FOLDER}/api_key")
    if hf_token is not None:
        machine.put(hf_token.reveal().encode() + b"\n", f"{FOLDER}/hf_token")
    if weights_file is not None:

        def told(done: int, total: int) -> None:
            tell(f"sending {weights_file.name}: {units.format_gib(done)} of {units.format_gib(total)}")

        machine.put(weights_file, orders.weights.file, tell=told)
    machine.put(msgspec.json.encode(orders), f"{FOLDER}/serve.json")


def begin(machine: Machine) -> int:
    """Start the machine's own program, or leave the one that runs; returns where its new lines of progress begin.

    Raises:
        RemoteError: it does not start.
    """
    offset = progress_size(machine)
    ran = machine.run(["python3", f"{FOLDER}/boot.py", "start"], seconds=START_SECONDS)
    if ran.code:
        raise RemoteError(
            "the boot program did not start on the machine",
            why=ran.err.strip()[-300:] or f"it ended with {ran.code}",
            hints=("soong logs", "soong ssh -- python3 --version"),
        )
    return offset


def end(machine: Machine) -> None:
    """Stop serving, and leave the machine running."""
    machine.run(["python3", f"{FOLDER}/boot.py", "stop"], seconds=START_SECONDS)


def progress_size(machine: Machine) -> int:
    """Bytes of progress so far."""
    ran = machine.run(["sh", "-c", f"wc -c < {PROGRESS} 2>/dev/null || echo 0"])
    words = ran.out.split()
    return int(words[-1]) if words and words[-1].isdecimal() else 0


def wait(
    machine: Machine,
    orders: Orders,
    clock: Clock,
    *,
    offset: int = 0,
    tell: Callable[[str], None] = lambda _: None,
    update: Callable[[str], None] = lambda _: None,
) -> Endpoint:
    """Follow the machine until the endpoint answers.

    Args:
        clock: of the machine's own work: downloads take real time, in a rehearsal too.
        offset: where the lines of this start begin. tell: hears each step. update: hears how a step goes on.

    Raises:
        ServingFailedError: the machine gave up. TimedOutError: not ready within what the weights' size allows.
        RemoteError: the machine cannot be reached any more.
    """
    deadline = clock.now() + orders.limit_seconds
    last = Line(step="cuda", state="started")
    for line in lines(machine.follow(PROGRESS, offset=offset)):
        if line is not None:
            last = line
            if line.step == "ready" and line.state == "done":
                tell("the endpoint answers")
                return Endpoint(port=line.gate_port, model=orders.served_name)
            if line.state in {"failed", "stopped"}:
                raise failure(machine, line)
            (update if line.state == "running" else tell)(words_of(line))
        if clock.now() > deadline:
            raise _too_late(last, orders.limit_seconds)
    raise RemoteError("the machine's progress cannot be followed any more", hints=("soong logs --follow",))


def lines(pieces: Iterator[bytes]) -> Iterator[Line | None]:
    """The lines in what is appended to the progress; None for each quiet moment. What is no line is passed over."""
    rest = b""
    for piece in pieces:
        if not piece:
            yield None
            continue
        *whole, rest = (rest + piece).split(b"\n")
        for text in whole:
            line = line_of(text)
            if line is not None:
                yield line


def line_of(text: bytes) -> Line | None:
    """One line of progress; None where it is none."""
    try:
        raw: Any = json.loads(text)
        return msgspec.convert({key: value for key, value in raw.items() if value is not None}, Line)
    except (ValueError, AttributeError, msgspec.ValidationError):
        return None


def words_of(line: Line) -> str:
    """A line of progress for a person.

    >>> words_of(Line(step="weights", state="running", seconds=10, bytes_done=2**30, bytes_total=2**34))
    "the model's weights: 1.0 of 16.0 GiB, 102 MiB/s, 2 min 30 s left"
    """
    what = WORDS.get(line.step, line.step)
    if line.state == "done":
        return f"{what}: {line.message or 'done'} ({_span(line.seconds)})"
    if line.bytes_done is not None and line.bytes_total:
        parts = [f"{what}: {line.bytes_done / units.GIB:,.1f} of {units.format_gib(line.bytes_total)}"]
        rate = line.bytes_per_second
        if rate:
            parts.append(f"{rate / 2**20:,.0f} MiB/s")
            parts.append(f"{_span(max(0.0, line.bytes_total - line.bytes_done) / rate)} left")
        return ", ".join(parts)
    return f"{what}: {line.message}" if line.message else what


def failure(machine: Machine, line: Line) -> ServingFailedError:
    """The error for a step that failed, with the end of the engine's log where the engine is to blame."""
    what = WORDS.get(line.step, line.step)
    log = ""
    if line.step in {"engine", "ready"}:
        try:
            log = machine.run(["tail", "-n", str(LOG_LINES), ENGINE_LOG]).out
        except RemoteError:
            log = "\n".join(line.log)
    return ServingFailedError(
        f"{what}: {'was stopped' if line.state == 'stopped' else 'failed'}",
        why=line.message or line.reason,
        line=line,
        engine_log=log or "\n".join(line.log),
        hints=("soong logs", "soong stop"),
    )


def _too_late(last: Line, limit_seconds: float) -> TimedOutError:
    return TimedOutError(
        f"the endpoint does not answer after {_span(limit_seconds)}",
        why=f"the last that was heard: {words_of(last)}",
        hints=("soong logs --follow", "soong stop"),
    )


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
