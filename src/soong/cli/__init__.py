"""The command line: one file per command, loaded when it is called.

`main` is the program. Commands say *what* they have to say to `output.Output`; whether a person, a script or
nobody reads it is decided there.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see `soong`
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Run soong with the process's own arguments and end the process with its exit code."""
    try:
        import gc

        gc.disable()  # a command lives for a tenth of a second; `plan --batch` switches it on again
        from soong.cli.app import run

        run()
    except KeyboardInterrupt:  # while modules load; `run` answers a later one itself
        _interrupted()


def _interrupted() -> NoReturn:
    """As `soong.cli.app` answers a Ctrl-C, by what is there before anything is imported; `^C` ends its line."""
    import os

    os.write(2, b"\ninterrupted\n")
    os._exit(130)  # taking half-loaded modules down could be interrupted once more
