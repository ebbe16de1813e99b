"""Keys and tokens: where they come from, and that they never come out again by accident."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, NoReturn

from soong.errors import CredentialError
from soong.settings import paths

if TYPE_CHECKING:
    from pathlib import Path

LAMBDA_VARIABLE = "SOONG_LAMBDA_API_KEY"
LAMBDA_FILE = "lambda.key"
LAMBDA_COMMAND_SETTING = "lambda.api_key_command"

COMMAND_SECONDS = 60.0
"""A password manager may wait for a finger or a PIN."""

_MOST_FILE_BYTES = 4096
_MOST_LETTERS = 400
_SOUND = re.compile(r"[\x21-\x7e]{8,1000}")
"""What can stand in a header and is long enough to be a key."""

_SECRET_SHAPES = re.compile(
    r"secret_[^\s_]+_[0-9a-f]{16,}\.\S+"  # Lambda Cloud
    r"|hf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|(?:sk|ghp|gho|github_pat|glpat|xoxb)[-_][A-Za-z0-9_-]{16,}"  # OpenAI and alike, GitHub, GitLab, Slack
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


class Secret:
    """A key or token. Printing, formatting, comparing in a test's failure or encoding it shows a mask only.

    Args:
        value: the secret itself. origin: where it came from, for messages: `SOONG_LAMBDA_API_KEY`, a file, a command.
    """

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, *, origin: str) -> None:
        self._value = value
        self.origin = origin

    def reveal(self) -> str:
        """The secret itself: for the header of a request, and nowhere else."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that tell two keys apart and betray neither."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret(••••, from {self.origin})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def looks_like_secret(text: str) -> bool:
    """Whether a text has the shape of a key, token or private key that is known to us."""
    return _SECRET_SHAPES.search(text) is not None


def lambda_api_key() -> Secret:
    """The key of Lambda's API: from the environment, else from the user's command, else from the user's file.

    Raises:
        CredentialError: there is none, the command fails, or the file can be read by others; says what to do.
        ConfigError: the settings cannot be read.
    """
    variable = os.environ.get(LAMBDA_VARIABLE, "").strip()
    if variable:
        return _checked(variable, LAMBDA_VARIABLE)
    from soong.settings import config

    command = config.value(LAMBDA_COMMAND_SETTING)
    if command:
        return _checked(_from_command(command), f"the command in {LAMBDA_COMMAND_SETTING}")
    path = lambda_key_path()
    text = _from_file(path)
    if text is None:
        raise _no_key(path)
    return _checked(text, str(path))


def lambda_key_origin() -> str | None:
    """Where the key would come from, without reading it or running anything; None when nowhere.

    Raises:
        ConfigError: the settings cannot be read.
    """
    from soong.settings import config

    if os.environ.get(LAMBDA_VARIABLE, "").strip():
        return LAMBDA_VARIABLE
    if config.value(LAMBDA_COMMAND_SETTING):
        return LAMBDA_COMMAND_SETTING
    return str(lambda_key_path()) if lambda_key_path().exists() else None


def lambda_key_path() -> Path:
    """The file for the key, whether or not it is there."""
    return paths.config_dir() / LAMBDA_FILE


def typed_lambda_api_key(value: str) -> Secret:
    """A key as a person typed or piped it, not kept anywhere yet.

    Raises:
        CredentialError: it cannot be a key.
    """
    return _checked(value.strip(), "what was given")


def store_lambda_api_key(value: str) -> Path:
    """Keep the key in the user's file, readable by nobody else.

    Raises:
        CredentialError: it cannot be a key. SoongError: the file cannot be written.
    """
    from soong.settings.files import replace_text

    path = lambda_key_path()
    secret = typed_lambda_api_key(value)
    paths.made(path.parent)
    if path.exists():
        path.chmod(0o600)
    replace_text(path, secret.reveal() + "\n", new_mode=0o600)
    return path


def _no_key(path: Path) -> CredentialError:
    return CredentialError(
        "there is no key for Lambda's API",
        why=f"looked at {LAMBDA_VARIABLE}, the setting {LAMBDA_COMMAND_SETTING} and {path}",
        hints=(
            "soong configure",
            f"soong config set {LAMBDA_COMMAND_SETTING} 'op read op://Private/Lambda/key'",
            "without an account: `soong plan MODEL`, `soong offers`, `soong start --cloud sandbox`",
        ),
    )


def _checked(value: str, origin: str) -> Secret:
    if not _SOUND.fullmatch(value):
        what = "it is empty" if not value else "a key is one word of 8 or more plain characters"
        raise CredentialError(
            f"the key for Lambda's API from {origin} cannot be used",
            why=what,
            hints=("your keys: https://cloud.lambda.ai/api-keys", "soong configure"),
        )
    return Secret(value, origin=origin)


def _from_file(path: Path) -> str | None:
    """The text of a key file; None when there is no such file.

    Raises:
        CredentialError: others can read it, or we cannot.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialError(
            f"cannot read the key file {path}", why=error.strerror or str(error), hints=(f"ls -l {path}",)
        ) from error
    if os.name == "posix" and mode & 0o077:
        raise CredentialError(
            f"the key file {path} can be read by others",
            why=f"its permissions are {mode & 0o777:03o}; a key that others may have read should be replaced",
            hints=(f"chmod 600 {path}", "a new key: https://cloud.lambda.ai/api-keys"),
        )
    return text.decode("utf-8", "replace").strip()


def _from_command(command: str) -> str:
    """What the user's command prints; run without a shell, so that nothing in it is expanded.

    Raises:
        CredentialError: it cannot be run, fails, prints nothing, or takes too long. Its stderr is shown, its stdout
            never.
    """
    import shlex
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise _command_failed(f"it cannot be read: {error}") from None
    if not words:
        raise _command_failed("it is empty")
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _command_failed(f"cannot run `{words[0]}`: {reason}") from None
    with process:
        try:
            stdout, stderr = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise _command_failed(f"`{words[0]}` did not end within {COMMAND_SECONDS:g} s") from None
    printed = stdout.decode("utf-8", "replace").strip()
    if process.returncode != 0 or not printed:
        said = _shown(stderr, hide=printed)
        raise _command_failed(f"`{words[0]}` ended with {process.returncode}{said}")
    return printed


def _shown(stderr: bytes, *, hide: str) -> str:
    text = " ".join(stderr.decode("utf-8", "replace").split())
    if hide:
        text = text.replace(hide, "••••")
    text = _SECRET_SHAPES.sub("••••", text)
    return f": {text[-_MOST_LETTERS:]}" if text else " and printed nothing"


def _command_failed(why: str) -> CredentialError:
    return CredentialError(
        f"the command in {LAMBDA_COMMAND_SETTING} gave no key",
        why=why,
        hints=(f"soong config get {LAMBDA_COMMAND_SETTING}", "run it yourself in this terminal"),
    )
