"""What a cloud must be able to do, so that soong can rent a machine there and prove it gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from soong.errors import RemoteError

if TYPE_CHECKING:
    from soong.lease.clock import Clock
    from soong.offers.offer import Offer

Status = Literal["booting", "active", "unhealthy", "terminating", "terminated", "preempted", "unknown"]
"""`unknown` is any word that we do not know; like all but `terminated` it counts as billing."""

Refusal = Literal["no-capacity", "wrong-region", "quota", "missing", "invalid", "account"]
"""Why a launch was refused with certainty that nothing was launched."""


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as the cloud tells of it.

    Attributes:
        id: the cloud's own. name: the field that can be changed. status: see `Status`.
        raw_status: the cloud's own word. address: IPv4, empty until there is one.
        instance_type, region, gpu_count: what it is. usd_per_hour: None when not told.
        tags: as given at launch. can_terminate: whether the cloud would take a terminate call right now.
    """

    id: str
    name: str
    status: Status
    raw_status: str = ""
    address: str = ""
    instance_type: str = ""
    region: str = ""
    gpu_count: int = 1
    usd_per_hour: float | None = None
    cpu_architecture: str = "x86_64"
    tags: dict[str, str] = {}
    ssh_key_names: tuple[str, ...] = ()
    filesystem_names: tuple[str, ...] = ()
    can_terminate: bool = True

    @property
    def is_billing(self) -> bool:
        """Whether it may still cost money: everything but a plain `terminated`."""
        return self.status != "terminated"


class SshKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that the cloud puts on its machines."""

    id: str
    name: str
    public_key: str


class Filesystem(msgspec.Struct, frozen=True, kw_only=True):
    """Storage that outlives every machine, and bills while it exists. mount_point: where machines have it."""

    id: str
    name: str
    region: str
    mount_point: str = ""
    is_in_use: bool = False
    bytes_used: int | None = None


class SshEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a machine answers SSH."""

    host: str
    port: int = 22
    user: str = "ubuntu"


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is sent to launch one machine."""

    instance_type: str
    region: str
    name: str
    tags: dict[str, str]
    ssh_key_name: str
    user_data: str = ""
    hostname: str = ""
    filesystem_names: tuple[str, ...] = ()


class LaunchRefusedError(RemoteError):
    """The cloud said no, and it is certain that nothing was launched.

    Args:
        refusal: why; `no-capacity` and `wrong-region` invite the next candidate, the others do not.
    """

    code = "launch-refused"

    def __init__(self, message: str, *, refusal: Refusal, why: str = "", hints: tuple[str, ...] = ()) -> None:
        super().__init__(message, why=why, hints=hints)
        self.refusal = refusal


class LaunchUnclearError(RemoteError):
    """The cloud did not answer a launch, or answered so that a machine may exist: look for it before asking again."""

    code = "launch-unclear"


class Provider(Protocol):
    """One account at one cloud. Every call raises `CredentialError` or `RemoteError` when the cloud says so."""

    cloud: str
    """`lambda`, `sandbox`."""
    account: str
    """A word that tells two accounts or two sandboxes apart, without telling the key."""
    console_url: str
    """Where a person can end a machine by hand."""
    costs_money: bool
    clock: Clock
    regions: tuple[str, ...]
    """Regions that are known; the cloud may have more."""

    @property
    def clock_skew_seconds(self) -> float | None:
        """How far the cloud's clock is ahead of this computer's, from its last answer; None when it did not say."""
        ...

    def instances(self) -> tuple[Instance, ...]:
        """Every machine of the account, soong's or not."""
        ...

    def offers(self) -> tuple[Offer, ...]:
        """Live: one row for each type and region with room now, and one without region for each type without."""
        ...

    def launch(self, request: LaunchRequest) -> str:
        """Ask for one machine, once; never repeated inside.

        Returns:
            The cloud's id of it.

        Raises:
            LaunchRefusedError: certainly nothing was launched. LaunchUnclearError: anything else.
        """
        ...

    def rename(self, instance_id: str, name: str) -> None:
        """Change the name. Raises NotFoundError when there is no such instance."""
        ...

    def terminate(self, instance_id: str) -> None:
        """Ask for the end; returning is no proof. Raises NotFoundError when the cloud knows no such instance."""
        ...

    def ssh_keys(self) -> tuple[SshKey, ...]:
        """The account's public keys."""
        ...

    def add_ssh_key(self, name: str, public_key: str) -> SshKey:
        """Put a public key into the account."""
        ...

    def filesystems(self) -> tuple[Filesystem, ...]:
        """The account's filesystems: they bill as long as they exist."""
        ...

    def ssh_endpoint(self, instance: Instance) -> SshEndpoint | None:
        """Where the machine answers SSH; None while it has no address."""
        ...
