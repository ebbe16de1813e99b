"""A machine reached by OpenSSH, as serving needs it: commands, files that are resumed, a log that is followed."""

from __future__ import annotations

import hashlib
import os
import select
import shlex
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from soong import tracing
from soong.connect import ssh
from soong.errors import RemoteError, SoongError
from soong.serve.machine import Ran

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CHUNK_BYTES = 1 << 20
SEND_TRIES = 8
AGAIN_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Between two attempts at a broken connection; the last one again and again."""
SEND_SECONDS = 120.0


class SshMachine:
    """A rented machine.

    Args:
        host: how SSH reaches it; asked anew for each connection, since an address can change at a restart.
    """

    def __init__(self, host: Callable[[], ssh.Host]) -> None:
        self._host = host

    def run(self, command: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0) -> Ran:
        """Run one command, its words kept as they are; see `soong.serve.machine.Machine`."""
        ran = ssh.run(self._host(), [shlex.join(command)], stdin=stdin, seconds=seconds)
        return Ran(code=ran.code, out=ran.out, err=ran.err)

    def put(
        self,
        content: bytes | Path,
        remote: str,
        *,
        mode: int = 0o600,
        tell: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Write a file there, all of it or none of it; see `soong.serve.machine.Machine`."""
        if isinstance(content, Path):
            self._put_file(content, remote, mode, tell)
            return
        name = shlex.quote(remote)
        script = (
            f'umask 077; mkdir -p "$(dirname {name})" && cat > {name}.new && chmod {mode:o} {name}.new '
            f"&& mv -f {name}.new {name}"
        )
        self._checked(self.run(["sh", "-c", script], stdin=content, seconds=SEND_SECONDS), remote)
        tell(len(content), len(content))

    def follow(self, remote: str, *, offset: int = 0, seconds: float = 1.0) -> Iterator[bytes]:
        """What is appended to a file, for ever; see `soong.serve.machine.Machine`."""
        failures = 0
        while True:
            came, said = 0, b""
            with _Following(self._host(), remote, offset) as following:
                for piece in following.pieces(seconds):
                    came += len(piece)
                    offset += len(piece)
                    yield piece
                said = following.said()
            if ssh.CHANGED.encode() in said:
                raise ssh.failure(self._host(), said.decode(errors="replace"))
            failures = 0 if came else failures + 1
            yield from _quiet(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)], seconds)

    def _put_file(self, local: Path, remote: str, mode: int, tell: Callable[[int, int], None]) -> None:
        total = local.stat().st_size
        digest = _sha256(local)
        if self._sha256_of(remote) == digest:
            tell(total, total)
            return
        part = f"{remote}.part"
        for whole in (False, True):
            if whole:
                self.run(["rm", "-f", part])
            self._send(local, part, total, tell)
            if self._sha256_of(part) == digest:
                name, half = shlex.quote(remote), shlex.quote(part)
                ran = self.run(["sh", "-c", f"chmod {mode:o} {half} && mv -f {half} {name}"])
                self._checked(ran, remote)
                return
        self.run(["rm", "-f", part])
        raise RemoteError(
            f"{local.name} came out wrong on the machine, twice", hints=("soong ssh -- df -h", "soong stop")
        )

    def _send(self, local: Path, part: str, total: int, tell: Callable[[int, int], None]) -> None:
        """Append to `part` what it lacks, over as many connections as it takes."""
        last: SoongError | None = None
        for attempt in range(SEND_TRIES):
            if attempt:
                time.sleep(AGAIN_SECONDS[min(attempt - 1, len(AGAIN_SECONDS) - 1)])
            try:
                done = self._size_of(part)
                if done < total:
                    self._append(local, part, done, total, tell)
                    done = self._size_of(part)
                if done >= total:
                    return
            except ssh.HostKeyChangedError:
                raise
            except SoongError as error:
                last = error
        raise last or RemoteError(f"{local.name} could not be sent", hints=("soong ssh -- df -h",))

    def _append(
        self, local: Path, part: str, done: int, total: int, tell: Callable[[int, int], None]
    ) -> None:
        name = shlex.quote(part)
        command = f'umask 077; mkdir -p "$(dirname {name})" && cat >> {name}'
        words = ssh.argv(self._host(), [shlex.join(["sh", "-c", command])], options=_BATCH)
        with (
            local.open("rb") as file,
            subprocess.Popen(  # noqa: S603
                tracing.own(words),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ) as sending,
        ):
            assert sending.stdin is not None  # noqa: S101 - narrows for the type checker
            assert sending.stderr is not None  # noqa: S101
            file.seek(done)
            try:
                with suppress(BrokenPipeError):
                    while data := file.read(CHUNK_BYTES):
                        sending.stdin.write(data)
                        done += len(data)
                        tell(done, total)
                with suppress(BrokenPipeError):
                    sending.stdin.close()
                said = sending.stderr.read().decode(errors="replace")
            except BaseException:
                sending.kill()
                raise
        if sending.returncode == 255:
            raise ssh.failure(self._host(), said)
        if sending.returncode:
            raise RemoteError(f"the machine did not take {local.name}: {said.strip()[-300:]}")

    def _size_of(self, remote: str) -> int:
        ran = self.run(["sh", "-c", f"wc -c < {shlex.quote(remote)} 2>/dev/null || echo 0"])
        return int(ran.out.split()[-1])

    def _sha256_of(self, remote: str) -> str:
        """Of a file there; empty when there is none."""
        ran = self.run(["python3", "-c", _REMOTE_SHA256, remote], seconds=3600)
        return ran.out.strip() if ran.code == 0 else ""

    def _checked(self, ran: Ran, remote: str) -> None:
        if ran.code:
            raise RemoteError(
                f"{remote} could not be written on the machine: {ran.err.strip()[-300:] or f'code {ran.code}'}",
                hints=("soong ssh -- df -h",),
            )


_BATCH = {"BatchMode": "yes", "ConnectTimeout": str(ssh.CONNECT_SECONDS)}
_REMOTE_SHA256 = """\
import hashlib, sys
h = hashlib.sha256()
with open(sys.argv[1], "rb") as f:
    while data := f.read(1 << 20):
        h.update(data)
print(h.hexdigest())
"""


class _Following:
    """One `tail -F` on the machine; ends when the connection does."""

    def __init__(self, host: ssh.Host, remote: str, offset: int) -> None:
        command = ["tail", "-c", f"+{offset + 1}", "-F", remote]
        self._process = subprocess.Popen(  # noqa: S603
            tracing.own(ssh.argv(host, [f"{shlex.join(command)} 2>/dev/null"], options=_BATCH)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def pieces(self, seconds: float) -> Iterator[bytes]:
        """What comes, and an empty piece for each quiet moment; ends with the connection."""
        assert self._process.stdout is not None  # noqa: S101 - narrows for the type checker
        descriptor = self._process.stdout.fileno()
        while True:
            if not select.select([descriptor], [], [], seconds)[0]:
                yield b""
                continue
            data = os.read(descriptor, CHUNK_BYTES)
            if not data:
                return
            yield data

    def said(self) -> bytes:
        """What ssh itself complained of, once it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        assert self._process.stderr is not None  # noqa: S101
        return self._process.stderr.read() if self._process.poll() is not None else b""


def _quiet(pause: float, seconds: float) -> Iterator[bytes]:
    """Wait, and let the caller look at its watch meanwhile."""
    ends_at = time.monotonic() + pause
    while (left := ends_at - time.monotonic()) > 0:
        yield b""
        time.sleep(min(left, seconds))


def _sha256(local: Path) -> str:
    with local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
