"""What a person agrees to before money moves: terms, warnings, and the words that a long lease needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from soong import units
from soong.cli import output, prompts, times
from soong.cli.exit_codes import ExitCode
from soong.errors import NothingFitsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.cli.wish import Wish
    from soong.launch.starting import Terms
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan

REHEARSAL = "sandbox"
LONG_HOURS = 4.0
"""A lease longer than this needs somebody else than this computer to end it, or the person's word."""


def region_of(account: Account, wish: Wish, offers: Sequence[Offer]) -> str | None:
    """The only region that will do: the asked one, or that of the filesystem."""
    from soong.launch.preflight import check_filesystem
    from soong.offers.regions import check_region

    if wish.region is not None:
        check_region(wish.region, (*account.provider.regions, *(one.region for one in offers if one.region)))
    if wish.filesystem is None:
        return wish.region
    return check_filesystem(wish.filesystem, account.provider.filesystems(), wish.region).region


def terms_of(account: Account, wish: Wish, plan: Plan, pick: Planned, *, ssh_key_name: str) -> Terms:
    """What the launch is bound to.

    Raises:
        UsageError: no time at all, more than the cap, or a name that is taken.
    """
    from soong.launch.boot_script import user_data
    from soong.launch.starting import Terms, hours_of
    from soong.lease.lease import make_lease
    from soong.settings import config

    cap_hours = float(config.value("lease.cap_hours"))
    if wish.joins is not None and wish.hours is not None:
        cap_hours = max(cap_hours, wish.hours)
    terms = Terms(
        name=name_of(account, wish, plan),
        model=plan.model.id,
        owner=account.owner,
        hours=wish.hours,
        max_usd=wish.max_usd,
        cap_hours=cap_hours,
        ssh_key_name=ssh_key_name,
        user_data=lambda lease: user_data(lease, account.provider.clock),
        filesystem_names=(wish.filesystem,) if wish.filesystem else (),
        wait_seconds=wish.wait_hours * 3600,
        monthly_usd=config.value("budget.monthly_usd"),
        count=wish.replicas,
    )
    usd_per_hour = pick.offer.usd_per_hour if pick.offer else 0.0
    make_lease(owner=terms.owner, now=0, hours=hours_of(terms, usd_per_hour), cap_hours=terms.cap_hours)
    return terms


def name_of(account: Account, wish: Wish, plan: Plan) -> str:
    """The asked name, or one made of the model's; no two open machines or groups share one."""
    if wish.joins is not None:
        return wish.joins.name
    taken = {name for rental in account.ledger.open_rentals() for name in (rental.name, rental.group_name)}

    def is_free(name: str) -> bool:
        members = (f"{name}-{number}" for number in range(1, wish.replicas + 1)) if wish.replicas > 1 else ()
        return not taken & {name, *members}

    if wish.name is not None:
        if not is_free(wish.name):
            raise UsageError(f"a machine called `{wish.name}` is running already", hints=("soong status",))
        return wish.name
    base = re.sub(r"[^a-z0-9]+", "-", plan.model.id.lower().rsplit("/", 1)[-1]).strip("-")[:32] or "machine"
    return next(name for name in (base, *(f"{base}-{number}" for number in range(2, 1000))) if is_free(name))


def serving_seconds(account: Account, wish: Wish, plan: Plan) -> float:
    """How long it may take from a machine that is up to a model that answers; 0 where nothing is served."""
    from soong.serve.orders import longest_seconds
    from soong.settings import config

    has_engine = bool(config.value("serve.environment", flag=wish.engine_env or None))
    if not wish.serves or (account.provider.cloud == REHEARSAL and not has_engine):
        return 0.0
    downloads = plan.model.source in {"catalogue", "hub"}
    return longest_seconds(plan.model.weights_bytes, installs=not has_engine, downloads=downloads)


def check_length(
    account: Account, wish: Wish, plan: Plan, terms: Terms, first: Planned, out: output.Output
) -> None:
    """Refuse a lease that is over before the machine can be used; warn where it may be before the model answers.

    Args:
        first: the cheapest that may be had.

    Raises:
        TooShortError: it is over before; says what makes sense.
    """
    from soong.launch import booting
    from soong.launch.starting import hours_of

    usd_per_hour = first.offer.usd_per_hour if first.offer else 0.0
    hours, rate = hours_of(terms, usd_per_hour), usd_per_hour * terms.count
    serving, cloud = serving_seconds(account, wish, plan), account.provider.cloud
    try:
        booting.check(cloud, hours, first.gpu_count, rate, serving_seconds=serving)
    except booting.TooShortError as error:
        if wish.joins is not None and hours >= (wish.hours or 0.0):  # not the money: the group itself ends
            error.hints = (f"soong extend 1 {wish.joins.name}",)
        raise
    if wish.joins is not None or cloud == booting.RUNS_ALREADY:
        return
    if not serving:
        hurried = booting.hurried(cloud, hours, first.gpu_count, rate)
        if hurried:
            out.say(f"Warning: {hurried}")
    elif hours * 3600 < booting.ready_seconds(cloud, first.gpu_count) + serving:
        out.say(f"Warning: {_may_end_before(plan, terms, first, cloud, serving, rate)}")


def _may_end_before(
    plan: Plan, terms: Terms, first: Planned, cloud: str, serving_seconds: float, usd_per_hour: float
) -> str:
    """What is said of a lease that may end before the model answers, and what would do even on a slow line."""
    from soong.launch import booting
    from soong.serve.orders import SLOWEST_BYTES_PER_SECOND

    boot = booting.usual_seconds(cloud, first.gpu_count)
    seconds = booting.ready_seconds(cloud, first.gpu_count) + serving_seconds + booting.USE_SECONDS
    needed = f"{booting.least_words(seconds, usd_per_hour)} would do even then"
    if seconds / 3600 > terms.cap_hours:
        needed = f"a lease can be {terms.cap_hours:g} h at most (`lease.cap_hours`)"
    return (
        f"it may end before the model answers: after {boot / 60:.0f} min to boot, installing, the "
        f"{units.format_gib(plan.model.weights_bytes)} of weights and loading may take {times.span(serving_seconds)} "
        f"on a slow line ({SLOWEST_BYTES_PER_SECOND * 8 / 1e6:.0f} Mbit/s); {needed}"
    )


def most_hours(account: Account, terms: Terms, usd_per_hour: float) -> float:
    """How long such machines can ever run: to the cap, the money of the terms, or the month's, whichever is first."""
    from soong.launch import budget

    most = terms.cap_hours
    if terms.max_usd is not None and usd_per_hour:
        most = min(most, terms.max_usd / (usd_per_hour * terms.count))
    if terms.monthly_usd is None:
        return most
    now, cloud = account.provider.clock.now(), account.provider.cloud
    spending = budget.spending(budget.counted(account.ledger.rentals(), cloud), now)
    whole = budget.Span(now, now + terms.cap_hours * 3600, usd_per_hour)
    return min(most, budget.hours_that_fit(terms.monthly_usd, spending, (whole,) * terms.count))


def warn_of_clock(account: Account, out: output.Output) -> None:
    """Say where this computer's clock and the cloud's disagree on when a lease ends."""
    from soong.launch.preflight import clock_problem

    problem = clock_problem(account.provider.clock_skew_seconds) if account.provider.costs_money else ""
    if problem:
        out.say(f"Warning: {problem}")


def check_budget(
    account: Account, terms: Terms, first: Planned, out: output.Output, *, machines: int = 1
) -> None:
    """Refuse what would take a month over its cap (`budget.monthly_usd`) before anybody is asked; warn from 80 % of it.

    Args:
        first: the cheapest that may be had. machines: how many of it are wanted together.

    Raises:
        OverBudgetError: it would pass the cap; says how many hours would not.
    """
    from soong.launch import budget
    from soong.launch.starting import hours_of

    if terms.monthly_usd is None or first.offer is None:
        return
    now, usd_per_hour = account.provider.clock.now(), first.offer.usd_per_hour
    whole = budget.Span(now, now + hours_of(terms, usd_per_hour) * 3600, usd_per_hour)
    held = budget.counted(account.ledger.rentals(), account.provider.cloud)
    cloud = account.provider.cloud
    warning = budget.check(
        terms.monthly_usd, held, (whole,) * machines, now, again=budget.FEWER_HOURS, cloud=cloud
    )
    if warning:
        out.say(f"Warning: {warning}")


def check_model(account: Account, plan: Plan, out: output.Output) -> None:
    """That the files can be read with the person's token, before a machine is paid for to find out.

    Raises:
        CredentialError: the repository is gated, and the token does not open it. NotFoundError: it is gone.
    """
    from soong.errors import RemoteError
    from soong.models.hub import check_readable

    if not account.provider.costs_money or plan.model.source not in {"catalogue", "hub"}:
        return
    try:
        check_readable(plan.model.serve_from)
    except RemoteError as error:
        out.say(f"note: whether {plan.model.serve_from} can be read is not known: {error}")


def consent(
    account: Account, terms: Terms, cheapest: Planned, out: output.Output, *, yes: bool, laptop_only: bool
) -> None:
    """A long lease that only this computer ends needs a word of its own; `--yes` is not that word.

    Args:
        cheapest: where the money of `--max-cost` lasts longest.

    Raises:
        UsageError: nobody is there to give that word.
    """
    from soong.launch.starting import hours_of
    from soong.settings import config

    hours = hours_of(terms, cheapest.offer.usd_per_hour if cheapest.offer else 0.0)
    elsewhere = config.value("lease.reaper")
    if hours <= LONG_HOURS or laptop_only or elsewhere or config.value("lease.laptop_only"):
        return
    if not account.provider.costs_money:
        return
    question = f"If this computer dies, nobody ends this lease of {hours:.3g} h. Start it all the same?"
    if yes or not out.can_ask:
        raise UsageError(
            f"a lease of {hours:.3g} h that only this computer guards needs your consent",
            why="if this computer is off at its end, the machine bills on",
            hints=(
                "the same with `--laptop-only`",
                "soong reap --install github-actions",
                "or with `--hours 4`",
            ),
        )
    if not prompts.confirm(question, out=out, option="--laptop-only"):
        raise click.exceptions.Exit(ExitCode.DONE)


def nothing_free(picks: tuple[Planned, ...]) -> NothingFitsError:
    """The error for machines that fit and are all taken."""
    names = ", ".join(dict.fromkeys(one.offer.instance_type for one in picks if one.offer))
    return NothingFitsError(
        "none of the machines that fit is free just now",
        why=names,
        hints=("the same with `--wait 2h` waits for room", "soong available"),
    )
