"""One machine of the sandbox: an SSH server in its own folder, and everything that was started on it.

Run as `python -m soong.clouds.sandbox.machine_host ROOT`, where `ROOT/etc/machine.json` says who it is. It obeys
its standard input, and ends with everything it started when that closes: so no machine outlives its server.

    in    boot         run the user data if it never ran, and answer SSH
    out   {"event": "ready"}    {"event": "listening", "port": 40222}    {"event": "busy"}    {"event": "idle"}
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh

from soong.clouds.sandbox.killing import ROOT_VARIABLE, end_processes

USER = "ubuntu"
LOOPBACK = "127.0.0.1"
BUSY_SECONDS = 3.0
"""The longest that one login counts as work; a shell that stays open is no reason to slow the clock."""
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL = "/bin/bash"
NO_SCRIPT = "the sandbox runs user data that is a script: this does not begin with #!\n"


def say(**event: Any) -> None:
    """One line to the server."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def environment_of(root: Path, hostname: str) -> dict[str, str]:
    """What a process on the machine sees: nothing of whoever runs the sandbox."""
    home = root / "home" / USER
    return {
        "PATH": f"{root / 'bin'}:{BASE_PATH}:{Path(sys.base_prefix, 'bin')}",
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": SHELL,
        "LANG": "C.UTF-8",
        "TMPDIR": str(root / "tmp"),
        "HOSTNAME": hostname,
        "PYTHONPATH": str(root / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
        ROOT_VARIABLE: str(root),
    }


class Login(asyncssh.SSHServer):
    """One connection: keys only, the user `ubuntu` only, forwarding to wherever the machine could reach."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._work = machine.work()
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Somebody has come."""
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's signature
        """The other side has left."""
        self._work.end()

    def begin_auth(self, username: str) -> bool:
        """Everybody must prove who they are; only one user can."""
        if username == USER and self._connection is not None:
            self._connection.set_authorized_keys(str(self._machine.root / "etc" / "authorized_keys"))
        return True

    def connection_requested(self, *_: Any) -> bool:
        """`ssh -L`."""
        return True


class Files(asyncssh.SFTPServer):
    """`sftp` and `scp`, in the home of the machine's user."""

    def exit(self) -> None:
        """The other side is done; without a word about that `scp` counts it as a failure."""
        self.channel.exit(0)


class Work:
    """Something that takes real time; counted by the server's clock until it ends, or for three seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._open = True
        say(event="busy")
        loop.call_later(BUSY_SECONDS, self.end)

    def end(self) -> None:
        """It is done."""
        if self._open:
            self._open = False
            say(event="idle")


class Machine:
    """The machine in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.about = json.loads((root / "etc" / "machine.json").read_bytes())
        self.environment = environment_of(root, self.about["hostname"])
        self.home = Path(self.environment["HOME"])
        self.loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._children: list[int] = []
        self.script = root / "var" / "user-data"
        self.script.write_text(self.about["user_data"])
        self.script.chmod(0o700)

    def work(self) -> Work:
        """Begin something that takes real time."""
        return Work(self.loop)

    def end_children(self) -> None:
        """Kill the process groups that were started here: all that can be done where `/proc` tells nothing."""
        for pid in self._children:
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)

    async def boot(self) -> None:
        """Answer SSH, and run the user data the first time."""
        if self.about["ssh"]:
            await self._listen()
        else:
            say(event="listening", port=0)
        done = self.root / "var" / "user-data-done"
        if self.about["user_data"] and not done.exists():
            done.touch()
            task = self.loop.create_task(self._run_user_data())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        key = self._host_key()
        try:
            server = await self._server(key, self.about["port"])
        except OSError:
            server = await self._server(key, 0)
        say(event="listening", port=server.get_port())

    async def _server(self, key: asyncssh.SSHKey, port: int) -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            lambda: Login(self),
            LOOPBACK,
            port,
            server_host_keys=[key],
            process_factory=self.serve,
            sftp_factory=Files,
            allow_scp=True,
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
            x11_forwarding=False,
            keepalive_interval=0,
            gss_host=None,
            login_timeout=60,
            reuse_address=True,
        )

    def _host_key(self) -> asyncssh.SSHKey:
        path = self.root / "etc" / "ssh_host_ed25519_key"
        if not path.exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            path.touch(mode=0o600)
            path.write_bytes(key.export_private_key())
            path.with_suffix(".pub").write_bytes(key.export_public_key())
        return asyncssh.read_private_key(str(path))

    async def _run_user_data(self) -> None:
        if not self.about["user_data"].startswith("#!"):
            (self.root / "var" / "log" / "cloud-init-output.log").write_text(NO_SCRIPT)
            return
        work = self.work()
        with (self.root / "var" / "log" / "cloud-init-output.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                str(self.script),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                env=self.environment,
                start_new_session=True,
            )
            self._children.append(process.pid)
            code = await process.wait()
            self._children.remove(process.pid)
            log.write(f"user data ended with exit code {code}\n".encode())
        work.end()

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """One `exec` or shell."""
        command = [SHELL, "-c", process.command] if process.command else [SHELL, "-l"]
        if process.term_type is not None:  # empty where the other side has no TERM
            code = await self._with_terminal(process, command)
        else:
            code = await self._with_pipes(process, command)
        if code < 0:
            process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
        else:
            process.exit(code)
        await process.wait_closed()

    async def _with_pipes(self, process: asyncssh.SSHServerProcess[bytes], command: list[str]) -> int:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self.home,
            env=self.environment,
            start_new_session=True,
        )
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr, send_eof=False)
        return await self._ended(process, child)

    async def _with_terminal(self, process: asyncssh.SSHServerProcess[bytes], command: list[str]) -> int:
        master, slave = os.openpty()
        environment = {**self.environment, "TERM": process.term_type or "dumb"}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", TAKE_TERMINAL, *command,
            stdin=slave, stdout=slave, stderr=slave, cwd=self.home, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        reading = os.fdopen(master, "rb", buffering=0)
        writing = os.fdopen(os.dup(master), "wb", buffering=0)
        await process.redirect(stdin=writing, stdout=reading, send_eof=False)
        return await self._ended(process, child)

    async def _ended(
        self, process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process
    ) -> int:
        """Wait for the child and its last words; if the other side leaves first, hang up on it, as a terminal does."""

        async def finish() -> None:
            await child.wait()
            await process.stdout.drain()
            await process.stderr.drain()

        self._children.append(child.pid)
        tasks = [self.loop.create_task(finish()), self.loop.create_task(process.channel.wait_closed())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGHUP)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._children.remove(child.pid)
        return await child.wait()


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


async def live(root: Path) -> None:
    """Obey the standard input until it closes."""
    machine = Machine(root)
    reader = asyncio.StreamReader()
    await machine.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(event="ready")
    while line := await reader.readline():
        if line.strip() == b"boot":
            await machine.boot()
    machine.end_children()


def main(root: Path) -> None:
    """The whole life of a machine."""
    os.chdir(root / "home" / USER)
    try:
        asyncio.run(live(root))
    finally:
        end_processes(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
