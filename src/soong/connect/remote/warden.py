"""The warden: knows on the machine itself when the lease ends, whether the engine is idle, and who is logged in.

It has no cloud key and cannot end the billing. It tells (`GET /status`, on the loopback, with its own token), warns
whoever is logged in, stops the engine at the lease's end, and starts `boot.py` again after a reboot. A doubt is never
idleness: without readable metrics `idle_seconds` is null. A doubt is never the end either: a lease file that cannot
be read leaves the last good one in force.

    python3 warden.py run            watch, until killed; a second one ends at once
    python3 warden.py status         print what the running one tells, as JSON
    python3 warden.py lease          read a lease (JSON) from the standard input and put it in force

Its files lie beside it: `lease.json` (id, owner, ends_at, cap_at; a rehearsal's also `clock`), `warden.json` (port
and token, for its user alone), `motd`. What it watches is laid out by `boot.py` in `$HOME/.soong`, or `$SOONG_HOME`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

TICK_SECONDS = 1.0
METRICS_SECONDS = 5.0
GPU_SECONDS = 15.0
SCRAPE_SECONDS = 5.0
"""How long the engine may take over its metrics."""
STALE_SECONDS = 30.0
"""An observation older than this says nothing about now."""
WARNINGS_SECONDS = (900.0, 300.0, 60.0)
"""Before the end, those who are logged in hear of it so often."""
TERM_SECONDS = 20.0
"""Between asking the engine to stop and killing it."""
RESTART_SECONDS = 30.0
RESTARTS = 5
"""How often, and how many times without success, `boot.py` is started again."""
LOG_BYTES = 1_000_000
SMALL_FILE_BYTES = 1_000_000
METRICS_BYTES = 16_000_000
SHORTEST_NAP_SECONDS = 0.02


class Lease(NamedTuple):
    """Times in seconds since 1970, by the cloud's clock."""

    id: str
    owner: str
    ends_at: float
    cap_at: float
    clock: dict[str, Any] | None

    @property
    def end(self) -> float:
        """The end that counts: never past the cap."""
        return min(self.ends_at, self.cap_at)


class Sample(NamedTuple):
    """What an engine's metrics say."""

    engine: str
    running: int
    queued: int
    generated_tokens: int
    prompt_tokens: int

    @property
    def is_busy(self) -> bool:
        """Whether a request is on its way."""
        return self.running > 0 or self.queued > 0


class UnreadableError(Exception):
    """Something that is read did not make sense; the message says what."""


# --- small files ----------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        UnreadableError: no such file, or no object in it.
    """
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(SMALL_FILE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{path.name}: {error}") from None
    if not isinstance(found, dict):
        raise UnreadableError(f"{path.name}: not an object")
    return found


def write_whole(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file at once, so that no reader sees half of it."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    half.replace(path)


# --- lease and clock ------------------------------------------------------------------------------------------------


def number(value: object, name: str) -> float:
    """A time or a speed.

    Raises:
        UnreadableError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e12 < value < 1e12:
        raise UnreadableError(f"{name} is not a number: {value!r:.40}")
    return float(value)


def lease_of(found: dict[str, Any]) -> Lease:
    """The lease in a JSON object.

    Raises:
        UnreadableError: a field is missing or makes no sense.
    """
    clock = found.get("clock")
    if clock is not None and not isinstance(clock, dict):
        raise UnreadableError("clock is not an object")
    lease = Lease(
        id=str(found.get("id", "")),
        owner=str(found.get("owner", "")),
        ends_at=number(found.get("ends_at"), "ends_at"),
        cap_at=number(found.get("cap_at"), "cap_at"),
        clock=clock,
    )
    if not lease.id:
        raise UnreadableError("the lease has no id")
    return lease


def time_by(clock: dict[str, Any] | None) -> tuple[float, float]:
    """Now, and how many of the lease's seconds pass in a real one; without a clock it is this computer's time.

    A rehearsal's lease runs faster than life. Its clock is either `{"start", "real_start", "speed"}` or
    `{"file": ...}`, a file that says `{"anchor", "real", "pace", "running"}` and is rewritten when the speed changes.
    """
    real = time.time()
    if clock is None:
        return real, 1.0
    try:
        if "file" in clock:
            said = read_json(Path(str(clock["file"])))
            start, real_start, speed = (said.get(name) for name in ("anchor", "real", "pace"))
            speed = speed if said.get("running", True) else 0.0
        else:
            start, real_start, speed = (clock.get(name) for name in ("start", "real_start", "speed"))
        pace = max(0.0, number(speed, "speed"))
        return number(start, "start") + max(0.0, real - number(real_start, "real_start")) * pace, pace
    except UnreadableError:
        return real, 1.0


class LeaseKeeper:
    """The lease in force: the file's, or the last one that could be read.

    Args:
        folder: where `lease.json` lies; `.lease-in-force.json` beside it keeps the last good one over a restart.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "lease.json"
        self.kept = folder / ".lease-in-force.json"
        self.trouble = ""
        self.lease: Lease | None = None
        with contextlib.suppress(UnreadableError):
            self.lease = lease_of(read_json(self.kept))

    def look(self) -> None:
        """Take up what the file says now. The cap never grows: it was agreed on at launch."""
        try:
            found = lease_of(read_json(self.file))
        except UnreadableError as error:
            self.trouble = str(error)
            return
        self.trouble = ""
        if self.lease is not None and self.lease.id == found.id:
            found = found._replace(cap_at=min(found.cap_at, self.lease.cap_at))
        if found != self.lease:
            self.lease = found
            with contextlib.suppress(OSError):
                write_whole(self.kept, json.dumps(found._asdict()))

    def now(self) -> tuple[float, float]:
        """Now by the lease's clock, and its speed."""
        return time_by(self.lease.clock if self.lease else None)


# --- the engine's counters ------------------------------------------------------------------------------------------

FAMILIES = {
    "vllm": (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:generation_tokens_total",
        "vllm:prompt_tokens_total",
    ),
    "sglang": (
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:generation_tokens_total",
        "sglang:prompt_tokens_total",
    ),
    "llama.cpp": (
        "llamacpp:requests_processing",
        "llamacpp:requests_deferred",
        "llamacpp:tokens_predicted_total",
        "llamacpp:prompt_tokens_total",
    ),
}
"""Running, queued, generated and prompt tokens. Sources: vLLM 0.33.0 v1/metrics/loggers.py (Prometheus adds `_total`
to a counter's name), SGLang 0.5.23 srt/observability/metrics_collector.py, llama.cpp tools/server/server-task.cpp."""

APPEARING = {"sglang:generation_tokens_total", "sglang:prompt_tokens_total"}
"""SGLang's multiprocess registry shows a counter only after its first token (metrics_collector.py makes the labelled
child with the first request): beside its gauges, a counter that is not there stands at zero."""

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)(?:[ \t]+-?[0-9]+)?[ \t]*")


def sample_of(text: str) -> Sample:
    """Running and queued requests and token counters, summed over ranks and labels.

    Raises:
        UnreadableError: a metric is missing or is no number; so nothing is known.
    """
    sums: dict[str, float] = {}
    wanted = {name for names in FAMILIES.values() for name in names}
    for line in text.splitlines():
        found = SAMPLE.fullmatch(line)
        if found is None or found[1] not in wanted:
            continue
        try:
            value = float(found[2])
        except ValueError:
            raise UnreadableError(f"{found[1]} is not a number") from None
        if not 0 <= value < 1e18:
            raise UnreadableError(f"{found[1]} makes no sense: {found[2]}")
        sums[found[1]] = sums.get(found[1], 0.0) + value
    for engine, names in FAMILIES.items():
        if names[0] in sums:
            return Sample(engine, *(int(summed(sums, name)) for name in names))
    raise UnreadableError("the engine's metrics are missing")


def summed(sums: dict[str, float], name: str) -> float:
    """One metric's sum over all its labels."""
    if name in sums:
        return sums[name]
    if name in APPEARING:
        return 0.0
    raise UnreadableError(f"the engine does not tell {name}")


def scrape(port: int) -> Sample:
    """Ask the engine.

    Raises:
        UnreadableError: no answer, or none that can be read.
    """
    try:
        with opened(f"http://127.0.0.1:{port}/metrics", SCRAPE_SECONDS) as answer:
            return sample_of(answer.read(METRICS_BYTES).decode(errors="replace"))
    except (OSError, ValueError) as error:
        raise UnreadableError(f"the engine's metrics do not answer: {error}") from None
    except Exception as error:  # noqa: BLE001 - http.client raises more than it says, and a doubt is no reason to die
        raise UnreadableError(f"the engine's metrics cannot be read: {error!r}") from None


def opened(url: str, seconds: float, headers: dict[str, str] | None = None) -> Any:
    """A loopback address, whatever proxy the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers or {})  # noqa: S310 - our own http address
    return opener.open(request, timeout=seconds)


class Idleness:
    """Since when the engine has had nothing to do, by the lease's clock. Whatever is not known ends it."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.last: Sample | None = None

    def saw(self, sample: Sample | None, now: float) -> None:
        """Take in an observation. A counter that moved, backwards included (a restarted engine), is activity."""
        if sample is None or sample.is_busy:
            self.since = None
        elif self.since is None or sample != self.last or now < self.since:
            self.since = now
        self.last = sample


# --- who is there ---------------------------------------------------------------------------------------------------

TERMINAL_SESSION = re.compile(r"sshd(?:-session)?: [^ ]+@pts/[0-9]+")
"""The title of the process of a login with a terminal; `user@notty` is a command or a tunnel. From OpenSSH 9.8 on the
process is called sshd-session."""


def ssh_sessions(proc: Path = Path("/proc")) -> int | None:
    """Logins with a terminal; None where it cannot be seen."""
    seen_any = False
    sessions = 0
    for pid in process_ids(proc):
        title = process_file(proc, pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
        seen_any = seen_any or title.startswith("sshd")
        sessions += TERMINAL_SESSION.fullmatch(title) is not None
    return sessions if seen_any else None


def process_ids(proc: Path = Path("/proc")) -> list[int]:
    """Every process that can be seen; none where there is no /proc."""
    try:
        return [int(name) for name in os.listdir(proc) if name.isdigit()]  # noqa: PTH208 - names are enough
    except OSError:
        return []


def process_file(proc: Path, pid: int, name: str) -> bytes:
    """A file of a process; empty when it is gone or not ours."""
    try:
        return (proc / str(pid) / name).read_bytes()
    except OSError:
        return b""


def gpu_utilization() -> tuple[int | None, int | None]:
    """The busiest GPU's use in per cent, and memory used over all GPUs in MiB; None where nothing tells."""
    words = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(  # noqa: S603
            words, capture_output=True, timeout=10, check=True, stdin=subprocess.DEVNULL, text=True
        )
        rows = [[int(word) for word in line.split(",")] for line in ended.stdout.strip().splitlines()]
        return max(row[0] for row in rows), sum(row[1] for row in rows)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None, None


# --- what is served -------------------------------------------------------------------------------------------------


class Serving:
    """What `boot.py` has laid out and started in its folder.

    Args:
        home: `$HOME/.soong`.
    """

    MARK = "SOONG_SERVING"
    """Everything that boot.py starts carries this in its environment, with the folder as its value."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def engine_port(self) -> int:
        """Where the engine listens.

        Raises:
            UnreadableError: nothing has been started.
        """
        return int(number(read_json(self.home / "ports.json").get("engine"), "the engine's port"))

    def last_line(self) -> dict[str, Any] | None:
        """The newest line of the progress that can be read."""
        try:
            with (self.home / "progress.jsonl").open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 64_000))
                lines = file.read().splitlines()
        except OSError:
            return None
        for line in reversed(lines):
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
        return None

    def is_wanted(self) -> bool:
        """Whether boot.py was started and neither told to stop nor has failed for good."""
        last = self.last_line() or {}
        return (self.home / "wanted").exists() and last.get("state") != "failed"

    def is_booting(self) -> bool:
        """Whether boot.py runs: it holds its lock as long as it lives."""
        try:
            with (self.home / "boot.lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def processes(self) -> list[int]:
        """All that boot.py has started, itself included, however far it has detached itself."""
        mark = f"{self.MARK}={self.home}".encode()
        if Path("/proc/self/environ").exists():
            return [
                pid
                for pid in process_ids()
                if pid != os.getpid() and mark in process_file(Path("/proc"), pid, "environ").split(b"\0")
                and not is_zombie(pid)
            ]  # fmt: skip
        return [pid for pid in self.recorded() if is_alive(pid)]

    def recorded(self) -> list[int]:
        """The processes that boot.py has written down: all that can be found where there is no /proc."""
        found = []
        for name in ("boot.pid", "gate.json", "engine.json"):
            with contextlib.suppress(UnreadableError, ValueError):
                found.append(int(number(read_json(self.home / name).get("pid"), name)))
        return found

    def stop(self) -> bool:
        """End everything: asked first, killed later. Returns whether all is gone."""
        deadline = time.monotonic() + TERM_SECONDS
        signalled: set[int] = set()
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                if pid not in signalled:
                    signalled.add(pid)
                    send(pid, signal.SIGTERM)
            time.sleep(0.1)
        for _ in range(50):
            if not (left := self.processes()):
                return True
            for pid in left:
                send(pid, signal.SIGKILL)
            time.sleep(0.1)
        return not self.processes()

    def start(self) -> None:
        """Start boot.py again; it goes on where it was."""
        subprocess.Popen(  # noqa: S603
            [sys.executable, str(self.home / "boot.py"), "start"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.home,
            env={**os.environ, "SOONG_HOME": str(self.home)},
        ).wait()


def send(pid: int, sign: int) -> None:
    """A signal to one process, and to its group when it leads one."""
    with contextlib.suppress(OSError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, sign)
    with contextlib.suppress(OSError):
        os.kill(pid, sign)


def is_alive(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits to be counted."""
    status = process_file(Path("/proc"), pid, "stat").rpartition(b")")[2].split()
    return not status or status[0] in {b"Z", b"X"}


# --- telling people -------------------------------------------------------------------------------------------------


def tell_logged_in(text: str) -> None:
    """A line on every terminal of this machine. On a machine that is a folder, only by that folder's own `wall`."""
    program = shutil.which("wall")
    root = os.environ.get("SOONG_ROOT", "")
    if program is None or (root and not program.startswith(root + "/")):
        return
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(  # noqa: S603
            [program], input=text.encode() + b"\n", timeout=10, check=False, capture_output=True
        )


def duration(seconds: float) -> str:
    """A length of time in words.

    >>> duration(5400)
    '1 h 30 min'
    """
    minutes = max(0, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def notice(lease: Lease | None, *, is_over: bool) -> str:
    """What a person reads at login."""
    if lease is None:
        return "\nThis machine was rented by soong. Its lease cannot be read here: `soong status` tells its end.\n\n"
    end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(lease.end))
    if is_over:
        words = f"Its lease {lease.id} ended at {end}. Nothing is served any more; it may still cost money."
    else:
        words = f"Its lease {lease.id} ends at {end}. Then nothing is served any more, and it is ended."
    return (
        f"\nThis machine was rented by soong. {words}\nShutting it down from here does not end the billing; "
        "`soong stop` on the computer that rented it does.\n\n"
    )


# --- the warden -----------------------------------------------------------------------------------------------------


class Warden:
    """Watches, tells and stops.

    Args:
        folder: its own files. home: what boot.py has laid out.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.keeper = LeaseKeeper(folder)
        self.serving = Serving(home)
        self.idleness = Idleness()
        self.sample: Sample | None = None
        self.why_unknown = "nothing has been looked at yet"
        self.gpu: tuple[int | None, int | None] = (None, None)
        self.sessions: int | None = None
        self.sampled_at = self.gpu_at = -1e9
        self.warned: set[tuple[float, float]] = set()
        self.is_over = False
        self.shown = ""
        self.restarts = 0
        self.restarted_at = -1e9
        self.lock = threading.Lock()

    def tick(self) -> float:
        """One look at everything; returns the real seconds until the next."""
        self.keeper.look()
        now, speed = self.keeper.now()
        lease = self.keeper.lease
        left = lease.end - now if lease else None
        if left is not None and left <= 0:
            self.end()
        else:
            self.is_over = False
            self.go_on()
        if left is not None and left > 0:
            self.warn(left)
        self.show()
        self.observe(speed)
        if left is None or left <= 0 or speed <= 0:
            return TICK_SECONDS
        return max(SHORTEST_NAP_SECONDS, min(TICK_SECONDS, left / speed))

    def end(self) -> None:
        """The lease is over: nothing is served any more."""
        if not self.is_over:
            say(f"the lease is over; stopping {len(self.serving.processes())} processes")
            tell_logged_in("soong: the lease of this machine is over. Its engine is being stopped now.")
            self.is_over = True
        if self.serving.processes():
            gone = self.serving.stop()
            say("everything is stopped" if gone else "something does not stop; trying again")

    def go_on(self) -> None:
        """After a reboot, or when boot.py was killed, start it again: but not for ever."""
        if not self.serving.is_wanted() or self.serving.is_booting():
            return
        last = self.serving.last_line() or {}
        if last.get("step") == "ready" and last.get("state") == "done":
            self.restarts = 0
        if self.restarts >= RESTARTS or time.monotonic() - self.restarted_at < RESTART_SECONDS:
            return
        self.restarts += 1
        self.restarted_at = time.monotonic()
        say(f"boot.py does not run; starting it again ({self.restarts} of {RESTARTS})")
        with contextlib.suppress(OSError):
            self.serving.start()

    def warn(self, left: float) -> None:
        """Tell those who are logged in, once for each step and end."""
        lease = self.keeper.lease
        due = [step for step in WARNINGS_SECONDS if left <= step]
        if lease is None or not due or (lease.end, min(due)) in self.warned:
            return
        self.warned |= {(lease.end, step) for step in due}
        tell_logged_in(
            f"soong: the lease of this machine ends in {duration(left)}. Then its engine stops and it is ended. "
            "`soong extend` on the computer that rented it gives it more time."
        )

    def show(self) -> None:
        """Keep the words at login up to date."""
        text = notice(self.keeper.lease, is_over=self.is_over)
        if text != self.shown:
            with contextlib.suppress(OSError):
                write_whole(self.folder / "motd", text)
                self.shown = text

    def observe(self, speed: float) -> None:
        """Look at the engine, the GPU and the logins, when it is time."""
        real = time.monotonic()
        pause = METRICS_SECONDS if speed <= 1 else TICK_SECONDS / 2
        if real - self.sampled_at < pause:
            return
        sample, why = None, ""
        try:
            sample = scrape(self.serving.engine_port())
        except UnreadableError as error:
            why = str(error)
        gpu_due = real - self.gpu_at >= GPU_SECONDS
        gpu = gpu_utilization() if gpu_due else self.gpu
        sessions = ssh_sessions()
        now, _ = self.keeper.now()
        with self.lock:
            self.idleness.saw(sample, now)
            self.sample, self.why_unknown = sample, why
            self.gpu, self.sessions = gpu, sessions
            self.gpu_at = real if gpu_due else self.gpu_at
            self.sampled_at = time.monotonic()

    def status(self) -> dict[str, Any]:
        """All that is known now."""
        now, _ = self.keeper.now()
        lease = self.keeper.lease
        with self.lock:
            is_fresh = time.monotonic() - self.sampled_at <= STALE_SECONDS
            sample = self.sample if is_fresh else None
            since = self.idleness.since if is_fresh else None
            idle = None if sample is None else max(0.0, now - since) if since is not None else 0.0
            unknown = self.why_unknown if is_fresh else "the last look is too old"
            return {
                "version": 1,
                "now": now,
                "phase": self.phase(sample),
                "lease": None if lease is None else told(lease, now),
                "lease_trouble": self.keeper.trouble,
                "engine": engine_told(sample),
                "idle_seconds": idle,
                "idle_unknown_because": unknown if idle is None else "",
                "ssh_sessions": self.sessions,
                "gpu_utilization_percent": self.gpu[0],
                "gpu_memory_used_mib": self.gpu[1],
                "boot": self.serving.last_line(),
            }

    def phase(self, sample: Sample | None) -> str:
        """One word for what goes on here: waiting, booting, serving, failed, stopped, ended."""
        last = self.serving.last_line() or {}
        if self.is_over:
            return "ended"
        if last.get("state") == "failed":
            return "failed"
        if sample is not None or (last.get("step"), last.get("state")) == ("ready", "done"):
            return "serving"
        if not (self.serving.home / "wanted").exists():
            return "stopped" if last else "waiting"
        return "booting"


def told(lease: Lease, now: float) -> dict[str, Any]:
    """A lease as the status shows it."""
    return {
        "id": lease.id,
        "owner": lease.owner,
        "ends_at": lease.end,
        "cap_at": lease.cap_at,
        "remaining_seconds": lease.end - now,
    }


def engine_told(sample: Sample | None) -> dict[str, Any]:
    """The engine's counters as the status shows them; null for each that is not known."""
    if sample is None:
        return dict.fromkeys(Sample._fields)
    return sample._asdict()


# --- answering on the loopback --------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """`GET /status`, for whoever has the token."""

    server: Server
    server_version = "soong-warden"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        """Answer."""
        given = self.headers.get("Authorization") or ""
        wanted = f"Bearer {self.server.token}"
        if not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
            self.reply(401, {"error": "the token is missing or wrong"})
        elif self.path != "/status":
            self.reply(404, {"error": "there is only /status"})
        else:
            self.reply(200, self.server.warden.status())

    def reply(self, code: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


class Server(ThreadingHTTPServer):
    """Listens on a free port of the loopback."""

    daemon_threads = True

    def __init__(self, warden: Warden) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.warden = warden
        self.token = secrets.token_urlsafe(32)

    def handle_error(self, *_: Any) -> None:
        """A client that leaves early is nobody's trouble."""


# --- the three commands ---------------------------------------------------------------------------------------------


def run(folder: Path, home: Path) -> int:
    """Watch until killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "warden.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another warden runs already")
            return 0
        warden = Warden(folder, home)
        server = Server(warden)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        about = {"port": server.server_address[1], "token": server.token, "pid": os.getpid()}
        write_whole(folder / "warden.json", json.dumps(about), mode=0o600)
        say(f"watching on 127.0.0.1:{about['port']}")
        while True:
            try:
                nap = warden.tick()
            except Exception as error:  # noqa: BLE001 - whatever happens, the next look may succeed
                say(f"a look failed: {error!r}")
                nap = TICK_SECONDS
            time.sleep(nap)


def status(folder: Path) -> int:
    """Print what the running warden tells; 1 when there is none."""
    try:
        about = read_json(folder / "warden.json")
        url = f"http://127.0.0.1:{int(number(about.get('port'), 'port'))}/status"
        with opened(url, 10.0, {"Authorization": f"Bearer {about.get('token')}"}) as answer:
            sys.stdout.write(answer.read(SMALL_FILE_BYTES).decode() + "\n")
    except (UnreadableError, OSError, ValueError) as error:
        sys.stdout.write(json.dumps({"error": f"no warden answers: {error}"}) + "\n")
        return 1
    return 0


def put_lease(folder: Path, text: str) -> int:
    """Put a lease in force, if it makes sense; 2 when it does not."""
    try:
        lease = next_lease(json.loads(text), LeaseKeeper(folder).lease)
        write_whole(folder / "lease.json", json.dumps(lease._asdict()))
    except (UnreadableError, ValueError, OSError) as error:
        sys.stdout.write(json.dumps({"error": f"the lease was not taken: {error}"}) + "\n")
        return 2
    sys.stdout.write(json.dumps(lease._asdict()) + "\n")
    return 0


def next_lease(found: object, before: Lease | None) -> Lease:
    """The lease that follows the one in force; a clock that is not named stays.

    Raises:
        UnreadableError: it makes no sense, or is another machine's.
    """
    lease = lease_of(found if isinstance(found, dict) else {})
    if before is None:
        return lease
    if before.id != lease.id:
        raise UnreadableError(f"this machine has the lease {before.id}, not {lease.id}")
    return lease._replace(clock=lease.clock or before.clock, cap_at=min(lease.cap_at, before.cap_at))


def say(text: str) -> None:
    """A line for the log, with the time."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.seekable() and sys.stderr.tell() > LOG_BYTES:
            sys.stderr.truncate(0)
        sys.stderr.write(f"{stamp} {text}\n")
        sys.stderr.flush()


def main(words: list[str]) -> int:
    """Do what the word says."""
    folder = Path(__file__).resolve().parent
    home = Path(os.environ.get("SOONG_HOME") or Path.home() / ".soong").resolve()
    if words == ["run"]:
        return run(folder, home)
    if words == ["status"]:
        return status(folder)
    if words == ["lease"]:
        return put_lease(folder, sys.stdin.read(SMALL_FILE_BYTES))
    sys.stderr.write("usage: warden.py run | status | lease\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
