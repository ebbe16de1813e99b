"""What the guardian does beyond leases: reads the wardens, ends what is idle, passes on an end that was moved."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from soong.errors import SoongError

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.cli.account import Account
    from soong.lease.ledger import Rental

LEAST_SECONDS = 3.0
"""Between two looks at the machines, in real seconds: in a fast rehearsal rounds follow each other closely."""
SAME_SECONDS = 1.0
"""Ends that differ by less are the same: a machine's name carries whole seconds."""


class Looker:
    """Reads the warden of every machine that serves. tell: hears what was done, and what could not be."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._looked_at = 0.0

    def look(self, account: Account) -> None:
        """One look at each; a machine that does not answer is left to its lease."""
        if time.monotonic() - self._looked_at < LEAST_SECONDS:
            return
        try:
            for rental in account.ledger.open_rentals(cloud=account.provider.cloud):
                if rental.phase == "ready" and rental.serving:
                    self._look_or_tell(account, rental)
        except SoongError as error:
            self._tell(f"the machines could not be looked at: {error}")
        self._looked_at = time.monotonic()

    def _look_or_tell(self, account: Account, rental: Rental) -> None:
        try:
            self._look(account, rental)
        except Exception as error:  # noqa: BLE001 - the guardian of all leases must not die of one machine
            self._tell(f"{rental.name}: its warden could not be read: {error}")

    def _look(self, account: Account, rental: Rental) -> None:
        from soong.cli.serving import machine_of
        from soong.launch import stopping
        from soong.serve import watching

        machine = machine_of(account, rental)
        seen = watching.look(machine)
        if seen.lease is not None and abs(seen.lease.ends_at - rental.lease.ends_at) > SAME_SECONDS:
            watching.tell_lease(machine, rental.lease, account.provider.clock)
        limit = rental.idle_seconds_limit
        if limit and seen.is_idle(limit):
            why = f"idle for {limit / 60:.0f} min"
            self._tell(f"{rental.name}: {why}; ending it")
            stopping.stop(account.provider, account.ledger, rental, why=why, tell=self._tell)
