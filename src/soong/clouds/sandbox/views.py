"""The sandbox's documents as Lambda Cloud API 1.10.0 shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from soong.clouds.sandbox import catalogue
from soong.clouds.sandbox.faults import seconds_of

if TYPE_CHECKING:
    from soong.clouds.sandbox.catalogue import MachineType
    from soong.clouds.sandbox.state import (
        EventRecord,
        FilesystemRecord,
        InstanceRecord,
        KeyRecord,
        RulesetRecord,
        Settings,
    )
    from soong.clouds.sandbox.world import World

LOOPBACK = "127.0.0.1"
ACCOUNT = "0" * 32
DESCRIBED = {
    "vm-has-not-launched": "The instance has not launched yet.",
    "vm-action-in-progress": "Another action is in progress.",
    "vm-is-terminating": "The instance is terminating.",
}
CAN_ALWAYS_END = "vm-action-in-progress"
"""What blocks everything but a terminate call."""


def instance(world: World, record: InstanceRecord) -> dict[str, Any]:
    """A machine. `ip` is left out before there is one, and never a timestamp: the API has none."""
    now = world.clock.now()
    status = world.status(record)
    machine_type = catalogue.machine_types()[record.instance_type]
    shown: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "status": status,
        "ssh_key_names": record.ssh_key_names,
        "file_system_names": list(record.file_systems.values()),
        "region": region(record.region),
        "instance_type": instance_type(machine_type, record.cents_per_hour),
        "hostname": record.hostname,
        "actions": _actions(world.blocked(record)),
        "tags": _tags(record, now),
        "firewall_rulesets": [{"id": one} for one in record.ruleset_ids],
    }
    if record.mounts:
        shown["file_system_mounts"] = [
            {"mount_point": point, "file_system_id": one} for one, point in record.mounts.items()
        ]
    if status != "booting":
        shown["ip"] = "" if _hides_address(record, now) else LOOPBACK
        shown["private_ip"] = f"10.19.{int(record.id[:2], 16)}.{int(record.id[2:4], 16)}"
        shown["jupyter_token"] = record.jupyter_token
        shown["jupyter_url"] = f"http://{LOOPBACK}/no-jupyter-here?token={record.jupyter_token}"
    return shown


def _tags(record: InstanceRecord, now: float) -> list[dict[str, str]]:
    late = record.traits.get("late-tags")
    if late and now < record.launched_at + seconds_of(late):
        return []
    return [{"key": key, "value": value} for key, value in record.tags.items()]


def _hides_address(record: InstanceRecord, now: float) -> bool:
    empty = record.traits.get("empty-ip")
    return empty is not None and now < record.active_at + seconds_of(empty)


def _actions(blocked: str) -> dict[str, Any]:
    no = {"available": False, "reason_code": blocked, "reason_description": DESCRIBED.get(blocked, "")}
    each = no if blocked else {"available": True}
    can_end = blocked in {"", CAN_ALWAYS_END}
    return {
        "migrate": each,
        "rebuild": each,
        "restart": each,
        "cold_reboot": each,
        "terminate": {"available": True} if can_end else no,
    }


def instance_type(machine_type: MachineType, cents_per_hour: int) -> dict[str, Any]:
    """A kind of machine; `architecture` is what the live service adds to the specification."""
    return {
        "name": machine_type.name,
        "description": machine_type.description,
        "gpu_description": machine_type.gpu_description,
        "price_cents_per_hour": cents_per_hour,
        "architecture": machine_type.architecture,
        "specs": {
            "vcpus": machine_type.vcpus,
            "memory_gib": machine_type.memory_gib,
            "storage_gib": machine_type.storage_gib,
            "gpus": machine_type.gpus,
        },
    }


def instance_types(settings: Settings, now: float) -> dict[str, Any]:
    """The map of all kinds, with the regions where one is free."""
    return {
        name: {
            "instance_type": instance_type(one, catalogue.cents_now(one, settings, now)),
            "regions_with_capacity_available": [
                region(where) for where in catalogue.regions_with_room(name, settings, now)
            ],
        }
        for name, one in catalogue.machine_types().items()
    }


def region(name: str) -> dict[str, str]:
    """A region and where it is."""
    return {"name": name, "description": catalogue.REGIONS[name]}


def ssh_key(key: KeyRecord) -> dict[str, str]:
    """A public key."""
    return {"id": key.id, "name": key.name, "public_key": key.public_key}


def filesystem(world: World, system: FilesystemRecord) -> dict[str, Any]:
    """Storage."""
    return {
        "id": system.id,
        "name": system.name,
        "mount_point": f"/lambda/nfs/{system.name}",
        "created": timestamp(system.created_at),
        "created_by": {"id": ACCOUNT, "email": "you@sandbox.invalid", "status": "active"},
        "is_in_use": world.in_use(system),
        "region": region(system.region),
        "bytes_used": 0,
    }


def ruleset(world: World, record: RulesetRecord) -> dict[str, Any]:
    """Firewall rules of a region."""
    users = [one.id for one in world.listed() if record.id in one.ruleset_ids and one.ended_at is None]
    return {
        "id": record.id,
        "name": record.name,
        "region": region(record.region),
        "rules": record.rules,
        "created": timestamp(record.created_at),
        "instance_ids": users,
    }


def image(image_id: str, architecture: str, region_name: str, since: float) -> dict[str, Any]:
    """A disk image."""
    return {
        "id": image_id,
        "created_time": timestamp(since),
        "updated_time": timestamp(since),
        "name": "sandbox",
        "description": "Whatever this computer runs",
        "family": "sandbox",
        "version": "1",
        "architecture": architecture,
        "region": region(region_name),
    }


def audit_event(event: EventRecord) -> dict[str, Any]:
    """A line of the audit log."""
    return {
        "service_name": "cloud",
        "resource_name": event.resource,
        "action": event.action,
        "catalog_version": "2025-09-06",
        "event_id": event.id,
        "event_time": timestamp(event.at),
        "actor_lrn": f"lrn:cloud:identity:{ACCOUNT}",
        "resource_lrns": [f"lrn:cloud:{event.resource}:{event.resource_id}"],
        "resource_owner_lrn": f"lrn:cloud:account:{ACCOUNT}",
        "request_api_key_lrn": f"lrn:cloud:api_key:{ACCOUNT}",
        "additional_details": event.details,
    }


def timestamp(seconds: float) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
