"""`soong tunnel`: the port of this computer that leads to the endpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from soong.cli import output
from soong.cli.exit_codes import ExitCode
from soong.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from soong.connect.tunnel import Tunnel

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
        rental = accounts.the_rental(account, name)
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


@command.command("stop")
@click.argument("name", required=False)
@output.options
def stop(name: str | None, *, out: output.Output) -> int:
    """Take the tunnel down; the machine, and what it serves and costs, stay."""
    from soong.connect import tunnel

    found = [one for one in tunnel.running() if name in {None, one.host.name, one.rental_id}]
    if not found:
        raise NotFoundError("no tunnel is up", hints=("soong tunnel start",))
    for one in found:
        tunnel.stop(one.rental_id)
    out.answer(
        data=lambda: [one.rental_id for one in found],
        ids=[one.rental_id for one in found],
        human=lambda: "\n".join(
            f"the tunnel to {one.host.name} is down; the machine goes on" for one in found
        ),
    )
    return ExitCode.DONE


@command.command("status")
@output.options
def status(*, out: output.Output) -> int:
    """Which tunnels are up: since when, on which port, how often they were made again."""
    return _show(out)


def _show(out: output.Output) -> int:
    from soong.connect import tunnel

    found = tunnel.running()
    out.answer(
        data=lambda: [document(one) for one in found],
        ids=[one.rental_id for one in found],
        human=lambda: "\n".join(map(_line, found)) or "no tunnel is up",
    )
    return ExitCode.DONE


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
