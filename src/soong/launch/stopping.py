"""Stop is a proof, not a request: terminate, then read back until the machine is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import CredentialError, NotFoundError, RemoteError, SoongError
from soong.launch import finding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soong.launch.provider import Instance, Provider
    from soong.lease.ledger import Ledger, Rental

APART_SECONDS = 30.0
"""A machine that is missing from the list counts as gone when a second list, this much later, misses it too."""
POLL_SECONDS = (2.0, 3.0, 5.0, 10.0, 15.0, 30.0)
"""Waits between two looks; the last repeats."""
REPEAT_SECONDS = 60.0
"""How often an accepted terminate call is made again while the machine is still there."""
PATIENCE_SECONDS = 300.0
"""How long a command looks before it says that the stop is not confirmed. The guardian goes on."""


class StopNotConfirmedError(RemoteError):
    """The machine was asked to end, and the cloud has not shown that it did: it may still bill."""

    code = "stop-not-confirmed"


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a machine no longer bills: `evidence` says what was read, `at` when, by the cloud's clock."""

    evidence: str
    at: float


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a while of looking has shown: proof, or since when the lists miss the machine (None: they show it)."""

    gone: Gone | None = None
    missing_since: float | None = None


def judged(seen: tuple[Instance, ...], missing_since: float | None, now: float) -> Look:
    """What one answered list proves, given since when earlier lists have missed the machine.

    Args:
        seen: the entries of the list that are the machine. now: the cloud's clock.
    """
    if any(instance.is_billing for instance in seen):
        return Look()
    if seen:
        return Look(gone=Gone(evidence="the cloud lists it as terminated", at=now))
    since = now if missing_since is None else missing_since
    if now - since >= APART_SECONDS:
        return Look(
            gone=Gone(evidence=f"missing from two lists, {now - since:.0f} s apart", at=now),
            missing_since=since,
        )
    return Look(missing_since=since)


def stop(
    provider: Provider,
    ledger: Ledger,
    rental: Rental,
    *,
    why: str,
    patience_seconds: float = PATIENCE_SECONDS,
    listed: tuple[Instance, ...] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Gone:
    """End the machine of a rental and prove it; safe to repeat, and to run in several processes at once.

    A ledger that cannot be written (a full disk) does not keep the machine alive: it is ended all the same, and the
    error comes afterwards.

    Args:
        why: who wants it, for the story: `soong stop`, `lease over`. patience_seconds: by the cloud's clock.
        listed: the account as it was read this moment, to save a call. tell: hears each step.

    Raises:
        StopNotConfirmedError: no proof within the patience; the rental stays open, so the guardian goes on.
        CredentialError: the key was refused, so nothing can be proved. SoongError: gone, and it could not be noted.
    """
    rental = _intended(provider, ledger, rental, why, tell)
    look = prove_gone(
        provider,
        lambda instances: finding.of_rental(rental, instances),
        patience_seconds=patience_seconds,
        missing_since=rental.missing_since,
        listed=listed,
        tell=tell,
    )
    if look.gone is None:
        ledger.change(rental.id, "stop-not-confirmed", provider.clock.now(), missing_since=look.missing_since)
        raise not_confirmed(provider, rental.instance_id or rental.lease.instance_name, rental.usd_per_hour)
    close(ledger, rental, look.gone)
    return look.gone


def stop_all(
    provider: Provider,
    ledger: Ledger,
    rentals: Sequence[Rental],
    *,
    why: str,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """End several machines: ask for the end of each first, so that none bills while another is being proved gone.

    Whoever leaves in the middle leaves the rest to the guardian: that all are to end is written down before any call.

    Raises:
        SoongError: the first that could not be proved gone, or noted; the others are ended all the same.
    """
    mean_all(provider, ledger, rentals, why=why, tell=tell)
    failure: SoongError | None = None
    for patience in (0.0, PATIENCE_SECONDS):
        failure = None
        for one in rentals:
            rental = ledger.get(one.id)
            if not rental.is_open or (len(rentals) == 1 and not patience):
                continue
            heard = tell if patience else lambda _: None
            try:
                stop(provider, ledger, rental, why=why, patience_seconds=patience, tell=heard)
            except SoongError as error:
                failure = failure or error
    if failure is not None:
        raise failure


def mean_all(
    provider: Provider,
    ledger: Ledger,
    rentals: Sequence[Rental],
    *,
    why: str,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Write down of each of these machines that it is to end, before the first call: the guardian then ends them too.

    A group all of which is to end replaces nothing any more.
    """
    from soong.launch import groups

    groups.replace_no_more(ledger, rentals)
    for one in rentals:
        rental = ledger.get(one.id)
        if rental.is_open:
            _intended(provider, ledger, rental, why, tell)


def _intended(
    provider: Provider, ledger: Ledger, rental: Rental, why: str, tell: Callable[[str], None]
) -> Rental:
    """The rental with the intent to end it, written down unless the disk refuses."""
    if rental.phase == "ending":
        return rental
    now = provider.clock.now()
    try:
        return ledger.change(
            rental.id, "stop-asked", now, detail={"why": why}, phase="ending", ending_at=now, end_reason=why
        )
    except SoongError as error:
        tell(f"ending it although that cannot be written down: {error}")
        return rental


def close(ledger: Ledger, rental: Rental, gone: Gone) -> Rental:
    """Write the proof down: the rental is over."""
    return ledger.change(
        rental.id, "ended", gone.at, detail={"evidence": gone.evidence}, phase="ended", ended_at=gone.at
    )


def not_confirmed(provider: Provider, machine: str, usd_per_hour: float | None) -> StopNotConfirmedError:
    """The error that says a machine may still bill, what it costs, and where to end it by hand."""
    rate = f"${usd_per_hour:.2f}/h" if usd_per_hour is not None else "money"
    return StopNotConfirmedError(
        f"STOP NOT CONFIRMED: {machine} may still be billing {rate}",
        why="the cloud has not shown that it is gone; the guardian keeps trying",
        hints=(f"end it by hand at {provider.console_url}", "soong stop", "soong status"),
    )


def prove_gone(
    provider: Provider,
    ours: Callable[[tuple[Instance, ...]], tuple[Instance, ...]],
    *,
    patience_seconds: float,
    missing_since: float | None = None,
    listed: tuple[Instance, ...] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Look:
    """Terminate what `ours` picks from the list, and look until it is gone.

    `terminating`, an unknown status, an error of the API and one list without it are all "not yet". A terminate
    call that the cloud does not take is made again; one that it took is repeated each minute.

    Args:
        missing_since: when earlier looks began to miss it, by the cloud's clock.
        listed: the account as it was read this moment; else it is read first.

    Returns:
        The proof, or what is known when patience ended.

    Raises:
        CredentialError: the key was refused.
    """
    clock = provider.clock
    deadline = clock.now() + patience_seconds
    look, accepted_at, looks = Look(missing_since=missing_since), dict[str, float](), 0
    while True:
        try:
            seen = ours(listed if listed is not None and not looks else provider.instances())
            look = judged(seen, look.missing_since, clock.now())
            if look.gone is not None:
                return look
            end_all(provider, seen, accepted_at, tell)
        except CredentialError:
            raise
        except SoongError as error:
            tell(f"the cloud did not answer ({error}); trying again")
        wait = POLL_SECONDS[min(looks, len(POLL_SECONDS) - 1)]
        looks += 1
        if clock.now() + wait > deadline:
            return look
        clock.sleep(wait)


def end_all(
    provider: Provider,
    machines: tuple[Instance, ...],
    accepted_at: dict[str, float],
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Ask for the end of each machine that bills, unless the cloud took that call within the last minute.

    Args:
        accepted_at: when the cloud took the call, by instance id; kept up to date here.
    """
    for machine in machines:
        now = provider.clock.now()
        fresh = now - accepted_at.get(machine.id, -REPEAT_SECONDS) < REPEAT_SECONDS
        if machine.is_billing and not fresh and _terminated(provider, machine, tell):
            accepted_at[machine.id] = now


def _terminated(provider: Provider, instance: Instance, tell: Callable[[str], None]) -> bool:
    """Whether the cloud took the call. Without an answer it counts as not taken: asking twice harms nothing."""
    try:
        provider.terminate(instance.id)
    except CredentialError:
        raise
    except NotFoundError:
        return True
    except SoongError as error:
        tell(f"terminate was not taken ({error}); trying again")
        return False
    tell(f"terminate accepted for {instance.id}; waiting until the cloud shows it gone")
    return True
