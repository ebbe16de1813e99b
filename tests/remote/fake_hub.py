"""Stands in for `huggingface_hub` on a machine of the tests: a folder is the Hub, and copying is the download.

In the folder: the files of the repository, and `behaviour.json`: {"fail": [words of the errors to come], "pause":
seconds between pieces, "spoil": name of a file that arrives wrong the first time, "seen": who asked}.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HUB = Path(os.environ["FAKE_HUB"])
PIECE = 100_000


def behave() -> dict[str, Any]:
    """What to do this time; one failure is used up."""
    path = HUB / "behaviour.json"
    told: dict[str, Any] = json.loads(path.read_text())
    told.setdefault("seen", []).append(os.environ.get("HF_TOKEN", ""))
    failures = told.setdefault("fail", [])
    now = failures.pop(0) if failures else ""
    spoil, told["spoil"] = told.get("spoil"), None
    path.write_text(json.dumps(told))
    if now:
        sys.exit(now)
    return {**told, "spoil": spoil}


class HfApi:
    def model_info(self, repository: str, *, revision: str | None, files_metadata: bool) -> Any:
        assert files_metadata
        assert repository == "org/name"
        siblings = []
        for path in sorted(HUB.glob("files/**/*")):
            if path.is_file():
                content = path.read_bytes()
                lfs = (
                    {"sha256": hashlib.sha256(content).hexdigest()} if path.suffix == ".safetensors" else None
                )
                name = str(path.relative_to(HUB / "files"))
                siblings.append(SimpleNamespace(rfilename=name, size=len(content), lfs=lfs))
        return SimpleNamespace(sha=revision or "main", siblings=siblings)


def snapshot_download(
    repository: str, *, revision: str, local_dir: Path, allow_patterns: Any, ignore_patterns: Any
) -> None:
    told = behave()
    for path in sorted(HUB.glob("files/**/*")):
        name = str(path.relative_to(HUB / "files"))
        is_wished = not allow_patterns or any(fnmatch.fnmatch(name, one) for one in allow_patterns)
        if (
            not path.is_file()
            or not is_wished
            or any(fnmatch.fnmatch(name, one) for one in ignore_patterns or [])
        ):
            continue
        target = Path(local_dir) / name
        if target.exists():
            continue
        half = Path(local_dir) / ".cache" / f"{name}.incomplete"
        half.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        with half.open("ab") as file:
            while file.tell() < len(content):
                file.write(content[file.tell() : file.tell() + PIECE])
                file.flush()
                time.sleep(float(told.get("pause") or 0))
        if told["spoil"] == name:
            half.write_bytes(bytes(len(content)))
        target.parent.mkdir(parents=True, exist_ok=True)
        half.replace(target)
