"""`soong tunnel`: the port of this computer that leads to the endpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from soong.cli import output
from soong.cli.exit_codes import ExitCode
from soong.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli.account import Account
    from soong.connect.router import Router
    from soong.connect.tunnel import Tunnel
    from soong.lease.ledger import Rental

WORDS = {"up": "up", "connecting": "connecting", "waiting": "broken; it is made again"}


@click.group(
    "tunnel",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  soong tunnel\n  soong tunnel start --port 9000\n  soong tunnel stop\n",
)
@output.options
@click.pass_context
def command(ctx: click.Context, out: output.Output) -> int:
    """A port of this computer that leads to the endpoint, kept up by a process in the background."""
    return _show(out) if ctx.invoked_subcommand is None else ExitCode.DONE


@command.command("start")
@click.argument("name", required=False)
@click.option("--port", type=int, help="Of this computer.")
@click.option("--cloud", help="lambda, or sandbox.")
@output.options
def start(name: str | None, *, port: int | None, cloud: str | None, out: output.Output) -> int:
    """Lead a port here to the endpoint; ends with the rental."""
    from soong.cli import account as accounts
    from soong.cli.serving import host_of
    from soong.connect import tunnel
    from soong.launch.preflight import check_port
    from soong.settings import config

    with accounts.opened(cloud, out) as account:
        rental, *others = accounts.the_rentals(account, name)
        if others or (rental.group and name in {None, rental.group, rental.group_name}):
            return _start_group(account, (rental, *others), port, out)
        if account.provider.cloud == "local":
            raise UsageError("an endpoint on this computer needs no tunnel", hints=("soong env",))
        if not rental.endpoint_port:
            raise NotFoundError(
                f"{rental.name} serves nothing yet", hints=("soong logs --follow", "soong status")
            )
        local_port = int(config.value("tunnel.port", flag=port or rental.local_port or None))
        running = tunnel.find(rental.id)
        if running is None or running.local_port != local_port:
            check_port(local_port)
        made = tunnel.start(host_of(account, rental), local_port=local_port, remote_port=rental.endpoint_port)
        account.ledger.change(rental.id, "tunnel", account.provider.clock.now(), local_port=local_port)
    out.answer(data=lambda: document(made), ids=[made.rental_id], human=lambda: _line(made))
    return ExitCode.DONE


def _start_group(account: Account, rentals: Sequence[Rental], port: int | None, out: output.Output) -> int:
    """A tunnel to each machine of a group that serves, and the router before them.

    Raises:
        NotFoundError: none serves yet. RemoteError: the router does not answer.
    """
    from soong.cli.serving_all import connect_all
    from soong.connect import router
    from soong.settings import config

    serving = [one for one in rentals if one.serving == "ready" and one.endpoint_port]
    name = rentals[0].group_name
    if not serving:
        raise NotFoundError(f"{name} serves nothing yet", hints=("soong status",))
    local_port = int(config.value("tunnel.port", flag=port or serving[0].router_port or None))
    for one in rentals:
        account.ledger.change(one.id, "router", account.provider.clock.now(), router_port=local_port)
    connect_all(account, serving, out, port=local_port)
    found = router.find(rentals[0].group)
    if found is None:
        return ExitCode.REMOTE
    out.answer(data=lambda: router_document(found), ids=[found.group], human=lambda: _router_line(found))
    return ExitCode.DONE


@command.command("stop")
@click.argument("name", required=False)
@click.option("--cloud", help="Only those to machines of this cloud.")
@output.options
def stop(name: str | None, *, cloud: str | None, out: output.Output) -> int:
    """Take the tunnel down; the machine, and what it serves and costs, stay."""
    from soong.connect import router, tunnel

    tunnels, all_routers = _running(cloud)
    routers = [one for one in all_routers if name in {None, one.name, one.group}]
    members = {member.rental_id for one in routers for member in one.members}
    found = [
        one for one in tunnels if name in {None, one.host.name, one.rental_id} or one.rental_id in members
    ]
    if not found and not routers:
        raise NotFoundError("no tunnel is up", hints=("soong tunnel start",))
    for group in routers:
        router.stop(group.group)
    for one in found:
        tunnel.stop(one.rental_id)
    lines = [f"the router of {one.name} is down; its machines go on" for one in routers]
    lines += [f"the tunnel to {one.host.name} is down; the machine goes on" for one in found]
    ids = [*(one.group for one in routers), *(one.rental_id for one in found)]
    out.answer(data=lambda: ids, ids=ids, human=lambda: "\n".join(lines))
    return ExitCode.DONE


@command.command("status")
@click.option("--cloud", help="Only those to machines of this cloud.")
@output.options
def status(*, cloud: str | None, out: output.Output) -> int:
    """Which tunnels are up: since when, on which port, how often they were made again."""
    return _show(out, cloud)


def _running(cloud: str | None) -> tuple[tuple[Tunnel, ...], tuple[Router, ...]]:
    """Every tunnel and router that runs, or those to the machines of one cloud.

    Raises:
        UsageError: there is no such cloud.
    """
    from soong.clouds import check_name
    from soong.connect import router, tunnel
    from soong.lease.ledger import open_ledger

    if cloud is None:
        return tunnel.running(), router.running()
    cloud = cloud.lower()
    check_name(cloud)
    with open_ledger() as ledger:
        there = {rental.id for rental in ledger.rentals() if rental.cloud == cloud}
    return (
        tuple(one for one in tunnel.running() if one.rental_id in there),
        tuple(one for one in router.running() if any(member.rental_id in there for member in one.members)),
    )


def _show(out: output.Output, cloud: str | None = None) -> int:
    found, routers = _running(cloud)
    out.answer(
        data=lambda: [*map(document, found), *map(router_document, routers)],
        ids=[*(one.rental_id for one in found), *(one.group for one in routers)],
        human=lambda: "\n".join([*map(_router_line, routers), *map(_line, found)]) or "no tunnel is up",
    )
    return ExitCode.DONE


def _router_line(router: Router) -> str:
    from soong.cli import times

    state = "up" if router.is_up else "starting"
    line = f"{router.name}: http://127.0.0.1:{router.port}/v1 is {state}"
    line += f" since {times.wall(router.started_at, now=time.time())}"
    line += f", {router.answering} of {len(router.members)} machines answer"
    if router.restarts:
        line += f", started again {router.restarts} times"
    return f"{line} ({router.problem})" if router.problem else line


def router_document(router: Router) -> dict[str, Any]:
    """The router of a group as scripts see it."""
    from soong.cli import times

    return {
        "group": router.group,
        "name": router.name,
        "state": "up" if router.is_up else "connecting",
        "local_port": router.port,
        "started_at": times.iso(router.started_at),
        "restarts": router.restarts,
        "problem": router.problem or None,
        "replicas": [
            {"name": one.name, "rental_id": one.rental_id, "local_port": one.local_port, "state": one.state}
            for one in router.members
        ],
    }


def _line(tunnel: Tunnel) -> str:
    from soong.cli import times

    parts = [f"{tunnel.host.name}: http://127.0.0.1:{tunnel.local_port}/v1 is {WORDS[tunnel.state]}"]
    if tunnel.up_at:
        parts.append(f"since {times.wall(tunnel.up_at, now=time.time())}")
    if tunnel.restarts:
        parts.append(f"made again {tunnel.restarts} times")
    if tunnel.problem:
        parts.append(f"({tunnel.problem})")
    return " ".join(parts)


def document(tunnel: Tunnel) -> dict[str, Any]:
    """A tunnel as scripts see it."""
    from soong.cli import times

    return {
        "rental_id": tunnel.rental_id,
        "name": tunnel.host.name,
        "state": tunnel.state,
        "local_port": tunnel.local_port,
        "remote_port": tunnel.remote_port,
        "started_at": times.iso(tunnel.started_at),
        "up_at": times.iso(tunnel.up_at or None),
        "restarts": tunnel.restarts,
        "problem": tunnel.problem or None,
    }
