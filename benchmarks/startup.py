"""How long a person waits for an answer: whole processes, against an empty Python.

Prints the table that docs/speed.md quotes. Rerun: make bench
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

SOONG = Path(sys.executable).parent / "soong"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "soong --version": [str(SOONG), "--version"],
    "soong models": [str(SOONG), "models"],
    "soong plan llama-3.1-8b": [str(SOONG), "plan", "llama-3.1-8b"],
    "soong plan llama-3.1-8b --json": [str(SOONG), "plan", "llama-3.1-8b", "--json"],
    "soong gpus": [str(SOONG), "gpus"],
}


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one whole process."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def medians(runs: int) -> dict[str, float]:
    """The median seconds of each command, runs interleaved so that a busy moment hits all alike."""
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)  # compiles bytecode, fills the file cache
    for _ in range(runs):
        for name, command in COMMANDS.items():
            samples[name].append(seconds(command))
    return {name: statistics.median(times) for name, times in samples.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    result = medians(parser.parse_args().runs)
    base = result["python -c pass"]
    print(f"{'command':34} {'ms':>7} {'× empty Python':>15}")
    for name, value in result.items():
        print(f"{name:34} {value * 1000:7.0f} {value / base:15.1f}")


if __name__ == "__main__":
    main()
