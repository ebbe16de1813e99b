"""Start: candidates in price order, one launch at a time, until one machine is up, reachable and sound.

The order of the steps is the promise. The guardian is armed before anything can bill; each launch is written
down before it is asked for; a machine that goes wrong is ended, with proof, before another is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from soong.errors import NothingFitsError, RemoteError, SoongError, UsageError
from soong.launch import asking, booting, budget, extending, stopping
from soong.launch.provider import LaunchRefusedError, LaunchUnclearError
from soong.lease.lease import SECONDS_PER_HOUR, make_lease, new_id
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


class SpentError(UsageError):
    """Machines that were of no use have cost all that a start may cost; no other candidate changes that."""

    code = "over-budget"


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
        hours: how long; None when only the cost limits it. max_usd: the most that all may cost; None for no limit.
        count: how many machines share that money.
        cap_hours: the hard end. ssh_key_name: the account's key. user_data: makes the boot script of a lease.
        wait_seconds: how long to wait for room, by the cloud's clock; 0 for one round.
        monthly_usd: the month's cap over all machines of this ledger; None for none.
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
    monthly_usd: float | None = None
    count: int = 1


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
    return min(hours, terms.max_usd / (usd_per_hour * terms.count))


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
        OverBudgetError: what can be had would take a month over its cap.
        SpentError: machines that were of no use have cost all that this may cost.
        TooShortError: the lease of what can be had would be over before the machine can be used.
    """
    began = provider.clock.now()
    deadline = began + terms.wait_seconds
    tried = 0
    while True:
        over: budget.OverBudgetError | booting.TooShortError | None = None
        for candidate in candidates():
            tried += 1
            try:
                rental = _tried(provider, ledger, candidate, terms, prober, tell, began)
            except (budget.OverBudgetError, booting.TooShortError) as error:
                over = over or error
                tell(f"{candidate.instance_type} in {candidate.region}: {error.message}")
                continue
            if rental is not None:
                return rental
        if provider.clock.now() + CYCLE_SECONDS > deadline:
            raise over or no_room(tried)
        tell("no room anywhere; looking again in a minute")
        provider.clock.sleep(CYCLE_SECONDS)


def _tried(
    provider: Provider,
    ledger: Ledger,
    candidate: Candidate,
    terms: Terms,
    prober: Prober,
    tell: Callable[[str], None],
    began: float,
) -> Rental | None:
    """The machine of one candidate, ready; None when there is no room. An unfit machine is replaced once.

    Args:
        began: when the start did; what it has cost since then counts, whichever candidate's machine that was.
    """
    left = _without_cost_since(terms, provider, ledger, began, candidate)
    rate = candidate.usd_per_hour * left.count
    booting.check(provider.cloud, hours_of(left, candidate.usd_per_hour), candidate.gpu_count, rate)
    try:
        try:
            return _launched(provider, ledger, candidate, left, prober, tell)
        except MachineUnfitError as unfit:
            tell(f"{unfit}; it is gone, trying one more")
            left = _without_cost_since(terms, provider, ledger, began, candidate)
            return _launched(provider, ledger, candidate, left, prober, tell)
    except LaunchRefusedError as refused:
        if refused.refusal not in NEXT_CANDIDATE:
            raise
        tell(f"{candidate.instance_type} in {candidate.region}: {refused.message}")
        return None


def _without_cost_since(
    terms: Terms, provider: Provider, ledger: Ledger, began: float, candidate: Candidate
) -> Terms:
    """The terms with so much less money as an unfit machine has cost: `--max-cost` holds for all that a start rents.

    Raises:
        SpentError: what is left of it does not last until another machine is up.
    """
    if terms.max_usd is None:
        return terms
    now = provider.clock.now()
    cost_usd = sum(one.cost_usd(now) for one in ledger.rentals(since=began) if one.name == terms.name)
    ready = booting.ready_seconds(provider.cloud, candidate.gpu_count)
    least_usd = max(budget.CENT, ready / SECONDS_PER_HOUR * candidate.usd_per_hour * terms.count)
    if cost_usd and terms.max_usd - cost_usd < least_usd:
        raise SpentError(
            f"a machine that was of no use has cost ${cost_usd:.2f} of the ${terms.max_usd:.2f} that this may cost",
            why="the rest does not last until another is up",
            hints=("soong status --history", "the same with a larger `--max-cost`"),
        )
    return msgspec.structs.replace(terms, max_usd=terms.max_usd - cost_usd)


def _launched(
    provider: Provider,
    ledger: Ledger,
    candidate: Candidate,
    terms: Terms,
    prober: Prober,
    tell: Callable[[str], None],
) -> Rental:
    rental = intent(provider, candidate, terms)
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
                monthly_usd=terms.monthly_usd,
            )
            tell(f"{rental.instance_id} is booting")
            machine = prober.probe(rental, tell)
            ready = _made_ready(provider, ledger, rental, machine, terms, tell)
        except MachineUnfitError as unfit:
            check_wanted(ledger, rental)
            tell(f"{unfit}; ending it")
            stopping.stop(provider, ledger, rental, why=str(unfit), tell=tell)
            raise
        except (LaunchRefusedError, LaunchUnclearError):
            raise
        except BaseException as leaving:
            _undo(provider, ledger, rental.id, why_left(leaving), tell)
            raise
        return ready


def _made_ready(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    machine: Instance,
    terms: Terms,
    tell: Callable[[str], None],
) -> Rental:
    """The rental of a machine that was looked over: ready, at its true price."""
    rental = at_true_price(provider, ledger, rental, machine, terms, tell)
    now = provider.clock.now()
    ready = ledger.change(rental.id, "ready", now, phase="ready", ready_at=now, address=machine.address)
    check_wanted(ledger, ready)
    return ready


def at_true_price(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    machine: Instance,
    terms: Terms,
    tell: Callable[[str], None],
) -> Rental:
    """The rental at the price that the cloud states of the machine itself: its list may have changed meanwhile.

    A dearer machine gets a shorter lease where it would cost more than it may.

    Raises:
        SoongError: the lease could not be made shorter; the machine is ended.
    """
    true = machine.usd_per_hour
    if true is None or true == rental.usd_per_hour:
        return rental
    tell(f"the cloud states ${true:.2f}/h for it, where its list said ${rental.usd_per_hour:.2f}/h")
    rental = ledger.change(rental.id, "price", provider.clock.now(), usd_per_hour=true)
    hours = min(hours_of(terms, true), _hours_under_the_cap(provider, ledger, rental, terms))
    ends_at = rental.lease.launched_at + hours * SECONDS_PER_HOUR
    if ends_at >= rental.lease.ends_at:
        return rental
    tell(f"so its lease is {hours:.3g} h, for no more money than was agreed")
    try:
        return extending.shorten(provider, ledger, rental, ends_at=ends_at)
    except BaseException as leaving:
        _undo(provider, ledger, rental.id, why_left(leaving), tell)
        raise


def _hours_under_the_cap(provider: Provider, ledger: Ledger, rental: Rental, terms: Terms) -> float:
    """How long this machine may run under the month's cap beside all others."""
    if terms.monthly_usd is None:
        return terms.cap_hours
    others = [one for one in budget.counted(ledger.rentals(), rental.cloud) if one.id != rental.id]
    whole = budget.Span(rental.lease.launched_at, rental.lease.cap_at, rental.usd_per_hour)
    return budget.hours_that_fit(terms.monthly_usd, budget.spending(others, provider.clock.now()), (whole,))


def check_wanted(ledger: Ledger, rental: Rental) -> None:
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


def why_left(leaving: BaseException) -> str:
    """Why a start ends in the middle, in words; of an error that nobody foresaw, its kind too.

    >>> why_left(KeyboardInterrupt()), why_left(SoongError("no SSH")), why_left(ValueError("odd"))
    ('interrupted', 'no SSH', 'ValueError: odd')
    """
    if isinstance(leaving, SoongError):
        return str(leaving)
    return "interrupted" if isinstance(leaving, KeyboardInterrupt) else f"{type(leaving).__name__}: {leaving}"


def _undo(provider: Provider, ledger: Ledger, rental_id: str, why: str, tell: Callable[[str], None]) -> None:
    """The start ends in the middle: end what was launched, or leave it to the guardian if the person leaves again."""
    rental = ledger.find(rental_id)
    if rental is None or rental.phase not in {"asked", "granted", "ready"}:
        return
    machine = rental.instance_id or "a machine that may have been launched"
    tell(f"{why}: ending {machine}; Ctrl-C again leaves that to the guardian")
    stopping.stop(provider, ledger, rental, why=why, tell=tell)
    tell(f"{machine} is gone")


def intent(provider: Provider, candidate: Candidate, terms: Terms) -> Rental:
    """What is written down before a machine is asked for."""
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
        max_usd=terms.max_usd,
    )


def no_room(tried: int) -> NothingFitsError:
    """The error for candidates that are all taken. tried: how many were asked for."""
    return NothingFitsError(
        "there is no room for this anywhere just now" if tried else "no machine that fits is free just now",
        hints=("the same with `--wait 2h` waits for room", "soong available"),
    )
