"""The key of Lambda's API: three places in order, none of which may leak it."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from soong.errors import CredentialError
from soong.settings import config, secrets

if TYPE_CHECKING:
    from pathlib import Path

KEY = "secret_planted_0123456789abcdef0123456789abcdef.PlantedPlantedPlanted"


def _command(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def _use_command(code: str) -> None:
    config.set_value("lambda.api_key_command", _command(code))


@pytest.fixture
def key_file(sealed: Path) -> Path:
    (sealed / "config").mkdir(parents=True)
    return sealed / "config" / "lambda.key"


def test_environment_then_command_then_file(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secrets.lambda_key_origin() is None
    key_file.write_text("from-file-1234\n")
    key_file.chmod(0o600)
    found = secrets.lambda_api_key()
    assert (found.reveal(), found.origin, secrets.lambda_key_origin()) == (
        "from-file-1234",
        str(key_file),
        str(key_file),
    )
    _use_command("print('from-command-1234')")
    assert secrets.lambda_api_key().reveal() == "from-command-1234"
    assert secrets.lambda_key_origin() == "lambda.api_key_command"
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", " from-environment-1234\n")
    found = secrets.lambda_api_key()
    assert (found.reveal(), found.origin) == ("from-environment-1234", "SOONG_LAMBDA_API_KEY")


def test_no_key_names_every_place(key_file: Path) -> None:
    with pytest.raises(CredentialError) as caught:
        secrets.lambda_api_key()
    told = f"{caught.value}{caught.value.hints}"
    for place in (
        "SOONG_LAMBDA_API_KEY",
        "lambda.api_key_command",
        str(key_file),
        "soong configure",
        "soong plan",
    ):
        assert place in told


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o622])
def test_a_file_that_others_can_read_is_refused(key_file: Path, mode: int) -> None:
    key_file.write_text(KEY)
    key_file.chmod(mode)
    with pytest.raises(CredentialError, match="by others") as caught:
        secrets.lambda_api_key()
    assert f"chmod 600 {key_file}" in caught.value.hints
    assert KEY not in f"{caught.value}{caught.value.hints}"


@pytest.mark.parametrize(
    "text", ["", " \n", "two words here", "short", "ключ-ключ-ключ", "line-one-1\nline-two-2", "a" * 2000]
)
def test_what_cannot_be_a_key_is_refused_unshown(key_file: Path, text: str) -> None:
    key_file.write_text(text)
    key_file.chmod(0o600)
    with pytest.raises(CredentialError, match="cannot be used") as caught:
        secrets.lambda_api_key()
    if text.strip():
        assert text.strip() not in f"{caught.value}{caught.value.hints}"


def test_a_key_in_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", "ab\r\nX-Evil: 1")
    with pytest.raises(CredentialError, match="SOONG_LAMBDA_API_KEY"):
        secrets.lambda_api_key()


def test_storing_makes_a_file_of_our_own(key_file: Path) -> None:
    assert secrets.store_lambda_api_key(f" {KEY}\n") == key_file
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert secrets.lambda_api_key().reveal() == KEY
    key_file.chmod(0o644)
    secrets.store_lambda_api_key("another-key-1234")
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["lambda.key"]


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_a_failing_command_shows_its_stderr_and_never_its_stdout() -> None:
    parts = f"key = {KEY[:20]!r} + {KEY[20:]!r}"
    _use_command(f"import sys; {parts}; print(key); print('locked, ' + key, file=sys.stderr); sys.exit(3)")
    with pytest.raises(CredentialError) as caught:
        secrets.lambda_api_key()
    assert "ended with 3: locked, ••••" in caught.value.why
    assert KEY not in f"{caught.value}{caught.value.hints}"


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    config.set_value("lambda.api_key_command", f"echo a-key-of-words; touch {touched}")
    with pytest.raises(CredentialError, match="cannot be used"):
        secrets.lambda_api_key()
    assert not touched.exists()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program-here get", "no-such-program-here"),
        ("echo 'unclosed", "cannot be read"),
        ("true", "printed nothing"),
        ("false", "ended with 1"),
    ],
)
def test_a_command_that_gives_no_key(command: str, why: str) -> None:
    config.set_value("lambda.api_key_command", command)
    with pytest.raises(CredentialError, match=why) as caught:
        secrets.lambda_api_key()
    assert caught.value.hints


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "COMMAND_SECONDS", 0.2)
    _use_command("import time; time.sleep(60)")
    with pytest.raises(CredentialError, match=r"within 0\.2 s"):
        secrets.lambda_api_key()


def test_the_command_is_given_no_input() -> None:
    _use_command("import sys; print('read:' + sys.stdin.read() + 'nothing')")
    assert secrets.lambda_api_key().reveal() == "read:nothing"


def test_fingerprints_tell_keys_apart_and_betray_nothing() -> None:
    one, two = secrets.Secret(KEY, origin="a"), secrets.Secret(KEY + "x", origin="a")
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint not in KEY
    assert len(one.fingerprint) == 8
