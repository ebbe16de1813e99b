"""Several machines as one endpoint: what `start --replicas` does beyond a start of one, and how one more joins."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.errors import NotFoundError, SoongError, UsageError
from soong.lease.clock import WallClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.cli.output import Output
    from soong.cli.serving import Job, Served
    from soong.cli.steps import Steps
    from soong.cli.wish import Wish
    from soong.launch.groups import Group
    from soong.launch.replicas import Started, Wanted
    from soong.launch.starting import Terms
    from soong.lease.guardian import Guard
    from soong.lease.lease import Lease
    from soong.lease.ledger import Rental
    from soong.serve.serving import Endpoint

LOOK_SECONDS = 0.2
LEAVE_SECONDS = 3.0
CENT = 0.005


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


def of_name(account: Account, name: str) -> Group:
    """The running group that a person means.

    Raises:
        NotFoundError: no group of that name runs, or none that this computer has started.
    """
    from soong.cli.account import group_of
    from soong.launch import groups

    members = group_of(account, name)
    found = groups.find(members[0].group) if members else None
    if found is None:
        raise NotFoundError(
            f"`{name}` is no group of replicas that was started on this computer", hints=("soong status",)
        )
    return found


def wish_of(
    account: Account,
    name: str,
    *,
    count: int,
    wait_hours: float,
    within_bill: bool,
    max_usd: float | None = None,
) -> Wish:
    """The wish that machines for a running group are started by: the same as its own, for the time that is left.

    Args:
        within_bill: for no higher price, and no more in all, than was agreed to for the group.
        max_usd: the most that the new machines may cost together, as the person says; None for what caps leave.

    Raises:
        UsageError: no such group, or nothing is left of its bill.
    """
    from soong.cli.wish import Wish

    group = of_name(account, name)
    running = next(one for one in account.ledger.of_group(group.id) if one.is_open)
    left = _lease(account, group).remaining_seconds(account.provider.clock.now())
    options = dict(group.plan_options)
    if within_bill:
        options["max_price"] = f"{group.usd_per_hour:.6f}"
    return Wish(
        model=group.model,
        gpu=group.gpu,
        region=group.region,
        hours=left / 3600,
        max_usd=_most_usd(account, group, max_usd, within_bill=within_bill),
        name=group.name,
        wait_hours=wait_hours,
        filesystem=group.filesystem,
        plan_options=options,
        serves=group.serves,
        engine_env=group.engine_env,
        local_port=running.router_port or group.port,
        idle_hours=group.idle_hours,
        replicas=count,
        joins=group,
        within_bill=within_bill,
    )


def _most_usd(account: Account, group: Group, typed: float | None, *, within_bill: bool) -> float | None:
    """The most that machines which join may cost together; None where nothing limits them.

    Args:
        typed: what the person says now, which counts instead of what was said at the start.

    Raises:
        UsageError: nothing is left of what the group may cost.
    """
    from soong.launch import budget, groups
    from soong.settings import config

    if within_bill:
        left = _left_usd(account, group)
        return left if typed is None else min(left, typed)
    if typed is not None:
        return typed
    caps = [config.value("budget.per_start_usd")]
    if group.max_usd is not None:
        members = account.ledger.of_group(group.id)
        caps.append(group.max_usd - groups.usd_to_end(members, account.provider.clock.now()))
        if caps[-1] < budget.LEAST_HOURS * group.usd_per_hour:
            raise UsageError(
                f"nothing is left of the ${group.max_usd:.2f} that {group.name} may cost",
                why="its machines cost that much until their end, those that are gone included",
                hints=(f"soong start --add-to {group.name} --max-cost 5",),
            )
    return min((float(usd) for usd in caps if usd is not None), default=None)


def _left_usd(account: Account, group: Group) -> float:
    """What the bill that was agreed to leaves for one more machine.

    Raises:
        UsageError: nothing.
    """
    from soong.launch import groups

    members = account.ledger.of_group(group.id)
    left = group.usd - groups.usd_to_end(members, account.provider.clock.now())
    if left < CENT:
        raise UsageError(
            f"nothing is left of the ${group.usd:.2f} that was agreed to for {group.name}",
            hints=(f"soong start --add-to {group.name}",),
        )
    return left


def wanted(account: Account, wish: Wish, terms: Terms, prices: dict[str, float]) -> Wanted:
    """Which replicas are to be launched; what must be known of the group later is on disk when this returns.

    Args:
        prices: dollars an hour by type, as they were agreed to.
    """
    from soong.launch import groups
    from soong.launch.replicas import Wanted
    from soong.launch.starting import hours_of

    if wish.joins is None:
        usd = max((price * hours_of(terms, price) * wish.replicas for price in prices.values()), default=0.0)
        group = groups.write(_group(account, wish, terms, usd, max(prices.values(), default=0.0)))
        numbers = tuple(range(1, wish.replicas + 1))
        return Wanted(group=group.id, numbers=numbers, all_or_nothing=wish.all_or_nothing)
    if wish.within_bill:
        _check_replaces(wish.joins)
    members = account.ledger.of_group(wish.joins.id)
    taken = {one.replica for one in members if one.is_open}
    free = (number for number in range(1, 10_000) if number not in taken)
    return Wanted(
        group=wish.joins.id,
        numbers=tuple(next(free) for _ in range(wish.replicas)),
        all_or_nothing=wish.all_or_nothing,
        lease=_lease(account, wish.joins),
        is_capped=wish.joins.max_usd is not None or (wish.max_usd is not None and not wish.within_bill),
    )


def _check_replaces(group: Group) -> None:
    """Look anew whether the group still wants a lost machine replaced: somebody may have ended it meanwhile.

    Raises:
        UsageError: it does not.
    """
    from soong.launch import groups

    now = groups.find(group.id)
    if now is None or not now.replaces:
        raise UsageError(
            f"nothing is replaced in {group.name}",
            why="that was not agreed to, or the group was ended meanwhile",
            hints=(f"soong start --add-to {group.name}", "soong status"),
        )


def _group(account: Account, wish: Wish, terms: Terms, usd: float, usd_per_hour: float) -> Group:
    from soong.launch.groups import Group
    from soong.lease.lease import new_id

    return Group(
        id=new_id(),
        name=terms.name,
        cloud=account.provider.cloud,
        wanted=wish.replicas,
        port=wish.local_port,
        model=wish.model,
        gpu=wish.gpu,
        region=wish.region,
        filesystem=wish.filesystem,
        plan_options={key: value for key, value in wish.plan_options.items() if value is not None},
        engine_env=wish.engine_env,
        idle_hours=wish.idle_hours,
        serves=wish.serves,
        usd_per_hour=usd_per_hour,
        usd=min(usd, terms.max_usd) if terms.max_usd is not None else usd,
        max_usd=wish.max_usd,
        replaces=wish.replaces,
    )


def _lease(account: Account, group: Group) -> Lease:
    """The lease whose end a new machine of the group gets: the latest of those that run, and are to go on.

    Raises:
        UsageError: none does any more.
    """
    from soong.launch import groups

    leases = [one.lease for one in groups.going_on(account.ledger.of_group(group.id))]
    if not leases:
        raise UsageError(f"{group.name} is over", hints=("soong start --replicas 2",))
    return max(leases, key=lambda lease: lease.ends_at)


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
        except SoongError:
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


# --- serving ---------------------------------------------------------------------------------------------------------


class _Left(NamedTuple):
    """What a machine that does not serve costs, and why it does not."""

    rental: Rental
    error: SoongError


class _Up(threading.Thread):
    """One machine on its way to serve, beside the others."""

    def __init__(self, rental: Rental, job: Job, steps: Steps, leaving: threading.Event) -> None:
        super().__init__(daemon=True)
        self.rental = rental
        self.job = job
        self.endpoint: Endpoint | None = None
        self.error: SoongError | None = None
        self._steps = steps
        self._clock = _Leaving(leaving)

    def run(self) -> None:
        """Bring it up; the result stands in `endpoint` or `error`."""
        from soong.cli.serving import brought_up

        name = self.rental.name
        try:
            self.endpoint = brought_up(
                self.job,
                self._clock,
                tell=lambda words: self._steps.say(f"{name}: {words}"),
                update=lambda words: self._steps.update(f"{name}: {words}"),
            )
        except SoongError as error:
            self.error = error
        except _LeavingError:
            pass
        except Exception as error:  # noqa: BLE001 - one machine's trouble must not hide behind a thread
            self.error = SoongError(f"{type(error).__name__}: {error}")


class _LeavingError(Exception):
    """The person has left."""


class _Leaving(WallClock):
    """The computer's clock, which ends whoever looks at it once everybody is to leave."""

    def __init__(self, leaving: threading.Event) -> None:
        self._leaving = leaving

    def now(self) -> float:
        """Seconds since 1970."""
        if self._leaving.is_set():
            raise _LeavingError
        return super().now()


def serve_all(
    account: Account, rentals: Sequence[Rental], served: Served, out: Output, *, port: int
) -> tuple[Rental, ...]:
    """Serve the model on every machine, all at once, and lead one port of this computer to those that answer.

    A machine that does not serve is left running, and told with its reason and what it costs.

    Returns:
        The rentals whose endpoints answer.

    Raises:
        SoongError: none of them does; as of the first.
    """
    from soong.cli.serving import noted
    from soong.cli.steps import Steps

    leaving = threading.Event()
    jobs, unsent = _jobs(account, rentals, served)
    with Steps(out, WallClock()) as steps:
        ups = [
            _Up(
                noted(account, one, "starting", served_model=job.orders.served_name, router_port=port),
                job,
                steps,
                leaving,
            )
            for one, job in jobs
        ]
        for up in ups:
            up.start()
        try:
            ready, left = _all_up(account, ups)
        except KeyboardInterrupt:
            leaving.set()
            for up in ups:
                up.join(LEAVE_SECONDS)
            _say_what_goes_on(rentals, out)
            raise
    _tell_failures(account, unsent + left, served, out, is_all=not ready)
    return tuple(ready)


def _jobs(
    account: Account, rentals: Sequence[Rental], served: Served
) -> tuple[list[tuple[Rental, Job]], list[_Left]]:
    """What is to be sent to each machine; one for which nothing can be made up keeps no other from serving."""
    from soong.cli.serving import job_of, noted

    jobs, left = [], []
    for one in rentals:
        try:
            jobs.append((one, job_of(account, one, served)))
        except SoongError as error:
            left.append(_Left(noted(account, one, "failed"), error))
    return jobs, left


def _all_up(account: Account, ups: list[_Up]) -> tuple[list[Rental], list[_Left]]:
    """Wait for all; each is in the ledger as soon as it serves, or does not."""
    from soong.cli.serving import noted

    ready, left = [], []
    while ups:
        for up in [one for one in ups if not one.is_alive()]:
            ups.remove(up)
            if up.endpoint is not None:
                ready.append(noted(account, up.rental, "ready", endpoint_port=up.endpoint.port))
            else:
                error = up.error or SoongError("it was left")
                left.append(_Left(noted(account, up.rental, "failed"), error))
        if ups:
            ups[0].join(LOOK_SECONDS)
    return sorted(ready, key=lambda one: one.replica), left


def _tell_failures(account: Account, left: list[_Left], served: Served, out: Output, *, is_all: bool) -> None:
    """Say of each machine that does not serve why not, and what to type.

    Raises:
        SoongError: the first, where none serves.
    """
    from soong.cli.serving import explained

    for number, one in enumerate(left):
        error = explained(one.error, account, one.rental, served, out)
        if is_all and number == len(left) - 1:
            raise error from one.error
        out.say(f"Warning: {one.rental.name} does not serve: {error}")
        out.say(f"it bills ${one.rental.usd_per_hour:.2f}/h all the same; why, and how to end it:")
        out.hint(f"soong logs {one.rental.name}")
        out.hint(f"soong stop {one.rental.name}")


def _say_what_goes_on(rentals: Sequence[Rental], out: Output) -> None:
    rate = sum(one.usd_per_hour for one in rentals)
    name = rentals[0].group_name
    out.say(
        f"the {len(rentals)} machines of {name} go on starting their engines, and bill ${rate:.2f}/h; "
        f"`soong logs {rentals[0].name} --follow` follows one, `soong stop {name}` ends all"
    )


def connect_all(account: Account, rentals: Sequence[Rental], out: Output, *, port: int) -> list[Rental]:
    """A tunnel to each machine, and the router before them; what fails leaves the machines as they are."""
    from soong.connect import router

    connected = [_tunnelled(account, one, out) for one in rentals]
    name, group = rentals[0].group_name, rentals[0].group
    hoped = sum(one.is_open and one.serving == "ready" for one in account.ledger.of_group(group))
    try:
        router.start(group, name=name, port=port, hoped=hoped)
    except SoongError as error:
        out.say(f"Warning: the machines answer, but the router on this computer does not: {error}")
        out.hint(f"soong tunnel start {name}")
    return connected


def _tunnelled(account: Account, rental: Rental, out: Output) -> Rental:
    from soong.cli.serving import host_of
    from soong.connect import tunnel
    from soong.launch.preflight import free_port

    running = tunnel.find(rental.id)
    first = running.local_port if running is not None else rental.local_port or free_port()
    port = 0
    for port in (first, free_port()):
        try:
            tunnel.start(host_of(account, rental), local_port=port, remote_port=rental.endpoint_port)
        except UsageError:
            continue
        except SoongError as error:
            out.say(f"Warning: {rental.name} answers on its machine, but there is no tunnel: {error}")
            out.hint(f"soong tunnel start {rental.name}")
        break
    return account.ledger.change(rental.id, "tunnel", account.provider.clock.now(), local_port=port)


# --- telling ---------------------------------------------------------------------------------------------------------


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


def document(members: Sequence[Rental], now: float) -> dict[str, Any]:
    """A group as scripts see it. members: its rentals, also those that ended; the newest of each number counts."""
    from soong.cli import times
    from soong.connect import router
    from soong.launch import groups

    first = members[0]
    group = groups.find(first.group)
    running = [one for one in members if one.is_open]
    found = router.find(first.group)
    return {
        "id": first.group,
        "name": first.group_name,
        "model": first.model,
        "cloud": first.cloud,
        "wanted": group.wanted if group else len(running),
        "running": len(running),
        "answering": found.answering if found is not None else 0,
        "usd_per_hour": round(sum(one.usd_per_hour for one in running), 4),
        "cost_usd": round(sum(one.cost_usd(now) for one in members), 4),
        "ends_at": times.iso(max((one.lease.ends_at for one in running), default=first.lease.ends_at)),
        "endpoint_url": f"http://127.0.0.1:{first.router_port}/v1" if first.router_port and running else None,
        "router": "up" if found is not None and found.is_up else "down" if first.router_port else None,
        "replicas": [
            {"name": one.name, "id": one.id, "phase": one.phase, "state": state_of(one)} for one in running
        ],
        "lost": [one.name for one in groups.lost(members)],
    }


def state_of(rental: Rental) -> str:
    """What the router sees of a machine: `answers`, `silent`, `joining`; empty where it does not look."""
    from soong.connect import router

    found = router.find(rental.group) if rental.group else None
    member = next((one for one in found.members if one.rental_id == rental.id), None) if found else None
    return member.state if member is not None else ""
