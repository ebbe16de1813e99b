"""Several machines as one endpoint: what `start --replicas` does beyond a start of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import SoongError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.cli.output import Output
    from soong.cli.serving import Served
    from soong.cli.wish import Wish
    from soong.launch.replicas import Started
    from soong.lease.guardian import Guard
    from soong.lease.ledger import Rental


def check(account: Account, wish: Wish) -> None:
    """Find out before anything is paid for what would keep a group from being served.

    Raises:
        UsageError: no router on this computer, or a cloud that has one machine only.
    """
    from soong.connect import router
    from soong.settings import config

    if not wish.is_group:
        return
    if account.provider.cloud == "local":
        raise UsageError("this computer is one machine", hints=("the same without `--replicas`",))
    has_engine = account.provider.cloud != "sandbox" or config.value(
        "serve.environment", flag=wish.engine_env or None
    )
    if wish.serves and has_engine:
        router.check_installed()


def go_on(
    account: Account,
    wish: Wish,
    started: Started,
    served: Served | None,
    guard: Guard,
    out: Output,
) -> int:
    """What follows once the machines compute: all of them serve, and one port of this computer leads to them."""
    from soong.cli.account import tidy
    from soong.cli.exit_codes import ExitCode
    from soong.cli.notify import notify
    from soong.cli.serving_all import connect_all, serve_all
    from soong.cli.start import with_idle_limit
    from soong.cli.views import replicas as view
    from soong.launch.stopping import stop_all

    rentals: Sequence[Rental] = [with_idle_limit(account, wish, one) for one in started.rentals]
    name, group = rentals[0].group_name, rentals[0].group
    if not wish.within_bill:
        agree(account, group)
    say_lacking(wish, name, len(rentals), started.lacking, out)
    if served is not None:
        try:
            serving = serve_all(account, rentals, served, out, port=wish.local_port)
            _check_all_serve(wish, serving)
        except Exception:
            if wish.all_or_nothing:
                stop_all(account.provider, account.ledger, rentals, why="all or nothing", tell=out.say)
                tidy(account.ledger)
            raise
        connect_all(account, serving, out, port=wish.local_port)
    members = [one for one in account.ledger.of_group(group) if one.is_open]
    view.ready(members, guard, account.provider, out)
    rate = sum(one.usd_per_hour for one in members)
    notify(f"{name} is ready on {len(members)} machines, ${rate:.2f}/h in all")
    return ExitCode.DONE


def _check_all_serve(wish: Wish, rentals: Sequence[Rental]) -> None:
    if wish.all_or_nothing and len(rentals) < wish.replicas:
        raise SoongError(
            f"only {len(rentals)} of {wish.replicas} machines serve",
            why="`--all-or-nothing` ends them all",
            hints=("the same without `--all-or-nothing`", "soong status --history"),
        )


def agree(account: Account, group_id: str) -> None:
    """Remember the bill as it now is: what all cost until their end, and the price of the dearest that runs.

    Where that is more than the most that was said before, the person has said so anew.
    """
    from soong.launch import groups

    group = groups.find(group_id)
    members = account.ledger.of_group(group_id)
    running = [one for one in members if one.is_open]
    if group is None or not running:
        return
    usd = groups.usd_to_end(members, account.provider.clock.now())
    groups.change(
        group_id,
        wanted=max(group.wanted, len(running)),
        usd=usd,
        max_usd=max(group.max_usd, usd) if group.max_usd is not None else None,
        usd_per_hour=max(one.usd_per_hour for one in running),
    )


def say_lacking(wish: Wish, name: str, came: int, lacking: Sequence[str], out: Output) -> None:
    """Tell plainly of each machine that is not there, and what to type."""
    if not lacking:
        return
    out.say(f"Warning: {came} of {wish.replicas} machines came")
    for line in lacking:
        out.say(f"  {line}")
    out.say("one more until the same end, or the end of those that came:")
    out.hint(f"soong start --add-to {name}")
    out.hint(f"soong stop {name}")
