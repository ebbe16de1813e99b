"""One round of the guardian, and the watch that repeats it: settle the ledger, end what is over, leave a pulse."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from soong.errors import SoongError
from soong.launch import reaping, settling
from soong.lease.guardian import heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.launch.provider import Provider
    from soong.lease.ledger import Ledger

ROUND_SECONDS = 60.0
"""Between two rounds, by the cloud's clock; sooner when a lease ends before that."""
MOST_SECONDS = 300.0
"""Between two rounds when the cloud keeps failing, and the most in real seconds where a clock stands still. For real
money it never gives up."""
PROOF_SECONDS = 45.0
"""How long a round waits for the proof of one stop: longer than two lists that miss it, so that others wait little."""
LINGER_SECONDS = 900.0
"""How long a watch stays after it was asked for, though there is no lease: a launch whose answer was lost may yet
show its machine."""
REHEARSAL_FAILURES = 5
"""After as many failed rounds a rehearsal's guardian leaves: its sandbox was stopped, and nothing there costs money."""
TICK_SECONDS = 0.2
"""How often a watch looks whether somebody asks for a round, in real seconds."""
LEAST_SECONDS = 1.0
"""Between two rounds, in real seconds: a fast rehearsal shall not keep the computer busy. A lease's end comes first."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round found."""

    findings: tuple[settling.Finding, ...]
    reaped: tuple[reaping.Reaped, ...]


def guardian_round(
    provider: Provider,
    ledger: Ledger,
    *,
    owner: str,
    tell: Callable[[str], None] = lambda _: None,
    is_watch: bool = False,
) -> Round:
    """Settle and reap once, and leave the pulse, also of a round that failed. is_watch: more rounds will follow.

    Raises:
        SoongError: the account could not be read.
    """
    nonce = heartbeat.asked(provider.cloud)
    try:
        reaped = reaping.reap(provider, owner=owner, ledger=ledger, patience_seconds=PROOF_SECONDS, tell=tell)
        findings = settling.settle(provider, ledger, stop_patience_seconds=PROOF_SECONDS, tell=tell)
    except SoongError as error:
        heartbeat.beat(provider.cloud, nonce=nonce, problem=str(error), is_watch=is_watch)
        raise
    heartbeat.beat(provider.cloud, nonce=nonce, is_watch=is_watch)
    return Round(findings=findings, reaped=reaped)


def watch(
    provider: Provider,
    ledger: Ledger,
    *,
    owner: str,
    tell: Callable[[str], None],
    open_again: Callable[[], Provider],
    tidy: Callable[[], None] = lambda: None,
    look_after: Callable[[Provider], None] = lambda _: None,
) -> None:
    """Rounds until no lease is left to guard. Returns at once where another process watches already.

    Args:
        open_again: the provider anew, when the cloud refused or its address changed (a sandbox that was restarted).
        tidy: called after each sound round, to drop what was kept for machines that are gone.
        look_after: called after each sound round, to look at the machines themselves.
    """
    with heartbeat.alone(provider.cloud) as alone:
        if not alone:
            return
        failures = 0
        while True:
            nonce = heartbeat.asked(provider.cloud)
            done = _round_or_none(provider, ledger, owner, tell)
            failures = 0 if done is not None else failures + 1
            if done is not None:
                look_after(provider)
                tidy()
            elif failures >= REHEARSAL_FAILURES and not provider.costs_money:
                return
            else:
                provider = _opened(provider, open_again)
            if is_idle(provider, ledger, done):
                return
            _wait(provider, ledger, nonce, failures)


def _round_or_none(
    provider: Provider, ledger: Ledger, owner: str, tell: Callable[[str], None]
) -> Round | None:
    """One round of a watch, told; None when it failed."""
    try:
        done = guardian_round(provider, ledger, owner=owner, tell=tell, is_watch=True)
    except SoongError as error:
        tell(f"could not look after the leases: {error}; trying again")
        return None
    for line in [*(one.message for one in done.findings), *_ends(done)]:
        tell(line)
    return done


def _ends(done: Round) -> list[str]:
    return [
        f"{row.instance_id}: {row.outcome} {row.message}"
        for row in done.reaped
        if row.outcome in {"ended", "not-confirmed"}
    ]


def _opened(provider: Provider, open_again: Callable[[], Provider]) -> Provider:
    try:
        return open_again()
    except SoongError:
        return provider


def is_idle(provider: Provider, ledger: Ledger, done: Round | None) -> bool:
    """Whether no lease is left to guard, none is about to begin, and the last round had nothing to end."""
    asked_ago = time.time() - heartbeat.asked_at(provider.cloud)
    waiting = asked_ago < LINGER_SECONDS or heartbeat.is_needed(provider.cloud)
    busy = done is None or any(one.what == "undone" for one in done.findings) or _unproved(done)
    return not waiting and not busy and not ledger.open_rentals(cloud=provider.cloud)


def _unproved(done: Round) -> bool:
    return any(row.outcome == "not-confirmed" for row in done.reaped)


def _wait(provider: Provider, ledger: Ledger, nonce: str, failures: int) -> None:
    """Until the next round is due, somebody asks for one, or a lease ends."""
    clock = provider.clock
    now = clock.now()
    pause = min(MOST_SECONDS, ROUND_SECONDS * 2**failures) if failures else ROUND_SECONDS
    ends = [rental.lease.ends_at for rental in ledger.open_rentals(cloud=provider.cloud)]
    next_end = min((end for end in ends if end > now), default=now + pause)
    begun = time.monotonic()
    while heartbeat.asked(provider.cloud) == nonce and clock.now() < next_end:
        waited = time.monotonic() - begun
        if waited >= MOST_SECONDS or (clock.now() >= now + pause and waited >= LEAST_SECONDS):
            return
        time.sleep(TICK_SECONDS)
