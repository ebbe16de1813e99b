"""Files and logs over SSH: all or nothing, resumed, read once."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serve.conftest import Rented

pytestmark = pytest.mark.slow


def test_files_and_logs_over_ssh(rented: Rented, tmp_path: Path) -> None:
    machine = rented.machine
    machine.put(b"one\n", ".soong/a file", mode=0o600)
    there = rented.home / ".soong" / "a file"
    assert (there.read_bytes(), stat.S_IMODE(there.stat().st_mode)) == (b"one\n", 0o600)
    assert machine.run(["printf", "%s", "it's; $HOME"]).out == "it's; $HOME"

    big = tmp_path / "big.gguf"
    big.write_bytes(os.urandom(5 << 20))
    part = rented.home / ".soong" / "big.gguf.part"
    part.write_bytes(big.read_bytes()[: 2 << 20])
    told: list[int] = []
    machine.put(big, ".soong/big.gguf", tell=lambda done, _: told.append(done))
    assert told[0] == 3 << 20, "what was there is not sent again"
    assert (rented.home / ".soong" / "big.gguf").read_bytes() == big.read_bytes()
    part.write_bytes(b"x" * 100)
    (rented.home / ".soong" / "big.gguf").unlink()
    machine.put(big, ".soong/big.gguf")
    assert (rented.home / ".soong" / "big.gguf").read_bytes() == big.read_bytes()

    following = machine.follow(".soong/log", seconds=0.2)
    assert next(following) == b""
    log = rented.home / ".soong" / "log"
    log.write_text("first\n")
    assert next(piece for piece in following if piece) == b"first\n"
    with log.open("a") as file:
        file.write("second\n")
    assert next(piece for piece in following if piece) == b"second\n"
    following.close()  # type: ignore[attr-defined]
