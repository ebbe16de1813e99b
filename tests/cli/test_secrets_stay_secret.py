"""Distinctive secrets are planted, journeys are run, good and bad, and then everything is searched for them."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.rehearsal import MODEL, Rehearsal, until
from tests.clouds import samples
from tests.clouds.server import FakeLambda, Reply, data, error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

KEY = "secret_plantedkey_0123456789abcdef0123456789abcdef.PlantedPlantedPlanted"
TOKEN = "hf_PlantedPlantedPlantedPlanted42"
PRIVATE = "PLANTEDPRIVATEKEYPLANTEDPRIVATEKEY"
PLANTED = (KEY, TOKEN, PRIVATE)
START = ("start", "--model", MODEL, "--yes")


def found_in(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


def files_with_secrets(folder: Path, *, but: tuple[Path, ...] = ()) -> list[str]:
    """Every file below a folder, as bytes: SQLite, its write-ahead log, logs, settings."""
    return [
        f"{file}: {secret[:12]}"
        for file in folder.rglob("*")
        if file.is_file() and file not in but
        for secret in PLANTED
        if secret.encode() in file.read_bytes()
    ]


class Watcher(threading.Thread):
    """Looks at the command line of every process, and at the environment of those that are a rented machine's."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.found: set[str] = set()
        self.looked = 0

    def run(self) -> None:
        while not self.over.wait(0.01):
            for entry in Path("/proc").glob("[0-9]*"):
                self._look(entry)

    def _look(self, entry: Path) -> None:
        try:
            words = (entry / "cmdline").read_bytes()
            variables = (entry / "environ").read_bytes() if b"machine_host" in words else b""
        except OSError:
            return
        self.looked += 1
        for secret in PLANTED:
            if secret.encode() in words:
                self.found.add(f"command line: {words[:200]!r}")
            if secret.encode() in variables:
                self.found.add(f"environment of {words[:200]!r}")


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("no /proc here")
    running = Watcher()
    running.start()
    yield running
    running.over.set()
    running.join()


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a token and a private key in it."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_other").write_text(PRIVATE)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return home


@pytest.mark.usefixtures("open_umask")
def test_a_rehearsal_tells_nothing(
    soong: Soong, sealed: Path, person: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("asyncssh")
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", KEY)
    with Rehearsal(sealed) as rehearsal:
        rehearsal.fault("cuda-802")
        seen = [soong(*START, "--cloud", "sandbox")]
        seen += [
            soong(*words) for words in (("status", "--json"), ("extend", "1", "--yes"), ("stop", "--yes"))
        ]
        seen += [soong("doctor", "--cloud", "sandbox"), soong("reap", "--cloud", "sandbox"), soong("config")]
        assert [one for one in seen if found_in(one.out + one.err)] == []
        requests = str(rehearsal.running.ask("GET", "requests?last=1000"))
        assert rehearsal.running.key not in requests
        assert found_in(requests) == []
        keyed = [
            file
            for file in sealed.rglob("*")
            if file.is_file() and rehearsal.running.key.encode() in file.read_bytes()
        ]
        assert keyed == [rehearsal.running.files.key], "the sandbox's own key stands in its file alone"
        private = (sealed / "state" / "ssh" / "id_ed25519").read_bytes().split(b"\n")[2]
        copies = [file for file in sealed.rglob("*") if file.is_file() and private in file.read_bytes()]
        assert copies == [sealed / "state" / "ssh" / "id_ed25519"]
    assert files_with_secrets(sealed) == []
    assert files_with_secrets(person, but=(person / ".ssh" / "id_other",)) == []
    assert watcher.looked > 10
    assert watcher.found == set()
    assert world_can_touch(sealed) == []


def world_can_touch(home: Path) -> list[str]:
    """What another user of the computer can read or write: nothing below a folder that only its owner may enter."""
    bad = []
    for folder, below, files in os.walk(home):
        if Path(folder).name == "machines":
            below.clear()  # what runs there as the machine's own user has its own modes, behind a private folder
            continue
        mode = stat.S_IMODE(Path(folder).stat().st_mode)
        if mode & 0o077:
            bad += [folder]
        for file in files:
            path = Path(folder) / file
            private = "ledger" in file or file in {"key", "id_ed25519", "lambda.key"}
            if private and stat.S_IMODE(path.stat().st_mode) & 0o077:
                bad.append(str(path))
    return bad


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("way", ["environment", "file", "command"])
def test_every_failure_of_the_real_client_tells_nothing(
    soong: Soong, sealed: Path, person: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The cloud itself echoes the key in its error; none of that is shown or kept."""
    key_file = give_key(soong, sealed, person, monkeypatch, way)
    with FakeLambda() as server:
        monkeypatch.setenv("SOONG_LAMBDA_API_URL", server.url)
        happy(server)
        answers: tuple[Reply, ...] = (
            error("global/invalid-api-key", 401, f"bad key {KEY}", f"use {TOKEN}", off_spec=True),
            error("global/internal-error", 500, f"oops {KEY}", off_spec=True),
            Reply(200, b"<html>" + KEY.encode(), off_spec=True),
        )
        seen = []
        if way != "environment":  # the others wait for the client's repeats, and are the same from here on
            answers = answers[:1]
        for answer, words in zip(answers, (("reap", "--json"), ("status",), ("doctor",)), strict=False):
            server.on("GET", "/instances", answer)
            seen.append(soong(*words))
        seen.append(soong(*START, "--dry-run"))
        server.on("GET", "/instances", data([]))
        seen += [soong("status"), soong("clouds", "check", "--json"), soong("config", "--json")]
        assert [request.headers["authorization"] for request in server.requests][-1] == f"Bearer {KEY}"
    assert [one for one in seen if found_in(one.out + one.err)] == []
    assert files_with_secrets(sealed, but=(key_file,)) == []
    assert files_with_secrets(person, but=(key_file, person / ".ssh" / "id_other")) == []
    assert watcher.found == set()
    assert world_can_touch(sealed) == []


def give_key(soong: Soong, sealed: Path, person: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> Path:
    """The key by one of the three ways; returns the file that may hold it."""
    if way == "environment":
        monkeypatch.setenv("SOONG_LAMBDA_API_KEY", KEY)
        return sealed
    if way == "file":
        from soong.settings.secrets import store_lambda_api_key

        file = store_lambda_api_key(KEY)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        return file
    kept = person / "vault"
    kept.write_text(KEY + "\n")
    assert soong("config", "set", "lambda.api_key_command", f"cat {kept}").code == 0
    return kept


def happy(server: FakeLambda) -> None:
    server.on("GET", "/instance-types", data(samples.types((samples.A10, [samples.REGION]))))
    server.on("GET", "/ssh-keys", data([]))
    server.on("GET", "/file-systems", data([]))


def test_what_is_sent_to_a_machine_holds_no_secret(
    soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert soong(*START, "--cloud", "sandbox").code == 0
    (machine,) = rehearsal.client().instances()
    assert found_in(str(machine)) == []
    until(lambda: rehearsal.running.ask("GET", f"machines/{machine.id}")["port"])
    shell = rehearsal.spawn("ssh", "--", "env; cat /etc/motd 2>/dev/null; id")
    out, _ = shell.communicate(timeout=30)
    assert "PATH=" in out
    assert found_in(out) == []
    assert rehearsal.running.key not in out
