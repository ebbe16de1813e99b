"""From an agreement to a machine: the person's key, the guardian, and the launch at no more than the prices shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.cli import agreement, output, prompts
from soong.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.cli.wish import Wish
    from soong.connect.keys import LocalKey
    from soong.gpus.gpu import Gpu
    from soong.launch.provider import SshKey
    from soong.launch.replicas import Started
    from soong.launch.starting import Candidate, Prober, Terms
    from soong.lease.guardian import Guard
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan

LOCAL = "local"


def key_of(account: Account, out: output.Output, *, yes: bool) -> tuple[LocalKey, SshKey] | None:
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


def armed(account: Account, out: output.Output) -> Guard:
    """The guardian, armed and tried.

    Raises:
        GuardianError: nothing on this computer can be made to end the lease.
    """
    from soong.cli.account import mechanisms
    from soong.lease.guardian import arm

    return arm(account.provider.cloud, mechanisms(account.provider), tell=out.say)


def disarmed(account: Account) -> None:
    """Take the guardian away where it has nothing to guard."""
    from soong.cli.account import mechanisms
    from soong.lease.guardian import disarm, heartbeat

    if not heartbeat.is_needed(account.provider.cloud) and not account.ledger.open_rentals(
        cloud=account.provider.cloud
    ):
        disarm(account.provider.cloud, mechanisms(account.provider))


def agreed(
    account: Account,
    wish: Wish,
    plan: Plan,
    picks: tuple[Planned, ...],
    key: tuple[LocalKey, SshKey] | None,
    guard: Guard,
    out: output.Output,
    *,
    yes: bool,
) -> Started | None:
    """The machines that the person agreed to, at no more than the prices they saw; None where they did not.

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
) -> Started:
    """The first machines that can be had. prices: what was agreed to, by type. asks: whether dearer ones may be put."""
    from soong.cli.steps import Steps
    from soong.launch.choosing import PriceRoseError, at_shown_prices, candidates_now
    from soong.launch.replicas import Started, start_all
    from soong.launch.starting import start
    from soong.lease.guardian import heartbeat

    terms = _terms(account, wish, plan, picks, key, guard)

    def now() -> tuple[Candidate, ...]:
        """What to ask for, once a guardian is seen to live: a wait for room, or for an answer, can take hours."""
        if heartbeat.trouble(account.provider.cloud):
            armed(account, out)
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
        if wish.is_group:
            from soong.cli.replicas import wanted

            group = wanted(account, wish, terms, prices)
            return start_all(account.provider, account.ledger, now, terms, prober, group, tell=steps.say)
        return Started((start(account.provider, account.ledger, now, terms, prober, tell=steps.say),))


def _terms(
    account: Account,
    wish: Wish,
    plan: Plan,
    picks: tuple[Planned, ...],
    key: tuple[LocalKey, SshKey] | None,
    guard: Guard,
) -> Terms:
    """What the launch is bound to, with the person's key and who ends it."""
    import msgspec

    from soong.settings import config

    elsewhere = config.value("lease.reaper")
    return msgspec.structs.replace(
        agreement.terms_of(account, wish, plan, picks[0], ssh_key_name=key[1].name if key else ""),
        guards=(guard.words, *((str(elsewhere),) if elsewhere else ())),
    )


def _prober(account: Account, key: tuple[LocalKey, SshKey] | None) -> Prober:
    """What looks the new machine over: by SSH, or directly on this computer."""
    if key is not None:
        from soong.connect.probing import SshProber

        return SshProber(account.provider, key[0].private_file)
    from soong.clouds.local.probing import LocalProber
    from soong.clouds.local.provider import open_provider

    return LocalProber(open_provider())


def own_gpus(account: Account, out: output.Output) -> Sequence[Gpu]:
    """GPUs that no table has: those of this computer, where it is the one to serve from; says which cannot be used."""
    if account.provider.cloud != LOCAL:
        return ()
    from soong.clouds.local.provider import open_provider

    here = open_provider()
    for problem in here.problems:
        out.say(f"note: {problem}")
    return here.gpus
