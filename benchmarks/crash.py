"""The whole crash matrix: soong killed at every step of start, extend and stop, under every fault.

    python benchmarks/crash.py [--every N]

Prints a table: runs, and broken promises, by command and fault. Ends with 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.crash.matrix import COMMANDS, FAULTS, Bench, whole

from soong.cli import text


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="take only every so-many-th run")
    every = parser.parse_args().every
    runs, broken, killed = Counter[tuple[str, str]](), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            for number, run in enumerate(whole(bench, every=every), 1):
                runs[run.command, run.fault] += 1
                killed += bool(run.killed_at)
                if run.problems:
                    broken[run.command, run.fault] += 1
                    print(run, flush=True)
                if number % 50 == 0:
                    print(f"{number} runs", file=sys.stderr, flush=True)
        finally:
            bench.close()
    print(_table(runs, broken))
    print(f"{runs.total()} runs, {killed} killed, {broken.total()} broken promises")
    return 1 if broken else 0


def _table(runs: Counter[tuple[str, str]], broken: Counter[tuple[str, str]]) -> str:
    names = [fault.get("name", "none") for fault in FAULTS]
    rows = [[name, *(f"{broken[one, name]} of {runs[one, name]}" for one in COMMANDS)] for name in names]
    return text.table(["Fault", *(f"{one}: broken" for one in COMMANDS)], rows, right=(1, 2, 3))


if __name__ == "__main__":
    sys.exit(main())
