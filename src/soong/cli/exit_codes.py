"""Exit codes: part of the interface, `soong help exit-codes` prints them. The library knows nothing of them."""

from __future__ import annotations

from enum import IntEnum

from soong import errors


class ExitCode(IntEnum):
    """What a script learns from how soong ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CREDENTIALS = 3
    NOT_FOUND = 4
    NOTHING_FITS = 5
    REMOTE = 6
    TIMED_OUT = 7
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.DONE: "done; also a declined question",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "wrong usage or configuration",
    ExitCode.CREDENTIALS: "credentials missing or refused",
    ExitCode.NOT_FOUND: "no such model, GPU or instance",
    ExitCode.NOTHING_FITS: "nothing fits or nothing free",
    ExitCode.REMOTE: "a cloud or the Hugging Face Hub failed",
    ExitCode.TIMED_OUT: "timed out",
    ExitCode.INTERRUPTED: "interrupted",
}

_BY_ERROR: tuple[tuple[type[errors.SoongError], ExitCode], ...] = (
    (errors.TimedOutError, ExitCode.TIMED_OUT),
    (errors.RemoteError, ExitCode.REMOTE),
    (errors.UsageError, ExitCode.USAGE),
    (errors.CredentialError, ExitCode.CREDENTIALS),
    (errors.NotFoundError, ExitCode.NOT_FOUND),
    (errors.NothingFitsError, ExitCode.NOTHING_FITS),
)


def exit_code_of(error: errors.SoongError) -> ExitCode:
    """The exit code of an error; the most particular class decides."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILED)
