"""`soong extend`: more time, within the cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output, prompts
from soong.cli.exit_codes import ExitCode
from soong.errors import SoongError

if TYPE_CHECKING:
    from soong.cli.account import Account
    from soong.lease.ledger import Rental


@click.command("extend", epilog="\b\nExamples:\n  soong extend 2\n  soong extend 90m my-box --yes\n")
@click.argument("hours")
@click.argument("name", required=False)
@click.option("--instance-id", help="The machine by the cloud's own id.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@output.options
def command(
    hours: str, name: str | None, *, instance_id: str | None, yes: bool, cloud: str | None, out: output.Output
) -> int:
    """Give a machine HOURS more (2, 90m, 1h30m), up to the cap that was fixed at its launch."""
    from soong.cli import account as accounts
    from soong.launch.extending import extend
    from soong.lease.lease import extended

    more = units.parse_hours(hours, what="HOURS")
    with accounts.opened(cloud, out) as account:
        rental = accounts.the_rental(account, instance_id or name)
        now = account.provider.clock.now()
        wanted = extended(rental.lease, hours=more, now=now)
        cost = more * rental.usd_per_hour
        question = f"Extend {rental.name} to {_when(wanted.ends_at, now)}, for ${cost:.2f} more?"
        if not yes and not prompts.confirm(question, out=out):
            out.say("not extended")
            return ExitCode.DONE
        rental = extend(account.provider, account.ledger, rental, hours=more)
        _tell_machine(account, rental, out)
        out.answer(
            data=lambda: _document(rental, now),
            ids=[rental.id],
            human=lambda: _words(rental, now),
        )
    return ExitCode.DONE


def _tell_machine(account: Account, rental: Rental, out: output.Output) -> None:
    """The warden stops the engine at the end that it knows of; the guardian tells it again where this fails."""
    from soong.cli.serving import machine_of
    from soong.serve.watching import tell_lease

    if not rental.serving:
        return
    try:
        tell_lease(machine_of(account, rental), rental.lease, account.provider.clock)
    except SoongError as error:
        out.say(f"Warning: the machine does not know of it yet: {error}; the guardian tells it")


def _when(at: float, now: float) -> str:
    from soong.cli import times

    return f"{times.wall(at, now=now)} ({times.span(at - now)} from now)"


def _words(rental: Rental, now: float) -> str:
    from soong.cli import times

    left = rental.lease.cap_at - rental.lease.ends_at
    more = f"; {times.span(left)} more can be added" if left >= 60 else "; that is the cap"
    return f"{rental.name} now ends at {_when(rental.lease.ends_at, now)}{more}"


def _document(rental: Rental, now: float) -> dict[str, object]:
    from soong.cli import times

    return {
        "id": rental.id,
        "name": rental.name,
        "ends_at": times.iso(rental.lease.ends_at),
        "remaining_seconds": round(rental.lease.remaining_seconds(now)),
        "cap_at": times.iso(rental.lease.cap_at),
    }
