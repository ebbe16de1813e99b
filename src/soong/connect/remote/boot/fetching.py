"""Files of a repository, and the proof that they are what the Hub has; run by a Python with huggingface_hub."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .orders import read_orders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIECE_BYTES = 1 << 22
VERIFIED = ".soong-verified.json"


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


def sha256_of(path: Path, tell: Callable[[int], None] = lambda _: None) -> str:
    """The digest of a file."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            done += len(piece)
            tell(done)
    return digest.hexdigest()


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
