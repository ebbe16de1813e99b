"""The command line: one file per command, loaded when it is called.

`main` is the program. Commands say *what* they have to say to `output.Output`; whether a person, a script or
nobody reads it is decided there.
"""

from __future__ import annotations


def main() -> None:
    """Run soong with the process's own arguments and end the process with its exit code."""
    import gc

    gc.disable()  # a command lives for a tenth of a second; `plan --batch` switches it on again
    from soong.cli.app import run

    run()
