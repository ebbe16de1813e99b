"""What a request may carry, by the rules of Lambda Cloud API 1.10.0; everything else is refused."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from soong.clouds.sandbox.answers import RefusedError

Name = Annotated[str, msgspec.Meta(max_length=64)]
KeyName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
PublicKey = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
FilesystemName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=60, pattern=r"^[a-zA-Z]+[0-9a-zA-Z-]*$")
]
Hostname = Annotated[str, msgspec.Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9][0-9a-z-]{0,62}$")]
MountPoint = Annotated[
    str, msgspec.Meta(max_length=256, pattern=r"^(/home|/lambda/nfs|/data)[//a-zA-Z0-9-]*$")
]
UserData = Annotated[str, msgspec.Meta(max_length=1_000_000)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

Body = TypeVar("Body")


class Tag(msgspec.Struct, forbid_unknown_fields=True):
    """A word that a machine keeps for life."""

    key: Annotated[str, msgspec.Meta(max_length=55, pattern=r"^[a-z][a-z0-9-:]+$")]
    value: Annotated[str, msgspec.Meta(max_length=128)]


class Mount(msgspec.Struct, forbid_unknown_fields=True):
    """Where a filesystem goes."""

    mount_point: MountPoint
    file_system_id: str


class Image(msgspec.Struct, forbid_unknown_fields=True):
    """An image, by id or by family."""

    id: str | None = None
    family: str | None = None


class RulesetId(msgspec.Struct, forbid_unknown_fields=True):
    """A firewall ruleset."""

    id: str


class Launch(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a launch. `quantity`, which once was part of it, is refused like every unknown field."""

    region_name: str
    instance_type_name: str
    ssh_key_names: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1)]
    file_system_names: list[str] = []
    file_system_mounts: list[Mount] = []
    hostname: Hostname | None = None
    name: Name | None = None
    image: Image | None = None
    user_data: UserData | None = None
    tags: list[Tag] = []
    firewall_rulesets: list[RulesetId] = []


class InstanceIds(msgspec.Struct):
    """Body of restart and terminate."""

    instance_ids: list[str]


class Rename(msgspec.Struct):
    """Body of `POST /instances/{id}`."""

    name: Name | None = None


class NewKey(msgspec.Struct):
    """Body of `POST /ssh-keys`; without a public key a pair is made."""

    name: KeyName
    public_key: PublicKey | None = None


class NewFilesystem(msgspec.Struct):
    """Body of `POST /filesystems`."""

    name: FilesystemName
    region: str


class Rule(msgspec.Struct, omit_defaults=True):
    """One firewall rule."""

    protocol: Literal["tcp", "udp", "icmp", "all"]
    source_network: str
    description: Annotated[str, msgspec.Meta(max_length=128)]
    port_range: Annotated[list[Port], msgspec.Meta(min_length=2, max_length=2)] | None = None


class Rules(msgspec.Struct):
    """Body of `PUT /firewall-rules`."""

    data: list[Rule]


class NewRuleset(msgspec.Struct):
    """Body of `POST /firewall-rulesets`."""

    name: Name
    region: str
    rules: list[Rule]


class RulesetChange(msgspec.Struct):
    """Body of `PATCH /firewall-rulesets/{id}`."""

    name: Name | None = None
    rules: list[Rule] | None = None


def read(body: bytes, kind: type[Body]) -> Body:
    """The body of a request.

    Raises:
        RefusedError: `global/invalid-parameters`, with the place and the reason.
    """
    try:
        found = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError("global/invalid-parameters", f"Invalid request data: {error}.") from error
    for rule in _rules(found):
        _check_network(rule)
    return found


def plain(rules: list[Rule]) -> list[dict[str, Any]]:
    """Rules as they are kept and answered."""
    found: list[dict[str, Any]] = msgspec.to_builtins(rules)
    return found


def _rules(body: object) -> list[Rule]:
    if isinstance(body, Rules):
        return body.data
    if isinstance(body, NewRuleset | RulesetChange):
        return body.rules or []
    return []


def _check_network(rule: Rule) -> None:
    try:
        ipaddress.IPv4Network(rule.source_network, strict=False)
    except ValueError as error:
        raise RefusedError("global/invalid-parameters", f"Invalid request data: {error}.") from error
    if (rule.port_range is None) != (rule.protocol == "icmp"):
        raise RefusedError(
            "global/invalid-parameters", "Invalid request data: `port_range` is required, except for icmp."
        )
