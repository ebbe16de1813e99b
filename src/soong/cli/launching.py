"""From an agreement to a machine: the person's key, the guardian, and the launch at no more than the prices shown."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from soong.cli import agreement, output, prompts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soong.cli.account import Account
    from soong.cli.steps import Steps
    from soong.cli.wish import Wish
    from soong.connect.keys import LocalKey
    from soong.gpus.gpu import Gpu
    from soong.launch.provider import SshKey
    from soong.launch.replicas import Started
    from soong.launch.starting import Candidate, Prober, Terms
    from soong.lease.guardian import Guard
    from soong.lease.ledger import Rental
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan

LOCAL = "local"


def key_to_add(account: Account) -> str:
    """What will be put into the account once the person agrees; empty where it has a key of theirs, or needs none.

    Raises:
        CredentialError: the account has their key under a name that stands for two.
    """
    if account.provider.cloud == LOCAL:
        return ""
    from soong.connect import keys
    from soong.settings import config

    local, listed = keys.local_keys(config.value("ssh.key") or ""), account.provider.ssh_keys()
    if keys.matching(local, listed) is not None:
        return ""
    what = f"your public key {local[0].private_file}.pub" if local else "the public half of a new key"
    name = keys.free_name(account.owner, listed, wanted=config.value("ssh.key_name") or "")
    return f"{what} will be added to the account as `{name}`: none of yours is in it"


def key_of(account: Account, out: output.Output) -> tuple[LocalKey, SshKey] | None:
    """The person's key and the account's entry for it, which is added where the account has none of theirs.

    None on this computer itself, which is reached without SSH. Only once the person has agreed.
    """
    if account.provider.cloud == LOCAL:
        return None
    from soong.connect import keys
    from soong.settings import config

    configured = config.value("ssh.key") or ""
    found = keys.matching(keys.local_keys(configured), account.provider.ssh_keys())
    if found is not None:
        return found
    with keys.one_at_a_time():
        return _key_added(account, configured, out)


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


def armed(account: Account, out: output.Output) -> Guard:
    """The guardian, armed and tried.

    Raises:
        GuardianError: nothing on this computer can be made to end the lease.
    """
    from soong.cli.account import mechanisms
    from soong.lease.guardian import arm

    return arm(account.provider.cloud, mechanisms(account.provider), tell=out.say)


def disarmed(account: Account) -> None:
    """Take the guardian away where it has nothing to guard, and nothing was asked for whose answer may be lost."""
    from soong.cli.account import mechanisms
    from soong.launch.guarding import LINGER_SECONDS
    from soong.lease.guardian import disarm, heartbeat

    cloud, now = account.provider.cloud, account.provider.clock.now()
    with heartbeat.one_at_a_time(cloud):
        lately = (
            one
            for one in account.ledger.rentals(since=now - LINGER_SECONDS, refused=True)
            if one.cloud == cloud
        )
        if heartbeat.is_needed(cloud) or account.ledger.open_rentals(cloud=cloud) or any(lately):
            return
        disarm(cloud, mechanisms(account.provider))
        heartbeat.forget(cloud)


class Proposal(NamedTuple):
    """What is launched once the person agrees.

    picks: the machines that would do. key: None until then, and where there is no SSH.
    """

    account: Account
    wish: Wish
    plan: Plan
    picks: tuple[Planned, ...]
    guard: Guard
    key: tuple[LocalKey, SshKey] | None = None

    @property
    def shown_prices(self) -> dict[str, float]:
        """Dollars an hour by instance type, as the person sees them."""
        return {one.offer.instance_type: one.offer.usd_per_hour for one in self.picks if one.offer}


def agreed(proposal: Proposal, out: output.Output, *, yes: bool) -> Started | None:
    """The machines that the person agreed to, at no more than the prices they saw; None where they did not.

    Raises:
        PriceRoseError: all that is free has become dearer than was shown, and `--yes` was said to the prices shown.
    """
    from soong.launch.choosing import PriceRoseError

    prices = proposal.shown_prices
    while yes or prompts.confirm("Proceed?", out=out):
        if proposal.key is None:
            proposal = proposal._replace(key=key_of(proposal.account, out))
        try:
            return _launched(proposal, out, prices=prices, asks=not yes)
        except PriceRoseError as rose:
            if yes:
                raise
            out.say(f"Warning: {rose}")
            prices |= rose.prices
    return None


def _launched(proposal: Proposal, out: output.Output, *, prices: dict[str, float], asks: bool) -> Started:
    """The first machines that can be had. prices: what was agreed to, by type. asks: whether dearer ones may be put."""
    from soong.cli.steps import Steps
    from soong.launch.replicas import Started, start_all
    from soong.launch.starting import start

    account, wish = proposal.account, proposal.wish
    terms, prober = _terms(proposal), _prober(account, proposal.key)
    with Steps(out, account.provider.clock) as steps:

        def now() -> tuple[Candidate, ...]:
            return _candidates(proposal, out, steps, prices=prices, asks=asks)

        if wish.is_group:
            from soong.cli.joining import wanted

            group = wanted(account, wish, terms, prices)
            return start_all(account.provider, account.ledger, now, terms, prober, group, tell=steps.say)
        return Started((start(account.provider, account.ledger, now, terms, prober, tell=steps.say),))


class StillBills(str):
    """A hint: what it costs to leave a machine as it is, and how to end it. Whoever ends it takes the hint away."""

    __slots__ = ()


def _still_bills(account: Account, rental: Rental) -> StillBills:
    from soong.cli import times

    ends = times.wall(rental.lease.ends_at, now=account.provider.clock.now())
    return StillBills(
        f"{rental.name} is up all the same and bills ${rental.usd_per_hour:.2f}/h until {ends}: "
        f"`soong stop {rental.name}` ends it"
    )


@contextmanager
def told_if_left(account: Account, rentals: Sequence[Rental], out: output.Output) -> Iterator[None]:
    """Once machines are rented: no error may leave one that the person is not told of, in its last words."""
    import click

    from soong.cli import times
    from soong.errors import SoongError

    try:
        yield
    except SoongError as error:
        others = (hint for hint in error.hints if hint != "soong stop")
        error.hints = (*others, *(_still_bills(account, one) for one in _open(account, rentals)))
        raise
    except (KeyboardInterrupt, click.exceptions.Exit):
        raise  # who raises these has said what goes on
    except BaseException:
        now = account.provider.clock.now()
        for one in _open(account, rentals):
            ends = times.wall(one.lease.ends_at, now=now)
            out.say(
                f"Warning: {one.name} is rented and bills ${one.usd_per_hour:.2f}/h until {ends} at the latest"
            )
            out.hint(f"soong stop {one.name}")
        raise


def _open(account: Account, rentals: Sequence[Rental]) -> list[Rental]:
    """Those that still bill, as the ledger now has them."""
    return [one for one in (account.ledger.get(rental.id) for rental in rentals) if one.is_open]


def _candidates(
    proposal: Proposal, out: output.Output, steps: Steps, *, prices: dict[str, float], asks: bool
) -> tuple[Candidate, ...]:
    """What to ask for, once a guardian is seen to live: a wait for room, or for an answer, can take hours."""
    from soong.launch.choosing import PriceRoseError, at_shown_prices, candidates_now
    from soong.lease.guardian import heartbeat

    account, wish = proposal.account, proposal.wish
    if heartbeat.trouble(account.provider.cloud):
        armed(account, out)
    found = candidates_now(proposal.picks, account.provider.offers(), region=wish.region)
    fine, dearer = at_shown_prices(found, prices)
    is_cheapest = bool(dearer) and (not fine or dearer[0].usd_per_hour <= fine[0].usd_per_hour)
    if is_cheapest and (asks or not (fine or wish.wait_hours)):
        raise PriceRoseError(dearer, prices)
    for word in dict.fromkeys(one.instance_type for one in dearer):
        steps.say(f"{word} costs more than was shown by now; left out")
    return fine


def _terms(proposal: Proposal) -> Terms:
    """What the launch is bound to, with the person's key and who ends it."""
    import msgspec

    from soong.settings import config

    account, wish, plan, picks, guard, key = proposal
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
