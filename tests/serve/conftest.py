"""A machine of the sandbox that is up, and an environment whose engine is a fake."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from soong.clouds.sandbox import process
from soong.connect import keys, probing, ssh, tunnel
from soong.connect.machine import SshMachine
from soong.launch.provider import LaunchRequest
from tests.cli.conftest import rehearsal, soong, unpaced  # noqa: F401 - fixtures
from tests.lease.test_ledger import a_rental

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.clouds.sandbox.provider import SandboxProvider
    from soong.lease.ledger import Rental

FAKE = Path(__file__).with_name("fake_engine.py")


class Rented(NamedTuple):
    """One machine that answers. root: its folder."""

    provider: SandboxProvider
    rental: Rental
    host: ssh.Host
    root: Path

    @property
    def machine(self) -> SshMachine:
        return SshMachine(lambda: self.host)

    @property
    def home(self) -> Path:
        return self.root / "home" / "ubuntu"


def environment(folder: Path, **variables: str) -> Path:
    """An engine's environment: every program in it is the fake."""
    (folder / "bin").mkdir(parents=True)
    lines = "".join(f"export {name}='{value}'\n" for name, value in variables.items())
    for name in ("python", "vllm", "llama-server"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\n{lines}exec "{sys.executable}" "{FAKE}" "$@"\n')
        program.chmod(0o755)
    return folder


@pytest.fixture
def engine_environment(tmp_path: Path) -> Path:
    return environment(tmp_path / "environment", FAKE_ENGINE_FAIL=str(tmp_path / "fails"))


@pytest.fixture
def rented(sealed: Path) -> Iterator[Rented]:
    """A machine of the sandbox, up and pinned."""
    pytest.importorskip("asyncssh")
    if shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's client")
    from soong.clouds.sandbox.provider import SandboxProvider

    running = process.start(speed=600)
    running.ask("POST", "settings", {"rate_limit": False})
    provider = SandboxProvider(running)
    try:
        mine = keys.make_own_key()
        provider.add_ssh_key("test", mine.public_line)
        rental = a_rental(account=provider.account, cloud="sandbox", asked_at=provider.clock.now())
        request = LaunchRequest(
            instance_type="gpu_1x_a10",
            region="us-east-1",
            name=rental.lease.instance_name,
            tags=rental.lease.tags,
            ssh_key_name="test",
        )
        rental = msgspec.structs.replace(rental, instance_id=provider.launch(request), phase="granted")
        machine = probing.SshProber(provider, mine.private_file).probe(rental, lambda _: None)
        endpoint = provider.ssh_endpoint(machine)
        assert endpoint is not None
        about = running.ask("GET", f"machines/{rental.instance_id}")
        running.ask("POST", "clock", {"speed": 1})
        yield Rented(
            provider, rental, probing.host_of(rental, endpoint, mine.private_file), Path(about["root"])
        )
    finally:
        process.stop()
        for started in process._STARTED:
            started.wait(timeout=10)


@pytest.fixture(autouse=True)
def no_tunnel_left(sealed: Path) -> Iterator[None]:
    """Every tunnel that a test leaves ends with it."""
    yield
    tunnel.keep_only(())
    for started in tunnel._STARTED:
        started.wait(timeout=10)
