"""Ask a cloud for one machine, once, and know afterwards whether there is one.

Lambda's launch has no idempotency key. So the intent is written down first, the call is made once, and when the
answer is lost the machine is looked for by the tag that only this launch carries, before anybody asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import SoongError
from soong.launch import budget, finding
from soong.launch.provider import LaunchRefusedError, LaunchRequest, LaunchUnclearError

if TYPE_CHECKING:
    from soong.launch.provider import Provider
    from soong.lease.ledger import Ledger, Rental

LOOKS_AFTER_SECONDS = (0, 5, 10, 20, 30)
"""When to look for a machine whose launch was not answered: five looks over 65 seconds. A machine that shows up
later still carries its tags, so the guardian or the next command finds it and ends it."""


def ask(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    *,
    ssh_key_name: str,
    user_data: str,
    filesystems: tuple[str, ...] = (),
    monthly_usd: float | None = None,
) -> Rental:
    """Launch the machine of `rental`, whose intent is written to the ledger first.

    Args:
        monthly_usd: the month's cap, which the whole lease must fit under.

    Returns:
        The rental, granted, with the cloud's instance id.

    Raises:
        LaunchRefusedError: nothing was launched; the next candidate may be tried.
        LaunchUnclearError: no machine was found after an unclear answer; one may still appear.
        OverBudgetError: the lease would pass the month's cap; nothing was asked of the cloud.
    """
    with budget.alone(monthly_usd, ledger):
        whole = budget.Span(rental.asked_at, rental.lease.ends_at, rental.usd_per_hour)
        others = budget.counted(ledger.rentals(), rental.cloud)
        budget.check(
            monthly_usd, others, (whole,), rental.asked_at, again=budget.FEWER_HOURS, cloud=provider.cloud
        )
        ledger.add(rental)
    return call(
        provider, ledger, rental, ssh_key_name=ssh_key_name, user_data=user_data, filesystems=filesystems
    )


def call(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    *,
    ssh_key_name: str,
    user_data: str,
    filesystems: tuple[str, ...] = (),
) -> Rental:
    """Launch the machine of `rental`, whose intent is in the ledger already; see `ask`."""
    request = LaunchRequest(
        instance_type=rental.instance_type,
        region=rental.region,
        name=rental.lease.instance_name,
        tags=rental.lease.tags,
        ssh_key_name=ssh_key_name,
        user_data=user_data,
        filesystem_names=filesystems,
    )
    try:
        instance_id = provider.launch(request)
    except LaunchRefusedError as refused:
        _refused(provider, ledger, rental, str(refused))
        raise
    except LaunchUnclearError as unclear:
        return _looked_for(provider, ledger, rental, unclear)
    return _granted(provider, ledger, rental, instance_id)


def _looked_for(provider: Provider, ledger: Ledger, rental: Rental, unclear: LaunchUnclearError) -> Rental:
    ledger.change(rental.id, "answer-lost", provider.clock.now(), detail={"said": str(unclear)})
    answered = 0
    for seconds in LOOKS_AFTER_SECONDS:
        provider.clock.sleep(seconds)
        try:
            machines = finding.of_rental(rental, provider.instances())
        except SoongError:
            continue
        answered += 1
        if machines:
            return _granted(provider, ledger, rental, machines[0].id)
    if answered < 2:
        raise LaunchUnclearError(
            "the cloud did not answer the launch, nor say whether there is a machine",
            why=str(unclear),
            hints=("soong status", f"look at {provider.console_url}"),
        ) from unclear
    _refused(provider, ledger, rental, f"no machine appeared: {unclear}")
    raise LaunchUnclearError(
        "the cloud's answer to the launch was lost, and no machine appeared",
        why=str(unclear),
        hints=("soong status", f"look at {provider.console_url}"),
    ) from unclear


def _granted(provider: Provider, ledger: Ledger, rental: Rental, instance_id: str) -> Rental:
    return ledger.change(
        rental.id,
        "granted",
        provider.clock.now(),
        detail={"instance_id": instance_id},
        phase="granted",
        instance_id=instance_id,
    )


def _refused(provider: Provider, ledger: Ledger, rental: Rental, why: str) -> None:
    now = provider.clock.now()
    ledger.change(
        rental.id, "refused", now, detail={"why": why}, phase="refused", end_reason=why, ended_at=now
    )
