"""End what is over. It needs nothing but the cloud's key, so it can run on any computer, and on several.

It touches only machines that carry soong's tags and the owner's word. Everything else in the account is reported
with its price, never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong.errors import SoongError
from soong.launch import finding, stopping
from soong.lease.lease import Lease, read_lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance, Provider
    from soong.lease.ledger import Ledger, Rental

Outcome = Literal["running", "ended", "would-end", "not-confirmed", "other-owner", "not-ours"]


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """What a reaper found of one machine, and did.

    Attributes:
        outcome: running: its lease goes on. ended: proved gone. would-end: a dry run. not-confirmed: asked to end
            and not proved gone. other-owner, not-ours: left alone.
        remaining_seconds: until the lease ends, negative after it; None without a lease. message: for a person.
    """

    instance_id: str
    name: str
    instance_type: str
    region: str
    usd_per_hour: float | None
    outcome: Outcome
    owner: str = ""
    lease_id: str = ""
    remaining_seconds: float | None = None
    message: str = ""


def reap(
    provider: Provider,
    *,
    owner: str,
    all_owners: bool = False,
    dry_run: bool = False,
    ledger: Ledger | None = None,
    patience_seconds: float = stopping.PATIENCE_SECONDS,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Reaped, ...]:
    """Look at every machine of the account once, and end those whose lease is over.

    Args:
        owner: whose machines may be ended. all_owners: every machine with soong's tags.
        dry_run: say what would be done. ledger: of this computer, where there is one: what it launched is its own,
            whatever `lease.owner` has become since, and proofs are written to it.
        patience_seconds: how long to wait for each proof, by the cloud's clock.

    Raises:
        CredentialError, RemoteError: the account could not be read at all.
    """
    listed = tuple(instance for instance in provider.instances() if instance.is_billing)
    rows = [(instance, _judged(provider, instance, owner, all_owners, ledger)) for instance in listed]
    if dry_run:
        return tuple(row for _, row in rows)
    over = tuple(instance for instance, row in rows if row.outcome == "would-end")
    stopping.end_all(provider, over, {}, tell)
    return tuple(
        _ended(provider, instance, ledger, patience_seconds, tell) if instance in over else row
        for instance, row in rows
    )


def _rental(ledger: Ledger, lease_id: str) -> Rental | None:
    """The ledger's word on a lease; none when it cannot be read: what the tags say is enough to end a machine."""
    try:
        return ledger.find(lease_id)
    except SoongError:
        return None


def _judged(
    provider: Provider, instance: Instance, owner: str, all_owners: bool, ledger: Ledger | None
) -> Reaped:
    lease = read_lease(name=instance.name, tags=instance.tags)
    now = provider.clock.now()
    if lease is None:
        return _row(instance, lease, now, "not-ours", "carries no tag of soong; left alone")
    known = ledger is not None and _rental(ledger, lease.id) is not None
    if not (all_owners or lease.owner == owner or known):
        return _row(
            instance, lease, now, "other-owner", f"belongs to {lease.owner or 'nobody known'}; left alone"
        )
    if lease.is_over(now):
        return _row(instance, lease, now, "would-end", "its lease is over")
    return _row(instance, lease, now, "running", "")


def _ended(
    provider: Provider,
    instance: Instance,
    ledger: Ledger | None,
    patience_seconds: float,
    tell: Callable[[str], None],
) -> Reaped:
    lease = read_lease(name=instance.name, tags=instance.tags)
    lease_id = lease.id if lease else ""
    try:
        rental = _rental(ledger, lease_id) if ledger is not None else None
        if ledger is not None and rental is not None and rental.is_open:
            stop = stopping.stop(
                provider, ledger, rental, why="lease over", patience_seconds=patience_seconds, tell=tell
            )
            gone: stopping.Gone | None = stop
        else:
            gone = stopping.prove_gone(
                provider,
                lambda listed: tuple(
                    one for one in listed if one.id == instance.id or finding.lease_id_of(one) == lease_id
                ),
                patience_seconds=patience_seconds,
                tell=tell,
            ).gone
    except stopping.StopNotConfirmedError:
        gone = None
    except SoongError as error:
        return _row(instance, lease, provider.clock.now(), "not-confirmed", str(error))
    now = provider.clock.now()
    if gone is None:
        message = str(stopping.not_confirmed(provider, instance.id, instance.usd_per_hour))
        return _row(instance, lease, now, "not-confirmed", message)
    return _row(instance, lease, now, "ended", gone.evidence)


def _row(instance: Instance, lease: Lease | None, now: float, outcome: Outcome, message: str) -> Reaped:
    return Reaped(
        instance_id=instance.id,
        name=instance.name,
        instance_type=instance.instance_type,
        region=instance.region,
        usd_per_hour=instance.usd_per_hour,
        outcome=outcome,
        owner=lease.owner if lease else "",
        lease_id=lease.id if lease else "",
        remaining_seconds=lease.remaining_seconds(now) if lease else None,
        message=message,
    )
