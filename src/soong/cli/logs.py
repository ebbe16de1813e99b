"""`soong logs`: what the machine does to serve the model, and what the engine says."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output
from soong.cli.exit_codes import ExitCode
from soong.errors import SoongError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.serve.machine import Machine

MOST_LINES = 100_000


@click.command(
    "logs",
    epilog="\b\nExamples:\n  soong logs --follow\n  soong logs --since 10m\n  soong logs --lines 500\n",
)
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C; connects again when the line breaks.")
@click.option("--since", help="Only what is younger: 10m, 2h.")
@click.option(
    "--lines",
    "count",
    type=click.IntRange(1, MOST_LINES),
    default=100,
    show_default=True,
    help="Of the engine's log.",
)
@click.option("--cloud", help="lambda, sandbox, or local.")
@output.options
def command(
    name: str | None, *, follow: bool, since: str | None, count: int, cloud: str | None, out: output.Output
) -> int:
    """Show how serving got on, step by step, and the end of the engine's log."""
    from soong.cli import account as accounts
    from soong.cli.serving import machine_of

    after = time.time() - units.parse_hours(since, what="`--since`") * 3600 if since is not None else 0.0
    if follow and out.as_json:
        raise UsageError("a log that is followed has no JSON form", hints=("soong logs --json",))
    with accounts.opened(cloud, out) as account:
        machine = machine_of(account, accounts.the_rental(account, name))
        steps, sizes = _steps(machine, after)
        engine = _engine(machine, count, after)
    out.answer(
        data=lambda: {"steps": steps, "engine": engine},
        ids=[],
        human=lambda: (
            "\n".join([*(str(step["words"]) for step in steps), *engine]) or "nothing was logged yet"
        ),
    )
    if follow:
        for line in _followed(machine, sizes):
            click.echo(line)
    return ExitCode.DONE


def _steps(machine: Machine, after: float) -> tuple[list[dict[str, object]], tuple[int, int]]:
    """The lines of the progress, and how long both files are now."""
    from soong.serve import serving

    told = machine.run(["sh", "-c", f"cat {serving.PROGRESS} 2>/dev/null"]).out
    size = machine.run(["sh", "-c", f"wc -c < {serving.ENGINE_LOG} 2>/dev/null || echo 0"]).out.split()
    steps = [
        {
            "step": line.step,
            "state": line.state,
            "at": line.at,
            "words": f"[{_clock(line.at)}] {_words(line)}",
        }
        for text in told.splitlines()
        if (line := serving.line_of(text.encode())) is not None and line.at >= after
        if line.state != "running"
    ]
    return steps, (len(told.encode()), int(size[-1]) if size else 0)


def _words(line: object) -> str:
    from soong.serve.serving import Line, words_of

    assert isinstance(line, Line)  # noqa: S101 - narrows for the type checker
    return words_of(line) + (f": {line.state}" if line.state in {"failed", "stopped"} else "")


def _engine(machine: Machine, count: int, after: float) -> list[str]:
    from soong.serve.logs import younger
    from soong.serve.serving import ENGINE_LOG

    text = machine.run(["sh", "-c", f"tail -n {count} {ENGINE_LOG} 2>/dev/null"]).out
    return list(younger(text.splitlines(), after))


def _followed(machine: Machine, sizes: tuple[int, int]) -> Iterator[str]:
    """New lines of both files as they come.

    Raises:
        SoongError: the machine cannot be followed any more.
    """
    said: queue.Queue[str | SoongError] = queue.Queue()

    def listen(lines: Iterator[str]) -> None:
        try:
            for line in lines:
                said.put(line)
        except SoongError as error:
            said.put(error)

    for lines in (_new_steps(machine, sizes[0]), _new_engine_lines(machine, sizes[1])):
        threading.Thread(target=listen, args=(lines,), daemon=True).start()
    while True:
        found = said.get()
        if isinstance(found, SoongError):
            raise found
        yield found


def _new_steps(machine: Machine, offset: int) -> Iterator[str]:
    from soong.serve import serving

    for line in serving.lines(machine.follow(serving.PROGRESS, offset=offset)):
        if line is not None:
            yield f"[{_clock(line.at)}] {_words(line)}"


def _new_engine_lines(machine: Machine, offset: int) -> Iterator[str]:
    from soong.serve.serving import ENGINE_LOG

    rest = b""
    for piece in machine.follow(ENGINE_LOG, offset=offset):
        *whole, rest = (rest + piece).split(b"\n")
        for text in whole:
            yield text.decode(errors="replace")


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
