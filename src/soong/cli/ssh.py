"""`soong ssh`: a shell on the machine, or one command there."""

from __future__ import annotations

import os
from typing import NoReturn

import click

from soong.cli import output


@click.command(
    "ssh",
    context_settings={"ignore_unknown_options": True},
    epilog="\b\nExamples:\n  soong ssh\n  soong ssh -- nvidia-smi\n  soong ssh --name my-box\n",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND]")
@click.option("--name", help="Which machine, where several run.")
@click.option("--instance-id", help="The machine by the cloud's own id.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@click.option("--forget-key", is_flag=True, help="Pin the host key anew: only when you changed it yourself.")
@output.options
def command(
    words: tuple[str, ...],
    *,
    name: str | None,
    instance_id: str | None,
    cloud: str | None,
    forget_key: bool,
    out: output.Output,
) -> int:
    """Connect to the machine with its pinned host key; ends with the code of what ran there."""
    from soong.cli import account as accounts
    from soong.cli.serving import host_of
    from soong.connect import ssh

    with accounts.opened(cloud, out) as account:
        rental = accounts.the_rental(account, instance_id or name)
        if account.provider.cloud == "local":
            _step_inside(rental.instance_id, words)
        host = host_of(account, rental)
    if forget_key:
        ssh.forget(rental.id)
    ssh.write_entry(host)
    line = ssh.argv(host, words)
    os.execv(line[0], line)  # noqa: S606 - the person's own ssh, in the place of this process


def _step_inside(instance_id: str, words: tuple[str, ...]) -> NoReturn:
    """A shell of a machine that is this computer, in the place of this process."""
    from soong.clouds.local.provider import open_provider

    line, environment, folder = open_provider().machine(instance_id).shell(words)
    os.chdir(folder)
    os.execve(line[0], line, environment)  # noqa: S606 - the person's own shell
