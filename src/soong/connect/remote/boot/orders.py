"""What is to be done, where it is done, and what a step raises that cannot be."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(sys.argv[0]).resolve().parent
"""The folder that `boot.py` lies in."""

ENGINE_SECONDS = 1800.0


class StepError(Exception):
    """A step that failed, and why."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "other",
        exit_code: int | None = None,
        log: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code
        self.log = log or []


class Orders(NamedTuple):
    """What `serve.json` asks for; see docs/machine.md."""

    engine: dict[str, Any]
    gate: dict[str, Any]
    environment: dict[str, Any]
    weights: dict[str, Any]
    gpus: int
    ready_seconds: float
    filesystem: str


def read_orders() -> Orders:
    """The orders in force.

    Raises:
        StepError: they cannot be read.
    """
    try:
        said = json.loads((HERE / "serve.json").read_bytes())
        return Orders(
            engine=dict(said["engine"]),
            gate=dict(said.get("gate") or {}),
            environment=dict(said.get("environment") or {}),
            weights=dict(said.get("weights") or {}),
            gpus=int(said.get("gpus") or 0),
            ready_seconds=float(said.get("ready_seconds") or ENGINE_SECONDS),
            filesystem=mounted(str(said.get("filesystem") or "")),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StepError(f"serve.json cannot be read: {error!r}", reason="orders") from None


def mounted(path: str) -> str:
    """Where a filesystem is; empty where it is not mounted, so that nothing takes the system's own disk for it.

    `{root}` stands for the machine's root, which is a folder in a rehearsal; a path without it is made when missing.
    """
    found = path.replace("{root}", os.environ.get("SOONG_ROOT", ""))
    return found if found == path or Path(found).is_dir() else ""
