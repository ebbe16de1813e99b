"""What every command that rents begins with: the cloud, the ledger, the owner, and both brought into step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from soong.errors import NotFoundError, RemoteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.cli.output import Output
    from soong.launch.provider import Instance, Provider
    from soong.lease.clock import Clock
    from soong.lease.guardian.mechanisms import Cron, Launchd, Process, Systemd
    from soong.lease.ledger import Ledger, Rental


class Account(NamedTuple):
    """One account at one cloud, as one command works with it. listed: every machine in it, as the command began."""

    provider: Provider
    ledger: Ledger
    owner: str
    listed: tuple[Instance, ...] = ()


@contextmanager
def opened(
    cloud: str | None, out: Output, *, settled: bool = True, begins: bool = False, wakes: bool = True
) -> Iterator[Account]:
    """The account that `--cloud`, the environment or the settings name.

    Args:
        cloud: the flag's value. out: hears what was found out of step. settled: compare ledger and cloud first.
        begins: a machine is to be rented, so where none is named the default cloud is meant, whatever runs elsewhere.
        wakes: whether a sandbox that stands still is started.

    Raises:
        CredentialError: no key. RemoteError: the cloud does not answer. SoongError: the ledger cannot be used.
    """
    from soong.launch.settling import settle
    from soong.lease.ledger import open_ledger
    from soong.lease.owner import owner

    provider = _provider(chosen_cloud(cloud, None), wakes=wakes) if begins else None
    with open_ledger() as ledger:
        provider = provider or _provider(chosen_cloud(cloud, ledger), wakes=wakes)
        account = Account(provider, ledger, owner())
        if settled:
            account = account._replace(listed=provider.instances())
            for found in settle(provider, ledger, instances=account.listed, tell=out.say):
                out.say(f"note: {found.message}")
            tidy(ledger)
        yield account


def chosen_cloud(flag: str | None, ledger: Ledger | None) -> str:
    """The cloud that a command means: the named one, else the only one where anything runs or ran, else the default.

    Args:
        flag: the value of `--cloud`. ledger: None where what runs does not matter.
    """
    from soong.settings import config

    found = config.look_up("cloud", flag=flag)
    if found.origin == "default" and ledger is not None:
        clouds = {rental.cloud for rental in ledger.open_rentals() or ledger.rentals()}
        if len(clouds) == 1:
            return clouds.pop()
    return str(found.value)


def tidy(ledger: Ledger) -> None:
    """Drop keys, host entries, tunnels and routers of machines that are gone, whoever ended them."""
    from soong.connect import router, ssh, tunnel
    from soong.launch import groups
    from soong.serve import secrets

    mine = {rental.id for rental in ledger.open_rentals()}
    groups_alive = {rental.group for rental in ledger.open_rentals() if rental.group}
    ssh.keep_only(mine)
    secrets.keep_only(mine | groups_alive)
    tunnel.keep_only(mine)
    router.keep_only(groups_alive)
    groups.forget_over(ledger)


def clock_of(cloud: str) -> Clock:
    """The clock that a cloud's bill follows, without asking anybody; the computer's own where a rehearsal has none."""
    from soong.lease.clock import WallClock

    if cloud == "sandbox":
        from soong.clouds.sandbox.clock import SandboxClock
        from soong.clouds.sandbox.process import Files, sandbox_folder

        file = Files(sandbox_folder()).clock
        if file.exists():
            return SandboxClock(file)
    return WallClock()


def _provider(cloud: str, *, wakes: bool) -> Provider:
    from soong.clouds import open_provider

    if cloud == "sandbox" and not wakes:
        from soong.clouds.sandbox import process

        if process.find() is None:
            raise RemoteError(
                "the sandbox is not running", why="its clock stands still", hints=("soong sandbox start",)
            )
    return open_provider(cloud)


def mechanisms(provider: Provider) -> tuple[Systemd | Launchd | Cron | Process, ...]:
    """What may guard leases of this cloud on this computer."""
    from soong.lease.guardian.mechanisms import of_this_computer

    return of_this_computer(rehearsal=not provider.costs_money)


def group_of(account: Account, word: str) -> tuple[Rental, ...]:
    """The open machines of the group that a person calls so, in order; none where it is no group."""
    rentals = account.ledger.open_rentals(cloud=account.provider.cloud, account=account.provider.account)
    found = [one for one in rentals if one.group and word in {one.group, one.group_name}]
    return tuple(sorted(found, key=lambda one: one.replica))


def the_rentals(account: Account, word: str | None) -> tuple[Rental, ...]:
    """The open rentals that a person means: a whole group, or one machine; the only ones where none is named.

    Raises:
        NotFoundError, UsageError: see `the_rental`.
    """
    if word is None:
        rentals = account.ledger.open_rentals(cloud=account.provider.cloud, account=account.provider.account)
        groups = {one.group for one in rentals}
        word = rentals[0].group if len(groups) == 1 and rentals[0].group else None
    members = group_of(account, word) if word is not None else ()
    return members or (the_rental(account, word),)


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
        members = group_of(account, word)
        if members:
            raise UsageError(f"`{word}` has {len(members)} machines: which?", hints=_names(members))
        if found:
            hints = tuple(f"say `{one.id}` for the {one.instance_type} in {one.region}" for one in found)
            raise UsageError(f"{len(found)} machines are called `{word}`", hints=hints)
        raise NotFoundError(
            f"no machine `{word}` is running", hints=_names(rentals) or ("soong status --history",)
        )
    if not rentals:
        raise NotFoundError(
            f"no machine of soong's is running at {account.provider.cloud}",
            hints=("soong start --model llama-3.1-8b", "soong status --history"),
        )
    if len(rentals) > 1:
        raise UsageError("which machine?", why=f"{len(rentals)} are running", hints=_names(rentals))
    return rentals[0]


def _names(rentals: tuple[Rental, ...]) -> tuple[str, ...]:
    return tuple(f"`{one.name}` ({one.instance_type}, {one.id})" for one in rentals)
