"""The owner's word: whose machines this computer may end without asking."""

from __future__ import annotations

import getpass
import re
import secrets

from soong.settings import config, paths


def owner() -> str:
    """The configured owner (`lease.owner`), else a word made once for this computer and kept in the state directory.

    Two computers of one person who set the same `lease.owner` look after each other's machines.

    Raises:
        SoongError: the word cannot be kept.
    """
    configured = config.value("lease.owner")
    return str(configured) if configured else _made_once()


def _made_once() -> str:
    file = paths.state_dir() / "owner"
    try:
        kept = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        kept = ""
    if kept:
        return kept
    paths.made(file.parent)
    word = f"{_user()}-{secrets.token_hex(2)}"
    try:
        with file.open("x", encoding="ascii") as stream:
            stream.write(word + "\n")
    except FileExistsError:
        return file.read_text(encoding="ascii").strip() or word
    except OSError as error:
        raise paths.cannot_write(file, error) from error
    return word


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = ""
    return re.sub(r"[^a-z0-9]", "", name.lower())[:24] or "someone"
