"""The sandbox as a place to rent: the same client as Lambda's, pointed at this computer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.clouds.lambda_cloud.client import LambdaClient
from soong.clouds.lambda_cloud.pacing import Pace
from soong.clouds.lambda_cloud.provider import LambdaProvider
from soong.clouds.lambda_cloud.service import Service
from soong.clouds.sandbox import process
from soong.clouds.sandbox.clock import SandboxClock
from soong.errors import RemoteError
from soong.launch.provider import SshEndpoint
from soong.settings.secrets import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from soong.launch.provider import Instance


class SandboxProvider(LambdaProvider):
    """The account at the sandbox that runs on this computer.

    Args:
        running: its server.
    """

    def __init__(self, running: process.Running) -> None:
        key = Secret(running.key, origin=str(running.files.key))
        hints = ("soong sandbox",)
        service = Service("the sandbox", f"{running.url}/", key_hints=hints, later_hints=hints)
        clock = SandboxClock(running.files.clock)
        # A pace of its own: moments of this clock mean nothing to another one.
        pace = Pace(f"{key.fingerprint}-rehearsal", clock)
        client = LambdaClient(key, url=running.url, clock=clock, service=service, pace=pace)
        super().__init__(client, cloud="sandbox", costs_money=False)
        self.running = running

    def ssh_endpoint(self, instance: Instance) -> SshEndpoint | None:
        """Where the machine answers SSH: a port of its own, which Lambda's API has no field for.

        Raises:
            RemoteError: the extra that the machines are made of is not installed.
        """
        if not instance.address:
            return None
        machine = self.running.ask("GET", f"machines/{instance.id}?for=login")
        if machine["why_no_ssh"]:
            raise RemoteError(
                "machines of the sandbox cannot be logged in to here",
                why="asyncssh is missing",
                hints=("pip install 'soong[sandbox]'",),
            )
        if not machine["port"]:
            return None
        return SshEndpoint(host=machine["host"], port=machine["port"], user=machine["user"])


def open_provider(folder: Path | None = None, *, speed: float | None = None) -> SandboxProvider:
    """The account at this computer's sandbox, which is started if it does not run.

    Args:
        folder: of the sandbox; the one in soong's state directory when not given. speed: of its clock.

    Raises:
        RemoteError: the sandbox does not start.
    """
    return SandboxProvider(process.start(folder, speed=speed))
