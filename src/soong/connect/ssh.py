"""SSH by the system's own OpenSSH, so that agents, hardware keys and the user's own settings go on working.

Each machine has a `known_hosts` file of its own, named by the rental: addresses are given to other people later, so
a key belongs to a machine, not to an address. The key is pinned at the first connection and checked at every later
one; checking is never off. `soong-NAME` works as a host name everywhere through one Include line in `~/.ssh/config`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path  # noqa: TC003 - msgspec reads the annotations of this module
from typing import TYPE_CHECKING

import msgspec

from soong import tracing
from soong.errors import RemoteError, SoongError, TimedOutError
from soong.launch.provider import SshEndpoint  # noqa: TC001 - msgspec reads the annotation
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


CONNECT_SECONDS = 10
CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
"""What OpenSSH prints when a pinned key does not match (sshconnect.c)."""


class HostKeyChangedError(RemoteError):
    """The machine shows another host key than the one pinned for it."""

    code = "host-key-changed"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One machine as SSH reaches it.

    Attributes:
        rental_id: names the pinned key. name: the person's word. endpoint: where. key_file: the private key.
    """

    rental_id: str
    name: str
    endpoint: SshEndpoint
    key_file: str

    @property
    def alias(self) -> str:
        """The name that `ssh` understands once the Include line is there."""
        return f"soong-{self.name}"

    @property
    def known_hosts_file(self) -> Path:
        """Where this machine's key is pinned."""
        return directory() / "known_hosts" / self.rental_id

    @property
    def settings(self) -> dict[str, str]:
        """The settings of OpenSSH that make the connection ours, and safe."""
        pinned = self.known_hosts_file.exists() and self.known_hosts_file.stat().st_size > 0
        return {
            "HostName": self.endpoint.host,
            "Port": str(self.endpoint.port),
            "User": self.endpoint.user,
            "IdentityFile": _quoted(self.key_file),
            "IdentitiesOnly": "yes",
            "HostKeyAlias": f"soong-{self.rental_id}",
            "UserKnownHostsFile": _quoted(str(self.known_hosts_file)),
            "GlobalKnownHostsFile": "/dev/null",
            "HashKnownHosts": "no",
            "StrictHostKeyChecking": "yes" if pinned else "accept-new",
            "ForwardAgent": "no",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
        }


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What a command on the machine answered."""

    code: int
    out: str
    err: str


def directory() -> Path:
    """Where soong keeps what SSH needs; nobody else may read it."""
    return paths.state_dir() / "ssh"


def argv(host: Host, command: Sequence[str] = (), *, options: dict[str, str] | None = None) -> list[str]:
    """The ssh command line for a machine; the words of `command` are joined by the remote shell, as ssh does.

    Raises:
        SoongError: there is no ssh on this computer.
    """
    program = shutil.which("ssh")
    if program is None:
        raise SoongError("there is no `ssh` on this computer", hints=("install OpenSSH's client",))
    paths.made(host.known_hosts_file.parent).chmod(0o700)
    settings = {**host.settings, **(options or {})}
    words = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    return [program, *words, host.alias, *command]


def run(host: Host, command: Sequence[str], *, stdin: bytes | None = None, seconds: float = 60.0) -> Ran:
    """Run one command on the machine, without a terminal and without questions.

    Args:
        stdin: what the command reads. seconds: real seconds it may take.

    Raises:
        HostKeyChangedError: the pinned key does not match. RemoteError: no connection. TimedOutError: too slow.
    """
    words = argv(host, command, options={"BatchMode": "yes", "ConnectTimeout": str(CONNECT_SECONDS)})
    try:
        ended = subprocess.run(  # noqa: S603
            tracing.own(words),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOutError(f"{host.alias} did not answer within {seconds:g} s") from error
    ran = Ran(
        code=ended.returncode,
        out=ended.stdout.decode(errors="replace"),
        err=ended.stderr.decode(errors="replace"),
    )
    if ran.code == 255:
        raise failure(host, ran.err)
    return ran


def failure(host: Host, said: str) -> RemoteError:
    """What ssh's own complaint means, and what to do."""
    if CHANGED in said:
        return HostKeyChangedError(
            f"{host.alias} shows another host key than before: refused",
            why="the machine was replaced, or somebody stands in between; soong never switches this check off",
            hints=(
                "soong status",
                f"soong stop {host.name}",
                "if you reinstalled it yourself: `soong ssh --forget-key`",
            ),
        )
    last = next((line for line in reversed(said.strip().splitlines()) if line.strip()), "no reason given")
    return RemoteError(f"no SSH connection to {host.alias}: {last}", hints=("soong doctor", "soong status"))


def forget(rental_id: str) -> None:
    """Drop what was kept for a machine that is gone: its pinned key and its entry."""
    (directory() / "known_hosts" / rental_id).unlink(missing_ok=True)
    (directory() / "hosts" / rental_id).unlink(missing_ok=True)


def keep_only(rental_ids: Collection[str]) -> None:
    """Forget every machine but these."""
    for folder in ("known_hosts", "hosts"):
        for file in (directory() / folder).glob("[!.]*"):
            if file.name.partition(".")[0] not in rental_ids:
                file.unlink(missing_ok=True)


def write_entry(host: Host) -> Path:
    """Make `ssh soong-NAME` work for this machine; returns the file that `~/.ssh/config` includes.

    Raises:
        SoongError: the state directory cannot be written.
    """
    entry = "\n".join(
        [f"Host {host.alias}", *(f"    {key} {value}" for key, value in host.settings.items()), ""]
    )
    folder = paths.made(directory() / "hosts")
    folder.chmod(0o700)
    target = folder / host.rental_id
    half = target.with_name(f".{host.rental_id}.{os.getpid()}")
    try:
        half.write_text(entry, encoding="utf-8")
        half.chmod(0o600)
        half.replace(target)
        _config_file().write_text(f"Include {_quoted(str(folder))}/*\n", encoding="utf-8")
    except OSError as error:
        raise paths.cannot_write(target, error) from error
    return _config_file()


def include_line() -> str:
    """The one line that `~/.ssh/config` needs, at its top."""
    return f"Include {_quoted(str(_config_file()))}"


def is_included(config: Path) -> bool:
    """Whether the user's ssh configuration has the line."""
    try:
        return include_line() in config.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False


def add_include(config: Path) -> None:
    """Put the line at the top of the user's ssh configuration, and change nothing else in it.

    Raises:
        SoongError: the file cannot be written.
    """
    if is_included(config):
        return
    try:
        config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        old = config.read_text(encoding="utf-8") if config.exists() else ""
        mode = config.stat().st_mode & 0o777 if config.exists() else 0o600
        half = config.with_name(f".{config.name}.soong.{os.getpid()}")
        half.write_text(f"{include_line()}\n\n{old}" if old else f"{include_line()}\n", encoding="utf-8")
        half.chmod(mode)
        half.replace(config.resolve())
    except OSError as error:
        raise paths.cannot_write(config, error) from error


def _config_file() -> Path:
    return directory() / "config"


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path
