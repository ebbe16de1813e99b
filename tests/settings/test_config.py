"""Settings: four places, one winner, its origin told; writing keeps what the person wrote."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from soong.errors import ConfigError, UsageError
from soong.settings import config

if TYPE_CHECKING:
    from pathlib import Path

LAMBDA_KEY = "secret_planted_0123456789abcdef0123456789abcdef.PlantedPlantedPlanted"


@pytest.fixture
def file(sealed: Path) -> Path:
    path = sealed / "config" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def test_flag_over_environment_over_file_over_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.look_up("lease.hours")[1:] == (4.0, "default", "")
    file.write_text("[lease]\nhours = 3\n")
    assert config.look_up("lease.hours")[1:] == (3.0, "file", str(file))
    monkeypatch.setenv("SOONG_LEASE_HOURS", "90m")
    assert config.look_up("lease.hours")[1:] == (1.5, "environment", "SOONG_LEASE_HOURS")
    assert config.look_up("lease.hours", flag="1h")[1:] == (1.0, "flag", "--hours")


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_CLOUD", " ")
    assert config.look_up("cloud").origin == "default"


def test_every_default_is_what_its_own_parser_gives() -> None:
    for setting in config.SETTINGS.values():
        if setting.default is not None:
            assert setting.parse(setting.default, setting.key) == setting.default


def test_every_setting_has_a_line_of_help_and_a_variable() -> None:
    for key, setting in config.SETTINGS.items():
        assert setting.help.endswith(".") or "..." in setting.help
        assert setting.variable == "SOONG_" + key.upper().replace(".", "_")


def test_defaults_of_the_lease() -> None:
    assert (config.value("lease.hours"), config.value("lease.cap_hours")) == (4.0, 8.0)
    assert config.value("model") is None


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("lease.hours", "1h30m", 1.5),
        ("lease.laptop_only", "yes", True),
        ("budget.monthly_usd", "$100", 100.0),
        ("engine", "vllm", "vllm"),
        ("ssh.key", "/keys/id", "/keys/id"),
        ("notify.command", "notify-send 'soong says'", "notify-send 'soong says'"),
    ],
)
def test_what_is_set_is_read(key: str, given: str, value: object) -> None:
    config.set_value(key, given)
    found = config.look_up(key)
    assert (found.value, found.origin) == (value, "file")
    assert config.unset_value(key)
    assert config.look_up(key).origin == "default"
    assert not config.unset_value(key)


def test_a_home_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config.set_value("ssh.key", "~/.ssh/id_ed25519")
    assert config.value("ssh.key") == "/home/me/.ssh/id_ed25519"


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("lease.hours", "0"),
        ("lease.hours", "soon"),
        ("lease.laptop_only", "perhaps"),
        ("engine", "steam"),
        ("budget.monthly_usd", "-5"),
        ("lambda.api_url", "cloud.lambda.ai"),
        ("lambda.auth", "digest"),
        ("cloud", "two words"),
        ("model", ""),
        ("lease.owner", "a b"),
        ("notify.command", "a\nb"),
    ],
)
def test_what_cannot_be_used_is_not_written(file: Path, key: str, given: str) -> None:
    with pytest.raises(UsageError, match=key):
        config.set_value(key, given)
    assert not file.exists()


def test_comments_and_order_stay(file: Path) -> None:
    file.write_text("# mine\ncloud = 'lambda'  # not the other\n\n[lease]\n# short\nhours = 2\n")
    config.set_value("lease.hours", "3")
    config.set_value("region", "us-west-1")
    config.set_value("lease.cap_hours", "6")
    text = file.read_text()
    for kept in ("# mine\n", "# not the other", "# short\n"):
        assert kept in text
    assert (config.value("region"), config.value("lease.hours"), config.value("cloud")) == (
        "us-west-1",
        3.0,
        "lambda",
    )
    config.unset_value("lease.hours")
    assert "# mine\n" in file.read_text()


@pytest.mark.parametrize(
    ("key", "near"), [("lease.hour", "lease.hours"), ("hours", "lease.hours"), ("modle", "model")]
)
def test_a_key_that_is_none_gets_its_neighbour(key: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        config.look_up(key)
    assert f"did you mean `{near}`?" in caught.value.hints


@pytest.mark.parametrize(
    "content",
    ["lease = 3\n", "[lease]\nhour = 3\n", "modle = 'x'\n", "[[lease]]\nhours = 1\n", "cloud = \n", "\x00",
     "[lease.hours]\nx = 1\n"],
)  # fmt: skip
def test_a_file_with_a_slip_is_named_and_never_half_used(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        config.value("model")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (2 << 20), b"a=" + b"[" * 5000])
def test_a_file_that_is_no_toml(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the settings"):
        config.value("model")
    with pytest.raises(ConfigError):
        config.set_value("model", "x")
    assert file.read_bytes() == content


def test_a_value_of_the_wrong_kind_names_its_place(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[lease]\nhours = 'soon'\n")
    with pytest.raises(ConfigError, match=str(file)) as caught:
        config.value("lease.hours")
    assert "soong config set lease.hours VALUE" in caught.value.hints
    monkeypatch.setenv("SOONG_LEASE_HOURS", "later")
    with pytest.raises(ConfigError, match="SOONG_LEASE_HOURS"):
        config.value("lease.hours")


def test_a_stranger_in_the_file_can_be_taken_out(file: Path) -> None:
    file.write_text("[lease]\nhour = 3\nhours = 2\n")
    assert config.unset_value("lease.hour")
    assert config.value("lease.hours") == 2.0


def test_a_key_does_not_overwrite_a_table(file: Path) -> None:
    file.write_text("lease = 'mine'\n")
    with pytest.raises(ConfigError):
        config.set_value("lease.hours", "3")
    assert file.read_text() == "lease = 'mine'\n"


# ── secrets have no place here ───────────────────────────────────────────────────────────────────

SECRETS = [
    LAMBDA_KEY,
    f"curl -H 'Authorization: Bearer {LAMBDA_KEY}'",
    "hf_" + "a" * 34,
    "sk-" + "a" * 40,
    "-----BEGIN OPENSSH PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["model", "lambda.api_key_command", "notify.command"])
def test_a_secret_is_not_written(file: Path, key: str, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.set_value(key, secret)
    told = f"{caught.value}{caught.value.hints}"
    assert "lambda.key" in told
    assert "SOONG_LAMBDA_API_KEY" in told
    assert secret not in told
    assert not file.exists()


def test_a_secret_that_stands_in_the_file_is_told_not_shown(file: Path) -> None:
    file.write_text(f"[lambda]\napi_key = '{LAMBDA_KEY}'\n")
    with pytest.raises(ConfigError, match="looks like a secret") as caught:
        config.value("model")
    assert "soong config unset lambda.api_key" in caught.value.hints
    assert LAMBDA_KEY not in f"{caught.value}{caught.value.hints}"
    config.unset_value("lambda.api_key")
    assert config.value("model") is None


@pytest.mark.parametrize(
    "text", ["op read op://Private/Lambda/key", "pass lambda", "secret_agent", "hf_model"]
)
def test_what_is_no_secret_passes(text: str) -> None:
    config.set_value("lambda.api_key_command", text)
    assert config.value("lambda.api_key_command") == text


SET = "from soong.settings import config; import sys; config.set_value(sys.argv[1], sys.argv[2])"


@pytest.mark.slow
def test_writers_at_once_lose_nothing(sealed: Path) -> None:
    pairs = [
        ("lease.hours", "3"),
        ("region", "us-west-1"),
        ("model", "m"),
        ("gpu", "a10"),
        ("lease.owner", "me"),
    ]
    running = [subprocess.Popen([sys.executable, "-c", SET, *pair]) for pair in pairs]
    assert [process.wait(60) for process in running] == [0] * len(pairs)
    assert {one.setting.key for one in config.all_values() if one.origin == "file"} == {
        key for key, _ in pairs
    }
