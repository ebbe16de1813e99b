"""Where Hugging Face's own tools keep things on this machine: their variables, their token, their cache.

Everything is read as `huggingface_hub` reads it, so that a model that was downloaded once, or an account that
was logged in once, is known here too. Source: huggingface_hub 1.x `constants.py`, `utils/_auth.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from soong.errors import CredentialError, UsageError

DEFAULT_ENDPOINT = "https://huggingface.co"

DEFAULT_READ_SECONDS = 10.0
"""huggingface_hub's own wait for the next bytes: `constants.py` DEFAULT_DOWNLOAD_TIMEOUT."""

_TRUE = frozenset({"1", "on", "yes", "true"})
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,1000}")
_ENDPOINT = re.compile(r"https?://(?P<host>[^/\s?#]+)(/[^\s?#]*)?")

LONGEST_NAME = 96
"""The Hub's own limit on ORG/NAME: huggingface_hub `utils/_validators.py`."""

MOST_TOKEN_FILE_BYTES = 4096


class HubSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the Hub, and the cache that may spare the way.

    endpoint: without a slash at the end. cache: the folder with `models--ORG--NAME`.
    offline: never ask the Hub. token: None where there is none. It never appears in texts: `repr` leaves it out.
    """

    endpoint: str
    cache: Path
    offline: bool
    token: str | None = None
    read_seconds: float = DEFAULT_READ_SECONDS

    def __repr__(self) -> str:
        return f"HubSettings(endpoint={self.endpoint!r}, cache={str(self.cache)!r}, offline={self.offline})"


def settings_from_environment() -> HubSettings:
    """What Hugging Face's own variables say.

    HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT.

    Raises:
        UsageError: HF_ENDPOINT is not an address.
        CredentialError: the token holds characters that no token has.
    """
    home = _home()
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return HubSettings(
        endpoint=_endpoint(),
        cache=_expanded(cache) if cache else home / "hub",
        offline=any(_is_true(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
        token=None if _is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") else _token(home),
        read_seconds=_read_seconds(),
    )


def check_name(name: str) -> str:
    """A repository's name, ORG/NAME, as it was given.

    Raises:
        UsageError: it is not of that form.
    """
    parts = name.split("/")
    sound = len(parts) == 2 and all(_NAME.fullmatch(part) for part in parts) and len(name) <= LONGEST_NAME
    if not sound or ".." in name or "--" in name or name.endswith(".git"):
        shown = name if len(name) <= 100 else f"{name[:97]}..."
        raise UsageError(
            f"`{shown}` is not the name of a Hugging Face repository",
            why="such a name is ORG/NAME, of letters, digits, `-`, `_` and `.`",
            hints=("a folder or file is written with `./` in front",),
        )
    return name


def check_revision(revision: str) -> str:
    """A branch, tag or commit, as it was given.

    Raises:
        UsageError: no revision can be written so.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision or revision.endswith("/"):
        raise UsageError(f"`{revision[:100]}` is not a branch, tag or commit")
    return revision


def snapshot(settings: HubSettings, name: str, revision: str) -> Path | None:
    """The cached folder of a revision that has a config.json; None where the cache has none."""
    root = settings.cache / f"models--{name.replace('/', '--')}"
    commit = revision if _COMMIT.fullmatch(revision) else _read_line(root / "refs" / revision)
    if commit is None or not _COMMIT.fullmatch(commit):
        return None
    folder = root / "snapshots" / commit
    try:
        return folder if (folder / "config.json").is_file() else None
    except OSError:
        return None


def _endpoint() -> str:
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).strip().rstrip("/")
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None or "@" in found["host"]:
        raise UsageError(
            "HF_ENDPOINT is not an address",
            why="it must look like https://huggingface.co, without a name or password in it",
            hints=("unset HF_ENDPOINT",),
        )
    return endpoint


def _read_seconds() -> float:
    try:
        seconds = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or DEFAULT_READ_SECONDS)
    except ValueError:
        return DEFAULT_READ_SECONDS
    return seconds if 0 < seconds <= 3600 else DEFAULT_READ_SECONDS


def _home() -> Path:
    given = os.environ.get("HF_HOME")
    if given:
        return _expanded(given)
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"


def _token(home: Path) -> str | None:
    given = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    place = "HF_TOKEN"
    if not given:
        path = os.environ.get("HF_TOKEN_PATH")
        file = _expanded(path) if path else home / "token"
        given, place = _read_line(file), str(file)
    token = (given or "").strip()
    if token and not _TOKEN.fullmatch(token):
        raise CredentialError(
            f"the Hugging Face token in {place} holds characters that no token has",
            hints=("export HF_TOKEN=hf_... with a token from https://huggingface.co/settings/tokens",),
        )
    return token or None


def _read_line(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MOST_TOKEN_FILE_BYTES).decode("utf-8", "replace").strip() or None
    except (OSError, ValueError):
        return None


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser()


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in _TRUE
