"""`soong env`: the variables by which programs find the endpoint."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from soong.cli import output
from soong.cli.exit_codes import ExitCode
from soong.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from soong.lease.ledger import Rental


@click.command(
    "env",
    epilog='\b\nExamples:\n  eval "$(soong env)"\n  soong env --json\n  soong env --shell fish | source\n',
)
@click.argument("name", required=False)
@click.option(
    "--shell", type=click.Choice(["sh", "fish"]), help="The shell that reads it; yours when not said."
)
@click.option("--cloud", help="lambda, sandbox, or local.")
@output.options
def command(name: str | None, *, shell: str | None, cloud: str | None, out: output.Output) -> int:
    """Print the lines that set OPENAI_BASE_URL and OPENAI_API_KEY, for `eval`. Asks nobody and changes nothing."""
    rental = served(name, cloud)
    alone = bool(rental.group) and name in {rental.name, rental.id}
    variables = variables_of(rental, alone=alone)
    fish = (shell or os.path.basename(os.environ.get("SHELL", ""))) == "fish"  # noqa: PTH119 - start-up time
    form = "set -gx {} {}" if fish else "export {}={}"
    out.answer(
        data=lambda: variables,
        ids=[],
        human=lambda: "\n".join(form.format(key, shlex.quote(value)) for key, value in variables.items()),
    )
    return ExitCode.DONE


def variables_of(rental: Rental, *, alone: bool = False) -> dict[str, str]:
    """What OpenAI's clients, and those who copy them, read.

    Args:
        alone: of this machine itself, not of the router before its group: for what only its engine understands.

    Raises:
        CredentialError: the key is not on this computer.
    """
    from soong.cli.views.start import endpoint_url
    from soong.serve.secrets import found_key

    return {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{rental.local_port}/v1" if alone else endpoint_url(rental),
        "OPENAI_API_KEY": found_key(rental.endpoint_id).reveal(),
        "OPENAI_MODEL": rental.served_model,
    }


def served(name: str | None, cloud: str | None) -> Rental:
    """The rental whose endpoint is meant; the only one where none is named.

    Raises:
        NotFoundError: nothing is served. UsageError: several are, and none was named.
    """
    from soong.lease.ledger import open_ledger

    with open_ledger() as ledger:
        rentals = [
            one
            for one in ledger.open_rentals(cloud=cloud)
            if name in {None, one.name, one.id, one.group_name, one.group or one.id}
        ]
    found = _one_of_each_group([one for one in rentals if one.serving == "ready"])
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError("which endpoint?", hints=tuple(f"soong env {one.group_name}" for one in found))
    starting = next((one for one in rentals if one.serving == "starting"), None)
    if starting is not None:
        raise NotFoundError(f"{starting.name} does not answer yet", hints=("soong logs --follow",))
    raise NotFoundError("no endpoint is up", hints=("soong start --model llama-3.1-8b", "soong status"))


def _one_of_each_group(rentals: list[Rental]) -> list[Rental]:
    """Replicas share one endpoint: one stands for all."""
    found: dict[str, Rental] = {}
    for one in rentals:
        found.setdefault(one.endpoint_id, one)
    return list(found.values())
