"""What this computer has to serve with: its NVIDIA GPUs as the driver tells of them, or its processor and memory."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

import msgspec

from soong import tracing
from soong.errors import NotFoundError
from soong.gpus.catalogue import SAME_MEMORY_BYTES, find_gpu
from soong.gpus.gpu import Gpu

MIB = 1 << 20
GB = 10**9
QUERY = "index,name,memory.total,memory.used,compute_cap,mig.mode.current"
TOOL_SECONDS = 20.0
"""The first call after boot loads the driver, which takes seconds on a machine of eight GPUs."""
FREE_LEAST = 0.92
"""vLLM 0.33 takes this part of a GPU unless told otherwise (`config/cache.py` gpu_memory_utilization), and refuses to
start where less is free; a card that others use more of is not offered."""
CPU = "cpu"


class Card(NamedTuple):
    """One GPU. number: as nvidia-smi counts. problem: why it cannot be served from now; empty when it can."""

    number: int
    gpu: Gpu
    problem: str = ""


class Hardware(NamedTuple):
    """This computer. memory_bytes: what its processor can use; available_bytes: of it, not used by other programs."""

    cards: tuple[Card, ...]
    memory_bytes: int
    available_bytes: int
    cpu_architecture: str
    cpus: int

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """What the planner needs to know: each kind of card, or the processor where there is none."""
        kinds = {card.gpu.id: card.gpu for card in self.cards}
        return tuple(kinds.values()) or (cpu_row(self),)


def look() -> Hardware:
    """Ask the driver and the system."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = _limit_of_group()
    machine = platform.machine().lower()
    return Hardware(
        cards=_cards(_driver_says()),
        memory_bytes=min(total, limit or total),
        available_bytes=min(_available() or total, max(0, limit - used) if limit else total),
        cpu_architecture="arm64" if machine in {"arm64", "aarch64"} else "x86_64",
        cpus=os.cpu_count() or 1,
    )


def cpu_row(hardware: Hardware) -> Gpu:
    """The processor in the planner's words: its memory is what other programs leave free now."""
    return Gpu(
        id=CPU,
        name=f"{platform.machine() or 'CPU'} processor",
        vendor="cpu",
        label_gb=max(1, round(hardware.memory_bytes / GB)),
        memory_bytes=max(1, hardware.available_bytes),
        bandwidth_bytes_per_second=0,
        dense_flops={},
        native_formats=("fp32",),
        interconnect="none",
        cpu_architecture="arm64" if hardware.cpu_architecture == "arm64" else "x86_64",
        unified_memory=True,
        source="this computer",
        as_of="",
    )


def _driver_says() -> str:
    """nvidia-smi's table; empty where there is no driver."""
    words = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(  # noqa: S603
            tracing.own(words),
            capture_output=True,
            timeout=TOOL_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.decode(errors="replace") if ended.returncode == 0 else ""


def _cards(said: str) -> tuple[Card, ...]:
    rows = [[word.strip() for word in line.split(",")] for line in said.splitlines()]
    return tuple(_card(row) for row in rows if len(row) == len(QUERY.split(",")) and row[0].isdigit())


def _card(row: list[str]) -> Card:
    number, name, total, used, capability, mig = row
    total_bytes = _mib(total)
    gpu = _gpu(name, total_bytes, capability)
    problem = ""
    if mig == "Enabled":
        problem = "it is divided (MIG)"
    elif gpu.memory_bytes == 0:
        problem = "the driver does not tell its memory"
    elif total_bytes and _mib(used) > (1 - FREE_LEAST) * total_bytes:
        gib = _mib(used) / 2**30
        problem = f"other programs use {gib:.1f} of its {total_bytes / 2**30:.1f} GiB"
    return Card(int(number), gpu, problem)


def _gpu(name: str, total_bytes: int, capability: str) -> Gpu:
    """The table's row for a card, with the memory that this one has; a row of its own for a card that soong lacks."""
    try:
        known = find_gpu(name, memory_bytes=total_bytes or None)
    except NotFoundError:
        return _own_row(name, total_bytes, capability)
    if total_bytes and abs(known.memory_bytes - total_bytes) > SAME_MEMORY_BYTES:
        return msgspec.structs.replace(
            known, memory_bytes=total_bytes, label_gb=max(1, round(total_bytes / GB))
        )
    return known


def _own_row(name: str, total_bytes: int, capability: str) -> Gpu:
    words = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    major, _, minor = capability.partition(".")
    return Gpu(
        id="-".join(filter(None, words.split("-")))[:60] or "gpu",
        name=name,
        vendor="nvidia",
        label_gb=max(1, round(total_bytes / GB)),
        memory_bytes=total_bytes,
        bandwidth_bytes_per_second=0,
        dense_flops={},
        compute_capability=(int(major), int(minor)) if major.isdigit() and minor.isdigit() else None,
        native_formats=(),
        interconnect="unknown",
        source="nvidia-smi on this computer",
        as_of="",
    )


def _mib(word: str) -> int:
    """Bytes from the driver's MiB; 0 where it does not tell."""
    return int(word) * MIB if word.isdigit() else 0


def _available() -> int:
    """Memory that no other program uses, as Linux counts it; 0 elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def _limit_of_group() -> tuple[int, int]:
    """The limit of the control group that this process is in (a container's), and what is used; 0 without one."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").partition("::")[2].strip()
    except OSError:
        return 0, 0
    top = Path("/sys/fs/cgroup")
    for folder in (top / own.lstrip("/"), top):
        try:
            limit = (folder / "memory.max").read_text(encoding="ascii").strip()
            used = (folder / "memory.current").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit() and used.isdigit():
            return int(limit), int(used)
    return 0, 0
