"""The supervisor of a group's router, as a process: `python -m soong.cli.keeping GROUP`.

It keeps the router, tells the person when a machine is lost or silent, and replaces a lost one, once, where that was
agreed to at the start (`--replace`): with the price, the end and the bill of then, or not at all.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from soong.connect import router, supervised
from soong.errors import SoongError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.connect.router import Router
    from soong.launch.groups import Group
    from soong.lease.ledger import Rental

SILENT_SECONDS = 60.0
"""A machine that does not answer for so long is told of: a tunnel is made again well within."""
MOST_BETWEEN_SECONDS = 5.0
"""Looks are a second apart; what is more was sleep."""
MOST_REPLACED = 1


class Keeper:
    """What is done beside keeping the router up."""

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id
        self._group: Group | None = None
        self._told_silent: set[str] = set()
        self._silent_seconds: dict[str, float] = {}
        self._looked_at = time.monotonic()
        self._told_failed: set[int] = set()
        self._replacing: subprocess.Popen[bytes] | None = None

    def look_after(self, now: Router) -> None:
        """One look; what cannot be done now is tried at the next."""
        try:
            self._look_after(now)
        except SoongError as error:
            _log(f"the group could not be looked after: {error}")

    def _look_after(self, now: Router) -> None:
        from soong.launch import groups
        from soong.lease.ledger import open_ledger

        group = self._group = groups.find(self._group_id) or self._group
        if group is None:
            return
        with open_ledger() as ledger:
            members = ledger.of_group(self._group_id)
        for rental in groups.lost(members):
            if rental.id not in group.told:
                told = (*group.told, rental.id)
                group = groups.change(group.id, told=told) or msgspec.structs.replace(group, told=told)
                self._group = group
                self._tell(
                    f"{rental.name} is lost: the machine was ended by the cloud or by somebody else", now
                )
        self._count_silence(now)
        self._tell_silent(now)
        self._tell_of_failure(now)
        self._end_dead(group, now)
        self._replace(group, members, now)

    def _count_silence(self, now: Router) -> None:
        """For how long each machine has been silent while another answered, counted by looks.

        What passes while this computer sleeps, or while it reaches none of them, says nothing about a machine.
        """
        looked_at, self._looked_at = self._looked_at, time.monotonic()
        passed = min(self._looked_at - looked_at, MOST_BETWEEN_SECONDS) if now.answering else 0.0
        self._silent_seconds = {
            one.rental_id: self._silent_seconds.get(one.rental_id, 0.0) + passed
            for one in now.members
            if one.state == "silent"
        }

    def _tell_silent(self, now: Router) -> None:
        self._told_silent &= set(self._silent_seconds)
        for one in now.members:
            seconds = self._silent_seconds.get(one.rental_id, 0.0)
            if seconds >= SILENT_SECONDS and one.rental_id not in self._told_silent:
                self._told_silent.add(one.rental_id)
                self._tell(f"{one.name} does not answer; requests go to the others, and it bills on", now)

    def _tell_of_failure(self, now: Router) -> None:
        """A command that was meant to end or to replace a machine, and did not."""
        child = self._replacing
        if child is not None and child.poll() not in {None, 0} and child.pid not in self._told_failed:
            self._told_failed.add(child.pid)
            self._tell("what was to be replaced was not; `soong status` tells what runs", now)

    def _tell(self, words: str, now: Router) -> None:
        from soong.cli.notify import notify

        line = f"{words}; {now.answering} of {now.name}'s machines answer"
        _log(line)
        notify(line)

    def _end_dead(self, group: Group, now: Router) -> None:
        """End a machine that is dead for good, where it may be replaced: else it would bill beside the new one.

        One whose tunnel somebody took down is not asked at all, so nothing is known of it.
        """
        from soong.connect import tunnel
        from soong.launch import groups

        if not group.replaces or group.replaced >= MOST_REPLACED or not now.answering or self._is_busy():
            return
        for one in now.members:
            is_tried = tunnel.find(one.rental_id) is not None
            if is_tried and self._silent_seconds.get(one.rental_id, 0.0) >= group.dead_seconds:
                self._tell(
                    f"{one.name} has not answered for {group.dead_seconds / 60:.0f} minutes; ending it", now
                )
                groups.change(group.id, dead=(*group.dead, one.rental_id))
                self._soong("stop", one.rental_id, "--yes", "--cloud", group.cloud)
                return

    def _replace(self, group: Group, members: Sequence[Rental], now: Router) -> None:
        """One more machine for one that is lost; counted before it is tried, so that a crash cannot make it two.

        While somebody ends machines of the group, nothing is launched: they may be about to end all of them.
        """
        from soong.launch import groups

        running = groups.going_on(members)
        gone = (*groups.lost(members), *(one for one in members if one.id in group.dead and not one.is_open))
        if not group.replaces or group.replaced >= MOST_REPLACED or self._is_busy() or not now.answering:
            return
        if any(one.phase == "ending" and one.id not in group.dead for one in members):
            return
        if not gone or not running or len(running) >= group.wanted:
            return
        groups.change(group.id, replaced=group.replaced + 1)
        _log(f"replacing {gone[-1].name}")
        self._soong(
            "start", "--add-to", group.name, "--within-bill", "--yes", "--no-input", "--cloud", group.cloud
        )

    def _is_busy(self) -> bool:
        return self._replacing is not None and self._replacing.poll() is None

    def _soong(self, *words: str) -> None:
        """A soong command of its own, which lives on where this process is ended; what it says goes to our log."""
        self._replacing = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "soong.cli", *words],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        supervised.STARTED.append(self._replacing)


def _log(line: str) -> None:
    from soong.cli import times

    sys.stderr.write(f"{times.iso(time.time())} {line}\n")
    sys.stderr.flush()


def main(group_id: str) -> int:
    """Keep the router of a group until the group is over. Returns the exit code."""
    return router.supervise(group_id, Keeper(group_id).look_after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
