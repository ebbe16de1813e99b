"""More time: one rename, which any computer with the key can read, within the cap that was fixed at launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import NotFoundError, RemoteError, SoongError, UsageError
from soong.launch import finding
from soong.lease.lease import extended, read_lease

if TYPE_CHECKING:
    from soong.launch.provider import Provider
    from soong.lease.ledger import Ledger, Rental


def extend(provider: Provider, ledger: Ledger, rental: Rental, *, hours: float) -> Rental:
    """Move the end of a rental by `hours`, and read back that the cloud has it.

    Returns:
        The rental with its new end.

    Raises:
        UsageError: the cap forbids it, or the lease is over. NotFoundError: the machine is gone.
        RemoteError: the cloud did not take the new end, or did not show it; the old end counts until it does.
    """
    if rental.phase == "ending":
        raise UsageError(f"{rental.name} is being ended", hints=("soong status",))
    machine = _machine(provider, rental)
    known = read_lease(name=machine[1], tags=machine[2]) or rental.lease
    wanted = extended(known, hours=hours, now=provider.clock.now())
    ledger.change(rental.id, "extend-asked", provider.clock.now(), detail={"ends_at": wanted.ends_at})
    failure: SoongError | None = None
    try:
        provider.rename(machine[0], wanted.instance_name)
    except RemoteError as error:
        failure = error
    shown = read_lease(name=_machine(provider, rental)[1], tags=machine[2])
    if shown is None or shown.ends_at != wanted.ends_at:
        raise RemoteError(
            "the lease was not extended: the cloud does not show the new end",
            why=str(failure) if failure else "the name was not changed",
            hints=(f"soong extend {hours:g}", "soong status"),
        )
    return ledger.change(
        rental.id, "extended", provider.clock.now(), detail={"ends_at": wanted.ends_at}, lease=wanted
    )


def _machine(provider: Provider, rental: Rental) -> tuple[str, str, dict[str, str]]:
    """Id, name and tags of the rental's machine as the cloud shows them now."""
    for machine in finding.of_rental(rental, provider.instances()):
        if machine.is_billing:
            return machine.id, machine.name, machine.tags
    raise NotFoundError(
        f"the machine of {rental.name} is not in the account any more", hints=("soong status",)
    )
