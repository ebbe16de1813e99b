"""Lambda's answers as they come over the wire: only what we read of them.

Fields that we do not know are passed over, fields that may be missing or null have a default, and words of a list
(status, codes) stay plain text, since Lambda adds to them. Secrets that an answer carries (`jupyter_token`, a
generated `private_key`) have no field here, so they are never held. Source: Lambda Cloud API 1.10.0.
"""

from __future__ import annotations

import msgspec


class Region(msgspec.Struct, frozen=True):
    """Where a machine stands: `us-west-1`."""

    name: str
    description: str | None = None


class Specs(msgspec.Struct, frozen=True):
    """What a machine has; gpus is 0 for a machine without."""

    gpus: int = 0
    vcpus: int | None = None
    memory_gib: int | None = None
    storage_gib: int | None = None


class InstanceType(msgspec.Struct, frozen=True):
    """A kind of machine and its price. architecture: told by the live service, absent from its specification."""

    name: str
    price_cents_per_hour: float | None = None
    gpu_description: str | None = None
    specs: Specs | None = None
    architecture: str | None = None


class InstanceTypeItem(msgspec.Struct, frozen=True):
    """A kind of machine, and where one is free."""

    instance_type: InstanceType
    regions_with_capacity_available: list[Region] | None = None


class Tag(msgspec.Struct, frozen=True):
    """A word and its value, as given at launch."""

    key: str
    value: str | None = None


class Action(msgspec.Struct, frozen=True):
    """Whether something can be asked of a machine now."""

    available: bool = True
    reason_code: str | None = None


class Actions(msgspec.Struct, frozen=True):
    """What can be asked of a machine now."""

    terminate: Action | None = None


class Instance(msgspec.Struct, frozen=True):
    """A machine. Without a status it counts as unknown, that is: billing."""

    id: str
    name: str | None = None
    ip: str | None = None
    status: str | None = None
    ssh_key_names: list[str] | None = None
    file_system_names: list[str] | None = None
    region: Region | None = None
    instance_type: InstanceType | None = None
    hostname: str | None = None
    tags: list[Tag] | None = None
    actions: Actions | None = None


class SshKey(msgspec.Struct, frozen=True):
    """A public key of the account."""

    id: str
    name: str
    public_key: str


class Filesystem(msgspec.Struct, frozen=True):
    """Storage that outlives machines."""

    id: str
    name: str
    region: Region | None = None
    mount_point: str | None = None
    is_in_use: bool = False
    bytes_used: int | None = None


class Image(msgspec.Struct, frozen=True):
    """What a machine can start from."""

    id: str
    name: str | None = None
    family: str | None = None
    version: str | None = None
    architecture: str | None = None
    region: Region | None = None


class Launched(msgspec.Struct, frozen=True):
    """The answer to a launch."""

    instance_ids: list[str]


class Terminated(msgspec.Struct, frozen=True):
    """The answer to a terminate call: the machines whose end has begun."""

    terminated_instances: list[Instance] = []


class Nothing(msgspec.Struct, frozen=True):
    """An answer of which nothing is read."""


class Refusal(msgspec.Struct, frozen=True):
    """What Lambda says when it will not: `code` decides, `message` and `suggestion` are for people."""

    code: str = ""
    message: str = ""
    suggestion: str = ""


def read_refusal(body: bytes) -> Refusal:
    """What an unhappy answer says; an empty refusal when it is a page, a stub, or no text at all.

    `{"error": {code, message, suggestion}}` is Lambda's own form. Gateways in front of it send
    `{"error": "words"}`, `{"message": "words"}` or `{"detail": "words"}`.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return Refusal()
    if not isinstance(document, dict):
        return Refusal()
    error = document.get("error")
    if isinstance(error, dict):
        return Refusal(*(_text(error.get(field)) for field in ("code", "message", "suggestion")))
    words = (document.get(field) for field in ("error", "message", "detail"))
    return Refusal(message=next((_text(word) for word in words if isinstance(word, str)), ""))


_LONGEST_TEXT = 500


def _text(value: object) -> str:
    """Words of a stranger, fit for a terminal: one line, printable, not endless."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value.split())[:_LONGEST_TEXT]
    return "".join(letter for letter in line if letter.isprintable())
