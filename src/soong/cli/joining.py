"""Which machines a group gets: the wish that later ones are started by, and what is written down of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from soong.cli.account import Account
    from soong.cli.wish import Wish
    from soong.launch.groups import Group
    from soong.launch.replicas import Wanted
    from soong.launch.starting import Terms
    from soong.lease.lease import Lease

CENT = 0.005


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
