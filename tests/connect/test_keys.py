"""The person's keys, and which of them the account knows."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from soong.connect import keys
from soong.errors import CredentialError, UsageError
from soong.launch.provider import SshKey

if TYPE_CHECKING:
    from pathlib import Path

ED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFirst"
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQSecond"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOONG_HOME", str(tmp_path / "soong"))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def put(home: Path, name: str, line: str) -> None:
    (home / ".ssh" / name).write_text("private")
    (home / ".ssh" / f"{name}.pub").write_text(line + " ada@laptop\n")


def account(*pairs: tuple[str, str]) -> list[SshKey]:
    return [SshKey(id=str(number), name=name, public_key=line) for number, (name, line) in enumerate(pairs)]


def test_usual_keys_are_found_in_openssh_order(home: Path) -> None:
    put(home, "id_rsa", RSA)
    put(home, "id_ed25519", ED)
    assert [key.body for key in keys.local_keys()] == [tuple(ED.split()), tuple(RSA.split())]


def test_a_configured_key_is_the_only_one_by_either_half(home: Path) -> None:
    put(home, "id_ed25519", ED)
    put(home, "work", RSA)
    for word in ("~/.ssh/work", "~/.ssh/work.pub"):
        assert [key.private_file for key in keys.local_keys(word)] == [str(home / ".ssh" / "work")]
    with pytest.raises(UsageError, match="no public key"):
        keys.local_keys("~/.ssh/none")


@pytest.mark.parametrize("content", ["", "not-a-key", "two lines\nof text here", "\x00\xff"])
def test_a_file_that_is_no_key_is_passed_over(home: Path, content: str) -> None:
    (home / ".ssh" / "id_ed25519.pub").write_text(content, encoding="latin-1")
    assert keys.local_keys() == ()


def test_a_match_is_made_by_the_key_not_by_its_comment(home: Path) -> None:
    put(home, "id_ed25519", ED)
    found = keys.matching(keys.local_keys(), account(("other", RSA), ("mine", ED + " from-the-console")))
    assert found is not None
    assert found[1].name == "mine"
    assert keys.matching(keys.local_keys(), account(("other", RSA))) is None


def test_a_name_that_two_keys_share_is_never_launched_with(home: Path) -> None:
    put(home, "id_ed25519", ED)
    with pytest.raises(CredentialError, match="two SSH keys"):
        keys.matching(keys.local_keys(), account(("laptop", RSA), ("laptop", ED)))
    unique = account(("laptop", RSA), ("laptop", ED), ("again", ED))
    found = keys.matching(keys.local_keys(), unique)
    assert found is not None
    assert found[1].name == "again"


def test_soongs_own_key_is_made_once_and_for_its_owner_alone(home: Path) -> None:
    made = keys.make_own_key()
    assert keys.make_own_key() == made
    assert keys.local_keys() == (made,)
    assert made.public_line.startswith("ssh-ed25519 ")
    assert stat.S_IMODE(keys.own_key_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.own_key_file().parent.stat().st_mode) == 0o700
