#!/usr/bin/env -S python3 -S
"""Laid on a machine of the sandbox as `nvidia-smi`: answers the few questions that scripts ask of the real one."""

from __future__ import annotations

import json
import os
import sys


def uuid(index: int) -> str:
    """The name of a GPU among all GPUs."""
    return f"GPU-5a5a5a5a-0000-0000-0000-{index:012d}"


def values(facts: dict[str, object], index: int) -> dict[str, str]:
    """Everything that can be asked of one GPU, with its unit."""
    mib = int(str(facts["memory_bytes"])) >> 20
    name, capability = str(facts["gpu"]), facts["compute_capability"]
    assert isinstance(capability, list)  # noqa: S101 - narrows for the type checker
    return {
        "index": str(index),
        "uuid": uuid(index),
        "gpu_uuid": uuid(index),
        "pci.bus_id": f"00000000:{index + 1:02X}:00.0",
        "name": name,
        "gpu_name": name,
        "count": str(facts["gpus"]),
        "driver_version": str(facts["driver_version"]),
        "compute_cap": ".".join(map(str, capability)),
        "memory.total": f"{mib} MiB",
        "memory.free": f"{mib} MiB",
        "memory.used": "0 MiB",
        "memory.reserved": "0 MiB",
        "utilization.gpu": "0 %",
        "utilization.memory": "0 %",
        "temperature.gpu": "30",
        "pstate": "P0",
        "power.draw": "60.00 W",
        "ecc.errors.uncorrected.volatile.total": "0",
    }


def query(facts: dict[str, object], fields: list[str], form: str) -> None:
    """`--query-gpu=FIELDS --format=FORM`."""
    has_units = "nounits" not in form
    units = {"memory": "MiB", "utilization": "%", "power": "W"}
    if "noheader" not in form:
        heads = [
            f"{field} [{units[kind]}]" if (kind := field.split(".")[0]) in units else field
            for field in fields
        ]
        print(", ".join(heads))  # noqa: T201
    for index in range(int(str(facts["gpus"]))):
        found = values(facts, index)
        cells = [found.get(field, "[N/A]") for field in fields]
        is_measure = [field.split(".")[0] in units for field in fields]
        shown = [
            cell.split(" ")[0] if measure and not has_units else cell
            for cell, measure in zip(cells, is_measure, strict=True)
        ]
        print(", ".join(shown))  # noqa: T201


def main(words: list[str]) -> int:
    """What the real one does, in small."""
    with open(f"{os.environ['SOONG_ROOT']}/etc/sandbox.json") as file:  # noqa: PTH123 - starts fast
        facts = json.load(file)
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if "--query-gpu" in options:
        query(
            facts,
            [field.strip() for field in options["--query-gpu"].split(",")],
            options.get("--format", "csv"),
        )
    elif "-L" in words or "--list-gpus" in words:
        for index in range(facts["gpus"]):
            print(f"GPU {index}: {facts['gpu']} (UUID: {uuid(index)})")  # noqa: T201
    elif not any(word.startswith("--query-") for word in words):
        print(f"NVIDIA-SMI {facts['driver_version']} (a rehearsal: no real GPU)")  # noqa: T201
        for index in range(facts["gpus"]):
            print(f"|  {index}  {facts['gpu']}  |  0MiB / {facts['memory_bytes'] >> 20}MiB  |")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
