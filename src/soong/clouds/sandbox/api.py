"""Lambda's API, call by call, over the sandbox's world. Source: Lambda Cloud API 1.10.0."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.clouds.sandbox import bodies, catalogue, views
from soong.clouds.sandbox.answers import RefusedError
from soong.clouds.sandbox.state import EventRecord, FilesystemRecord, KeyRecord, RulesetRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.clouds.sandbox.world import World

PREFIX = "/api/v1"
GLOBAL_RULES: list[dict[str, object]] = [
    {
        "protocol": "tcp",
        "port_range": [22, 22],
        "source_network": "0.0.0.0/0",
        "description": "Allow SSH from anywhere",
    },
    {"protocol": "icmp", "source_network": "0.0.0.0/0", "description": "Allow ping from anywhere"},
]
EVENTS_ON_A_PAGE = 100
IMAGES = {"x86_64": "5a" * 16, "arm64": "a5" * 16}
IMAGES_SINCE = 1_767_225_600.0
"""2026-01-01: any time before the first rehearsal."""
PUBLIC_KEY = re.compile(r"(ssh-|ecdsa-|sk-)[\w@.-]+ [A-Za-z0-9+/=]{16,}( .*)?\s*", re.ASCII | re.DOTALL)


class Call(NamedTuple):
    """One request. request: `METHOD /path` without prefix. id: what stands in the path's place for one."""

    world: World
    request: str
    id: str
    body: bytes
    query: dict[str, str]


def _instances(call: Call) -> Any:
    records = call.world.listed()
    if "cluster_id" in call.query:
        records = []
    blind = call.world.faults.strike("vanishing", request=call.request)
    if blind:
        records = [one for one in records if blind.instance and one.id != blind.instance]
    return [views.instance(call.world, record) for record in records]


def _instance(call: Call) -> Any:
    return views.instance(call.world, call.world.find(call.id))


def _rename(call: Call) -> Any:
    name = bodies.read(call.body, bodies.Rename).name
    record = call.world.find(call.id) if name is None else call.world.rename(call.id, name)
    return views.instance(call.world, record)


def _instance_types(call: Call) -> Any:
    return views.instance_types(call.world.settings, call.world.clock.now())


def _launch(call: Call) -> Any:
    body = bodies.read(call.body, bodies.Launch)
    known = {ruleset.id for ruleset in call.world.state.all(RulesetRecord)}
    for ruleset in body.firewall_rulesets:
        if ruleset.id not in known:
            raise RefusedError(
                "global/object-does-not-exist", f"Firewall ruleset not found: {ruleset.id!r}.", status=400
            )
    if body.image and body.image.id not in {None, *IMAGES.values()}:
        raise RefusedError("global/object-does-not-exist", f"Image not found: {body.image.id!r}.", status=400)
    record = call.world.launch(body)
    about = {"instance_type": record.instance_type, "region": record.region}
    if call.world.faults.strike("provider-error-launched", **about):
        raise RefusedError("provider/internal-unavailable")
    return {"instance_ids": [record.id]}


def _restart(call: Call) -> Any:
    ids = bodies.read(call.body, bodies.InstanceIds).instance_ids
    return {"restarted_instances": [views.instance(call.world, one) for one in call.world.restart(ids)]}


def _terminate(call: Call) -> Any:
    ids = bodies.read(call.body, bodies.InstanceIds).instance_ids
    ended = call.world.terminate(ids, request=call.request)
    return {"terminated_instances": [views.instance(call.world, one) for one in ended]}


def _ssh_keys(call: Call) -> Any:
    return [views.ssh_key(key) for key in call.world.ssh_keys()]


def _add_ssh_key(call: Call) -> Any:
    body = bodies.read(call.body, bodies.NewKey)
    private, public = "", body.public_key or ""
    if body.public_key is None:
        private, public = _new_pair(body.name)
    elif not PUBLIC_KEY.fullmatch(public):
        raise RefusedError("global/invalid-parameters", "Invalid request data: not an SSH public key.")
    key = KeyRecord(id=secrets.token_hex(16), name=body.name, public_key=public.strip())
    call.world.state.put(key)
    call.world.note("ssh_key", "created", key.id)
    return views.ssh_key(key) | ({"private_key": private} if private else {})


def _new_pair(name: str) -> tuple[str, str]:
    import subprocess
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # noqa: S603 - every word is ours but the comment
        return path.read_text(), path.with_suffix(".pub").read_text()


def _delete_ssh_key(call: Call) -> Any:
    if call.world.state.get(KeyRecord, call.id) is None:
        raise RefusedError("global/not-found")
    call.world.state.delete(KeyRecord, call.id)
    call.world.note("ssh_key", "deleted", call.id)
    return {}


def _filesystems(call: Call) -> Any:
    return [views.filesystem(call.world, one) for one in call.world.state.all(FilesystemRecord)]


def _add_filesystem(call: Call) -> Any:
    body = bodies.read(call.body, bodies.NewFilesystem)
    call.world.check_region(body.region)
    if any(one.name == body.name for one in call.world.state.all(FilesystemRecord)):
        raise RefusedError("global/duplicate")
    system = FilesystemRecord(
        id=secrets.token_hex(16), name=body.name, region=body.region, created_at=call.world.clock.now()
    )
    call.world.state.put(system)
    call.world.note("filesystem", "created", system.id)
    return views.filesystem(call.world, system)


def _delete_filesystem(call: Call) -> Any:
    system = call.world.state.get(FilesystemRecord, call.id)
    if system is None:
        raise RefusedError("global/object-does-not-exist", "Filesystem was not found.")
    if call.world.in_use(system):
        raise RefusedError("filesystems/filesystem-in-use")
    call.world.state.delete(FilesystemRecord, call.id)
    call.world.note("filesystem", "deleted", call.id)
    return {"deleted_ids": [call.id]}


def _images(_: Call) -> Any:
    return [
        views.image(image_id, architecture, region, IMAGES_SINCE)
        for architecture, image_id in IMAGES.items()
        for region in catalogue.REGIONS
    ]


def _regions(_: Call) -> Any:
    return [views.region(name) for name in catalogue.REGIONS]


def _global_rules(call: Call) -> RulesetRecord:
    found = call.world.state.get(RulesetRecord, "global")
    return found or RulesetRecord(
        id="global", name="Default Workspace Global Rules", region="", rules=GLOBAL_RULES, created_at=0.0
    )


def _firewall_rules(call: Call) -> Any:
    return _global_rules(call).rules


def _set_firewall_rules(call: Call) -> Any:
    record = _global_rules(call)
    record.rules = bodies.plain(bodies.read(call.body, bodies.Rules).data)
    call.world.state.put(record)
    return record.rules


def _global_ruleset(call: Call) -> Any:
    record = _global_rules(call)
    return {"id": record.id, "name": record.name, "rules": record.rules}


def _change_global_ruleset(call: Call) -> Any:
    change = bodies.read(call.body, bodies.RulesetChange)
    record = _global_rules(call)
    if change.rules is not None:
        record.rules = bodies.plain(change.rules)
        call.world.state.put(record)
    return _global_ruleset(call)


def _rulesets(call: Call) -> Any:
    records = call.world.state.all(RulesetRecord)
    return [views.ruleset(call.world, one) for one in records if one.id != "global"]


def _add_ruleset(call: Call) -> Any:
    body = bodies.read(call.body, bodies.NewRuleset)
    call.world.check_region(body.region)
    record = RulesetRecord(
        id=secrets.token_hex(16),
        name=body.name,
        region=body.region,
        rules=bodies.plain(body.rules),
        created_at=call.world.clock.now(),
    )
    call.world.state.put(record)
    return views.ruleset(call.world, record)


def _find_ruleset(call: Call) -> RulesetRecord:
    found = call.world.state.get(RulesetRecord, call.id)
    if found is None:
        raise RefusedError("global/object-does-not-exist", "Firewall ruleset does not exist.")
    return found


def _ruleset(call: Call) -> Any:
    return views.ruleset(call.world, _find_ruleset(call))


def _change_ruleset(call: Call) -> Any:
    record = _find_ruleset(call)
    change = bodies.read(call.body, bodies.RulesetChange)
    if change.name is not None:
        record.name = change.name
    if change.rules is not None:
        record.rules = bodies.plain(change.rules)
    call.world.state.put(record)
    return views.ruleset(call.world, record)


def _delete_ruleset(call: Call) -> Any:
    record = _find_ruleset(call)
    if views.ruleset(call.world, record)["instance_ids"]:
        raise RefusedError("firewall-rulesets/firewall-ruleset-in-use")
    call.world.state.delete(RulesetRecord, record.id)
    return {}


def _audit_events(call: Call) -> Any:
    start, end = (_moment(call.query.get(name)) for name in ("start", "end"))
    wanted = call.query.get("resource_type", "")
    events = [
        event
        for event in call.world.state.all(EventRecord)
        if (start is None or event.at >= start)
        and (end is None or event.at <= end)
        and wanted in {"", f"cloud.{event.resource}"}
    ]
    token = call.query.get("page_token", "0")
    if not (token.isascii() and token.isdigit()):
        raise RefusedError("global/invalid-parameters", "Invalid request data: unknown page token.")
    first = int(token)
    last = first + EVENTS_ON_A_PAGE
    shown = [views.audit_event(event) for event in events[first:last]]
    return {"data": shown, "page_token": str(last) if last < len(events) else None}


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise RefusedError("global/invalid-parameters", f"Invalid request data: {error}.") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


ROUTES: dict[tuple[str, str], Callable[[Call], Any]] = {
    ("GET", "/instances"): _instances,
    ("GET", "/instances/{id}"): _instance,
    ("POST", "/instances/{id}"): _rename,
    ("GET", "/instance-types"): _instance_types,
    ("POST", "/instance-operations/launch"): _launch,
    ("POST", "/instance-operations/restart"): _restart,
    ("POST", "/instance-operations/terminate"): _terminate,
    ("GET", "/ssh-keys"): _ssh_keys,
    ("POST", "/ssh-keys"): _add_ssh_key,
    ("DELETE", "/ssh-keys/{id}"): _delete_ssh_key,
    ("GET", "/file-systems"): _filesystems,
    ("POST", "/filesystems"): _add_filesystem,
    ("DELETE", "/filesystems/{id}"): _delete_filesystem,
    ("GET", "/images"): _images,
    ("GET", "/regions"): _regions,
    ("GET", "/firewall-rules"): _firewall_rules,
    ("PUT", "/firewall-rules"): _set_firewall_rules,
    ("GET", "/firewall-rulesets"): _rulesets,
    ("POST", "/firewall-rulesets"): _add_ruleset,
    ("GET", "/firewall-rulesets/global"): _global_ruleset,
    ("PATCH", "/firewall-rulesets/global"): _change_global_ruleset,
    ("GET", "/firewall-rulesets/{id}"): _ruleset,
    ("PATCH", "/firewall-rulesets/{id}"): _change_ruleset,
    ("DELETE", "/firewall-rulesets/{id}"): _delete_ruleset,
    ("GET", "/audit-events"): _audit_events,
}
WHOLE_ANSWERS = {"/audit-events"}
"""Paths whose answer has more than `data` at the top."""


def answer(world: World, method: str, path: str, body: bytes, query: dict[str, str]) -> Any:
    """Carry out one request; `path` without the prefix.

    Returns:
        The whole JSON answer.

    Raises:
        RefusedError: by the API's rules, or by a fault.
    """
    pattern, found_id = _pattern(path)
    handler = ROUTES.get((method, pattern))
    if handler is None:
        exists = any(known == pattern for _, known in ROUTES)
        raise RefusedError("global/not-found", status=405 if exists else 404)
    result = handler(Call(world, f"{method} {path}", found_id, body, query))
    return result if pattern in WHOLE_ANSWERS else {"data": result}


def _pattern(path: str) -> tuple[str, str]:
    if any(known == path for _, known in ROUTES):
        return path, ""
    head, _, tail = path.rpartition("/")
    return f"{head}/{{id}}", tail
