"""GPUs that compute, and an environment with the engine in it: given, unpacked, or installed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .orders import HERE, StepError
from .processes import ROLE, Watch, helper, marked
from .progress import Silent

if TYPE_CHECKING:
    from .orders import Orders
    from .progress import Progress

CUDA_SECONDS = 120.0
TOOL_SECONDS = 300.0
ENVIRONMENT_SECONDS = 2400.0
"""An engine's packages are about 10 GB; this is a line of 35 Mbit/s."""


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
