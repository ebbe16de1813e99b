"""`soong start`: rent the cheapest machine that holds the model, and make sure that the rent ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from soong import units
from soong.cli import output, prompts
from soong.cli.exit_codes import ExitCode
from soong.cli.notify import notify
from soong.errors import CredentialError, NothingFitsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.cli.serving import Served
    from soong.connect.keys import LocalKey
    from soong.gpus.gpu import Gpu
    from soong.launch.provider import SshKey
    from soong.launch.starting import Candidate, Prober, Terms
    from soong.lease.guardian import Guard
    from soong.lease.ledger import Rental
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan

LOCAL = "local"
LONG_HOURS = 4.0
"""A lease longer than this needs somebody else than this computer to end it, or the person's word."""


class Wish(NamedTuple):
    """The options of one start."""

    model: str
    gpu: str | None
    region: str | None
    hours: float | None
    max_usd: float | None
    name: str | None
    wait_hours: float
    filesystem: str | None
    plan_options: dict[str, Any]
    serves: bool = False
    engine_env: str = ""
    local_port: int = 0
    idle_hours: float = 0.0


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
@click.option("--engine", help="sglang (the default), vllm or llama.cpp.")
@click.option("--quantization", help="Which of the model's formats.")
@click.option("--filesystem", help="A filesystem of the account to mount.")
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
    model: str | None,
    gpu: str | None,
    region: str | None,
    hours: str | None,
    max_cost: str | None,
    name: str | None,
    wait: str | None,
    no_wait: bool,
    filesystem: str | None,
    port: int | None,
    no_serve: bool,
    engine_env: str | None,
    idle: str | None,
    laptop_only: bool,
    cloud: str | None,
    dry_run: bool,
    yes: bool,
    out: output.Output,
    **plan_options: Any,
) -> int:
    """Rent the cheapest machine that holds the model, with a lease that ends by itself.

    Shows the machines, the price, the total and who will end it, then asks. Nothing is launched before a guardian
    is armed and has proved itself. Then it serves the model there, and leads a port of this computer to it.
    """
    wish = wish_of(
        model, gpu, region, hours, max_cost, name, None if no_wait else wait, filesystem, plan_options
    )
    from soong.cli import account as accounts
    from soong.launch.preflight import check_port
    from soong.settings import config

    local_port = int(config.value("tunnel.port", flag=port))
    check_port(local_port)
    wish = wish._replace(serves=not no_serve, engine_env=engine_env or "", local_port=local_port)
    wish = wish._replace(idle_hours=_idle_hours(idle, serves=wish.serves))
    try:
        with accounts.opened(cloud, out, begins=True) as account:
            return carry_out(account, wish, out, dry_run=dry_run, yes=yes, laptop_only=laptop_only)
    except CredentialError:
        if not dry_run:
            raise
        from soong.cli.views.start import offline_page

        out.say("no key: planned with the packaged prices")
        return offline_page(wish, out)


def _idle_hours(typed: str | None, *, serves: bool) -> float:
    """How long it may idle; 0 for as long as its lease.

    Raises:
        UsageError: nothing is served, so nothing tells of requests.
    """
    from soong.settings import config

    if typed is not None and not serves:
        raise UsageError(
            "`--idle` counts requests to the engine, and with `--no-serve` there is none",
            hints=("the same without `--idle`",),
        )
    return float(config.value("lease.idle", flag=typed) or 0.0)


def wish_of(
    model: str | None,
    gpu: str | None,
    region: str | None,
    hours: str | None,
    max_cost: str | None,
    name: str | None,
    wait: str | None,
    filesystem: str | None,
    plan_options: dict[str, Any],
) -> Wish:
    """The wish that options and settings make.

    Raises:
        UsageError: no model, or a value that cannot be used.
    """
    from soong.settings import config

    model = config.value("model", flag=model)
    if not model:
        raise UsageError(
            "which model?",
            hints=("soong start --model llama-3.1-8b", "soong config set model llama-3.1-8b", "soong models"),
        )
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name, re.ASCII):
        raise UsageError(
            f"`{name}` cannot be a machine's name", hints=("use small letters, digits and dashes",)
        )
    max_usd = units.parse_usd(max_cost, what="`--max-cost`") if max_cost is not None else None
    typed = units.parse_hours(hours, what="`--hours`") if hours is not None else None
    return Wish(
        model=str(model),
        gpu=config.value("gpu", flag=gpu),
        region=config.value("region", flag=region),
        hours=typed if typed is not None or max_usd is not None else config.value("lease.hours"),
        max_usd=max_usd,
        name=name,
        wait_hours=units.parse_hours(wait, what="`--wait`") if wait is not None else 0.0,
        filesystem=config.value("lambda.filesystem", flag=filesystem),
        plan_options={
            "engine": _engine(plan_options.get("engine")),
            **{key: value for key, value in plan_options.items() if value is not None},
        },
    )


def _engine(typed: str | None) -> str | None:
    """The engine that was typed or configured; None where neither was: a GGUF file has another one than the rest."""
    from soong.settings import config

    found = config.look_up("engine", flag=typed)
    return None if found.origin == "default" else str(found.value)


def planned(wish: Wish, offers: Sequence[Offer], *, gpus: Sequence[Gpu] = ()) -> Plan:
    """The plan of a wish, over one offer for each type. gpus: which only this place has."""
    from soong.launch.choosing import types_of
    from soong.plan.planner import make_plan
    from soong.plan.request import read_request

    options = {"model": wish.model, "gpu": wish.gpu, **wish.plan_options}
    return make_plan(read_request(options), offers=types_of(offers, region=wish.region), gpus=gpus)


def carry_out(
    account: Account, wish: Wish, out: output.Output, *, dry_run: bool, yes: bool, laptop_only: bool
) -> int:
    """One start, from the plan to the endpoint; returns the exit code."""
    from soong.cli.views import start as view
    from soong.launch.choosing import candidates_now, worth_showing
    from soong.lease.guardian import heartbeat

    offers = account.provider.offers()
    plan = planned(wish, offers, gpus=_own_gpus(account, out))
    picks = chosen(plan, wish, out)
    wish = wish._replace(region=_region(account, wish, offers))
    now = candidates_now(picks, offers, region=wish.region)
    picks = worth_showing(picks, now)
    now = candidates_now(picks, offers, region=wish.region)
    terms = _terms(account, wish, plan, picks[0], ssh_key_name="")
    screen = view.screen(plan, picks, now, terms, account.provider)
    if dry_run:
        return view.dry_run(plan, now, terms, screen, out)
    if not now and not wish.wait_hours:
        raise _nothing_free(picks)
    _check_model(account, plan, out)
    _warn_of_clock(account, out)
    _warn_of_budget(account, terms, picks[0], out)
    served = _served(account, wish, plan, picks, out)
    out.say(screen)
    _consent(account, terms, picks[0], out, yes=yes, laptop_only=laptop_only)
    prompts.need_someone("Proceed?", out=out, already=yes)
    key = _key(account, out, yes=yes)
    with heartbeat.needed(account.provider.cloud):
        guard = _armed(account, out)
        out.say(view.enders(guard, account.provider))
        rental = _agreed(account, wish, plan, picks, key, guard, out, yes=yes)
    if rental is None:
        _disarmed(account)
        out.say("nothing was launched")
        return ExitCode.DONE
    if served is not None:
        from soong.cli.serving import serve

        if wish.idle_hours:
            rental = account.ledger.change(
                rental.id,
                "idle-limit",
                account.provider.clock.now(),
                idle_seconds_limit=wish.idle_hours * 3600,
            )
        rental = serve(account, rental, served, out)
    view.ready(rental, guard, account.provider, out)
    notify(f"{rental.name} is ready on {rental.instance_type}, ${rental.usd_per_hour:.2f}/h")
    return ExitCode.DONE


def _served(
    account: Account, wish: Wish, plan: Plan, picks: tuple[Planned, ...], out: output.Output
) -> Served | None:
    """What will be served, checked before money moves; None where only the machine is wanted."""
    from soong.cli.serving import prepared

    if not wish.serves:
        return None
    return prepared(account, plan, picks, out, environment=wish.engine_env, local_port=wish.local_port)


def _warn_of_clock(account: Account, out: output.Output) -> None:
    from soong.launch.preflight import clock_problem

    problem = clock_problem(account.provider.clock_skew_seconds) if account.provider.costs_money else ""
    if problem:
        out.say(f"Warning: {problem}")


def _warn_of_budget(account: Account, terms: Terms, first: Planned, out: output.Output) -> None:
    """Say where this lease can take the month's cost over the person's own limit (`budget.monthly_usd`)."""
    from soong.cli.costs import month_usd
    from soong.launch.starting import hours_of
    from soong.settings import config

    most = config.value("budget.monthly_usd")
    if most is None or first.offer is None or not account.provider.costs_money:
        return
    spent = month_usd(account.ledger, account.provider.clock.now())
    lease = hours_of(terms, first.offer.usd_per_hour) * first.offer.usd_per_hour
    if spent + lease > most:
        out.say(
            f"Warning: this month has cost ${spent:.2f}; with ${lease:.2f} for this lease it passes your "
            f"${most:.2f} (budget.monthly_usd)"
        )


def _check_model(account: Account, plan: Plan, out: output.Output) -> None:
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


def _disarmed(account: Account) -> None:
    """Take the guardian away where it has nothing to guard."""
    from soong.cli.account import mechanisms
    from soong.lease.guardian import disarm, heartbeat

    if not heartbeat.is_needed(account.provider.cloud) and not account.ledger.open_rentals(
        cloud=account.provider.cloud
    ):
        disarm(account.provider.cloud, mechanisms(account.provider))


def chosen(plan: Plan, wish: Wish, out: output.Output) -> tuple[Planned, ...]:
    """The machines to ask for, cheapest first; warns where the person's own choice is too small.

    Raises:
        NothingFitsError: none fits.
    """
    from soong.launch.choosing import usable
    from soong.launch.preflight import disk_problem

    picks = usable(plan, named=wish.gpu is not None)
    roomy = tuple(one for one in picks if one.offer and not disk_problem(plan.model.weights_bytes, one.offer))
    if not roomy:
        why = disk_problem(plan.model.weights_bytes, picks[0].offer) if picks and picks[0].offer else ""
        if not picks and len(plan.candidates) == 1:
            why = "; ".join(plan.candidates[0].reasons)
        raise NothingFitsError(
            f"no machine for rent holds {plan.model.id}",
            why=why,
            hints=(f"soong plan {wish.model}", f"soong plan {wish.model} --context 4096"),
        )
    if roomy[0].verdict in {"too-small", "unsupported"}:
        _warn(roomy[0], out)
    return roomy


def _warn(pick: Planned, out: output.Output) -> None:
    """The page's words for a GPU that is too small, and what the plan says of it."""
    needed = pick.footprint.total_bytes if pick.footprint else 0
    if pick.verdict == "too-small" and needed:
        have, need = pick.gpu.label_gb * pick.gpu_count, round(needed * pick.gpu_count / 1e9)
        out.say(f"Warning: Selected GPU has {have}GB but model needs ~{need}GB")
    for reason in pick.reasons:
        out.say(f"Warning: {reason}")


def _region(account: Account, wish: Wish, offers: Sequence[Offer]) -> str | None:
    """The only region that will do: the asked one, or that of the filesystem."""
    from soong.launch.preflight import check_filesystem, check_region

    if wish.region is not None:
        check_region(wish.region, account.provider.regions, offers)
    if wish.filesystem is None:
        return wish.region
    return check_filesystem(wish.filesystem, account.provider.filesystems(), wish.region).region


def _terms(account: Account, wish: Wish, plan: Plan, pick: Planned, *, ssh_key_name: str) -> Terms:
    from soong.launch.boot_script import user_data
    from soong.launch.starting import Terms, hours_of
    from soong.lease.lease import make_lease
    from soong.settings import config

    terms = Terms(
        name=_name(account, wish, plan),
        model=plan.model.id,
        owner=account.owner,
        hours=wish.hours,
        max_usd=wish.max_usd,
        cap_hours=float(config.value("lease.cap_hours")),
        ssh_key_name=ssh_key_name,
        user_data=lambda lease: user_data(lease, account.provider.clock),
        filesystem_names=(wish.filesystem,) if wish.filesystem else (),
        wait_seconds=wish.wait_hours * 3600,
    )
    usd_per_hour = pick.offer.usd_per_hour if pick.offer else 0.0
    make_lease(owner=terms.owner, now=0, hours=hours_of(terms, usd_per_hour), cap_hours=terms.cap_hours)
    return terms


def _name(account: Account, wish: Wish, plan: Plan) -> str:
    """The asked name, or one made of the model's; no two open machines share one."""
    taken = {rental.name for rental in account.ledger.open_rentals()}
    if wish.name is not None:
        if wish.name in taken:
            raise UsageError(f"a machine called `{wish.name}` is running already", hints=("soong status",))
        return wish.name
    base = re.sub(r"[^a-z0-9]+", "-", plan.model.id.lower().rsplit("/", 1)[-1]).strip("-")[:32] or "machine"
    return next(
        name for name in (base, *(f"{base}-{number}" for number in range(2, 1000))) if name not in taken
    )


def _key(account: Account, out: output.Output, *, yes: bool) -> tuple[LocalKey, SshKey] | None:
    """The person's key and the account's entry for it; offers to add one where the account has none of theirs.

    None on this computer itself, which is reached without SSH.
    """
    if account.provider.cloud == LOCAL:
        return None
    from soong.connect import keys
    from soong.settings import config

    configured = config.value("ssh.key") or ""
    local = keys.local_keys(configured)
    found = keys.matching(local, account.provider.ssh_keys())
    if found is not None:
        return found
    if not account.provider.costs_money or yes or prompts.confirm(_key_question(local), out=out):
        with keys.one_at_a_time():
            return _key_added(account, configured, out)
    raise CredentialError(
        "none of your SSH keys is in the account, so nothing could reach the machine",
        hints=("the same with `--yes` adds it", "soong configure"),
    )


def _key_added(account: Account, configured: str, out: output.Output) -> tuple[LocalKey, SshKey]:
    """The person's key put into the account, unless another start has just done so."""
    from soong.connect import keys
    from soong.settings import config

    local = keys.local_keys(configured)
    listed = account.provider.ssh_keys()
    found = keys.matching(local, listed)
    if found is not None:
        return found
    mine = local[0] if local else keys.make_own_key()
    name = keys.free_name(account.owner, listed, wanted=config.value("ssh.key_name") or "")
    added = account.provider.add_ssh_key(name, mine.public_line)
    out.say(f"added your public key to the account as `{added.name}`")
    return mine, added


def _key_question(local: Sequence[LocalKey]) -> str:
    what = local[0].private_file + ".pub" if local else "a new key, made for soong"
    return f"None of your SSH keys is in the account. Add {what}?"


def _consent(
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


def _armed(account: Account, out: output.Output) -> Guard:
    from soong.cli.account import mechanisms
    from soong.lease.guardian import arm

    return arm(account.provider.cloud, mechanisms(account.provider), tell=out.say)


def _agreed(
    account: Account,
    wish: Wish,
    plan: Plan,
    picks: tuple[Planned, ...],
    key: tuple[LocalKey, SshKey] | None,
    guard: Guard,
    out: output.Output,
    *,
    yes: bool,
) -> Rental | None:
    """The machine that the person agreed to, at no more than the prices they saw; None where they did not.

    Raises:
        PriceRoseError: all that is free has become dearer than was shown, and `--yes` was said to the prices shown.
    """
    from soong.launch.choosing import PriceRoseError

    prices = {one.offer.instance_type: one.offer.usd_per_hour for one in picks if one.offer}
    while yes or prompts.confirm("Proceed?", out=out):
        try:
            return _launched(account, wish, plan, picks, key, guard, out, prices=prices, asks=not yes)
        except PriceRoseError as rose:
            if yes:
                raise
            out.say(f"Warning: {rose}")
            prices |= rose.prices
    return None


def _launched(
    account: Account,
    wish: Wish,
    plan: Plan,
    picks: tuple[Planned, ...],
    key: tuple[LocalKey, SshKey] | None,
    guard: Guard,
    out: output.Output,
    *,
    prices: dict[str, float],
    asks: bool,
) -> Rental:
    """The first machine that can be had. prices: what was agreed to, by type. asks: whether dearer ones may be put."""
    import msgspec

    from soong.cli.steps import Steps
    from soong.launch.choosing import PriceRoseError, at_shown_prices, candidates_now
    from soong.launch.starting import start
    from soong.lease.guardian import heartbeat
    from soong.settings import config

    elsewhere = config.value("lease.reaper")
    terms = msgspec.structs.replace(
        _terms(account, wish, plan, picks[0], ssh_key_name=key[1].name if key else ""),
        guards=(guard.words, *((str(elsewhere),) if elsewhere else ())),
    )

    def now() -> tuple[Candidate, ...]:
        """What to ask for, once a guardian is seen to live: a wait for room, or for an answer, can take hours."""
        if heartbeat.trouble(account.provider.cloud):
            _armed(account, out)
        found = candidates_now(picks, account.provider.offers(), region=wish.region)
        fine, dearer = at_shown_prices(found, prices)
        is_cheapest = bool(dearer) and (not fine or dearer[0].usd_per_hour <= fine[0].usd_per_hour)
        if is_cheapest and (asks or not (fine or wish.wait_hours)):
            raise PriceRoseError(dearer, prices)
        for word in dict.fromkeys(one.instance_type for one in dearer):
            steps.say(f"{word} costs more than was shown by now; left out")
        return fine

    prober = _prober(account, key)
    with Steps(out, account.provider.clock) as steps:
        return start(account.provider, account.ledger, now, terms, prober, tell=steps.say)


def _prober(account: Account, key: tuple[LocalKey, SshKey] | None) -> Prober:
    """What looks the new machine over: by SSH, or directly on this computer."""
    if key is not None:
        from soong.connect.probing import SshProber

        return SshProber(account.provider, key[0].private_file)
    from soong.clouds.local.probing import LocalProber
    from soong.clouds.local.provider import open_provider

    return LocalProber(open_provider())


def _own_gpus(account: Account, out: output.Output) -> Sequence[Gpu]:
    """GPUs that no table has: those of this computer, where it is the one to serve from; says which cannot be used."""
    if account.provider.cloud != LOCAL:
        return ()
    from soong.clouds.local.provider import open_provider

    here = open_provider()
    for problem in here.problems:
        out.say(f"note: {problem}")
    return here.gpus


def _nothing_free(picks: tuple[Planned, ...]) -> NothingFitsError:
    names = ", ".join(dict.fromkeys(one.offer.instance_type for one in picks if one.offer))
    return NothingFitsError(
        "none of the machines that fit is free just now",
        why=names,
        hints=("the same with `--wait 2h` waits for room", "soong available"),
    )
