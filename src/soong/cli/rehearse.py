"""`soong rehearse`: the whole life of a rented machine, in the sandbox, one real command after the other."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from soong import tracing
from soong.cli import output, text
from soong.cli.exit_codes import ExitCode

LIFE = (
    (
        "start --model {model} --hours 2 --cloud sandbox --yes",
        "rent the cheapest machine that holds the model",
    ),
    ("status --cloud sandbox", "what runs, until when, what it costs, who ends it"),
    ("ssh --cloud sandbox -- nvidia-smi", "a command on the machine, its host key pinned"),
    ("extend 1 --cloud sandbox --yes", "an hour more, within the cap"),
    ("stop --cloud sandbox --yes", "the end, proved"),
    ("status --cloud sandbox --history", "nothing runs any more"),
    ("costs --cloud sandbox", "what it would have cost"),
)


@click.command(
    "rehearse", epilog="\b\nExamples:\n  soong rehearse\n  soong rehearse --model qwen2.5-coder-32b-int4\n"
)
@click.option("--model", default="llama-3.1-8b", show_default=True, help="The model to rent for.")
@output.options
def command(*, model: str, out: output.Output) -> int:
    """The whole life of a rented machine in under a minute, on this computer: needs no account and costs nothing.

    Each line is a real command of soong's against a cloud of its own; nothing of it is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="soong-rehearsal-") as home:
        environment = {**os.environ, "SOONG_HOME": home}
        try:
            codes = [_one(line.format(model=model), what, environment, out) for line, what in LIFE]
        finally:
            _quietly(["sandbox", "stop"], environment)
        out.answer(
            data=lambda: [
                {"command": f"soong {line.format(model=model)}", "code": code}
                for (line, _), code in zip(LIFE, codes, strict=True)
            ],
            ids=(),
            human=lambda: (
                "That was a rehearsal: no account was used, and nothing was paid.\n"
                "With a Lambda account: soong configure, then soong start"
            ),
        )
    return next((code for code in codes if code), ExitCode.DONE)


def _one(line: str, what: str, environment: dict[str, str], out: output.Output) -> int:
    out.say(text.style(f"\n# {what}", "dim") + "\n" + text.style(f"$ soong {line}", "bold"))
    silent = out.as_json or out.quiet
    ended = subprocess.run(  # noqa: S603
        tracing.own([sys.executable, "-P", "-m", "soong.cli", *shlex.split(line)]),
        env=environment,
        stdout=subprocess.DEVNULL if silent else sys.stderr,
        stderr=subprocess.DEVNULL if silent else None,
        check=False,
    )
    return ended.returncode


def _quietly(words: list[str], environment: dict[str, str]) -> None:
    _end_guardian(Path(environment["SOONG_HOME"]))
    subprocess.run(  # noqa: S603
        tracing.own([sys.executable, "-P", "-m", "soong.cli", *words]),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _end_guardian(home: Path) -> None:
    """The rehearsal's own guardian has nothing left to guard; without this it would linger for a while."""
    import contextlib
    import signal

    import msgspec

    from soong.lease.guardian.heartbeat import Beat

    with contextlib.suppress(OSError, msgspec.DecodeError):
        beat = msgspec.json.decode((home / "state" / "guardian" / "sandbox.json").read_bytes(), type=Beat)
        if beat.pid:
            os.kill(beat.pid, signal.SIGTERM)
