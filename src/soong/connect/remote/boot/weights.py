"""The weights: sent and looked over, or downloaded by a helper that goes on where it was broken off."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .environment import python_of
from .fetching import is_verified, sha256_of
from .orders import HERE, StepError
from .processes import Watch, helper
from .sharing import shared_lock

if TYPE_CHECKING:
    from .orders import Orders
    from .progress import Progress

WEIGHTS_BASE_SECONDS = 600.0
SLOWEST_BYTES_PER_SECOND = 25e6
"""The slowest download that is waited for: 200 Mbit/s. Below that the rent costs more than another machine."""
HASH_BYTES_PER_SECOND = 100e6
"""Slower than any disk and processor that is for rent hashes."""
RETRY_SECONDS = (5.0, 15.0, 30.0, 60.0)
RETRIED = {"no-network", "timeout"}


def get_weights(orders: Orders, environment: Path, progress: Progress) -> str:
    """The folder or file of the weights, complete and verified."""
    progress.start("weights")
    wish = orders.weights
    if file := str(wish.get("file") or ""):
        path = HERE / os.path.expanduser(file)  # noqa: PTH111 - an absolute one stays
        check_sent(path, wish, progress)
        forget_token()
        progress.done("verified" if wish.get("sha256") else "is there")
        return str(path)
    repository = str(wish.get("repository") or "")
    if not repository:
        forget_token()
        progress.done("none is needed")
        return str(wish.get("path") or "")
    folder = weights_folder(orders, repository, str(wish.get("revision") or "main"))
    total = int(wish.get("bytes") or 0)
    if is_verified(folder, wish):
        forget_token()
        words = "are there already" + without_chats(folder, orders.engine)
        progress.done(words, bytes_done=size_of(folder), bytes_total=total or None)
        return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with shared_lock(folder.with_name(f".{folder.name}.lock"), lambda: progress.running(
        "another machine is downloading them", done=size_of(folder), total=total or None
    )):  # fmt: skip
        if not is_verified(folder, wish):
            download(orders, environment, folder, total, progress)
    forget_token()
    words = "downloaded and verified" + without_chats(folder, orders.engine)
    progress.done(words, bytes_done=size_of(folder), bytes_total=total or None)
    return str(folder)


CHAT_FILES = ("chat_template.jinja", "chat_template.json", "tekken.json")
"""Any of them says how a chat is written; Mistral's own tokenizer knows without a template."""


def without_chats(folder: Path, engine: dict[str, Any]) -> str:
    """What to know of a model that was never taught to chat: engines answer its chats with an error."""
    if engine.get("chat_template") or engine.get("encodes_chats"):
        return ""
    if any((folder / name).exists() for name in CHAT_FILES) or any(folder.glob("*.model.v*")):
        return ""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template"):
            return ""
    return "; they have no chat template: ask /v1/completions, not /v1/chat/completions"


def weights_folder(orders: Orders, repository: str, revision: str) -> Path:
    """Where a repository's files go: on the persistent filesystem when there is one."""
    base = Path(orders.filesystem, "soong", "weights") if orders.filesystem else HERE / "weights"
    return base / re.sub(r"[^A-Za-z0-9._@-]", "--", f"{repository}@{revision}")


def check_sent(path: Path, wish: dict[str, Any], progress: Progress) -> None:
    """A file that was sent is whole."""
    if not path.exists():
        raise StepError(f"{path} is not on this machine", reason="not-found")
    wanted = int(wish.get("bytes") or 0)
    if path.is_dir():
        return
    if wanted and path.stat().st_size != wanted:
        raise StepError(f"{path.name} has {path.stat().st_size:,} bytes, not {wanted:,}", reason="checksum")
    if digest := str(wish.get("sha256") or "").lower():
        found = sha256_of(path, lambda done: progress.running("verifying", done=done, total=wanted or None))
        if found != digest:
            raise StepError(
                f"{path.name} is not the file that was sent: its sha256 differs", reason="checksum"
            )


def download(orders: Orders, environment: Path, folder: Path, total: int, progress: Progress) -> None:
    """Fetch and verify in the engine's environment; a broken line is tried again and resumed."""
    log = HERE / "weights.log"
    log.unlink(missing_ok=True)
    seconds = float(orders.weights.get("seconds") or 0) or (
        WEIGHTS_BASE_SECONDS + total / SLOWEST_BYTES_PER_SECOND + total / HASH_BYTES_PER_SECOND
    )
    drop_lost(folder)
    check_room(folder, total)
    deadline = time.monotonic() + seconds
    env = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
    }
    if token := read_token():
        env["HF_TOKEN"] = token
    watch = Watch(progress, lambda: size_of(folder), total or None)
    words = [python_of(environment), str(HERE / "boot.py"), "fetch", str(folder)]
    for pause in (*RETRY_SECONDS, None):
        try:
            helper(words, log, deadline - time.monotonic(), watch, env)
        except StepError as error:  # noqa: PERF203 - the loop is about the error
            left = deadline - time.monotonic()
            if error.reason not in RETRIED or pause is None or left < pause:
                raise
            progress.line("running", message=f"{error}; again in {pause:.0f} s", bytes_done=size_of(folder))
            time.sleep(pause)
        else:
            return


LOST = re.compile(r".*\.[0-9a-f]{8}\.incomplete")
"""Since its pull request 4228 huggingface_hub downloads to a name of the process's own and never comes back to it: what
a killed one leaves is lost, and would fill the disk. Files that were complete are not fetched again."""


def drop_lost(folder: Path) -> None:
    """Remove what a killed download has left and no other can go on with."""
    for path in folder.glob("**/*.incomplete"):
        if LOST.fullmatch(path.name):
            path.unlink(missing_ok=True)


def check_room(folder: Path, total: int) -> None:
    """Raise when the disk cannot hold what is still to come."""
    free, have = shutil.disk_usage(folder).free, size_of(folder)
    if total - have > free:
        raise StepError(
            f"the disk is full: {(total - have) / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free",
            reason="disk-full",
        )


def size_of(folder: Path) -> int:
    """Bytes of a folder's files; of unfinished ones what is on the disk, since they may have holes."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118 - many files, often
                whole = not name.endswith(".incomplete")
                total += status.st_size if whole else min(status.st_size, status.st_blocks * 512)
    return total


def read_token() -> str:
    """The Hub's token, if one was sent."""
    try:
        return (HERE / "hf_token").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def forget_token() -> None:
    """The weights are here: nothing needs the token any more."""
    (HERE / "hf_token").unlink(missing_ok=True)
