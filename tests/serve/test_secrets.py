"""The key of an endpoint: one, whole, and its owner's alone, however many ask for it at once."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from soong.errors import CredentialError
from soong.serve import secrets

ASK = "from soong.serve.secrets import endpoint_key; print(endpoint_key('0123456789').reveal())"


def test_those_who_ask_at_once_get_the_same_key() -> None:
    asking = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    keys = {process.communicate(timeout=60)[0].strip() for process in asking}
    assert len(keys) == 1
    assert keys == {secrets.found_key("0123456789").reveal()}
    (file,) = secrets.folder().iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secrets.keep_only(())
    with pytest.raises(CredentialError, match="not on this computer"):
        secrets.found_key("0123456789")


def test_a_key_that_others_can_read_is_refused() -> None:
    secrets.endpoint_key("0123456789")
    (secrets.folder() / "0123456789").chmod(0o640)
    with pytest.raises(CredentialError, match="can be read by others"):
        secrets.endpoint_key("0123456789")
