"""`soong reap`: end what is over, from any computer that has the cloud's key."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import TYPE_CHECKING

import click

from soong.cli import output, text
from soong.cli.exit_codes import ExitCode
from soong.errors import LedgerError, SoongError

if TYPE_CHECKING:
    from soong.cli.account import Account
    from soong.launch.provider import Provider
    from soong.launch.reaping import Reaped


@click.command(
    "reap",
    epilog="\b\nExamples:\n  soong reap --dry-run\n  soong reap --owner team --json\n"
    "  soong reap --install github-actions > .github/workflows/reap.yml\n",
)
@click.option("--dry-run", is_flag=True, help="Say what would be ended; end nothing.")
@click.option("--owner", help="Whose machines may be ended; this computer's owner where none is given.")
@click.option("--all-owners", is_flag=True, help="Every machine with soong's tags, whoever launched it.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@click.option(
    "--install", metavar="PLACE", help="Write what an always-on place needs: systemd, cron, github-actions."
)
@click.option("--guardian", is_flag=True, hidden=True, help="A round of this computer's guardian.")
@click.option("--watch", is_flag=True, hidden=True, help="Rounds until no lease is left.")
@output.options
def command(
    *,
    dry_run: bool,
    owner: str | None,
    all_owners: bool,
    cloud: str | None,
    install: str | None,
    guardian: bool,
    watch: bool,
    out: output.Output,
) -> int:
    """End every machine of soong's whose lease is over, and prove it; report everything else with its price.

    Asks the machines that this computer launched whether they idle, and ends those that do for longer than `--idle`.
    Touches only what carries soong's tags and the owner's word. Ends with 6 when a stop could not be proved.
    """
    if install is not None:
        from soong.cli.views import places

        return places.show(install, owner=owner, cloud=cloud, out=out)
    from soong.cli import account as accounts

    gc.enable()
    if guardian:
        return _guard(cloud, out, watch=watch)
    try:
        with accounts.opened(cloud, out, settled=False) as account:
            rows = _reaped(account, owner or account.owner, out, all_owners=all_owners, dry_run=dry_run)
    except LedgerError as error:
        out.say(f"note: {error}; going by the tags alone")
        rows = _by_the_tags(cloud, owner, out, all_owners=all_owners, dry_run=dry_run)
    out.answer(
        data=lambda: rows,
        ids=[row.instance_id for row in rows if row.outcome == "ended"],
        human=lambda: _page(rows),
    )
    return ExitCode.REMOTE if any(row.outcome == "not-confirmed" for row in rows) else ExitCode.DONE


def _by_the_tags(
    cloud: str | None, owner: str | None, out: output.Output, *, all_owners: bool, dry_run: bool
) -> tuple[Reaped, ...]:
    """A reaper needs the cloud's key and nothing else: a ledger that is broken must not keep a machine alive."""
    from soong.clouds import open_provider
    from soong.launch.reaping import reap
    from soong.lease.owner import owner as own
    from soong.settings import config

    provider = open_provider(str(config.value("cloud", flag=cloud)))
    return reap(provider, owner=owner or own(), all_owners=all_owners, dry_run=dry_run, tell=out.say)


def _reaped(
    account: Account, owner: str, out: output.Output, *, all_owners: bool, dry_run: bool
) -> tuple[Reaped, ...]:
    from soong.cli.account import tidy
    from soong.cli.looking_after import Looker
    from soong.launch.reaping import reap
    from soong.launch.settling import settle

    rows = reap(
        account.provider,
        owner=owner,
        all_owners=all_owners,
        dry_run=dry_run,
        ledger=account.ledger,
        tell=out.say,
    )
    if not dry_run:
        for found in settle(account.provider, account.ledger, tell=out.say):
            out.say(f"note: {found.message}")
        Looker(out.say).look(account)
        tidy(account.ledger)
    return rows


def _guard(cloud: str | None, out: output.Output, *, watch: bool) -> int:
    """A round, or a watch, of the guardian; a round that cannot even begin leaves its pulse too."""
    from soong.cli import account as accounts
    from soong.lease.guardian import heartbeat
    from soong.settings import config

    name = str(config.value("cloud", flag=cloud))
    nonce = heartbeat.asked(name)
    try:
        with accounts.opened(name, out, settled=False) as account:
            return _guarded(account, watch=watch)
    except SoongError as error:
        with contextlib.suppress(SoongError):
            heartbeat.beat(name, nonce=nonce, problem=str(error))
        if isinstance(error, LedgerError):
            _by_the_tags(name, None, out, all_owners=False, dry_run=False)
        raise


def _guarded(account: Account, *, watch: bool) -> int:
    from soong.cli.account import mechanisms, tidy
    from soong.cli.looking_after import Looker
    from soong.launch import guarding

    provider, ledger = account.provider, account.ledger

    def tell(line: str) -> None:
        from soong.cli import times

        sys.stderr.write(f"{times.iso(provider.clock.now())} {line}\n")
        sys.stderr.flush()

    looker = Looker(tell)
    if watch:
        guarding.watch(
            provider,
            ledger,
            owner=account.owner,
            tell=tell,
            open_again=lambda: _again(provider),
            tidy=lambda: tidy(ledger),
            look_after=lambda now: looker.look(account._replace(provider=now)),
        )
        return ExitCode.DONE
    done = guarding.guardian_round(provider, ledger, owner=account.owner, tell=tell)
    looker.look(account)
    tidy(ledger)
    if guarding.is_idle(provider, ledger, done):
        from soong.lease.guardian import disarm

        disarm(provider.cloud, mechanisms(provider))
    return ExitCode.REMOTE if any(row.outcome == "not-confirmed" for row in done.reaped) else ExitCode.DONE


def _again(provider: Provider) -> Provider:
    """The account anew: with a key that was replaced, or a sandbox that was started again. It starts none itself."""
    from soong.clouds import open_provider

    if not provider.costs_money:
        from soong.clouds.sandbox import process

        if process.find() is None:
            return provider
    return open_provider(provider.cloud)


def _page(rows: tuple[Reaped, ...]) -> str:
    if not rows:
        return "no machine is running in this account"
    from soong.cli import times

    return text.table(
        ["Instance", "Type", "$/hour", "Owner", "Lease", "What"],
        [
            [
                row.instance_id,
                row.instance_type,
                f"{row.usd_per_hour:.2f}" if row.usd_per_hour is not None else "?",
                row.owner or "-",
                times.span(row.remaining_seconds) if row.remaining_seconds is not None else "-",
                f"{row.outcome}: {row.message}" if row.message else row.outcome,
            ]
            for row in rows
        ],
        right=(2, 4),
        whole=(0, 1),
    )
