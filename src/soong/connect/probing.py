"""Look a new machine over: an address, SSH, a GPU that computes; each within the time that its size allows."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from soong.connect import ssh
from soong.errors import CredentialError, NotFoundError, SoongError, TimedOutError
from soong.launch import finding
from soong.launch.starting import MachineUnfitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance, Provider, SshEndpoint
    from soong.lease.ledger import Rental

ADDRESS_SECONDS = {1: 900.0, 2: 900.0, 4: 1500.0, 8: 2100.0}
"""Until the machine has an address: one GPU boots in 3 to 5 minutes; eight H100s took 25
(dstackai/dstack#2342), and a limit of 10 minutes ended and billed them each time."""
SSH_SECONDS = 600.0
"""From the address to an answer: `active` came up to 62 s before a usable SSH (inference-plane's sshready notes)."""
POLL_SECONDS = 5.0
CUDA_TRIES = 3
CUDA_AGAIN_SECONDS = 20.0
"""The fabric of eight GPUs can need a moment after boot; error 802 that stays is a bad machine."""
DEAD = ("terminating", "terminated", "preempted")


class SshProber:
    """Probes by the cloud's list and the system's ssh.

    Args:
        provider: the cloud. key_file: the private key of the key that the machine was launched with.
    """

    def __init__(self, provider: Provider, key_file: str) -> None:
        self.provider = provider
        self.key_file = key_file

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        """The machine, once it has an address, answers SSH and computes.

        Raises:
            MachineUnfitError: it does not in time. CredentialError: the key was refused meanwhile.
        """
        machine = self._addressed(rental, tell)
        tell(f"address {machine.address}; waiting for SSH")
        host = self._answering(rental, machine)
        tell("SSH answers; asking the GPU")
        gpus = self._computing(host, rental)
        tell(f"{gpus} compute{'s' if rental.gpu_count == 1 else ''}")
        ssh.write_entry(host)
        return machine

    def _addressed(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        limit = ADDRESS_SECONDS.get(rental.gpu_count, ADDRESS_SECONDS[8])
        deadline = self.provider.clock.now() + limit
        shown = ""
        while self.provider.clock.now() < deadline:
            machine = self._listed(rental)
            if machine is not None:
                if machine.status in DEAD:
                    raise MachineUnfitError(
                        f"the machine is {machine.status} before it was ready", stage="address"
                    )
                if machine.status == "active" and machine.address:
                    return machine
                if machine.raw_status != shown:
                    shown = machine.raw_status
                    tell(f"the cloud says `{shown}`")
            self.provider.clock.sleep(POLL_SECONDS)
        raise MachineUnfitError(
            f"no address after {limit / 60:.0f} minutes",
            stage="address",
            why=f"the cloud last said `{shown or 'nothing'}`",
        )

    def _listed(self, rental: Rental) -> Instance | None:
        try:
            seen = finding.of_rental(rental, self.provider.instances())
        except CredentialError:
            raise
        except SoongError:
            return None
        return seen[0] if seen else None

    def _answering(self, rental: Rental, machine: Instance) -> ssh.Host:
        deadline = self.provider.clock.now() + SSH_SECONDS
        last = "no answer"
        while self.provider.clock.now() < deadline:
            try:
                endpoint = self.provider.ssh_endpoint(machine)
                if endpoint is not None:
                    host = host_of(rental, endpoint, self.key_file)
                    ssh.run(host, ["true"], seconds=30)
                    return host
            except ssh.HostKeyChangedError as error:
                raise MachineUnfitError(str(error), stage="ssh") from error
            except (CredentialError, NotFoundError):
                raise
            except SoongError as error:
                last = str(error)
            self.provider.clock.sleep(POLL_SECONDS)
        raise MachineUnfitError(f"no SSH after {SSH_SECONDS / 60:.0f} minutes", stage="ssh", why=last)

    def _computing(self, host: ssh.Host, rental: Rental) -> str:
        last = ""
        for attempt in range(CUDA_TRIES):
            if attempt:
                self.provider.clock.sleep(CUDA_AGAIN_SECONDS)
            found = cuda_check(host)
            if "gpus" in found and len(found["gpus"]) >= rental.gpu_count:
                return f"{len(found['gpus'])} × {found['gpus'][0]['name']}"
            last = found.get("error") or f"{len(found['gpus'])} of {rental.gpu_count} GPUs answer"
        raise MachineUnfitError("the GPU does not compute", stage="cuda", why=last)


def host_of(rental: Rental, endpoint: SshEndpoint, key_file: str) -> ssh.Host:
    """How SSH reaches the machine of a rental."""
    return ssh.Host(rental_id=rental.id, name=rental.name, endpoint=endpoint, key_file=key_file)


def cuda_check(host: ssh.Host) -> dict[str, Any]:
    """What `remote/cuda_check.py` prints on the machine; an `error` of our own when it cannot run."""
    script = resources.files("soong.connect.remote").joinpath("cuda_check.py").read_bytes()
    try:
        ran = ssh.run(host, ["python3", "-"], stdin=script, seconds=120)
        return dict(json.loads(ran.out))
    except (TimedOutError, json.JSONDecodeError, ValueError):
        return {"error": "the check did not answer"}
    except SoongError as error:
        return {"error": str(error)}
