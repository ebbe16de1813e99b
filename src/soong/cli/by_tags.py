"""End machines that this computer's ledger cannot tell of: it is broken or full, or another computer launched them.

The tags say whose a machine is. Only those that carry the owner's word are ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.cli import prompts
from soong.cli.exit_codes import ExitCode
from soong.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.cli.account import Account
    from soong.cli.output import Output
    from soong.launch.provider import Instance, Provider
    from soong.launch.stopping import Gone
    from soong.lease.lease import Lease


class Tagged(NamedTuple):
    """A machine that bills, and the lease in its tags."""

    instance: Instance
    lease: Lease

    def is_meant_by(self, word: str) -> bool:
        """Whether a person who types `word` means this machine."""
        return word in {self.instance.id, self.instance.name, self.lease.id}


def of_owner(instances: Iterable[Instance], owner: str) -> tuple[Tagged, ...]:
    """The machines among `instances` that bill and carry the owner's word."""
    from soong.lease.lease import read_lease

    leases = ((one, read_lease(name=one.name, tags=one.tags)) for one in instances if one.is_billing)
    return tuple(Tagged(one, lease) for one, lease in leases if lease is not None and lease.owner == owner)


def is_another_computers(account: Account, word: str) -> bool:
    """Whether `word` means a machine of the same owner that another computer launched."""
    return any(
        one.is_meant_by(word) and account.ledger.find(one.lease.id) is None
        for one in of_owner(account.listed, account.owner)
    )


def stop(cloud: str | None, word: str | None, out: Output, *, every: bool, yes: bool, no_wait: bool) -> int:
    """`soong stop` without a ledger.

    Args:
        word: an instance id, its name in the cloud, or a lease's id; None for the only machine.

    Raises:
        NotFoundError: no such machine of this owner. UsageError: several, and none was named.
        StopNotConfirmedError: one could not be proved gone.
    """
    from soong.clouds import open_provider
    from soong.launch import stopping
    from soong.lease.owner import owner
    from soong.settings import config

    provider = open_provider(str(config.value("cloud", flag=cloud)))
    meant = _meant(of_owner(provider.instances(), owner()), word, every=every, cloud=provider.cloud)
    names = ", ".join(f"{one.instance.id} ({one.instance.instance_type})" for one in meant)
    if not yes and not prompts.confirm(f"End {names}?", out=out):
        out.say("nothing was stopped")
        return ExitCode.DONE
    stopping.end_all(provider, tuple(one.instance for one in meant), {}, out.say)
    proofs = [(one, _proved(provider, one, out, no_wait=no_wait)) for one in meant]
    out.answer(
        data=lambda: [_document(one, gone) for one, gone in proofs],
        ids=[one.lease.id for one, gone in proofs if gone],
        human=lambda: "\n".join(
            f"{one.instance.id} is gone: {gone.evidence}." if gone else f"{one.instance.id}: not proved gone"
            for one, gone in proofs
        ),
    )
    left = next((one.instance for one, gone in proofs if gone is None), None)
    if left is not None and not no_wait:
        raise stopping.not_confirmed(provider, left.id, left.usd_per_hour)
    return ExitCode.DONE


def _meant(found: tuple[Tagged, ...], word: str | None, *, every: bool, cloud: str) -> tuple[Tagged, ...]:
    hints = tuple(f"soong stop --instance-id {one.instance.id}" for one in found)
    if word is not None:
        named = tuple(one for one in found if one.is_meant_by(word))
        if not named:
            raise NotFoundError(
                f"no machine of yours carries `{word}`", hints=hints or ("soong reap --dry-run",)
            )
        return named
    if not found:
        raise NotFoundError(f"no machine of soong's is running at {cloud}", hints=("soong reap --dry-run",))
    if len(found) > 1 and not every:
        raise UsageError("which machine?", why=f"{len(found)} are running", hints=hints)
    return found


def _proved(provider: Provider, meant: Tagged, out: Output, *, no_wait: bool) -> Gone | None:
    from soong.launch import finding, stopping

    def ours(listed: tuple[Instance, ...]) -> tuple[Instance, ...]:
        return tuple(
            one for one in listed if one.id == meant.instance.id or finding.lease_id_of(one) == meant.lease.id
        )

    patience = 0.0 if no_wait else stopping.PATIENCE_SECONDS
    return stopping.prove_gone(provider, ours, patience_seconds=patience, tell=out.say).gone


def _document(one: Tagged, gone: Gone | None) -> dict[str, object]:
    return {
        "id": one.lease.id,
        "name": None,
        "instance_id": one.instance.id,
        "confirmed": gone is not None,
        "evidence": gone.evidence if gone else None,
        "cost_usd": None,
    }
