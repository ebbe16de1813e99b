"""The account at the sandbox: machines, keys, filesystems and rules, and what time does to them.

The state of a machine is not stored but worked out from its times, so that a server that was killed and started
again tells what it would have told. `machines` only runs the processes that can be logged in to.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

import msgspec

from soong.clouds.sandbox import catalogue
from soong.clouds.sandbox.answers import RefusedError
from soong.clouds.sandbox.faults import KINDS, Faults, seconds_of
from soong.clouds.sandbox.state import (
    EventRecord,
    Fault,
    FilesystemRecord,
    InstanceRecord,
    KeyRecord,
    Settings,
    State,
    UserData,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.clouds.sandbox import bodies
    from soong.clouds.sandbox.clock import Timekeeper

LAUNCHING_SECONDS = 20.0
"""After a launch, for which a machine cannot be ended yet (`vm-has-not-launched`)."""
TERMINATING_SECONDS = 30.0
LISTED_AFTER_END_SECONDS = 300.0
RESTART_SECONDS = 60.0
"""These four are ours: nobody has published how long Lambda takes."""

MOST_INSTANCES = 50
BILLED_SECONDS = 60.0
"""Lambda bills by the minute."""


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one machine would have cost. usd: by the minute begun, from its health check to its end."""

    id: str
    name: str
    instance_type: str
    cents_per_hour: int
    launched_at: float
    billed_from: float | None
    billed_until: float | None
    seconds: float
    usd: float


class World:
    """Everything behind the API. Every method may be called from any thread.

    Args:
        state: what is remembered. clock: the time. is_up: whether the machine of this id answers, so that it
            is not called `active` before there is something to log in to.
    """

    def __init__(
        self, state: State, clock: Timekeeper, is_up: Callable[[str], bool] = lambda _: True
    ) -> None:
        self.state = state
        self.clock = clock
        self.faults = Faults(state)
        self.is_up = is_up
        self.lock = threading.RLock()
        self.changed = threading.Event()
        """Set when a machine was launched or ended, so that whoever runs machines looks at once."""

    # ── what can be turned ───────────────────────────────────────────────────────────────────────

    @property
    def settings(self) -> Settings:
        """What can be turned, as it stands."""
        return self.state.get(Settings) or Settings()

    def afflict(self, fault: Fault) -> Fault:
        """Put a fault in; one that names an instance strikes that at once, and is not kept."""
        if fault.name not in KINDS:
            raise RefusedError("global/invalid-parameters", f"There is no fault `{fault.name}`.")
        if fault.name == "duplicate-key-names":
            self._double_keys()
            return fault
        if not (fault.instance and KINDS[fault.name].when == "machine"):
            return self.faults.add(fault)
        with self.lock:
            for record in self.records():
                if fault.instance in {"*", record.id} and record.ended_at is None:
                    self._mark(record, fault)
        self.changed.set()
        return fault

    def _mark(self, record: InstanceRecord, fault: Fault) -> None:
        now = self.clock.now()
        record.traits[fault.name] = fault
        if fault.name == "slow-boot" and now < record.active_at:
            record.active_at += seconds_of(fault)
        elif fault.name == "preempted":
            _preempt(record, max(now, record.active_at) + (fault.seconds or 0.0))
        elif fault.name == "changed-host-key":
            record.boots += 1
        self.state.put(record)

    def _double_keys(self) -> None:
        for key in self.ssh_keys():
            self.state.put(KeyRecord(id=secrets.token_hex(16), name=key.name, public_key=key.public_key))

    # ── machines ─────────────────────────────────────────────────────────────────────────────────

    def records(self) -> list[InstanceRecord]:
        """Every machine that was ever launched and not yet forgotten."""
        return self.state.all(InstanceRecord)

    def listed(self) -> list[InstanceRecord]:
        """Every machine that the API still shows."""
        now = self.clock.now()
        return [record for record in self.records() if record.gone_at is None or now < record.gone_at]

    def find(self, instance_id: str) -> InstanceRecord:
        """The machine of this id.

        Raises:
            RefusedError: there is none, or it has been gone for a while.
        """
        record = self.state.get(InstanceRecord, instance_id)
        if record is None or (record.gone_at is not None and self.clock.now() >= record.gone_at):
            raise RefusedError("global/object-does-not-exist", "Specified instance does not exist.")
        return record

    def status(self, record: InstanceRecord) -> str:
        """The API's word for the state of a machine."""
        now = self.clock.now()
        if record.ended_at is not None and now >= record.ended_at:
            if record.preempted:
                return "preempted"
            over = record.terminated_at is not None and now >= record.terminated_at
            return "terminated" if over else "terminating"
        if now < record.active_at or not (self.is_up(record.id) or "no-ssh" in record.traits):
            return "booting"
        if "unknown-status" in record.traits:
            return record.traits["unknown-status"].word or "rebuilding"
        return "unhealthy" if "unhealthy" in record.traits else "active"

    def launch(self, body: bodies.Launch) -> InstanceRecord:
        """One more machine.

        Raises:
            RefusedError: by a rule, for want of capacity, or by a fault; there is none then.
        """
        with self.lock:
            machine_type = self._wanted_type(body)
            keys = self._wanted_keys(body.ssh_key_names)
            systems = self._wanted_filesystems(body)
            self._refuse_launch(body, machine_type)
            record = self._new_record(body, machine_type, keys, systems)
            self._give_traits(record)
            self.state.put(UserData(id=record.id, text=body.user_data or ""))
            self.state.put(record)
            details = {"instance_type": record.instance_type, "region": record.region}
            self.note("instance", "launched", record.id, details)
        self.changed.set()
        return record

    def _wanted_type(self, body: bodies.Launch) -> catalogue.MachineType:
        found = catalogue.machine_types().get(body.instance_type_name)
        if found is None:
            raise RefusedError(
                "global/invalid-parameters", f"Invalid instance type: {body.instance_type_name!r}."
            )
        self.check_region(body.region_name)
        return found

    def check_region(self, region: str) -> None:
        """Refuse a region that does not exist."""
        if region not in catalogue.REGIONS:
            raise RefusedError("global/invalid-parameters", f"Invalid region: {region!r}.")

    def _wanted_keys(self, names: list[str]) -> list[KeyRecord]:
        found = [key for key in self.ssh_keys() if key.name in names]
        if not found:
            raise RefusedError(
                "global/object-does-not-exist", f"SSH key not found: {names[0]!r}.", status=400
            )
        if len(found) > len(names):
            raise RefusedError("global/unknown")
        return found

    def _wanted_filesystems(self, body: bodies.Launch) -> dict[str, str]:
        """Filesystem id to where it is mounted; the list of mounts wins over the list of names."""
        every = self.state.all(FilesystemRecord)
        wanted = {mount.file_system_id: mount.mount_point for mount in body.file_system_mounts}
        for name in [] if wanted else body.file_system_names:
            same = [one for one in every if one.name == name]
            if not same:
                raise RefusedError(
                    "global/object-does-not-exist", f"Filesystem not found: {name!r}.", status=400
                )
            wanted[same[0].id] = f"/lambda/nfs/{name}"
        known = {one.id: one for one in every}
        for system_id in wanted:
            if system_id not in known:
                raise RefusedError(
                    "global/object-does-not-exist", f"Filesystem not found: {system_id!r}.", status=400
                )
            if known[system_id].region != body.region_name:
                raise RefusedError("instance-operations/launch/file-system-in-wrong-region")
        return wanted

    def _refuse_launch(self, body: bodies.Launch, machine_type: catalogue.MachineType) -> None:
        about = {"instance_type": body.instance_type_name, "region": body.region_name}
        room = catalogue.regions_with_room(machine_type.name, self.settings, self.clock.now())
        if body.region_name not in room or self.faults.strike("no-capacity", **about):
            raise RefusedError("instance-operations/launch/insufficient-capacity")
        running = [record for record in self.listed() if record.ended_at is None]
        if len(running) >= MOST_INSTANCES or self.faults.strike("quota", **about):
            raise RefusedError("global/quota-exceeded")
        if self.faults.strike("unknown-error", **about):
            raise RefusedError("global/unknown")
        if self.faults.strike("provider-error", **about):
            raise RefusedError("provider/internal-unavailable")

    def _new_record(
        self,
        body: bodies.Launch,
        machine_type: catalogue.MachineType,
        keys: list[KeyRecord],
        systems: dict[str, str],
    ) -> InstanceRecord:
        now = self.clock.now()
        instance_id = secrets.token_hex(16)
        active_at = now + catalogue.boot_seconds(machine_type, instance_id)
        return InstanceRecord(
            id=instance_id,
            name=body.name or "",
            instance_type=machine_type.name,
            region=body.region_name,
            cents_per_hour=catalogue.cents_now(machine_type, self.settings, now),
            ssh_key_names=[key.name for key in keys],
            public_keys=[key.public_key for key in keys],
            file_systems={one.id: one.name for one in self.state.all(FilesystemRecord) if one.id in systems},
            mounts=systems,
            hostname=body.hostname or f"sandbox-{instance_id[:12]}",
            tags={tag.key: tag.value for tag in body.tags},
            ruleset_ids=[ruleset.id for ruleset in body.firewall_rulesets],
            launched_at=now,
            active_at=active_at,
            billed_from=active_at,
            jupyter_token=secrets.token_hex(16),
        )

    def _give_traits(self, record: InstanceRecord) -> None:
        for name, kind in KINDS.items():
            if kind.when != "machine":
                continue
            fault = self.faults.strike(name, instance_type=record.instance_type, region=record.region)
            if fault is None:
                continue
            record.traits[name] = fault
            if name == "slow-boot":
                record.active_at += seconds_of(fault)
            elif name == "preempted":
                _preempt(record, record.active_at + seconds_of(fault))

    def rename(self, instance_id: str, name: str) -> InstanceRecord:
        """Another name: the one thing of a machine that can be changed."""
        with self.lock:
            record = self.find(instance_id)
            record.name = name
            self.state.put(record)
        return record

    def terminate(self, instance_ids: list[str], *, request: str) -> list[InstanceRecord]:
        """Begin the end of machines; ending one twice is fine.

        Raises:
            RefusedError: one of them does not exist, or cannot be ended yet; then none is.
        """
        with self.lock:
            found = [self.find(instance_id) for instance_id in instance_ids]
            if self.faults.strike("terminate-unavailable", request=request):
                raise _not_now("vm-action-in-progress")
            if any(self.blocked(record) == "vm-has-not-launched" for record in found):
                raise _not_now("vm-has-not-launched")
            if self.faults.strike("terminate-ignored", request=request):
                return found
            for record in found:
                self._end(record)
        self.changed.set()
        return found

    def _end(self, record: InstanceRecord) -> None:
        if record.ended_at is not None and not (record.preempted and self.clock.now() < record.ended_at):
            return
        slow = record.traits.get("slow-terminate")
        record.ended_at = self.clock.now()
        record.terminated_at = record.ended_at + (seconds_of(slow) if slow else TERMINATING_SECONDS)
        record.gone_at = record.terminated_at + LISTED_AFTER_END_SECONDS
        record.preempted = False
        self.state.put(record)
        self.note("instance", "terminated", record.id)

    def restart(self, instance_ids: list[str]) -> list[InstanceRecord]:
        """Restart machines.

        Raises:
            RefusedError: one of them does not exist, or is not up.
        """
        with self.lock:
            found = [self.find(instance_id) for instance_id in instance_ids]
            if any(self.blocked(record) for record in found):
                raise RefusedError("global/conflict")
            for record in found:
                record.active_at = self.clock.now() + RESTART_SECONDS
                record.boots += 1
                self.state.put(record)
                self.note("instance", "restarted", record.id)
        self.changed.set()
        return found

    def blocked(self, record: InstanceRecord) -> str:
        """Why nothing can be asked of a machine now, in the API's word; empty when something can."""
        status = self.status(record)
        if status in {"terminating", "terminated", "preempted"}:
            return "vm-is-terminating"
        if status != "booting":
            return ""
        fresh = self.clock.now() < record.launched_at + LAUNCHING_SECONDS
        return "vm-has-not-launched" if fresh else "vm-action-in-progress"

    # ── the rest of the account ──────────────────────────────────────────────────────────────────

    def ssh_keys(self) -> list[KeyRecord]:
        """The account's SSH keys; two may share a name, as on Lambda."""
        return self.state.all(KeyRecord)

    def in_use(self, system: FilesystemRecord) -> bool:
        """Whether a machine that has not ended mounts it."""
        return any(
            system.id in record.file_systems
            for record in self.listed()
            if self.status(record) not in {"terminated", "preempted"}
        )

    def note(
        self, resource: str, action: str, resource_id: str, details: dict[str, str] | None = None
    ) -> None:
        """Write a line of the audit log."""
        self.state.put(
            EventRecord(
                id=secrets.token_hex(16),
                resource=resource,
                action=action,
                resource_id=resource_id,
                at=self.clock.now(),
                details=details or {},
            )
        )

    # ── the truth about money ────────────────────────────────────────────────────────────────────

    def bill(self) -> list[BillLine]:
        """What each machine would have cost until now, the oldest first; machines that are gone included."""
        now = self.clock.now()
        return [_bill_line(record, now) for record in self.records()]


def _bill_line(record: InstanceRecord, now: float) -> BillLine:
    until = min(now, record.terminated_at) if record.terminated_at is not None else now
    seconds = max(0.0, until - record.billed_from)
    minutes = -(-seconds // BILLED_SECONDS)
    ended = record.terminated_at is not None and record.terminated_at <= now
    return BillLine(
        id=record.id,
        name=record.name,
        instance_type=record.instance_type,
        cents_per_hour=record.cents_per_hour,
        launched_at=record.launched_at,
        billed_from=record.billed_from if seconds else None,
        billed_until=record.terminated_at if ended else None,
        seconds=seconds,
        usd=minutes * BILLED_SECONDS * record.cents_per_hour / 360_000,
    )


def _preempt(record: InstanceRecord, at: float) -> None:
    record.preempted = True
    record.ended_at = record.terminated_at = at
    record.gone_at = at + LISTED_AFTER_END_SECONDS


def _not_now(reason: str) -> RefusedError:
    return RefusedError(
        "global/invalid-parameters", f"The instance cannot be terminated in its current state: {reason}."
    )
