"""More time: one rename, which any computer with the key can read, within the cap that was fixed at launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import NotFoundError, RemoteError, SoongError, UsageError
from soong.launch import budget, finding, groups
from soong.lease.lease import extended, read_lease

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soong.launch.provider import Provider
    from soong.lease.lease import Lease
    from soong.lease.ledger import Ledger, Rental


def extend(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    *,
    hours: float,
    max_usd: float | None = None,
    monthly_usd: float | None = None,
) -> Rental:
    """Move the end of a rental by `hours`, and read back that the cloud has it.

    Args:
        max_usd: the most it may cost from now on; None leaves what was agreed at its start.
        monthly_usd: the month's cap.

    Returns:
        The rental with its new end.

    Raises:
        UsageError: the cap forbids it, or the lease is over. NotFoundError: the machine is gone.
        OverBudgetError: it would cost more than it may, or take a month over its cap.
        RemoteError: the cloud did not take the new end, or did not show it; the old end counts until it does.
    """
    if rental.phase == "ending":
        raise UsageError(f"{rental.name} is being ended", hints=("soong status",))
    if max_usd is not None:
        rental = msgspec.structs.replace(rental, max_usd=max_usd)
    machine = _machine(provider, rental)
    known = read_lease(name=machine[1], tags=machine[2]) or rental.lease
    with budget.alone(monthly_usd, ledger):
        # Others count the new end from here on, so the lock need not be held while a cloud takes its time. Should this
        # process die then, the cloud's end counts: `settling` sees that the two differ.
        wanted = _reserved(provider, ledger, rental, known, hours=hours, monthly_usd=monthly_usd)
    try:
        return _moved(provider, ledger, rental, machine, wanted, "extended", again=f"soong extend {hours:g}")
    except (KeyboardInterrupt, SoongError):
        ledger.change(rental.id, "extend-failed", provider.clock.now(), lease=known)
        raise


def _reserved(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    known: Lease,
    *,
    hours: float,
    monthly_usd: float | None,
) -> Lease:
    """The lease with its new end, once the money for it is there, and written down.

    Raises:
        UsageError: the cap forbids it, or the lease is over. OverBudgetError: as for `extend`.
    """
    now = provider.clock.now()
    wanted = extended(known, hours=hours, now=now)
    budget.check_most(rental, wanted.ends_at)
    more = budget.Span(known.ends_at, wanted.ends_at, rental.usd_per_hour)
    others = budget.counted(ledger.rentals(), rental.cloud)
    again = f"soong extend {{}} {rental.group_name}"
    budget.check(monthly_usd, others, (more,), now, again=again, cloud=rental.cloud)
    ledger.change(rental.id, "extend-reserved", now, detail={"ends_at": wanted.ends_at}, lease=wanted)
    return wanted


def extend_all(
    provider: Provider,
    ledger: Ledger,
    rentals: Sequence[Rental],
    *,
    hours: float,
    max_usd: float | None = None,
    monthly_usd: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Rental, ...]:
    """Move the end of every machine of a group, or of none: where one fails all get their old end back.

    Args:
        max_usd: the most that the group may cost in all; see `shares`. tell: hears of an interruption.

    Raises:
        SoongError: as of `extend`; where an old end could not be put back as well, it says so.
    """
    most = shares(ledger, rentals, max_usd, provider.clock.now())
    done: list[Rental] = []
    for rental, share in zip(rentals, most, strict=True):
        try:
            done.append(extend(provider, ledger, rental, hours=hours, max_usd=share, monthly_usd=monthly_usd))
        except (KeyboardInterrupt, SoongError) as leaving:
            # The one that failed may have its new end all the same: the cloud's answer may be what was lost.
            is_known = _is_certain(leaving) or len(rentals) == 1
            moved = rentals[: len(done)] if is_known else rentals[: len(done) + 1]
            if moved and isinstance(leaving, KeyboardInterrupt):
                tell("interrupted: putting the old ends back; Ctrl-C again leaves the new ones")
            kept = _put_back(provider, ledger, moved)
            if isinstance(leaving, SoongError):
                leaving.hints = (*leaving.hints, *kept)
            else:
                for line in kept:
                    tell(line)
            raise
    return tuple(done)


def _is_certain(leaving: BaseException) -> bool:
    """Whether nothing was asked of the cloud for the machine that failed."""
    return isinstance(leaving, UsageError | NotFoundError)


def shares(
    ledger: Ledger, rentals: Sequence[Rental], max_usd: float | None, now: float
) -> tuple[float | None, ...]:
    """The most that each of these machines may cost where all may cost `max_usd`, so that all may end together.

    What each has cost until now, and what machines of the same group that are gone have cost, is taken from it first;
    the rest is shared out by their prices.
    """
    rate = sum(one.usd_per_hour for one in rentals)
    if max_usd is None or not rate:
        return (max_usd,) * len(rentals)
    gone_usd = groups.usd_gone(ledger.of_group(rentals[0].group), rentals, now)
    left_usd = max_usd - gone_usd - sum(one.cost_usd(now) for one in rentals)
    return tuple(max(0.0, one.cost_usd(now) + left_usd * one.usd_per_hour / rate) for one in rentals)


def _put_back(provider: Provider, ledger: Ledger, rentals: Sequence[Rental]) -> tuple[str, ...]:
    """The end that they had before, once more; returns a sentence for each that may keep the new one."""
    kept = []
    for one in rentals:
        try:
            shorten(provider, ledger, one, ends_at=one.lease.ends_at)
        except SoongError as failed:
            kept.append(f"{one.name} may keep the new end: {failed}; `soong stop {one.name}`")
    return tuple(kept)


def shorten(provider: Provider, ledger: Ledger, rental: Rental, *, ends_at: float) -> Rental:
    """Bring the end of a rental forward, and read back that the cloud has it.

    Raises:
        NotFoundError: the machine is gone. RemoteError: the cloud did not take the new end, or did not show it.
    """
    wanted = msgspec.structs.replace(rental.lease, ends_at=int(ends_at))
    machine = _machine(provider, rental)
    return _moved(provider, ledger, rental, machine, wanted, "shortened", again=f"soong stop {rental.name}")


def _moved(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    machine: tuple[str, str, dict[str, str]],
    wanted: Lease,
    kind: str,
    *,
    again: str,
) -> Rental:
    """The rental with the wanted end, in the machine's name and then in the ledger.

    Args:
        kind: the event's. again: what a person can do where it fails.
    """
    ledger.change(rental.id, "extend-asked", provider.clock.now(), detail={"ends_at": wanted.ends_at})
    failure: SoongError | None = None
    try:
        provider.rename(machine[0], wanted.instance_name)
    except RemoteError as error:
        failure = error
    shown = read_lease(name=_machine(provider, rental)[1], tags=machine[2])
    if shown is None or shown.ends_at != wanted.ends_at:
        raise RemoteError(
            f"the lease was not {kind}: the cloud does not show the new end",
            why=str(failure) if failure else "the name was not changed",
            hints=(again, "soong status"),
        )
    return ledger.change(
        rental.id,
        kind,
        provider.clock.now(),
        detail={"ends_at": wanted.ends_at},
        lease=wanted,
        max_usd=rental.max_usd,
    )


def _machine(provider: Provider, rental: Rental) -> tuple[str, str, dict[str, str]]:
    """Id, name and tags of the rental's machine as the cloud shows them now."""
    for machine in finding.of_rental(rental, provider.instances()):
        if machine.is_billing:
            return machine.id, machine.name, machine.tags
    raise NotFoundError(
        f"the machine of {rental.name} is not in the account any more", hints=("soong status",)
    )
