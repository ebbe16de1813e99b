"""What every command that rents begins with: the cloud, the ledger, the owner, and both brought into step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from soong.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.cli.output import Output
    from soong.launch.provider import Provider
    from soong.lease.guardian.mechanisms import Cron, Launchd, Process, Systemd
    from soong.lease.ledger import Ledger, Rental


class Account(NamedTuple):
    """One account at one cloud, as one command works with it."""

    provider: Provider
    ledger: Ledger
    owner: str


@contextmanager
def opened(cloud: str | None, out: Output, *, settled: bool = True) -> Iterator[Account]:
    """The account that `--cloud`, the environment or the settings name.

    Args:
        cloud: the flag's value. out: hears what was found out of step. settled: compare ledger and cloud first.

    Raises:
        CredentialError: no key. RemoteError: the cloud does not answer. SoongError: the ledger cannot be used.
    """
    from soong.clouds import open_provider
    from soong.launch.settling import settle
    from soong.lease.ledger import open_ledger
    from soong.lease.owner import owner
    from soong.settings import config

    provider = open_provider(str(config.value("cloud", flag=cloud)))
    with open_ledger() as ledger:
        account = Account(provider, ledger, owner())
        if settled:
            for found in settle(provider, ledger, tell=out.say):
                out.say(f"note: {found.message}")
        yield account


def mechanisms(provider: Provider) -> tuple[Systemd | Launchd | Cron | Process, ...]:
    """What may guard leases of this cloud on this computer."""
    from soong.lease.guardian.mechanisms import of_this_computer

    return of_this_computer(rehearsal=not provider.costs_money)


def the_rental(account: Account, word: str | None) -> Rental:
    """The open rental that a person means: by name, id or instance id; the only one where none is named.

    Raises:
        NotFoundError: none runs, or none of that name. UsageError: several run and none was named.
    """
    rentals = account.ledger.open_rentals(cloud=account.provider.cloud, account=account.provider.account)
    if word is not None:
        found = [one for one in rentals if word in {one.name, one.id, one.instance_id}]
        if len(found) == 1:
            return found[0]
        if found:
            hints = tuple(f"say `{one.id}` for the one asked {one.instance_type}" for one in found)
            raise UsageError(f"{len(found)} machines are called `{word}`", hints=hints)
        raise NotFoundError(
            f"no machine `{word}` is running", hints=_names(rentals) or ("soong status --history",)
        )
    if not rentals:
        raise NotFoundError(
            "no machine of soong's is running", hints=("soong start", "soong status --history")
        )
    if len(rentals) > 1:
        raise UsageError("which machine?", why=f"{len(rentals)} are running", hints=_names(rentals))
    return rentals[0]


def _names(rentals: tuple[Rental, ...]) -> tuple[str, ...]:
    return tuple(f"`{one.name}` ({one.instance_type}, {one.id})" for one in rentals)
