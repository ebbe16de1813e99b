"""Start: candidates in price order, one launch at a time, until one machine is up, reachable and sound.

The order of the steps is the promise. The guardian is armed before anything can bill; each launch is written
down before it is asked for; a machine that goes wrong is ended, with proof, before another is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from soong.errors import NothingFitsError, RemoteError, SoongError
from soong.launch import asking, stopping
from soong.launch.provider import LaunchRefusedError, LaunchUnclearError
from soong.lease.lease import make_lease, new_id
from soong.lease.ledger import Rental, held

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soong.launch.provider import Instance, Provider
    from soong.lease.lease import Lease
    from soong.lease.ledger import Ledger

NEXT_CANDIDATE: tuple[str, ...] = ("no-capacity", "wrong-region")
"""Refusals after which another type or region may do. Quota, a missing key and account troubles hold everywhere."""

CYCLE_SECONDS = 60.0
"""Between two rounds over all candidates while waiting for room: the list answers for all of them at once."""


class MachineUnfitError(RemoteError):
    """A machine came, and is of no use: no address, no SSH, or its GPU does not compute. It is ended.

    Args:
        stage: what failed: `address`, `ssh`, `cuda`.
    """

    code = "machine-unfit"

    def __init__(self, message: str, *, stage: str, why: str = "", hints: tuple[str, ...] = ()) -> None:
        super().__init__(message, why=why, hints=hints)
        self.stage = stage


class StoppedElsewhereError(SoongError):
    """Another soong ended the machine while this one was starting it; nothing is tried again."""

    code = "stopped-elsewhere"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One type in one region, at the price that was shown."""

    instance_type: str
    region: str
    gpu: str
    gpu_count: int
    usd_per_hour: float
    engine_argv: tuple[str, ...] = ()


def no_user_data(_: Lease) -> str:
    """No boot script."""
    return ""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the person agreed to.

    Attributes:
        name: the person's word for the machine. model: what it is for. owner: the owner's word.
        hours: how long; None when only the cost limits it. max_usd: the most it may cost; None for no limit.
        cap_hours: the hard end. ssh_key_name: the account's key. user_data: makes the boot script of a lease.
        wait_seconds: how long to wait for room, by the cloud's clock; 0 for one round.
    """

    name: str
    model: str
    owner: str
    hours: float | None
    cap_hours: float
    ssh_key_name: str
    max_usd: float | None = None
    user_data: Callable[[Lease], str] = no_user_data
    filesystem_names: tuple[str, ...] = ()
    wait_seconds: float = 0.0
    guards: tuple[str, ...] = ()


class Prober(Protocol):
    """Waits until a machine is up and sound."""

    def probe(self, rental: Rental, tell: Callable[[str], None]) -> Instance:
        """The machine, once it has an address, answers SSH and computes.

        Raises:
            MachineUnfitError: it does not, within the time that its size allows.
        """
        ...


def hours_of(terms: Terms, usd_per_hour: float) -> float:
    """How long a machine of this price may run under the terms: the shorter of `hours` and what the money buys.

    >>> hours_of(Terms(name="", model="", owner="", hours=4, cap_hours=8, ssh_key_name="", max_usd=2), 1.0)
    2.0
    """
    hours = terms.hours if terms.hours is not None else terms.cap_hours
    if terms.max_usd is None or usd_per_hour <= 0:
        return hours
    return min(hours, terms.max_usd / usd_per_hour)


def lease_of(terms: Terms, candidate: Candidate, now: float) -> Lease:
    """A lease under the terms that starts now, with an id of its own."""
    return make_lease(
        owner=terms.owner,
        now=now,
        hours=hours_of(terms, candidate.usd_per_hour),
        cap_hours=terms.cap_hours,
        lease_id=new_id(),
    )


def start(
    provider: Provider,
    ledger: Ledger,
    candidates: Callable[[], Sequence[Candidate]],
    terms: Terms,
    prober: Prober,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Rental:
    """Rent the first candidate that can be had and works.

    Args:
        candidates: asked anew for each round, best first; only those with room now need be in it.
        prober: looks the new machine over. tell: hears each step.

    Returns:
        The rental, ready.

    Raises:
        NothingFitsError: no room within the wait. LaunchRefusedError: refused for a reason that holds everywhere.
        LaunchUnclearError: an answer was lost and nothing was found. StoppedElsewhereError: another command ended it
        meanwhile. MachineUnfitError: two machines in a row were unfit.
        StopNotConfirmedError: an unfit machine could not be proved gone, so nothing more is launched.
    """
    deadline = provider.clock.now() + terms.wait_seconds
    tried = 0
    while True:
        for candidate in candidates():
            tried += 1
            rental = _tried(provider, ledger, candidate, terms, prober, tell)
            if rental is not None:
                return rental
        if provider.clock.now() + CYCLE_SECONDS > deadline:
            raise _no_room(tried)
        tell("no room anywhere; looking again in a minute")
        provider.clock.sleep(CYCLE_SECONDS)


def _tried(
    provider: Provider,
    ledger: Ledger,
    candidate: Candidate,
    terms: Terms,
    prober: Prober,
    tell: Callable[[str], None],
) -> Rental | None:
    """The machine of one candidate, ready; None when there is no room. An unfit machine is replaced once."""
    try:
        try:
            return _launched(provider, ledger, candidate, terms, prober, tell)
        except MachineUnfitError as unfit:
            tell(f"{unfit}; it is gone, trying one more")
            return _launched(provider, ledger, candidate, terms, prober, tell)
    except LaunchRefusedError as refused:
        if refused.refusal not in NEXT_CANDIDATE:
            raise
        tell(f"{candidate.instance_type} in {candidate.region}: {refused.message}")
        return None


def _launched(
    provider: Provider,
    ledger: Ledger,
    candidate: Candidate,
    terms: Terms,
    prober: Prober,
    tell: Callable[[str], None],
) -> Rental:
    rental = _intent(provider, candidate, terms)
    with held(rental.id):
        try:
            tell(f"asking for {candidate.instance_type} in {candidate.region}")
            rental = asking.ask(
                provider,
                ledger,
                rental,
                ssh_key_name=terms.ssh_key_name,
                user_data=terms.user_data(rental.lease),
                filesystems=terms.filesystem_names,
            )
            tell(f"{rental.instance_id} is booting")
            machine = prober.probe(rental, tell)
        except MachineUnfitError as unfit:
            _check_wanted(ledger, rental)
            tell(f"{unfit}; ending it")
            stopping.stop(provider, ledger, rental, why=str(unfit), tell=tell)
            raise
        except (LaunchRefusedError, LaunchUnclearError):
            raise
        except (KeyboardInterrupt, SoongError) as leaving:
            _undo(provider, ledger, rental.id, str(leaving) or "interrupted", tell)
            raise
        rental = _at_true_price(provider, ledger, rental, machine, tell)
        now = provider.clock.now()
        ready = ledger.change(rental.id, "ready", now, phase="ready", ready_at=now, address=machine.address)
        _check_wanted(ledger, ready)
        return ready


def _at_true_price(
    provider: Provider, ledger: Ledger, rental: Rental, machine: Instance, tell: Callable[[str], None]
) -> Rental:
    """The rental at the price that the cloud states of the machine itself: its list may have changed meanwhile."""
    true = machine.usd_per_hour
    if true is None or true == rental.usd_per_hour:
        return rental
    tell(f"the cloud states ${true:.2f}/h for it, where its list said ${rental.usd_per_hour:.2f}/h")
    return ledger.change(rental.id, "price", provider.clock.now(), usd_per_hour=true)


def _check_wanted(ledger: Ledger, rental: Rental) -> None:
    """Make sure that nobody else has ended the machine, or is about to.

    Raises:
        StoppedElsewhereError: somebody has.
    """
    rental = ledger.get(rental.id)
    if rental.phase in {"ending", "ended"}:
        raise StoppedElsewhereError(
            f"{rental.name} was ended while it was starting",
            why=rental.end_reason,
            hints=("soong status --history",),
        )


def _undo(provider: Provider, ledger: Ledger, rental_id: str, why: str, tell: Callable[[str], None]) -> None:
    """The start ends in the middle: end what was launched, or leave it to the guardian if the person leaves again."""
    rental = ledger.find(rental_id)
    if rental is None or rental.phase not in {"asked", "granted", "ready"}:
        return
    machine = rental.instance_id or "a machine that may have been launched"
    tell(f"{why}: ending {machine}; Ctrl-C again leaves that to the guardian")
    stopping.stop(provider, ledger, rental, why=why, tell=tell)
    tell(f"{machine} is gone")


def _intent(provider: Provider, candidate: Candidate, terms: Terms) -> Rental:
    now = provider.clock.now()
    return Rental(
        lease=lease_of(terms, candidate, now),
        cloud=provider.cloud,
        account=provider.account,
        name=terms.name,
        model=terms.model,
        gpu=candidate.gpu,
        gpu_count=candidate.gpu_count,
        instance_type=candidate.instance_type,
        region=candidate.region,
        usd_per_hour=candidate.usd_per_hour,
        asked_at=now,
        guards=terms.guards,
        engine_argv=candidate.engine_argv,
    )


def _no_room(tried: int) -> NothingFitsError:
    return NothingFitsError(
        "there is no room for this anywhere just now" if tried else "no machine that fits is free just now",
        hints=("the same with `--wait 2h` waits for room", "soong available"),
    )
