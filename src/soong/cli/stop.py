"""`soong stop`: end the machine, and prove it."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import click

from soong.cli import account as accounts
from soong.cli import by_tags, output, prompts
from soong.cli.exit_codes import ExitCode
from soong.errors import LedgerError, SoongError

if TYPE_CHECKING:
    from soong.cli.account import Account
    from soong.launch.provider import Instance
    from soong.launch.stopping import Gone
    from soong.lease.ledger import Rental


@click.command(
    "stop",
    epilog="\b\nExamples:\n  soong stop\n  soong stop my-box --yes\n  soong stop --all --json\n",
)
@click.argument("name", required=False)
@click.option("--instance-id", help="The machine by the cloud's own id.")
@click.option("--all", "every", is_flag=True, help="Every machine of soong's on this account and computer.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Ask for the end and leave the proof to the guardian.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@output.options
def command(
    name: str | None,
    *,
    instance_id: str | None,
    every: bool,
    yes: bool,
    no_wait: bool,
    cloud: str | None,
    out: output.Output,
) -> int:
    """End a machine: terminate it, then look until the cloud shows that it is gone.

    Ends with 6 and STOP NOT CONFIRMED where that cannot be shown; the guardian then goes on trying.
    """
    word = instance_id or name
    with ExitStack() as stack:
        try:
            account = stack.enter_context(accounts.opened(cloud, out))
        except LedgerError as error:
            out.say(f"note: {error}; going by the tags alone")
            return by_tags.stop(cloud, word, out, every=every, yes=yes, no_wait=no_wait)
        if word is not None and by_tags.is_another_computers(account, word):
            return by_tags.stop(account.provider.cloud, word, out, every=False, yes=yes, no_wait=no_wait)
        rentals = _meant(account, word, every=every)
        whole = _whole_groups(account, rentals)
        if not yes and not prompts.confirm(_question(rentals, account), out=out):
            out.say("nothing was stopped")
            return ExitCode.DONE
        listed = account.listed if yes else None  # an answer may have taken long
        answers, failure = _all_stopped(account, rentals, out, no_wait=no_wait, listed=listed)
        added = tuple(one for group in whole for one in account.ledger.of_group(group) if one.is_open)
        added = tuple(one for one in added if one.id not in {known.id for known in rentals})
        if added:  # by a replacement that was under way
            more, again = _all_stopped(account, added, out, no_wait=no_wait, listed=None)
            answers, failure = answers + more, failure or again
        accounts.tidy(account.ledger)
        if answers:
            _show(out, account, answers)
        if failure is not None:
            raise failure
    return ExitCode.DONE


def _meant(account: Account, word: str | None, *, every: bool) -> tuple[Rental, ...]:
    if every:
        rentals = account.ledger.open_rentals(cloud=account.provider.cloud, account=account.provider.account)
        return rentals or (accounts.the_rental(account, None),)
    return accounts.the_rentals(account, word)


def _whole_groups(account: Account, rentals: tuple[Rental, ...]) -> tuple[str, ...]:
    """The groups all of whose machines are among these."""
    meant = {one.id for one in rentals}
    found = dict.fromkeys(one.group for one in rentals if one.group)
    return tuple(
        one for one in found if all(each.id in meant for each in account.ledger.of_group(one) if each.is_open)
    )


def _question(rentals: tuple[Rental, ...], account: Account) -> str:
    now = account.provider.clock.now()
    cost = sum(rental.cost_usd(now) for rental in rentals)
    names = ", ".join(f"{rental.name} ({rental.instance_type})" for rental in rentals)
    return f"End {names}? It has cost ${cost:.2f} so far."


def _all_stopped(
    account: Account,
    rentals: tuple[Rental, ...],
    out: output.Output,
    *,
    no_wait: bool,
    listed: tuple[Instance, ...] | None,
) -> tuple[list[tuple[Rental, Gone | None]], SoongError | None]:
    """Every rental ended, and the first failure; one that does not end lets none bill on.

    That all are to end is written down before any call, so that whoever leaves in the middle leaves the guardian all.
    """
    from soong.launch.stopping import mean_all

    mean_all(account.provider, account.ledger, rentals, why="soong stop", tell=out.say)
    if len(rentals) > 1:
        for rental in rentals:
            with suppress(SoongError):  # said by the second call
                _stopped(account, account.ledger.get(rental.id), out, no_wait=True, listed=listed)
        listed = None
    answers: list[tuple[Rental, Gone | None]] = []
    failure: SoongError | None = None
    for rental in rentals:
        try:
            now = account.ledger.get(rental.id)
            answers.append(_stopped(account, now, out, no_wait=no_wait, listed=listed))
        except SoongError as error:
            failure = failure or error
    return answers, failure


def _stopped(
    account: Account,
    rental: Rental,
    out: output.Output,
    *,
    no_wait: bool,
    listed: tuple[Instance, ...] | None,
) -> tuple[Rental, Gone | None]:
    from soong.launch import stopping

    if rental.ended_at is not None:
        return rental, stopping.Gone(evidence="proved before", at=rental.ended_at)
    patience = 0.0 if no_wait else stopping.PATIENCE_SECONDS
    out.say(f"ending {rental.name} ({rental.instance_id or rental.lease.instance_name})")
    try:
        gone: Gone | None = stopping.stop(
            account.provider,
            account.ledger,
            rental,
            why="soong stop",
            patience_seconds=patience,
            listed=listed,
            tell=out.say,
        )
    except stopping.StopNotConfirmedError:
        if not no_wait:
            raise
        gone = None
    except KeyboardInterrupt:
        out.say(f"{rental.name} was asked to end, and is not proved gone; the guardian goes on")
        raise
    return account.ledger.get(rental.id), gone


def _show(out: output.Output, account: Account, answers: list[tuple[Rental, Gone | None]]) -> None:
    now = account.provider.clock.now()
    out.answer(
        data=lambda: [_document(rental, gone, now) for rental, gone in answers],
        ids=[rental.id for rental, gone in answers if gone is not None],
        human=lambda: "\n".join(
            [
                *(_line(rental, gone, now) for rental, gone in answers),
                *_bills(account, [rental for rental, _ in answers], now),
                *_still_billing(account),
            ]
        ),
    )


def _line(rental: Rental, gone: Gone | None, now: float) -> str:
    if gone is None:
        return f"{rental.name}: asked to end; not proved yet, the guardian goes on. `soong status` tells."
    return f"{rental.name} is gone: {gone.evidence}. It cost ${rental.cost_usd(now):.2f}."


def _bills(account: Account, rentals: list[Rental], now: float) -> list[str]:
    """What each group has cost in all, once none of it runs: a machine that was lost stands on its bill too."""
    lines = []
    for group in dict.fromkeys(one.group for one in rentals if one.group):
        members = account.ledger.of_group(group)
        if not any(one.is_open for one in members):
            usd = sum(one.cost_usd(now) for one in members)
            lines.append(f"{members[0].group_name} cost ${usd:.2f} in all, for {len(members)} machines.")
    return lines


def _document(rental: Rental, gone: Gone | None, now: float) -> dict[str, Any]:
    return {
        "id": rental.id,
        "name": rental.name,
        "instance_id": rental.instance_id,
        "confirmed": gone is not None,
        "evidence": gone.evidence if gone else None,
        "cost_usd": round(rental.cost_usd(now), 4),
    }


def _still_billing(account: Account) -> list[str]:
    """What outlives the machine: filesystems bill as long as they exist."""
    try:
        filesystems = account.provider.filesystems()
    except SoongError:
        return []
    lines = []
    for one in filesystems:
        size = f"{one.bytes_used / 2**30:.1f} GiB" if one.bytes_used else "size not told"
        lines.append(f"still billing: filesystem {one.name} in {one.region} ({size})")
    return lines
