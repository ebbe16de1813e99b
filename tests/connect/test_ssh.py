"""SSH by the system's own client, to a machine of the sandbox: pinned once, checked ever after."""

from __future__ import annotations

import contextlib
import shutil
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.clouds.sandbox import process
from soong.clouds.sandbox.provider import SandboxProvider
from soong.connect import keys, probing, ssh
from soong.errors import RemoteError, TimedOutError
from soong.launch.provider import Instance, LaunchRequest, SshEndpoint
from soong.launch.starting import MachineUnfitError
from tests.lease.test_ledger import a_rental

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from soong.lease.ledger import Rental

pytest.importorskip("asyncssh")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's client"),
]


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxProvider]:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    running = process.start(speed=3000)
    running.ask("POST", "settings", {"rate_limit": False})
    yield SandboxProvider(running)
    process.stop()


@pytest.fixture
def prober(provider: SandboxProvider) -> probing.SshProber:
    mine = keys.make_own_key()
    provider.add_ssh_key("test", mine.public_line)
    return probing.SshProber(provider, mine.private_file)


def launched(provider: SandboxProvider) -> Rental:
    now = provider.clock.now()
    rental = a_rental(account=provider.account, cloud="sandbox", asked_at=now)
    request = LaunchRequest(
        instance_type="gpu_1x_a10",
        region="us-east-1",
        name=rental.lease.instance_name,
        tags=rental.lease.tags,
        ssh_key_name="test",
        user_data='#!/bin/bash\ntouch "$SOONG_ROOT/booted"\n',
    )
    return msgspec.structs.replace(rental, instance_id=provider.launch(request), phase="granted")


def probed(prober: probing.SshProber, rental: Rental) -> tuple[Instance, ssh.Host]:
    machine = prober.probe(rental, lambda _: None)
    endpoint = prober.provider.ssh_endpoint(machine)
    assert endpoint is not None
    return machine, probing.host_of(rental, endpoint, prober.key_file)


def test_a_sound_machine_is_pinned_reached_and_named(
    provider: SandboxProvider, prober: probing.SshProber, tmp_path: Path
) -> None:
    _, host = probed(prober, launched(provider))
    assert host.known_hosts_file.read_text().startswith(f"soong-{host.rental_id} ")
    assert host.settings["StrictHostKeyChecking"] == "yes"
    ran = ssh.run(host, ["echo", "grüße;", "exit", "7"])
    assert (ran.code, ran.out) == (7, "grüße\n")
    config = tmp_path / ".ssh" / "config"
    ssh.add_include(config)
    by_name = subprocess.run(
        ["ssh", "-F", str(config), host.alias, "echo", "here"], capture_output=True, text=True, check=False
    )
    assert by_name.stdout == "here\n", by_name.stderr


def test_a_changed_host_key_is_refused_and_explained(
    provider: SandboxProvider, prober: probing.SshProber
) -> None:
    rental = launched(provider)
    probed(prober, rental)
    provider.running.ask("POST", "faults", {"name": "changed-host-key", "instance": rental.instance_id})
    with pytest.raises(ssh.HostKeyChangedError) as caught:
        until_refused(provider, prober, rental)
    assert "never switches this check off" in str(caught.value)


def until_refused(provider: SandboxProvider, prober: probing.SshProber, rental: Rental) -> None:
    """Connect until the machine has its new key, which it gets in a moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        endpoint = provider.ssh_endpoint(next(iter(provider.instances())))
        if endpoint is None:
            time.sleep(0.05)
            continue
        with contextlib.suppress(TimedOutError):
            ssh.run(probing.host_of(rental, endpoint, prober.key_file), ["true"])


@pytest.mark.parametrize(
    ("fault", "stage"),
    [("cuda-802", "cuda"), ("no-ssh", "ssh"), ("empty-ip", "address"), ("unhealthy", "address")],
)
def test_a_machine_of_no_use_is_said_to_be_so(
    provider: SandboxProvider, prober: probing.SshProber, fault: str, stage: str
) -> None:
    provider.running.ask("POST", "faults", {"name": fault})
    with pytest.raises(MachineUnfitError) as caught:
        probed(prober, launched(provider))
    assert caught.value.stage == stage
    if fault == "cuda-802":
        assert "802" in str(caught.value)


def test_include_goes_to_the_top_once_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path / "a home"))
    config = tmp_path / ".ssh" / "config"
    config.parent.mkdir()
    config.write_text("Host *\n    Compression yes\n")
    config.chmod(0o644)
    ssh.add_include(config)
    ssh.add_include(config)
    assert config.read_text().splitlines()[0] == ssh.include_line()
    assert config.read_text().endswith("\n\nHost *\n    Compression yes\n")
    assert config.read_text().count("Include") == 1
    assert stat.S_IMODE(config.stat().st_mode) == 0o644


def test_no_connection_is_an_error_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    endpoint = SshEndpoint(host="127.0.0.1", port=1)
    host = ssh.Host(rental_id="0" * 10, name="box", endpoint=endpoint, key_file=str(tmp_path / "none"))
    with pytest.raises(RemoteError, match="refused"):
        ssh.run(host, ["true"])
