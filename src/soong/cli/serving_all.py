"""Serving on several machines at once, each on its own way, and one port of this computer that leads to all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from soong.errors import SoongError, UsageError
from soong.lease.clock import WallClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.cli.output import Output
    from soong.cli.serving import Job, Served
    from soong.cli.steps import Steps
    from soong.lease.ledger import Rental
    from soong.serve.serving import Endpoint

LOOK_SECONDS = 0.2
LEAVE_SECONDS = 3.0


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
        except BaseException as left_by:
            leaving.set()
            for up in ups:
                up.join(LEAVE_SECONDS)
            if isinstance(left_by, KeyboardInterrupt):
                _say_what_goes_on(rentals, out)
            raise
    _tell_failures(unsent + left, served, out, is_all=not ready)
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


def _tell_failures(left: list[_Left], served: Served, out: Output, *, is_all: bool) -> None:
    """Say of each machine that does not serve why not, and what to type.

    Raises:
        SoongError: the first, where none serves.
    """
    from soong.cli.serving import explained

    for number, one in enumerate(left):
        error = explained(one.error, one.rental, served, out)
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
