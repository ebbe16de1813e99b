"""Find a machine again: by the cloud's id, by the lease's tag, or by the name that carries the lease's id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.lease.lease import read_lease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.launch.provider import Instance
    from soong.lease.ledger import Rental


def of_rental(rental: Rental, instances: Iterable[Instance]) -> tuple[Instance, ...]:
    """Every listed machine that belongs to a rental: one as a rule, none when it is gone or was never launched.

    Tags can lag behind a launch and names can be changed by anybody, so either is enough, and so is the id.
    """
    return tuple(
        instance
        for instance in instances
        if instance.id == rental.instance_id or lease_id_of(instance) == rental.id
    )


def lease_id_of(instance: Instance) -> str:
    """The lease id that a machine carries; empty when it is not soong's."""
    lease = read_lease(name=instance.name, tags=instance.tags)
    return lease.id if lease else ""
