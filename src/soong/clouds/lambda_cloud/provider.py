"""Lambda Cloud as a place to rent: `LambdaClient`'s answers in soong's own words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast, get_args

from soong.clouds.lambda_cloud.client import LambdaClient
from soong.clouds.lambda_cloud.offering import CENTS_PER_USD, cpu_architecture_of, read_offers
from soong.errors import RemoteError, UsageError
from soong.launch.provider import Filesystem, Instance, SshEndpoint, SshKey, Status
from soong.offers.regions import REGIONS

if TYPE_CHECKING:
    from soong.clouds.lambda_cloud import wire
    from soong.launch.provider import LaunchRequest
    from soong.offers.offer import Offer

SSH_USER = "ubuntu"
"""The account of Lambda's images."""

_STATUSES = frozenset(get_args(Status)) - {"unknown"}


def open_provider() -> LambdaProvider:
    """The account that this computer's settings name.

    Raises:
        CredentialError: there is no key, or it cannot be read. ConfigError: a setting cannot be used.
    """
    from soong.settings import config
    from soong.settings.secrets import lambda_api_key

    client = LambdaClient(
        lambda_api_key(), url=config.value("lambda.api_url"), scheme=config.value("lambda.auth")
    )
    return LambdaProvider(client)


class LambdaProvider:
    """One account; implements `launch.provider.Provider`.

    Args:
        client: the account's API. cloud: the name that offers carry. console_url: where a person can end a machine
            by hand; the service's own when not given. costs_money: false for a rehearsal.
    """

    def __init__(
        self,
        client: LambdaClient,
        *,
        cloud: str = "lambda",
        console_url: str = "",
        costs_money: bool = True,
    ) -> None:
        self.client = client
        self.cloud = cloud
        self.account = client.account
        self.console_url = console_url or client.service.console_url
        self.costs_money = costs_money
        self.clock = client.clock
        self.regions: tuple[str, ...] = REGIONS["lambda"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cloud}, account {self.account})"

    @property
    def clock_skew_seconds(self) -> float | None:
        """How far Lambda's clock is ahead of this computer's, from its last answer; None when it did not say."""
        return self.client.clock_skew_seconds

    def instances(self) -> tuple[Instance, ...]:
        """Every machine of the account, soong's or not."""
        return tuple(_instance(found) for found in self.client.instances())

    def offers(self) -> tuple[Offer, ...]:
        """Live: one row for each type and region with room now, and one without region for each type without.

        Raises:
            RemoteError: the price list is empty or unreadable.
        """
        day = datetime.fromtimestamp(self.clock.now(), UTC).date().isoformat()
        return read_offers(self.client.instance_types(), cloud=self.cloud, as_of=day)

    def launch(self, request: LaunchRequest) -> str:
        """Ask for one machine, once; never repeated inside.

        Raises:
            LaunchRefusedError: certainly nothing was launched. LaunchUnclearError: anything else.
        """
        return self.client.launch(launch_body(request))

    def rename(self, instance_id: str, name: str) -> None:
        """Change the name.

        Raises:
            NotFoundError: there is no such instance.
        """
        self.client.rename(instance_id, name)

    def terminate(self, instance_id: str) -> None:
        """Ask for the end; returning is no proof.

        Raises:
            NotFoundError: Lambda knows no such instance.
        """
        self.client.terminate([instance_id])

    def ssh_keys(self) -> tuple[SshKey, ...]:
        """The account's public keys."""
        return tuple(_ssh_key(found) for found in self.client.ssh_keys())

    def add_ssh_key(self, name: str, public_key: str) -> SshKey:
        """Put a public key into the account; one that is there already is returned as it is.

        Lambda takes two keys of one name and then cannot launch with either, so a taken name is refused here.

        Raises:
            UsageError: another key has that name.
        """
        present = self.ssh_keys()
        same = next((key for key in present if _key_body(key.public_key) == _key_body(public_key)), None)
        if same is not None:
            return same
        if any(key.name == name for key in present):
            raise UsageError(
                f"another SSH key of the account is named `{name}`",
                why="two keys of one name cannot be told apart at launch",
                hints=("soong config set ssh.key_name ANOTHER-NAME",),
            )
        return _ssh_key(self.client.add_ssh_key(name, public_key))

    def filesystems(self) -> tuple[Filesystem, ...]:
        """The account's filesystems: they bill as long as they exist."""
        return tuple(
            Filesystem(
                id=found.id,
                name=_line(found.name),
                region=found.region.name if found.region else "",
                mount_point=_line(found.mount_point or ""),
                is_in_use=found.is_in_use,
                bytes_used=found.bytes_used,
            )
            for found in self.client.filesystems()
        )

    def ssh_endpoint(self, instance: Instance) -> SshEndpoint | None:
        """Where the machine answers SSH; None while it has no address.

        Raises:
            RemoteError: the address is none; it is not handed to a program that might take it for an option.
        """
        from ipaddress import ip_address

        if not instance.address:
            return None
        try:
            address = str(ip_address(instance.address.partition("%")[0]))
        except ValueError:
            address = ""
        if address != instance.address:
            raise RemoteError(f"`{instance.address[:60]}` is no address of a machine")
        return SshEndpoint(host=instance.address, user=SSH_USER)


def launch_body(request: LaunchRequest) -> dict[str, Any]:
    """The request as Lambda's API has it; what is empty is left out."""
    body: dict[str, Any] = {
        "region_name": request.region,
        "instance_type_name": request.instance_type,
        "ssh_key_names": [request.ssh_key_name],
        "name": request.name,
        "tags": [{"key": key, "value": value} for key, value in request.tags.items()],
        "user_data": request.user_data,
        "hostname": request.hostname,
        "file_system_names": list(request.filesystem_names),
    }
    return {field: value for field, value in body.items() if value}


def _instance(found: wire.Instance) -> Instance:
    kind = found.instance_type
    cents = kind.price_cents_per_hour if kind else None
    terminate = found.actions.terminate if found.actions else None
    raw_status = _line(found.status or "")
    return Instance(
        id=found.id,
        name=_line(found.name or ""),
        status=cast("Status", raw_status if raw_status in _STATUSES else "unknown"),
        raw_status=raw_status,
        address=_line(found.ip or ""),
        instance_type=_line(kind.name) if kind else "",
        region=_line(found.region.name) if found.region else "",
        gpu_count=kind.specs.gpus if kind and kind.specs else 1,
        usd_per_hour=None if cents is None else cents / CENTS_PER_USD,
        cpu_architecture=cpu_architecture_of(kind) if kind else "x86_64",
        tags={tag.key: tag.value or "" for tag in found.tags or ()},
        ssh_key_names=tuple(found.ssh_key_names or ()),
        filesystem_names=tuple(found.file_system_names or ()),
        can_terminate=terminate.available if terminate else True,
    )


def _ssh_key(found: wire.SshKey) -> SshKey:
    return SshKey(id=found.id, name=_line(found.name), public_key=found.public_key.strip())


def _key_body(public_key: str) -> tuple[str, ...]:
    """Kind and figures of a public key, without its comment."""
    return tuple(public_key.split()[:2])


def _line(text: str) -> str:
    """What a colleague or a stranger named a thing, without what would move a terminal's cursor."""
    return "".join(letter for letter in text if letter.isprintable())
