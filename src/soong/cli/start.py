"""`soong start`: rent the cheapest machine that holds the model, and make sure that the rent ends."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from soong.cli import agreement, launching, output, plan_options, prompts
from soong.cli import wish as wishes
from soong.cli.exit_codes import ExitCode
from soong.cli.notify import notify
from soong.errors import CredentialError, SoongError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.cli.serving import Served
    from soong.cli.wish import Wish
    from soong.launch.replicas import Started
    from soong.launch.starting import Candidate
    from soong.lease.guardian import Guard
    from soong.lease.ledger import Rental
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan


@click.command(
    "start",
    epilog="\b\nExamples:\n  soong start --model llama-3.1-8b --hours 2\n"
    "  soong start --model qwen2.5-coder-32b-int4 --gpu gpu_1x_a6000 --max-cost 5 --yes\n"
    "  soong start --model llama-3.1-8b --cloud sandbox   (a rehearsal: costs nothing)\n",
)
@click.option(
    "--model", help="Catalogue id, Hugging Face id, folder or file; the configured one where none is given."
)
@click.option("--gpu", help="Only this GPU or instance type; else the cheapest that fits.")
@click.option("--region", help="Only this region.")
@click.option("--hours", help="How long: 4 (the default), 90m, 1h30m.")
@click.option("--max-cost", help="The most it may cost, in dollars; ends the lease when that is reached.")
@click.option("--name", help="Your word for the machine; `ssh soong-NAME` reaches it.")
@click.option(
    "--wait", is_flag=False, flag_value="2h", default=None, metavar="[TIME]", help="Wait for room: 2h, 30m."
)
@click.option("--no-wait", is_flag=True, help="One look for room (the default).")
@click.option("--context", help="Longest sequence in tokens: 8192, 32k.")
@click.option("--sequences", help="How many such sequences at once.")
@click.option("--target", help="Tokens a second that each user must see: 40.")
@click.option("--rank", help="Choose by price an hour (the default), cost-per-token or time.")
@click.option("--input-tokens", help="Length of a usual prompt, for the speed.")
@click.option("--output-tokens", help="Length of a usual answer, for the speed.")
@click.option("--engine", help="sglang (the default), vllm or llama.cpp.")
@click.option("--quantization", help="Which of the model's formats.")
@click.option("--text-only", is_flag=True, default=None, help=plan_options.TEXT_ONLY)
@click.option("--filesystem", help="A filesystem of the account to mount.")
@click.option("--replicas", type=click.IntRange(1, 16), help="So many machines behind one endpoint.")
@click.option("--all-or-nothing", is_flag=True, help="Fewer replicas than asked for are ended again.")
@click.option(
    "--replace/--no-replace",
    default=False,
    help="Replace a replica that is lost, once, within the bill shown.",
)
@click.option("--add-to", metavar="NAME", help="One more replica of a group that runs, until its end.")
@click.option("--within-bill", is_flag=True, hidden=True, help="No more than was agreed to for the group.")
@click.option("--port", type=int, help="Of this computer, where the endpoint will be reached.")
@click.option("--no-serve", is_flag=True, help="Only the machine: no engine, no endpoint.")
@click.option(
    "--engine-env", metavar="PATH", help="An engine's environment that is there, instead of a new one."
)
@click.option("--idle", metavar="TIME", help="End it after so long without a request: 30m, 1h.")
@click.option("--max-price", help="Only machines up to this many dollars an hour.")
@click.option("--laptop-only", is_flag=True, help="Consent to a long lease that only this computer guards.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@click.option("--dry-run", is_flag=True, help="Show what would be asked for, and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output.options
def command(
    *,
    add_to: str | None,
    within_bill: bool,
    laptop_only: bool,
    cloud: str | None,
    dry_run: bool,
    yes: bool,
    out: output.Output,
    **options: Any,
) -> int:
    """Rent the cheapest machine that holds the model, with a lease that ends by itself.

    Shows the machines, the price, the total and who will end it, then asks. Nothing is launched before a guardian
    is armed and has proved itself. Then it serves the model there, and leads a port of this computer to it.
    """
    from soong.cli import account as accounts

    _check_group_options(options["replicas"] or 1, add_to)
    if add_to is not None:
        return _added(add_to, cloud, options, out, within_bill=within_bill, yes=yes, dry_run=dry_run)
    wish = _wish(**options)
    try:
        with accounts.opened(cloud, out, begins=True) as account:
            return carry_out(account, wish, out, dry_run=dry_run, yes=yes, laptop_only=laptop_only)
    except CredentialError:
        if not dry_run:
            raise
        from soong.cli.views.start import offline_page

        out.say("no key: planned with the packaged prices")
        return offline_page(wish, out)


def _wish(
    *,
    wait: str | None,
    no_wait: bool,
    no_serve: bool,
    engine_env: str | None,
    port: int | None,
    replicas: int | None,
    replace: bool,
    **options: Any,
) -> Wish:
    """The wish of the options; those that are not named here are `wish_of`'s own.

    Raises:
        UsageError: a value that cannot be used, or a port that is taken.
    """
    from soong.launch.preflight import check_port
    from soong.settings import config

    wish = wishes.wish_of(
        wait=None if no_wait else wait,
        serves=not no_serve,
        engine_env=engine_env or "",
        local_port=int(config.value("tunnel.port", flag=port)),
        replicas=replicas or 1,
        replaces=replace,
        **options,
    )
    check_port(wish.local_port)
    return wish


WITH_ADD_TO = {
    "add_to", "replicas", "all_or_nothing", "within_bill", "max_cost", "wait", "no_wait", "laptop_only", "cloud",
    "dry_run", "yes", "as_json", "quiet", "verbose", "no_input", "color",
}  # fmt: skip
"""What may be said of machines that join a group: everything else is as the group's own."""


def _check_group_options(count: int, add_to: str | None) -> None:
    """Make sure that options of groups, and of machines that join one, are not mixed up with others.

    Raises:
        UsageError: one that would mean nothing here.
    """
    context = click.get_current_context()
    typed = {
        name
        for name in context.params
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if add_to is not None and typed - WITH_ADD_TO:
        word = min(typed - WITH_ADD_TO).replace("_", "-")
        raise UsageError(
            f"`--{word}` cannot be chosen for a machine that joins `{add_to}`",
            why="it is the same as the others of its group, and ends with them",
            hints=(f"soong start --add-to {add_to}",),
        )
    for name in ("all_or_nothing", "replace"):
        if name in typed and count == 1 and add_to is None:
            word = name.replace("_", "-")
            raise UsageError(f"`--{word}` is about several machines", hints=("the same with `--replicas 2`",))


def _added(
    name: str,
    cloud: str | None,
    options: dict[str, Any],
    out: output.Output,
    *,
    within_bill: bool,
    yes: bool,
    dry_run: bool,
) -> int:
    """More machines for a group that runs: the same as its own, until the same end."""
    from soong import units
    from soong.cli import account as accounts
    from soong.cli import joining

    wait, max_cost = options["wait"], options["max_cost"]
    wait_hours = units.parse_hours(wait, what="`--wait`") if wait is not None else 0.0
    most = units.parse_usd(max_cost, what="`--max-cost`") if max_cost is not None else None
    with accounts.opened(cloud, out) as account:
        wish = joining.wish_of(
            account,
            name,
            count=options["replicas"] or 1,
            wait_hours=wait_hours,
            within_bill=within_bill,
            max_usd=most,
        )
        return carry_out(account, wish, out, dry_run=dry_run, yes=yes, laptop_only=True)


def carry_out(
    account: Account, wish: Wish, out: output.Output, *, dry_run: bool, yes: bool, laptop_only: bool
) -> int:
    """One start, from the plan to the endpoint; returns the exit code."""
    from soong.cli.views import start as view
    from soong.launch.choosing import candidates_now, worth_showing

    _check_group(account, wish)
    offers = account.provider.offers()
    plan = wishes.planned(wish, offers, gpus=launching.own_gpus(account, out))
    picks = wishes.chosen(plan, wish, out)
    wish = wish._replace(region=agreement.region_of(account, wish, offers))
    picks = worth_showing(picks, candidates_now(picks, offers, region=wish.region))
    now = candidates_now(picks, offers, region=wish.region)
    terms = agreement.terms_of(account, wish, plan, picks[0], ssh_key_name="")
    agreement.check_length(account, wish, plan, terms, _first(picks, now), out)
    usd_per_hour = now[0].usd_per_hour if now else picks[0].offer.usd_per_hour if picks[0].offer else 0.0
    most = agreement.most_hours(account, terms, usd_per_hour)
    screen = view.screen(plan, picks, now, terms, account.provider, most_hours=most)
    if dry_run:
        agreement.check_budget(account, terms, picks[0], out, machines=wish.replicas)
        return view.dry_run(plan, now, terms, screen, out)
    if not now and not wish.wait_hours:
        raise agreement.nothing_free(picks)
    agreement.check_model(account, plan, out)
    agreement.warn_of_clock(account, out)
    agreement.check_budget(account, terms, picks[0], out, machines=wish.replicas)
    served = _served(account, wish, plan, picks, out)
    out.say(screen)
    agreement.consent(account, terms, picks[0], out, yes=yes, laptop_only=laptop_only)
    prompts.need_someone("Proceed?", out=out, already=yes)
    started, guard = _launched(account, wish, plan, picks, out, yes=yes)
    if started is None:
        return ExitCode.DONE
    with launching.told_if_left(account, started.rentals, out):
        if wish.is_group:
            from soong.cli import replicas

            return replicas.go_on(account, wish, started, served, guard, out)
        return _go_on(account, with_idle_limit(account, wish, started.rentals[0]), served, guard, out)


def _first(picks: tuple[Planned, ...], now: Sequence[Candidate]) -> Planned:
    """The machine that is asked for first: of what has room where anything has, else the best."""
    free = [one.instance_type for one in now[:1]]
    return next((one for one in picks if one.offer and one.offer.instance_type in free), picks[0])


def _check_group(account: Account, wish: Wish) -> None:
    if wish.is_group:
        from soong.cli import replicas

        replicas.check(account, wish)


def _launched(
    account: Account, wish: Wish, plan: Plan, picks: tuple[Planned, ...], out: output.Output, *, yes: bool
) -> tuple[Started | None, Guard]:
    """What came, none where the person did not agree, and who ends it: armed before anything is asked for."""
    from soong.cli.views import start as view
    from soong.lease.guardian import heartbeat

    added = launching.key_to_add(account)
    if added:
        out.say(added)
    try:
        with heartbeat.needed(account.provider.cloud):
            guard = launching.armed(account, out)
            out.say(view.enders(guard, account.provider))
            proposal = launching.Proposal(account, wish, plan, picks, guard)
            started = launching.agreed(proposal, out, yes=yes)
    except BaseException:
        with suppress(SoongError, OSError):
            launching.disarmed(account)
        raise
    if started is None:
        launching.disarmed(account)
        out.say("nothing was launched")
    return started, guard


def _go_on(account: Account, rental: Rental, served: Served | None, guard: Guard, out: output.Output) -> int:
    """What follows once the machine computes: it serves, and a port of this computer leads there."""
    from soong.cli.views import start as view

    if served is not None:
        from soong.cli.serving import serve

        rental = serve(account, rental, served, out)
    view.ready(rental, guard, account.provider, out)
    notify(f"{rental.name} is ready on {rental.instance_type}, ${rental.usd_per_hour:.2f}/h")
    return ExitCode.DONE


def with_idle_limit(account: Account, wish: Wish, rental: Rental) -> Rental:
    """The rental, whose guardian knows how long it may idle."""
    if not (wish.idle_hours and wish.serves):
        return rental
    return account.ledger.change(
        rental.id, "idle-limit", account.provider.clock.now(), idle_seconds_limit=wish.idle_hours * 3600
    )


def _served(
    account: Account, wish: Wish, plan: Plan, picks: tuple[Planned, ...], out: output.Output
) -> Served | None:
    """What will be served, checked before money moves; None where only the machine is wanted."""
    from soong.cli.serving import prepared

    if not wish.serves:
        return None
    return prepared(account, plan, picks, out, environment=wish.engine_env, local_port=wish.local_port)
