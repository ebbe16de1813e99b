"""The words of `boot.py`, and all steps one after another."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NoReturn

from .daemons import choose_ports, start_engine, start_gate, supervise, write_whole
from .environment import check_cuda, make_environment
from .fetching import fetch
from .orders import HERE, StepError, read_orders
from .processes import MARK, end_group, end_marked, marked
from .progress import SENTENCES, Progress
from .weights import forget_token, get_weights

LOCK_SECONDS = 3.0


def run() -> int:
    """All steps, once; a second boot.py ends at once."""
    with (HERE / "boot.lock").open("a+b") as lock:
        if not locked(lock):
            sys.stdout.write("boot.py runs already\n")
            return 0
        (HERE / "wanted").touch()
        write_whole(HERE / "boot.pid", json.dumps({"pid": os.getpid()}))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        be_killable()
        end_marked("helper")
        progress = Progress()
        try:
            serve(progress)
        except StepError as error:
            progress.failed(error)
            return 1
        except OSError as error:
            reason = "disk-full" if error.errno in {28, 122} else "other"
            progress.failed(
                StepError(f"{SENTENCES.get(reason, 'the system refused')}: {error}", reason=reason)
            )
            return 1
        except SystemExit:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end_everything()
            progress.line("stopped", message="asked to stop")
            raise


def be_killable() -> None:
    """What a protected warden has started, and the engine after it, is not protected from the want of memory."""
    with contextlib.suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        if int(score.read_text()) < 0:
            score.write_text("0")


def serve(progress: Progress) -> NoReturn:
    """From nothing to an endpoint; then stay."""
    progress.step = "orders"
    orders = read_orders()
    check_cuda(orders, progress)
    environment = make_environment(orders, progress)
    model = get_weights(orders, environment, progress)
    ports = choose_ports(orders)
    engine = start_engine(orders, environment, model, ports, progress)
    progress.start("ready")
    gate = start_gate(ports)
    progress.done("the endpoint answers", engine_port=ports[0], gate_port=ports[1])
    progress.step = "engine"
    supervise(engine, gate)


def locked(lock: IO[bytes]) -> bool:
    """Whether the lock is ours; the warden takes a look at it now and then, so once is not enough."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # noqa: PERF203 - the loop is about the error
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def start() -> int:
    """Run in the background, away from whoever asked."""
    os.chmod(HERE, 0o700)  # noqa: PTH101
    with (HERE / "boot.log").open("ab") as log:
        subprocess.Popen(  # noqa: S603
            [sys.executable, str(HERE / "boot.py"), "run"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=HERE,
            env=marked(),
        )
    return 0


def stop() -> int:
    """End everything, and leave it ended."""
    (HERE / "wanted").unlink(missing_ok=True)
    forget_token()
    end_everything()
    return 0


def end_everything() -> None:
    """End all that was started here; without a /proc to look in, what was written down."""
    if Path("/proc/self/environ").exists():
        end_marked()
        return
    for name in ("boot.pid", "gate.json", "engine.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            pid = int(json.loads((HERE / name).read_bytes())["pid"])
            if pid != os.getpid():
                end_group(pid)


def main(words: list[str]) -> int:
    """Do what the word says."""
    if words == ["start"]:
        return start()
    if words == ["stop"]:
        return stop()
    if words[:1] == ["fetch"] and len(words) == 2:
        return fetch(Path(words[1]))
    if words not in ([], ["run"]):
        sys.stderr.write("usage: boot.py [run] | start | stop\n")
        return 2
    if os.environ.get(MARK) != str(HERE):
        os.execve(sys.executable, [sys.executable, str(HERE / "boot.py"), "run"], marked())  # noqa: S606
    return run()
