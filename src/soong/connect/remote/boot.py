"""From a machine that computes to an engine that answers: cuda, environment, weights, engine, ready.

Each step can be repeated: what is there is found again and not made again. So after a reboot, a kill or a broken
download the same command goes on where it was. What happens is told line by line in `progress.jsonl` beside this
file; afterwards this program stays, as the parent of the engine and the gate, and tells when the engine ends.

    python3 boot.py [run]     do it, and stay
    python3 boot.py start     the same, in the background; does nothing when it runs already
    python3 boot.py stop      end engine, gate and boot.py, and do not start them again

Orders are read from `serve.json`, the endpoint's key from `api_key`, the Hub's token, if there is one, from
`hf_token`, which is deleted when the weights are here. All of it lies in one folder, `$HOME/.soong`.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
MARK = "SOONG_SERVING"
"""Everything started here carries this in its environment, so that it can be found however far it detaches."""
ROLE = "SOONG_ROLE"
"""Carried too: `engine`, `gate`, or `helper` for what must not outlive this program: installers and downloads."""

LOG_LINES = 50
LINE_SECONDS = 2.0
POLL_SECONDS = 0.2
TERM_SECONDS = 15.0
LOCK_SECONDS = 3.0

CUDA_SECONDS = 120.0
TOOL_SECONDS = 300.0
ENVIRONMENT_SECONDS = 2400.0
"""An engine's packages are about 10 GB; this is a line of 35 Mbit/s."""
ENGINE_SECONDS = 1800.0
WEIGHTS_BASE_SECONDS = 600.0
SLOWEST_BYTES_PER_SECOND = 25e6
"""The slowest download that is waited for: 200 Mbit/s. Below that the rent costs more than another machine."""
HASH_BYTES_PER_SECOND = 100e6
"""Slower than any disk and processor that is for rent hashes."""
STALL_SECONDS = 240.0
RETRY_SECONDS = (5.0, 15.0, 30.0, 60.0)
HEARTBEAT_SECONDS = 10.0
STALE_LOCK_SECONDS = 120.0
PIECE_BYTES = 1 << 22

PATTERNS = (
    ("disk-full", r"No space left on device|Errno 28\b|not enough (free )?disk space|Disk quota exceeded"),
    (
        "no-access",
        r"GatedRepoError|Cannot access gated repo|40[13] Client Error|Invalid username or password"
        r"|Access to model .* is restricted|Invalid user token",
    ),
    (
        "not-found",
        r"RepositoryNotFoundError|RevisionNotFoundError|No matching distribution|No solution found",
    ),
    ("wrong-python", r"requires a different Python|Requires-Python|requires Python|does not satisfy Python"),
    (
        "no-network",
        r"Temporary failure in name resolution|Name or service not known|Network is unreachable|dns error"
        r"|Connection refused|ConnectionError|ConnectTimeout|Failed to establish a new connection|Connection reset"
        r"|ReadTimeout|timed out|Could not connect|LocalEntryNotFoundError|Failed to fetch|IncompleteRead",
    ),
    ("port-taken", r"Address already in use|address already in use"),
)
"""What the words of pip, uv, huggingface_hub and engines mean; the first that is found counts."""

SENTENCES = {
    "disk-full": "the disk is full",
    "no-network": "the network does not answer",
    "no-access": "the Hub refuses access: the token is missing, wrong, or lacks the model's consent",
    "not-found": "what was asked for is not there",
    "wrong-python": "this machine's Python does not suit the packages",
    "port-taken": "the port is taken",
    "killed-oom": "the system ran out of memory and killed it",
}
RETRIED = {"no-network", "timeout"}


class StepError(Exception):
    """A step that failed, and why."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "other",
        exit_code: int | None = None,
        log: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code
        self.log = log or []


class Orders(NamedTuple):
    """What `serve.json` asks for; see docs/machine.md."""

    engine: dict[str, Any]
    gate: dict[str, Any]
    environment: dict[str, Any]
    weights: dict[str, Any]
    gpus: int
    ready_seconds: float
    filesystem: str


def read_orders() -> Orders:
    """The orders in force.

    Raises:
        StepError: they cannot be read.
    """
    try:
        said = json.loads((HERE / "serve.json").read_bytes())
        return Orders(
            engine=dict(said["engine"]),
            gate=dict(said.get("gate") or {}),
            environment=dict(said.get("environment") or {}),
            weights=dict(said.get("weights") or {}),
            gpus=int(said.get("gpus") or 0),
            ready_seconds=float(said.get("ready_seconds") or ENGINE_SECONDS),
            filesystem=mounted(str(said.get("filesystem") or "")),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StepError(f"serve.json cannot be read: {error!r}", reason="orders") from None


def mounted(path: str) -> str:
    """Where a filesystem is; empty where it is not mounted, so that nothing takes the system's own disk for it.

    `{root}` stands for the machine's root, which is a folder in a rehearsal; a path without it is made when missing.
    """
    found = path.replace("{root}", os.environ.get("SOONG_ROOT", ""))
    return found if found == path or Path(found).is_dir() else ""


# --- telling --------------------------------------------------------------------------------------------------------


class Progress:
    """Lines of `progress.jsonl`, for one step after another."""

    def __init__(self) -> None:
        self.step = ""
        self.began = 0.0
        self.told_at = 0.0
        self.told_bytes = -1

    def start(self, step: str, message: str = "") -> None:
        """A step begins."""
        self.step, self.began, self.told_bytes = step, time.monotonic(), -1
        self.line("started", message=message)

    def running(self, message: str = "", *, done: int | None = None, total: int | None = None) -> None:
        """A step goes on; told every two seconds at most."""
        real = time.monotonic()
        if real - self.told_at >= LINE_SECONDS and (done is None or done != self.told_bytes):
            self.told_bytes = -1 if done is None else done
            self.line("running", message=message, bytes_done=done, bytes_total=total)

    def done(self, message: str = "", **more: Any) -> None:
        """A step is done."""
        self.line("done", message=message, **more)

    def failed(self, error: StepError) -> None:
        """A step failed."""
        self.line("failed", message=str(error), reason=error.reason, exit_code=error.exit_code, log=error.log)

    def line(self, state: str, **more: Any) -> None:
        """Append a line; a disk that is full shall not hide what happens from whoever watches the screen."""
        self.told_at = time.monotonic()
        content = {
            "step": self.step,
            "state": state,
            "at": round(time.time(), 3),
            "seconds": round(self.told_at - self.began, 1),
            "bytes_done": None,
            "bytes_total": None,
            **more,
        }
        text = json.dumps(content) + "\n"
        sys.stdout.write(text)
        sys.stdout.flush()
        with contextlib.suppress(OSError), (HERE / "progress.jsonl").open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() and not ends_with_newline(file):
                text = "\n" + text
            file.write(text.encode())
            file.flush()


def ends_with_newline(file: IO[bytes]) -> bool:
    """Whether the last line of a file is whole."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def last_lines(path: Path, count: int = LOG_LINES) -> list[str]:
    """The end of a log."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64_000))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return []
    return [line[:1000] for line in lines if line.strip()][-count:]


# --- processes ------------------------------------------------------------------------------------------------------


def reason_of(lines: list[str], code: int | None, *, oom_kills: int) -> str:
    """Why something ended, as far as its last words and the system tell."""
    if oom_kills:
        return "killed-oom"
    text = "\n".join(lines)
    return next(
        (reason for reason, pattern in PATTERNS if re.search(pattern, text)), "exited" if code else "other"
    )


def oom_count() -> int:
    """How many processes the system has killed for want of memory since it started (Linux 4.13 and later)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def marked(**more: str) -> dict[str, str]:
    """The environment of whatever is started here."""
    return {**os.environ, MARK: str(HERE), **more}


def start_time(pid: int) -> str:
    """When a process began, as the kernel counts; empty when it has ended: so a number that is used again is seen."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else alive_elsewhere(pid)
    return "" if words[0] in {"Z", "X"} else words[19]


def alive_elsewhere(pid: int) -> str:
    """The same where there is no /proc: only whether it lives."""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def end_group(pid: int) -> None:
    """End a process group: asked first, killed later."""
    for sign, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(OSError):
            os.killpg(pid, sign)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and group_lives(pid):
            time.sleep(0.05)


def group_lives(pid: int) -> bool:
    """Whether any process of a group is left, other than ended children of ours."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.killpg(pid, 0)
    except OSError:
        return False
    return True


def end_marked(role: str = "") -> None:
    """End what this program has started, in an earlier life too; only one role of it, if one is named."""
    wanted = {f"{MARK}={HERE}".encode()} | ({f"{ROLE}={role}".encode()} if role else set())
    for sign in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        left = [pid for pid in process_ids() if wanted <= environment_of(pid) and start_time(pid)]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, sign)
        deadline = time.monotonic() + (TERM_SECONDS if sign == signal.SIGTERM else 1.0)
        while any(start_time(pid) for pid in left) and time.monotonic() < deadline:
            time.sleep(0.05)


def process_ids() -> list[int]:
    """Every process that can be seen, but for this one; none where there is no /proc."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]  # noqa: PTH208
    except OSError:
        return []


def environment_of(pid: int) -> set[bytes]:
    """The environment that a process began with."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


class Watch(NamedTuple):
    """What is told while a helper works. size: bytes so far, for a helper that downloads."""

    progress: Progress
    size: Callable[[], int] | None = None
    total: int | None = None


def helper(
    argv: list[str], log: Path, seconds: float, watch: Watch, env: dict[str, str] | None = None
) -> None:
    """Run a helper to its end.

    Raises:
        StepError: it failed, took longer than `seconds`, or downloaded nothing for four minutes.
    """
    oom_before = oom_count()
    with log.open("ab") as out:
        out.write(f"$ {' '.join(argv)}\n".encode())
        out.flush()
        try:
            process = subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=HERE,
                env={**marked(**{ROLE: "helper"}), **(env or {})},
            )
        except OSError as error:
            raise StepError(f"{argv[0]} cannot be started: {error}", reason="exited") from None
    try:
        _follow(process, log, seconds, watch)
    finally:
        end_group(process.pid)
    if process.returncode:
        lines = last_lines(log)
        reason = reason_of(lines, process.returncode, oom_kills=oom_count() - oom_before)
        raise StepError(
            failure_words(argv, reason, lines), reason=reason, exit_code=process.returncode, log=lines
        )


def _follow(process: subprocess.Popen[bytes], log: Path, seconds: float, watch: Watch) -> None:
    """Wait for a helper, and tell how far it is."""
    began = grew_at = time.monotonic()
    size = -1
    while process.poll() is None:
        real = time.monotonic()
        if watch.size is not None and real - watch.progress.told_at >= LINE_SECONDS:
            if (now := watch.size()) != size:
                size, grew_at = now, real
            watch.progress.running(done=size, total=watch.total)
        elif watch.size is None:
            watch.progress.running("".join(last_lines(log, 1))[:200])
        stalled = watch.size is not None and size != watch.total and real - grew_at > STALL_SECONDS
        if stalled or real - began > seconds:
            words = (
                f"nothing came for {STALL_SECONDS:.0f} s" if stalled else f"not done within {seconds:.0f} s"
            )
            raise StepError(words, reason="timeout", log=last_lines(log))
        time.sleep(POLL_SECONDS)


def failure_words(argv: list[str], reason: str, lines: list[str]) -> str:
    """One sentence for a helper that failed."""
    name = Path(argv[0]).name
    last = lines[-1].strip()[:300] if lines else "it said nothing"
    return f"{SENTENCES[reason]}: {last}" if reason in SENTENCES else f"{name} failed: {last}"


# --- cuda -----------------------------------------------------------------------------------------------------------


def check_cuda(orders: Orders, progress: Progress) -> None:
    """Every GPU computes; nothing is told where none is asked for."""
    if orders.gpus <= 0:
        return
    progress.start("cuda")
    script = HERE / "cuda_check.py"
    if not script.exists():
        progress.done("looked at before")
        return
    try:
        ended = subprocess.run(  # noqa: S603
            [sys.executable, str(script)],
            capture_output=True,
            timeout=CUDA_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env=marked(**{ROLE: "helper"}),
        )
        found = json.loads(ended.stdout)
    except subprocess.TimeoutExpired:
        raise StepError("the CUDA driver does not answer", reason="cuda") from None
    except ValueError:
        raise StepError("the CUDA check said nothing that can be read", reason="cuda") from None
    gpus = found.get("gpus") or []
    if len(gpus) < orders.gpus:
        raise StepError(found.get("error") or f"{len(gpus)} of {orders.gpus} GPUs compute", reason="cuda")
    progress.done(f"{len(gpus)} × {gpus[0].get('name')}")


# --- environment ----------------------------------------------------------------------------------------------------


def make_environment(orders: Orders, progress: Progress) -> Path:
    """The folder of a virtual environment with the engine in it."""
    progress.start("environment")
    wish = orders.environment
    if given := str(wish.get("path") or ""):
        if not (Path(given) / "bin" / "python").exists():
            raise StepError(f"there is no environment in {given}", reason="not-found")
        progress.done("given")
        return Path(given)
    requirements = [str(one) for one in wish.get("requirements") or []]
    if not requirements:
        progress.done("none is needed")
        return Path(sys.prefix)
    folder = HERE / "environments" / environment_name(wish)
    if (folder / "complete").exists():
        progress.done("is there already")
        return folder
    seconds = float(wish.get("seconds") or ENVIRONMENT_SECONDS)
    archive = (
        Path(orders.filesystem, "soong", "environments", f"{folder.name}.tar") if orders.filesystem else None
    )
    if archive is not None and unpacked(archive, folder, wish, progress):
        progress.done("unpacked from the filesystem")
        return folder
    with_tool = install(folder, wish, requirements, seconds, progress)
    (folder / "complete").touch()
    if archive is not None:
        threading.Thread(target=keep, args=(folder, archive), daemon=True).start()
    progress.done(f"installed by {with_tool}")
    return folder


def python_of(environment: Path) -> str:
    """The interpreter of an environment; where there is none, the one that runs this."""
    found = environment / "bin" / "python"
    return str(found) if found.exists() else sys.executable


def environment_name(wish: dict[str, Any]) -> str:
    """One name for the same packages, Python, processor and place: a virtual environment cannot be moved."""
    facts = [
        wish.get("requirements"),
        wish.get("index_urls"),
        wish.get("python"),
        wish.get("env"),
        sys.version,
        sys.executable,
    ]
    digest = hashlib.sha256(json.dumps([*facts, platform.machine(), str(HERE)]).encode()).hexdigest()[:10]
    base = re.sub(r"[^A-Za-z0-9._-]", "-", str(wish.get("key") or "environment"))
    return f"{base}-{digest}"


def unpacked(archive: Path, folder: Path, wish: dict[str, Any], progress: Progress) -> bool:
    """Whether the environment could be taken from the filesystem; a broken archive is as good as none."""
    if not archive.exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        words = ["tar", "-xf", str(archive), "-C", str(folder)]
        helper(words, HERE / "environment.log", ENVIRONMENT_SECONDS, Watch(progress))
        if not (folder / "bin" / "python").exists():
            # uv has brought a Python of its own, and this machine does not have it yet.
            fetch_python = [find_uv(progress), "python", "install", str(wish.get("python") or "")]
            helper(fetch_python, HERE / "environment.log", TOOL_SECONDS, Watch(progress), uv_settings())
        helper([str(folder / "bin" / "python"), "-c", ""], HERE / "environment.log", 60, Watch(progress))
    except StepError:
        return False
    (folder / "complete").touch()
    return True


def keep(folder: Path, archive: Path) -> None:
    """Keep the environment on the filesystem, for the next machine. The name appears when the archive is whole."""
    half = archive.with_name(f".{archive.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError, StepError):
        archive.parent.mkdir(parents=True, exist_ok=True)
        for old in archive.parent.glob(f".{archive.name}.*"):
            if time.time() - old.stat().st_mtime > ENVIRONMENT_SECONDS:
                old.unlink()
        try:
            words = ["tar", "-cf", str(half), "-C", str(folder), "--exclude=./complete", "."]
            helper(words, HERE / "keep.log", ENVIRONMENT_SECONDS, Watch(Silent()))
            half.replace(archive)
        finally:
            half.unlink(missing_ok=True)


class Silent(Progress):
    """For work that nobody waits for."""

    def line(self, state: str, **more: Any) -> None:
        """Say nothing."""


def install(
    folder: Path, wish: dict[str, Any], requirements: list[str], seconds: float, progress: Progress
) -> str:
    """Make the environment, by uv when it can be had, else by pip; returns which of them."""
    log = HERE / "environment.log"
    log.unlink(missing_ok=True)
    deadline = time.monotonic() + seconds
    extra = [word for url in wish.get("index_urls") or [] for word in ("--extra-index-url", str(url))]
    if uv := find_uv(progress):
        try:
            by_uv(uv, folder, wish, [*extra, *requirements], deadline, progress)
        except StepError as error:
            if error.reason in {"disk-full", "killed-oom"} or time.monotonic() >= deadline:
                raise
            progress.running(f"uv could not: {error}; taking pip")
        else:
            return "uv"
    check_python(str(wish.get("python") or ""))
    shutil.rmtree(folder, ignore_errors=True)
    helper([sys.executable, "-m", "venv", str(folder)], log, TOOL_SECONDS, Watch(progress))
    words = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input", "--prefer-binary", *extra]
    env = installer_variables(wish)
    if env:
        words.append("--no-cache-dir")  # pip would take a wheel that was compiled with other variables
    helper([*words, *requirements], log, deadline - time.monotonic(), Watch(progress), env)
    return "pip"


def installer_variables(wish: dict[str, Any]) -> dict[str, str]:
    """What an installer is told that compiles, such as `CMAKE_ARGS`."""
    return {str(name): str(value) for name, value in (wish.get("env") or {}).items()}


def find_uv(progress: Progress) -> str:
    """The path of uv, installed for this purpose when it is not there; empty when it cannot be had."""
    tools = HERE / "tools"
    if found := shutil.which("uv", path=f"{tools / 'bin'}:{os.environ.get('PATH', '')}"):
        return found
    words = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--upgrade",
        "--target",
        str(tools),
        "uv",
    ]
    with contextlib.suppress(StepError):
        helper(words, HERE / "environment.log", TOOL_SECONDS, Watch(progress))
    return shutil.which("uv", path=str(tools / "bin")) or ""


def by_uv(
    uv: str, folder: Path, wish: dict[str, Any], words: list[str], deadline: float, progress: Progress
) -> None:
    """Make the environment by uv: with the Python that is wanted, or else this one."""
    log = HERE / "environment.log"
    env = {**uv_settings(), **installer_variables(wish)}
    wanted = str(wish.get("python") or "")
    pythons = [sys.executable] if is_version(wanted) else [wanted, sys.executable]
    for python in pythons:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            make = [uv, "venv", "--quiet", "--python", python, str(folder)]
            helper(make, log, TOOL_SECONDS, Watch(progress), env)
            break
        except StepError:
            if python is pythons[-1]:
                raise
    target = ["--python", str(folder / "bin" / "python"), "--index-strategy", "unsafe-best-match"]
    helper([uv, "pip", "install", *target, *words], log, deadline - time.monotonic(), Watch(progress), env)


def uv_settings() -> dict[str, str]:
    """Where uv keeps its things, and how it behaves in a log."""
    return {
        "UV_CACHE_DIR": str(HERE / "packages"),
        "UV_PYTHON_INSTALL_DIR": str(HERE / "pythons"),
        "UV_SYSTEM_CERTS": "1",
        "UV_NO_PROGRESS": "1",
        "UV_HTTP_TIMEOUT": "120",
    }


def is_version(wanted: str) -> bool:
    """Whether this Python is of the wanted version, such as `3.12`."""
    return not wanted or wanted == f"{sys.version_info[0]}.{sys.version_info[1]}"


def check_python(wanted: str) -> None:
    """Raise unless this Python can hold an engine: none of them supports one below 3.10."""
    if sys.version_info < (3, 10):  # noqa: UP036 - the machine has what it has
        raise StepError(
            f"Python {platform.python_version()} is too old; {wanted or '3.10'} is needed",
            reason="wrong-python",
        )


# --- weights --------------------------------------------------------------------------------------------------------


def get_weights(orders: Orders, environment: Path, progress: Progress) -> str:
    """The folder or file of the weights, complete and verified."""
    progress.start("weights")
    wish = orders.weights
    if file := str(wish.get("file") or ""):
        path = HERE / os.path.expanduser(file)  # noqa: PTH111 - an absolute one stays
        check_sent(path, wish, progress)
        forget_token()
        progress.done("verified" if wish.get("sha256") else "is there")
        return str(path)
    repository = str(wish.get("repository") or "")
    if not repository:
        forget_token()
        progress.done("none is needed")
        return str(wish.get("path") or "")
    folder = weights_folder(orders, repository, str(wish.get("revision") or "main"))
    total = int(wish.get("bytes") or 0)
    if is_verified(folder, wish):
        forget_token()
        words = "are there already" + without_chats(folder, orders.engine)
        progress.done(words, bytes_done=size_of(folder), bytes_total=total or None)
        return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with shared_lock(folder.with_name(f".{folder.name}.lock"), lambda: progress.running(
        "another machine is downloading them", done=size_of(folder), total=total or None
    )):  # fmt: skip
        if not is_verified(folder, wish):
            download(orders, environment, folder, total, progress)
    forget_token()
    words = "downloaded and verified" + without_chats(folder, orders.engine)
    progress.done(words, bytes_done=size_of(folder), bytes_total=total or None)
    return str(folder)


CHAT_FILES = ("chat_template.jinja", "chat_template.json", "tekken.json")
"""Any of them says how a chat is written; Mistral's own tokenizer knows without a template."""


def without_chats(folder: Path, engine: dict[str, Any]) -> str:
    """What to know of a model that was never taught to chat: engines answer its chats with an error."""
    if engine.get("chat_template") or engine.get("encodes_chats"):
        return ""
    if any((folder / name).exists() for name in CHAT_FILES) or any(folder.glob("*.model.v*")):
        return ""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template"):
            return ""
    return "; they have no chat template: ask /v1/completions, not /v1/chat/completions"


def weights_folder(orders: Orders, repository: str, revision: str) -> Path:
    """Where a repository's files go: on the persistent filesystem when there is one."""
    base = Path(orders.filesystem, "soong", "weights") if orders.filesystem else HERE / "weights"
    return base / re.sub(r"[^A-Za-z0-9._@-]", "--", f"{repository}@{revision}")


def check_sent(path: Path, wish: dict[str, Any], progress: Progress) -> None:
    """A file that was sent is whole."""
    if not path.exists():
        raise StepError(f"{path} is not on this machine", reason="not-found")
    wanted = int(wish.get("bytes") or 0)
    if path.is_dir():
        return
    if wanted and path.stat().st_size != wanted:
        raise StepError(f"{path.name} has {path.stat().st_size:,} bytes, not {wanted:,}", reason="checksum")
    if digest := str(wish.get("sha256") or "").lower():
        found = sha256_of(path, lambda done: progress.running("verifying", done=done, total=wanted or None))
        if found != digest:
            raise StepError(
                f"{path.name} is not the file that was sent: its sha256 differs", reason="checksum"
            )


def sha256_of(path: Path, tell: Callable[[int], None] = lambda _: None) -> str:
    """The digest of a file."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            done += len(piece)
            tell(done)
    return digest.hexdigest()


def download(orders: Orders, environment: Path, folder: Path, total: int, progress: Progress) -> None:
    """Fetch and verify in the engine's environment; a broken line is tried again and resumed."""
    log = HERE / "weights.log"
    log.unlink(missing_ok=True)
    seconds = float(orders.weights.get("seconds") or 0) or (
        WEIGHTS_BASE_SECONDS + total / SLOWEST_BYTES_PER_SECOND + total / HASH_BYTES_PER_SECOND
    )
    drop_lost(folder)
    check_room(folder, total)
    deadline = time.monotonic() + seconds
    env = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
    }
    if token := read_token():
        env["HF_TOKEN"] = token
    watch = Watch(progress, lambda: size_of(folder), total or None)
    words = [python_of(environment), str(HERE / "boot.py"), "fetch", str(folder)]
    for pause in (*RETRY_SECONDS, None):
        try:
            helper(words, log, deadline - time.monotonic(), watch, env)
        except StepError as error:  # noqa: PERF203 - the loop is about the error
            left = deadline - time.monotonic()
            if error.reason not in RETRIED or pause is None or left < pause:
                raise
            progress.line("running", message=f"{error}; again in {pause:.0f} s", bytes_done=size_of(folder))
            time.sleep(pause)
        else:
            return


LOST = re.compile(r".*\.[0-9a-f]{8}\.incomplete")
"""Since its pull request 4228 huggingface_hub downloads to a name of the process's own and never comes back to it: what
a killed one leaves is lost, and would fill the disk. Files that were complete are not fetched again."""


def drop_lost(folder: Path) -> None:
    """Remove what a killed download has left and no other can go on with."""
    for path in folder.glob("**/*.incomplete"):
        if LOST.fullmatch(path.name):
            path.unlink(missing_ok=True)


def check_room(folder: Path, total: int) -> None:
    """Raise when the disk cannot hold what is still to come."""
    free, have = shutil.disk_usage(folder).free, size_of(folder)
    if total - have > free:
        raise StepError(
            f"the disk is full: {(total - have) / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free",
            reason="disk-full",
        )


def size_of(folder: Path) -> int:
    """Bytes of a folder's files; of unfinished ones what is on the disk, since they may have holes."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118 - many files, often
                whole = not name.endswith(".incomplete")
                total += status.st_size if whole else min(status.st_size, status.st_blocks * 512)
    return total


def read_token() -> str:
    """The Hub's token, if one was sent."""
    try:
        return (HERE / "hf_token").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def forget_token() -> None:
    """The weights are here: nothing needs the token any more."""
    (HERE / "hf_token").unlink(missing_ok=True)


VERIFIED = ".soong-verified.json"


def is_verified(folder: Path, wish: dict[str, Any]) -> bool:
    """Whether all files of the same wish were verified before, and have not changed since."""
    try:
        said = json.loads((folder / VERIFIED).read_bytes())
        return said["wish"] == wish_of(wish) and all(
            stamp_of(folder / name) == stamp for name, stamp in said["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def wish_of(wish: dict[str, Any]) -> dict[str, Any]:
    """What makes two downloads the same."""
    return {name: wish.get(name) for name in ("repository", "revision", "allow", "ignore")}


def stamp_of(path: Path) -> list[int]:
    """Size and time of the last change."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


@contextlib.contextmanager
def shared_lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that other machines see: a file on the shared filesystem whose holder touches it.

    A lock that nobody has touched for two minutes, by the filesystem's own time, is taken over.
    """
    name = f"{socket.gethostname()}:{HERE}:{uuid.uuid4().hex}"
    while not lock_taken(path, name):
        waiting()
        time.sleep(min(LINE_SECONDS, HEARTBEAT_SECONDS))
    over = threading.Event()
    heart = threading.Thread(target=beat, args=(path, over), daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
        with contextlib.suppress(OSError):
            if path.read_text() == name:
                path.unlink()


def lock_taken(path: Path, name: str) -> bool:
    """Whether the lock is ours now."""
    try:
        with path.open("x") as file:
            file.write(name)
    except FileExistsError:
        pass
    else:
        return True
    with contextlib.suppress(OSError):
        holder = path.read_text()
        probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        probe.touch()
        age = probe.stat().st_mtime - path.stat().st_mtime
        probe.unlink()
        is_ours = holder.startswith(f"{socket.gethostname()}:{HERE}:")
        if (age > STALE_LOCK_SECONDS or is_ours) and path.read_text() == holder:
            path.unlink()
    return False


def beat(path: Path, over: threading.Event) -> None:
    """Touch the lock until it is given back."""
    while not over.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def fetch(folder: Path) -> int:
    """Download and verify; run by the environment's Python, which has huggingface_hub."""
    from huggingface_hub import HfApi, snapshot_download  # type: ignore[import-not-found, unused-ignore]

    wish = read_orders().weights
    repository, revision = str(wish["repository"]), str(wish.get("revision") or "") or None
    allow, ignore = wish.get("allow") or None, wish.get("ignore") or None
    info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = {
        one.rfilename: (one.size, (one.lfs or {}).get("sha256"))
        for one in info.siblings or []
        if is_wished(one.rfilename, allow, ignore)
    }
    if not files:
        sys.stdout.write(f"RepositoryNotFoundError: {repository} has none of the files that are asked for\n")
        return 1
    snapshot_download(
        repository, revision=info.sha, local_dir=folder, allow_patterns=allow, ignore_patterns=ignore
    )
    if faults := faults_of(folder, files):
        for name in faults:
            (folder / name).unlink(missing_ok=True)
        sys.stdout.write("".join(f"IncompleteRead: {name} {why}\n" for name, why in faults.items()))
        return 1
    half = folder / f"{VERIFIED}.new"
    half.write_text(
        json.dumps({"wish": wish_of(wish), "files": {name: stamp_of(folder / name) for name in files}})
    )
    half.replace(folder / VERIFIED)
    return 0


def is_wished(name: str, allow: list[str] | None, ignore: list[str] | None) -> bool:
    """Whether a file passes the patterns, as huggingface_hub reads them."""
    is_allowed = not allow or any(fnmatch.fnmatch(name, pattern) for pattern in allow)
    return is_allowed and not any(fnmatch.fnmatch(name, pattern) for pattern in ignore or [])


def faults_of(folder: Path, files: dict[str, tuple[int | None, str | None]]) -> dict[str, str]:
    """Files that are not what the Hub has: by size, and by sha256 where the Hub tells one."""

    def fault(name: str) -> str:
        size, digest = files[name]
        path = folder / name
        if not path.is_file():
            return "is missing"
        if size is not None and path.stat().st_size != size:
            return f"has {path.stat().st_size} bytes, not {size}"
        return "has another sha256 than the Hub tells" if digest and sha256_of(path) != digest else ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return {name: why for name, why in zip(files, pool.map(fault, files)) if why}  # noqa: B905 - same source


# --- engine and gate ------------------------------------------------------------------------------------------------


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


# --- the whole ------------------------------------------------------------------------------------------------------


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
