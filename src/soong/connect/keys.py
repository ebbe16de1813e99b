"""The person's SSH keys, and which of them the account knows."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from soong import tracing
from soong.errors import CredentialError, SoongError, UsageError
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soong.launch.provider import SshKey

USUAL_NAMES = ("id_ed25519", "id_ecdsa", "id_ed25519_sk", "id_ecdsa_sk", "id_rsa")
"""The names that OpenSSH itself tries."""


class LocalKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key pair on this computer: the private file (for ssh) and the public line (for the cloud)."""

    private_file: str
    public_line: str

    @property
    def body(self) -> tuple[str, ...]:
        """Type and key without the comment: what makes two lines the same key."""
        return body_of(self.public_line)


def body_of(public_line: str) -> tuple[str, ...]:
    """Type and key of a public line, without the comment."""
    return tuple(public_line.split()[:2])


def local_keys(configured: str = "") -> tuple[LocalKey, ...]:
    """The keys of this computer, the configured one alone where there is one; soong's own key last.

    Args:
        configured: a private or a public key file, `~` allowed.

    Raises:
        UsageError: the configured file is no key, or has no public half beside it.
    """
    if configured:
        file = Path(configured).expanduser()
        key = _read(file.with_suffix("") if file.suffix == ".pub" else file)
        if key is None:
            raise UsageError(
                f"there is no public key beside {file}",
                hints=(f"ssh-keygen -y -f {file} > {file}.pub", "soong config unset ssh.key"),
            )
        return (key,)
    home = Path(os.environ.get("HOME") or Path.home()) / ".ssh"
    found = [_read(home / name) for name in USUAL_NAMES] + [_read(own_key_file())]
    return tuple(key for key in found if key is not None)


def own_key_file() -> Path:
    """The key that soong makes for those who have none."""
    return paths.state_dir() / "ssh" / "id_ed25519"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two starts at once must not both make a key, nor both put it into the account under one name."""
    import fcntl

    folder = paths.made(own_key_file().parent)
    descriptor = os.open(folder / ".adding", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_own_key() -> LocalKey:
    """A new key pair in the state directory, without a passphrase, its owner's alone; the old one if there is one.

    Raises:
        SoongError: OpenSSH's ssh-keygen is missing or refuses.
    """
    file = own_key_file()
    if (found := _read(file)) is not None:
        return found
    paths.made(file.parent).chmod(0o700)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "soong", "-f", str(file)]
    try:
        subprocess.run(  # noqa: S603
            tracing.own(command), check=True, capture_output=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise SoongError(
            "no SSH key could be made",
            why=str(error),
            hints=("install OpenSSH's client: `ssh-keygen` is part of it",),
        ) from error
    made = _read(file)
    if made is None:
        raise SoongError("ssh-keygen made no key", hints=(f"ls -l {file.parent}",))
    return made


def free_name(owner: str, account: Sequence[SshKey], *, wanted: str = "") -> str:
    """What a new key can be called in the account: the wanted name or one made of the owner's word, and no other's.

    Args:
        owner: the owner's word. account: the keys that are there. wanted: the configured name (`ssh.key_name`).
    """
    taken = {key.name for key in account}
    base = (wanted or f"soong-{owner}")[:58]
    return next(
        name for name in (base, *(f"{base}-{number}" for number in range(2, 1000))) if name not in taken
    )


def matching(local: Sequence[LocalKey], account: Sequence[SshKey]) -> tuple[LocalKey, SshKey] | None:
    """The first local key that the account has under a name of its own, with the account's entry; None without one.

    Raises:
        CredentialError: the only match shares its name with another key: a launch by that name fails.
    """
    names = [key.name for key in account]
    shared: str | None = None
    for mine in local:
        for theirs in account:
            if body_of(theirs.public_key) != mine.body:
                continue
            if names.count(theirs.name) == 1:
                return mine, theirs
            shared = theirs.name
    if shared is not None:
        raise CredentialError(
            f"two SSH keys of the account are called `{shared}`",
            why="a launch names its key, and the cloud fails when the name stands for two",
            hints=("rename or delete one of them in the cloud's console",),
        )
    return None


def _read(private: Path) -> LocalKey | None:
    public = private.with_name(private.name + ".pub")
    try:
        line = public.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if len(line.split()) < 2 or "\n" in line:
        return None
    return LocalKey(private_file=str(private), public_line=line)
