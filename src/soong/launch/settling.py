"""After any interruption: compare the ledger with the cloud, say what happened, and finish or undo it.

Every command that talks to a cloud settles first. It touches nothing that another soong process is working on
(`ledger.held`), and ends only machines of this ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong.errors import CredentialError, SoongError
from soong.launch import finding, stopping
from soong.lease.lease import read_lease
from soong.lease.ledger import clear_held, held

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Instance, Provider
    from soong.lease.lease import Lease
    from soong.lease.ledger import Ledger, Rental

UNSEEN_SECONDS = 120.0
"""A launch whose answer was lost, and whose machine is in no list this long after, was never launched. Twice the
minute that the looking in `asking` takes."""

What = Literal[
    "adopted",
    "never-launched",
    "ended-elsewhere",
    "stop-finished",
    "stop-unfinished",
    "undone",
    "moved",
]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was out of step: which rental, what was done about it, and the sentence for a person."""

    rental_id: str
    what: What
    message: str


def settle(
    provider: Provider,
    ledger: Ledger,
    *,
    instances: tuple[Instance, ...] | None = None,
    stop_patience_seconds: float = 0.0,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Finding, ...]:
    """Bring the ledger into step with the account.

    Args:
        instances: a list just read, to save a call. stop_patience_seconds: how long to wait for the proof of a stop
            that an earlier command did not see through; with 0 it is asked for again and left to the guardian.
        tell: hears each step.

    Raises:
        CredentialError, RemoteError: the cloud could not be asked.
    """
    listed = provider.instances() if instances is None else instances
    findings: list[Finding] = []
    _rekeyed(provider, ledger, listed)
    for rental in ledger.open_rentals(cloud=provider.cloud, account=provider.account):
        with held(rental.id) as alone:
            if alone:
                found = _settled(provider, ledger, ledger.get(rental.id), listed, stop_patience_seconds, tell)
                findings += [found] if found else []
    findings += _undone(provider, ledger, listed, tell)
    clear_held({rental.id for rental in ledger.open_rentals()})
    return tuple(findings)


def _rekeyed(provider: Provider, ledger: Ledger, listed: tuple[Instance, ...]) -> None:
    """A new key of the same account: what it lists is this account's, whatever key it was launched with."""
    for rental in ledger.open_rentals(cloud=provider.cloud):
        if rental.account != provider.account and finding.of_rental(rental, listed):
            ledger.change(rental.id, "key-replaced", provider.clock.now(), account=provider.account)


def _settled(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    listed: tuple[Instance, ...],
    patience_seconds: float,
    tell: Callable[[str], None],
) -> Finding | None:
    seen = finding.of_rental(rental, listed)
    if not rental.is_open:
        return None
    if rental.phase == "ending":
        return _finish_stop(provider, ledger, rental, patience_seconds, tell)
    if not seen:
        return _missing(provider, ledger, rental)
    if not any(instance.is_billing for instance in seen):
        gone = stopping.Gone(evidence="the cloud lists it as terminated", at=provider.clock.now())
        stopping.close(ledger, rental, gone)
        return _said(rental, "ended-elsewhere", "was ended by somebody else, or by the cloud")
    return _present(provider, ledger, rental, next(one for one in seen if one.is_billing))


def _missing(provider: Provider, ledger: Ledger, rental: Rental) -> Finding | None:
    """A machine that the list does not show: never launched, or gone when a second list says so as well."""
    now = provider.clock.now()
    if rental.phase == "asked":
        if now - rental.asked_at < UNSEEN_SECONDS:
            return None
        ledger.change(
            rental.id,
            "refused",
            now,
            detail={"why": "no machine appeared"},
            phase="refused",
            ended_at=now,
            end_reason="the start was interrupted, and no machine appeared",
        )
        return _said(
            rental, "never-launched", "was never launched: the start was interrupted and no machine appeared"
        )
    if rental.missing_since is None:
        ledger.change(rental.id, "missing", now, missing_since=now)
        return None
    if now - rental.missing_since < stopping.APART_SECONDS:
        return None
    gone = stopping.Gone(evidence=f"missing from two lists, {now - rental.missing_since:.0f} s apart", at=now)
    stopping.close(ledger, rental, gone)
    return _said(rental, "ended-elsewhere", "is gone: ended by somebody else, or by the cloud")


def _present(provider: Provider, ledger: Ledger, rental: Rental, instance: Instance) -> Finding | None:
    now = provider.clock.now()
    if rental.missing_since is not None:
        rental = ledger.change(rental.id, "seen-again", now, missing_since=None)
    if instance.address and instance.address != rental.address:
        rental = ledger.change(
            rental.id, "address", now, detail={"address": instance.address}, address=instance.address
        )
    if rental.phase == "asked":
        ledger.change(
            rental.id,
            "adopted",
            now,
            detail={"instance_id": instance.id},
            phase="granted",
            instance_id=instance.id,
        )
        return _said(
            rental, "adopted", "was launched by a start that did not live to say so; it is kept until its end"
        )
    lease = read_lease(name=instance.name, tags=instance.tags)
    if lease is not None and lease.ends_at != rental.lease.ends_at:
        ledger.change(
            rental.id,
            "end-moved",
            now,
            detail={"ends_at": lease.ends_at},
            lease=_moved(rental, lease.ends_at),
        )
        return _said(rental, "moved", "has another end than this computer knew; the cloud's counts")
    return None


def _moved(rental: Rental, ends_at: int) -> Lease:
    return msgspec.structs.replace(rental.lease, ends_at=min(ends_at, rental.lease.cap_at))


def _finish_stop(
    provider: Provider, ledger: Ledger, rental: Rental, patience_seconds: float, tell: Callable[[str], None]
) -> Finding:
    try:
        stopping.stop(
            provider, ledger, rental, why=rental.end_reason, patience_seconds=patience_seconds, tell=tell
        )
    except stopping.StopNotConfirmedError as error:
        return _said(rental, "stop-unfinished", str(error))
    return _said(rental, "stop-finished", "is gone: a stop that was interrupted has been finished")


def _undone(
    provider: Provider, ledger: Ledger, listed: tuple[Instance, ...], tell: Callable[[str], None]
) -> list[Finding]:
    """Machines that appeared after their rental was closed: nobody waits for them, so they are ended."""
    findings = []
    for instance in listed:
        rental = ledger.find(finding.lease_id_of(instance)) if instance.is_billing else None
        if rental is None or rental.is_open:
            continue
        tell(f"{instance.id} appeared after its rental was over; ending it")
        try:
            provider.terminate(instance.id)
            words = "asked to end"
        except CredentialError:
            raise
        except SoongError as error:
            words = f"it could not be asked to end yet ({error})"
        ledger.change(rental.id, "appeared-late", provider.clock.now(), detail={"instance_id": instance.id})
        findings.append(
            _said(rental, "undone", f"appeared late as {instance.id}, after its rental was over: {words}")
        )
    return findings


def _said(rental: Rental, what: What, sentence: str) -> Finding:
    return Finding(
        rental_id=rental.id, what=what, message=f"{rental.name} ({rental.instance_type}) {sentence}"
    )
