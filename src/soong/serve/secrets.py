"""The key of an endpoint: one for each rental, in the state directory, its owner's alone."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from soong.errors import CredentialError
from soong.settings import paths
from soong.settings.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def folder() -> Path:
    """Where the keys lie."""
    return paths.state_dir() / "keys"


def endpoint_key(rental_id: str) -> Secret:
    """The key of a rental's endpoint; made now if there is none. Whoever asks at the same time gets the same.

    Raises:
        CredentialError: others can read it. SoongError: it cannot be written.
    """
    file = paths.made(folder()) / rental_id
    draft = file.with_name(f".{rental_id}.{secrets.token_hex(4)}")
    try:
        if not file.exists():
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as opened:
                opened.write(f"sk-soong-{secrets.token_hex(24)}\n")
            with suppress(FileExistsError):  # somebody else was quicker, and their key holds
                file.hardlink_to(draft)
    except OSError as error:
        raise paths.cannot_write(file, error) from error
    finally:
        draft.unlink(missing_ok=True)
    return found_key(rental_id)


def found_key(rental_id: str) -> Secret:
    """The key that was made for a rental.

    Raises:
        CredentialError: there is none on this computer, or others can read it.
    """
    file = folder() / rental_id
    try:
        mode = file.stat().st_mode & 0o777
        value = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(
            "the endpoint's key is not on this computer", why=str(error), hints=("soong status",)
        ) from error
    if mode & 0o077:
        raise CredentialError(
            f"the endpoint's key in {file} can be read by others", hints=(f"chmod 600 {file}",)
        )
    if not value:
        raise CredentialError(f"the endpoint's key in {file} is empty", hints=(f"rm {file}",))
    return Secret(value, origin=str(file))


def keep_only(rental_ids: Collection[str]) -> None:
    """Drop the keys of all other rentals."""
    for file in folder().glob("[!.]*"):
        if file.name not in rental_ids:
            file.unlink(missing_ok=True)
