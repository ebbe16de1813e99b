"""This computer as a cloud of one machine, or of one for each GPU: launched, listed and ended like any other."""

from __future__ import annotations

import secrets
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from soong.clouds.local import hardware, processes
from soong.clouds.local.machine import LocalMachine, environment, home
from soong.clouds.local.records import Record, Records
from soong.errors import NotFoundError
from soong.launch.provider import (
    Filesystem,
    Instance,
    LaunchRefusedError,
    LaunchRequest,
    LaunchUnclearError,
    SshEndpoint,
    SshKey,
)
from soong.lease.clock import WallClock
from soong.offers.offer import Offer
from soong.settings import paths

if TYPE_CHECKING:
    from pathlib import Path

    from soong.gpus.gpu import Gpu
    from soong.lease.clock import Clock

REGION = "here"
ADDRESS = "127.0.0.1"
BOOT_SECONDS = 60.0
"""The boot script writes four files and starts the warden."""
CLOUD = "local"
GIB = 1 << 30


def open_provider() -> LocalProvider:
    """This computer."""
    return LocalProvider(paths.state_dir() / "local")


def kept_folder() -> Path:
    """Where engines and weights stay when a machine here ends: they can be fetched again, at the price of time."""
    return paths.made(paths.cache_dir() / "machines")


class LocalProvider:
    """This computer; implements `launch.provider.Provider`.

    Args:
        folder: where its machines lie. clock: which their leases follow. found: its hardware; looked for if not given.
    """

    cloud = CLOUD
    account = "this computer"
    costs_money = False
    regions: tuple[str, ...] = (REGION,)
    clock_skew_seconds: float | None = None

    def __init__(
        self, folder: Path, *, clock: Clock | None = None, found: hardware.Hardware | None = None
    ) -> None:
        self.clock: Clock = clock or WallClock()
        self.records = Records(folder)
        self.console_url = f"{folder}, or by restarting this computer"
        self._hardware = found

    @property
    def hardware(self) -> hardware.Hardware:
        """What this computer has, asked once."""
        if self._hardware is None:
            self._hardware = hardware.look()
        return self._hardware

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """What the planner must know of this computer's GPUs, or of its processor."""
        return self.hardware.gpus

    def instances(self) -> tuple[Instance, ...]:
        """Every machine here: it is terminated when no process of it is left."""
        return tuple(self._instance(record) for record in self.records.all())

    def offers(self) -> tuple[Offer, ...]:
        """What can be started now: each number of GPUs of one kind, or the processor; all for nothing."""
        free = self._free_cards()
        day = datetime.fromtimestamp(self.clock.now(), UTC).date().isoformat()
        return tuple(
            Offer(
                cloud=CLOUD,
                instance_type=kind,
                gpu=gpu,
                gpu_count=count,
                usd_per_hour=0.0,
                as_of=day,
                source="this computer",
                live=True,
                available=is_free,
                region=REGION if is_free else None,
                cpu_architecture=self.hardware.cpu_architecture,
                vcpus=self.hardware.cpus,
                memory_gib=self.hardware.memory_bytes // GIB,
            )
            for kind, gpu, count, is_free in self._types(free)
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """Why a GPU of this computer cannot be used, a line each."""
        return tuple(
            f"GPU {card.number} ({card.gpu.name}): {card.problem}"
            for card in self.hardware.cards
            if card.problem and card.number not in self._taken_cards()
        )

    def launch(self, request: LaunchRequest) -> str:
        """Make the machine's folder, run its boot script; only one process launches at a time.

        Raises:
            LaunchRefusedError: no GPU is free, or the boot script failed; nothing runs.
            LaunchUnclearError: the script failed, and what it had started could not be ended.
        """
        with self.records.alone():
            self.records.tidy(self.clock.now())
            record = self._recorded(request)
            self.records.write(record)
            problem = self._booted(record, request.user_data)
            if not problem:
                return record.id
            if self._ended(record):
                raise LaunchUnclearError(
                    "the machine did not start, and something of it still runs", why=problem
                )
        raise LaunchRefusedError("this computer could not start it", refusal="invalid", why=problem)

    def rename(self, instance_id: str, name: str) -> None:
        """Change the name.

        Raises:
            NotFoundError: there is no such machine.
        """
        with self.records.alone():
            self.records.write(msgspec.structs.replace(self._known(instance_id), name=name))

    def terminate(self, instance_id: str) -> None:
        """End every process of the machine and delete its folder.

        Raises:
            NotFoundError: there is no such machine.
        """
        with self.records.alone():
            self._ended(self._known(instance_id))
            self.records.tidy(self.clock.now())

    def ssh_keys(self) -> tuple[SshKey, ...]:
        """None: nothing here is reached by SSH."""
        return ()

    def add_ssh_key(self, name: str, public_key: str) -> SshKey:
        """Nothing is kept: no machine here asks for a key."""
        return SshKey(id=name, name=name, public_key=public_key)

    def filesystems(self) -> tuple[Filesystem, ...]:
        """None."""
        return ()

    def ssh_endpoint(self, instance: Instance) -> SshEndpoint | None:  # noqa: ARG002 - the protocol's signature
        """Nowhere: `machine` is the way in."""
        return None

    def machine(self, instance_id: str) -> LocalMachine:
        """The machine itself, without SSH.

        Raises:
            NotFoundError: there is no such machine.
        """
        record = self._known(instance_id)
        return LocalMachine(record.id, self.records.root(record), record.cards)

    def _known(self, instance_id: str) -> Record:
        record = self.records.find(instance_id)
        if record is None:
            raise NotFoundError(
                f"this computer has no machine `{instance_id}`", hints=("soong status --cloud local",)
            )
        return record

    def _instance(self, record: Record) -> Instance:
        over = self.records.is_over(record)
        ending = record.asked_to_end_at is not None
        return Instance(
            id=record.id,
            name=record.name,
            status="terminated" if over else "terminating" if ending else "active",
            raw_status="terminated" if over else "terminating" if ending else "active",
            address=ADDRESS,
            instance_type=record.instance_type,
            region=REGION,
            gpu_count=record.gpu_count,
            usd_per_hour=0.0,
            cpu_architecture=self.hardware.cpu_architecture,
            tags=record.tags,
        )

    def _living(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records.all() if not self.records.is_over(record))

    def _taken_cards(self) -> frozenset[int]:
        return frozenset(card for record in self._living() for card in record.cards)

    def _free_cards(self) -> dict[str, list[int]]:
        """The usable cards of each kind. Without any card the processor counts as one, taken by whatever runs."""
        if not self.hardware.cards:
            return {hardware.CPU: [] if self._living() else [0]}
        taken, free = self._taken_cards(), dict[str, list[int]]()
        for card in self.hardware.cards:
            of_kind = free.setdefault(card.gpu.id, [])
            if not card.problem and card.number not in taken:
                of_kind.append(card.number)
        return free

    def _types(self, free: dict[str, list[int]]) -> list[tuple[str, str, int, bool]]:
        """Type, GPU, how many, and whether so many are free."""
        if not self.hardware.cards:
            return [(hardware.CPU, hardware.CPU, 1, bool(free[hardware.CPU]))]
        kinds = [card.gpu.id for card in self.hardware.cards]
        return [
            (f"{count}x-{gpu}", gpu, count, len(free[gpu]) >= count)
            for gpu in dict.fromkeys(kinds)
            for count in range(1, kinds.count(gpu) + 1)
        ]

    def _recorded(self, request: LaunchRequest) -> Record:
        free = self._free_cards()
        chosen = next((one for one in self._types(free) if one[0] == request.instance_type), None)
        if chosen is None:
            raise LaunchRefusedError(f"this computer has no `{request.instance_type}`", refusal="invalid")
        _, gpu, count, is_free = chosen
        if not is_free:
            raise LaunchRefusedError("it is in use already", refusal="no-capacity")
        return Record(
            id=f"here-{secrets.token_hex(4)}",
            name=request.name,
            tags=request.tags,
            instance_type=request.instance_type,
            gpu_count=count,
            cards=tuple(free[gpu][:count]) if self.hardware.cards else (),
            boot_id=processes.boot_id(),
            launched_at=self.clock.now(),
        )

    def _booted(self, record: Record, user_data: str) -> str:
        """Why the boot script failed; empty when it did its work, or there is none."""
        root = self.records.root(record)
        for folder in (home(root), root / "var" / "log"):
            paths.made(folder)
        if not user_data:
            return ""
        script, log = root / "var" / "user-data", root / "var" / "log" / "boot.log"
        script.write_text(user_data, encoding="utf-8")
        try:
            with log.open("wb") as said:
                ended = subprocess.run(  # noqa: S603 - soong's own script
                    ["bash", str(script)],  # noqa: S607 - of this computer
                    stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=root,
                    env=environment(record.id, root, record.cards), start_new_session=True,
                    timeout=BOOT_SECONDS, check=False,
                )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return f"its boot script ended with {ended.returncode}: {''.join(last)}" if ended.returncode else ""

    def _ended(self, record: Record) -> frozenset[int]:
        """End it; returns the processes that are left."""
        if record.asked_to_end_at is None:
            self.records.write(msgspec.structs.replace(record, asked_to_end_at=self.clock.now()))
        if record.boot_id != processes.boot_id():
            return frozenset()
        return processes.end(record.id)
