"""`soong` alone: what is running and its cost; where nothing is, where to begin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soong.cli.output import Output
    from soong.lease.ledger import Rental

THINGS_TO_TRY = (
    ("soong plan llama-3.1-8b", "what a model needs, and the cheapest GPU that holds it"),
    ("soong recommend --task coding", "which model to take"),
    ("soong start --model llama-3.1-8b --cloud sandbox", "a rehearsal of renting: costs nothing"),
)


def show(out: Output) -> None:
    """What this computer's ledger says is running, without asking a cloud; else three things that need no account."""
    running = _running()
    if running:
        _show_running(running, out)
        return
    width = max(len(line) for line, _ in THINGS_TO_TRY)
    lines = ["Three things to try, no account needed:", ""]
    lines += [f"  {line:<{width}}   {what}" for line, what in THINGS_TO_TRY]
    lines += ["", "`soong --help` lists every command."]
    out.answer(
        data=lambda: {"try": [line for line, _ in THINGS_TO_TRY]},
        ids=(),
        human=lambda: "\n".join(lines),
    )


def _running() -> tuple[Rental, ...]:
    """Open rentals; none, at no cost, where nothing was ever rented."""
    from soong.settings import paths

    if not os.path.exists(paths.state_file("ledger.sqlite")):  # noqa: PTH110 - start-up time
        return ()
    from soong.lease.ledger import open_ledger

    with open_ledger() as ledger:
        return ledger.open_rentals()


def _show_running(running: tuple[Rental, ...], out: Output) -> None:
    from soong.cli import times
    from soong.cli.account import clock_of

    def line(rental: Rental) -> str:
        now = clock_of(rental.cloud).now()
        if rental.cloud == "sandbox":
            return f"  {rental.name}  {rental.instance_type} in the sandbox, costs nothing"
        left = rental.lease.remaining_seconds(now)
        cost = f"${rental.usd_per_hour:.2f}/h, ${rental.cost_usd(now):.2f} so far"
        return (
            f"  {rental.name}  {rental.instance_type}  {cost}, "
            f"ends at {times.wall(rental.lease.ends_at, now=now)} ({times.span(left)} left)"
        )

    from soong.cli.views.start import document

    out.answer(
        data=lambda: {"rentals": [document(rental, clock_of(rental.cloud).now()) for rental in running]},
        ids=[rental.id for rental in running],
        human=lambda: "\n".join(
            [
                "running, as this computer last knew:",
                *map(line, running),
                "",
                "`soong status` asks the cloud.",
            ]
        ),
    )
