"""`soong extend`: more time, within the cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output, prompts
from soong.cli.exit_codes import ExitCode
from soong.errors import SoongError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.lease.ledger import Rental


@click.command("extend", epilog="\b\nExamples:\n  soong extend 2\n  soong extend 90m my-box --yes\n")
@click.argument("hours")
@click.argument("name", required=False)
@click.option("--instance-id", help="The machine by the cloud's own id.")
@click.option("--max-cost", help="The most it may cost in all, in dollars; else as it was started.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@output.options
def command(
    hours: str,
    name: str | None,
    *,
    instance_id: str | None,
    max_cost: str | None,
    yes: bool,
    cloud: str | None,
    out: output.Output,
) -> int:
    """Give a machine HOURS more (2, 90m, 1h30m), up to the cap that was fixed at its launch.

    Never for more money than `--max-cost` and the month's cap (`budget.monthly_usd`) leave.
    """
    from soong.cli import account as accounts

    more = units.parse_hours(hours, what="HOURS")
    max_usd = units.parse_usd(max_cost, what="`--max-cost`") if max_cost is not None else None
    with accounts.opened(cloud, out) as account:
        return _extended(account, _meant(account, instance_id or name, hours), more, max_usd, out, yes=yes)


def _extended(
    account: Account,
    rentals: Sequence[Rental],
    more_hours: float,
    max_usd: float | None,
    out: output.Output,
    *,
    yes: bool,
) -> int:
    """Asked about, extended, told to the machines and the group; returns the exit code."""
    from soong.launch.extending import extend_all
    from soong.lease.lease import extended
    from soong.settings import config

    now = account.provider.clock.now()
    ends = [extended(one.lease, hours=more_hours, now=now).ends_at for one in rentals]
    monthly_usd = config.value("budget.monthly_usd")
    _check_budget(account, rentals, ends, max_usd, monthly_usd, out)
    cost = more_hours * sum(one.usd_per_hour for one in rentals)
    question = f"Extend {_what(rentals)} to {_when(max(ends), now)}, for ${cost:.2f} more?"
    if not yes and not prompts.confirm(question, out=out):
        out.say("not extended")
        return ExitCode.DONE
    rentals = extend_all(
        account.provider,
        account.ledger,
        rentals,
        hours=more_hours,
        max_usd=max_usd,
        monthly_usd=monthly_usd,
        tell=out.say,
    )
    for one in rentals:
        _tell_machine(account, one, out)
    if rentals[0].group:
        from soong.cli.replicas import agree

        agree(account, rentals[0].group)
    out.answer(
        data=lambda: _document(rentals, now),
        ids=[one.id for one in rentals],
        human=lambda: _words(rentals, now),
    )
    return ExitCode.DONE


def _meant(account: Account, word: str | None, hours: str) -> tuple[Rental, ...]:
    """The machine, or all machines of the group: a group has one end.

    Raises:
        UsageError: one machine of a group was named.
    """
    from soong.cli import account as accounts

    rentals = accounts.the_rentals(account, word)
    first = rentals[0]
    if first.group and word not in {None, first.group, first.group_name}:
        raise UsageError(
            f"{first.name} ends with its group",
            hints=(f"soong extend {hours} {first.group_name}", f"soong stop {first.name}"),
        )
    return rentals


def _what(rentals: Sequence[Rental]) -> str:
    first = rentals[0]
    return f"{first.group_name} ({len(rentals)} machines)" if first.group else first.name


def _check_budget(
    account: Account,
    rentals: Sequence[Rental],
    ends: Sequence[float],
    max_usd: float | None,
    monthly_usd: float | None,
    out: output.Output,
) -> None:
    """Refuse what may not be paid before anybody is asked; the extension itself looks again, alone.

    Raises:
        OverBudgetError: it would cost more than it may, or take a month over its cap.
    """
    import msgspec

    from soong.launch import budget
    from soong.launch.extending import shares

    shared = shares(account.ledger, rentals, max_usd, account.provider.clock.now())
    for rental, ends_at, share in zip(rentals, ends, shared, strict=True):
        most = share if share is not None else rental.max_usd
        budget.check_most(msgspec.structs.replace(rental, max_usd=most), ends_at)
    more = [
        budget.Span(rental.lease.ends_at, ends_at, rental.usd_per_hour)
        for rental, ends_at in zip(rentals, ends, strict=True)
    ]
    held = budget.counted(account.ledger.rentals(), rentals[0].cloud)
    again = f"soong extend {{}} {rentals[0].group_name}"
    warning = budget.check(
        monthly_usd, held, more, account.provider.clock.now(), again=again, cloud=account.provider.cloud
    )
    if warning:
        out.say(f"Warning: {warning}")


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


def _words(rentals: Sequence[Rental], now: float) -> str:
    from soong.cli import times

    last = max(rentals, key=lambda one: one.lease.ends_at)
    left = last.lease.cap_at - last.lease.ends_at
    more = f"; {times.span(left)} more can be added" if left >= 60 else "; that is the cap"
    return f"{_what(rentals)} now ends at {_when(last.lease.ends_at, now)}{more}"


def _document(rentals: Sequence[Rental], now: float) -> dict[str, object]:
    from soong.cli import times

    first = rentals[0]
    lease = max((one.lease for one in rentals), key=lambda lease: lease.ends_at)
    return {
        "id": first.endpoint_id,
        "name": first.group_name,
        "ends_at": times.iso(lease.ends_at),
        "remaining_seconds": round(lease.remaining_seconds(now)),
        "cap_at": times.iso(lease.cap_at),
    }
