"""Every way soong can fail, as one tree.

    SoongError                  1  anything that went wrong and that we can explain
    ├── UsageError              2  a word, number or file that the person gave cannot be used
    │   └── ConfigError         2  ... and it stands in a configuration or table file
    ├── CredentialError         3  a key or token is missing or refused
    ├── NotFoundError           4  no such model, GPU or instance
    ├── NothingFitsError        5  nothing fits, or nothing is free
    ├── LedgerError             1  soong's own record of what it rents cannot be used
    └── RemoteError             6  a service did not answer, or answered nonsense
        └── TimedOutError       7  ... in time

The number is the exit code the command line gives it; the library itself has none.
Each error carries what happened, why, what to do next (commands to paste) and where to read more.
"""

from __future__ import annotations


class SoongError(Exception):
    """Something went wrong that can be explained to a person.

    Args:
        message: What happened, one sentence without a full stop where it ends in a value.
        why: The reason, when the message alone does not give it.
        hints: What to do next, most useful first; commands stand in backticks.
        docs: The page that says more, relative to the documentation's root.
    """

    code = "failed"

    def __init__(self, message: str, *, why: str = "", hints: tuple[str, ...] = (), docs: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.hints = hints
        self.docs = docs

    def __str__(self) -> str:
        return f"{self.message} ({self.why})" if self.why else self.message


class UsageError(SoongError):
    """A word, number or file that the person gave cannot be used."""

    code = "usage"


class ConfigError(UsageError):
    """A configuration, table or model file cannot be used; the message names the file and the place in it."""

    code = "config"


class CredentialError(SoongError):
    """A key or token is missing or refused."""

    code = "credentials"


class NotFoundError(SoongError):
    """No such model, GPU or instance."""

    code = "not-found"


class NothingFitsError(SoongError):
    """Nothing for rent holds the model, or nothing is free."""

    code = "nothing-fits"


class LedgerError(SoongError):
    """Soong's own record of what it rents cannot be read or written."""

    code = "ledger"


class RemoteError(SoongError):
    """A service did not answer, or answered nonsense."""

    code = "remote"


class TimedOutError(RemoteError):
    """A service did not answer in time."""

    code = "timed-out"
