"""What the guardian does beyond leases: reads the wardens, ends what is idle, notes what became of an engine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from soong.errors import SoongError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soong.cli.account import Account
    from soong.lease.ledger import Rental
    from soong.serve.watching import Watched

LEAST_SECONDS = 3.0
"""Between two looks at the machines, in real seconds: in a fast rehearsal rounds follow each other closely."""
MOST_SECONDS = 30.0
"""For one look at all machines: each dead one takes up to twenty, and leases that end must not wait for that."""
FRESH_LOOKS = 1
"""A replica that was idle at this look or at so many before it is idle: a look may be too short for all of them."""
MOST_BETWEEN_SECONDS = 150.0
"""After a longer pause between two looks nothing that was seen before counts: two rounds of the guardian, one look."""
UNREAD_LOOKS = 3
"""A replica whose warden could not be read so often in a row does not keep the others, all idle, from being ended."""
SAME_SECONDS = 1.0
"""Ends that differ by less are the same: a machine's name carries whole seconds."""


class Looker:
    """Reads the warden of every machine that serves. tell: hears what was done, and what could not be."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._looked_at = 0.0
        self._looked: dict[str, float] = {}
        self._looks = 0
        self._idle: dict[str, int] = {}
        self._unread: dict[str, int] = {}

    def look(self, account: Account) -> None:
        """One look at each; a machine that does not answer is left to its lease."""
        if time.monotonic() - self._looked_at < LEAST_SECONDS:
            return
        try:
            began = time.monotonic()
            if began - self._looked_at > MOST_BETWEEN_SECONDS:
                self._idle.clear()
            self._looks += 1
            for rental in self._in_turn(account):
                self._looked[rental.id] = time.monotonic()
                self._idle.pop(rental.id, None)
                self._look_or_tell(account, rental)
                if time.monotonic() - began > MOST_SECONDS:
                    break
            self._end_idle_groups(account)
        except SoongError as error:
            self._tell(f"the machines could not be looked at: {error}")
        self._looked_at = time.monotonic()

    def _in_turn(self, account: Account) -> list[Rental]:
        """The machines that serve, first those that were not looked at for longest."""
        rentals = [
            one
            for one in account.ledger.open_rentals(cloud=account.provider.cloud)
            if one.phase == "ready" and one.serving
        ]
        self._looked = {one.id: self._looked.get(one.id, 0.0) for one in rentals}
        self._idle = {one: look for one, look in self._idle.items() if one in self._looked}
        self._unread = {one: looks for one, looks in self._unread.items() if one in self._looked}
        return sorted(rentals, key=lambda one: self._looked[one.id])

    def _look_or_tell(self, account: Account, rental: Rental) -> None:
        try:
            self._look(account, rental)
            self._unread.pop(rental.id, None)
        except Exception as error:  # noqa: BLE001 - the guardian of all leases must not die of one machine
            self._unread[rental.id] = self._unread.get(rental.id, 0) + 1
            self._tell(f"{rental.name}: its warden could not be read: {error}")

    def _look(self, account: Account, rental: Rental) -> None:
        from soong.cli.serving import machine_of
        from soong.serve import watching

        machine = machine_of(account, rental)
        seen = watching.look(machine)
        if seen.lease is not None and abs(seen.lease.ends_at - rental.lease.ends_at) > SAME_SECONDS:
            watching.tell_lease(machine, rental.lease, account.provider.clock)
        self._note_serving(account, rental, seen)
        limit = rental.idle_seconds_limit
        if limit and seen.is_idle(limit):
            if rental.group:
                self._idle[rental.id] = self._looks
                return
            why = f"idle for {limit / 60:.0f} min"
            self._end(account, rental, why)

    def _end_idle_groups(self, account: Account) -> None:
        """End the replicas of a group once every one of them is known to be idle: the router may favour one.

        One that could not be read for long is left to its lease: what is not known is not idle.
        """
        fresh = {one for one, look in self._idle.items() if look >= self._looks - FRESH_LOOKS}
        for group in sorted({account.ledger.get(one).group for one in fresh}):
            members = [one for one in account.ledger.of_group(group) if one.is_open and one.phase != "ending"]
            over = [
                one
                for one in members
                if one.serving == "failed" or self._unread.get(one.id, 0) < UNREAD_LOOKS
            ]
            serving = {one.id for one in over if one.serving != "failed"}
            if serving and serving <= fresh:
                self._end_group(account, over)

    def _end_group(self, account: Account, rentals: Sequence[Rental]) -> None:
        """Ask for the end of each, not waiting for the proof: the next rounds see to it, and leases go on ending."""
        from soong.launch import stopping

        first = rentals[0]
        why = f"all of {first.group_name} idle for {first.idle_seconds_limit / 60:.0f} min"
        self._tell(f"{first.group_name}: {why}; ending {len(rentals)} machines")
        stopping.mean_all(account.provider, account.ledger, rentals, why=why, tell=self._tell)
        for one in rentals:
            try:
                stopping.stop(
                    account.provider,
                    account.ledger,
                    account.ledger.get(one.id),
                    why=why,
                    patience_seconds=0.0,
                    tell=self._tell,
                )
            except stopping.StopNotConfirmedError:
                self._tell(f"{one.name}: asked to end; the proof follows")
            except SoongError as error:
                self._tell(f"{one.name}: {error}")

    def _end(self, account: Account, rental: Rental, why: str) -> None:
        from soong.launch import stopping

        self._tell(f"{rental.name}: {why}; ending it")
        try:
            stopping.stop(account.provider, account.ledger, rental, why=why, tell=self._tell)
        except SoongError as error:
            self._tell(f"{rental.name}: {error}")

    def _note_serving(self, account: Account, rental: Rental, seen: Watched) -> None:
        """An engine that ended while nobody looked, and an endpoint that came up after its `start` was interrupted."""
        boot = seen.boot
        if boot is None:
            return
        fields: dict[str, Any] = {}
        if boot.state == "failed":
            found, words = "failed", f"it serves nothing any more: {boot.message}; it bills on"
        elif (boot.step, boot.state) == ("ready", "done") and boot.gate_port:
            found, words, fields = "ready", "the endpoint answers", {"endpoint_port": boot.gate_port}
        else:
            return
        if found != rental.serving:
            now = account.provider.clock.now()
            account.ledger.change(rental.id, f"serving-{found}", now, serving=found, **fields)
            self._tell(f"{rental.name}: {words}")
