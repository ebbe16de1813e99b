"""The root command: knows the names of all commands, imports only the one that is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, cast

import click

from soong.cli import output
from soong.cli.exit_codes import ExitCode, exit_code_of
from soong.errors import SoongError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMANDS = {
    "plan": ("plan", "What a model needs, which GPUs hold it, what that costs, and the command to serve it."),
    "recommend": ("recommend", "Which model to take for a task, and where to run it."),
    "models": ("models", "The models soong knows: list, info, compare, add, remove."),
    "gpus": ("gpus", "The GPUs soong knows: memory, bandwidth, number formats, price."),
    "offers": ("offers", "Machines for rent and their prices, cheapest first."),
    "export": ("export", "The plan as a file for SkyPilot, dstack, Kubernetes, Compose or a shell."),
    "available": ("available", "What is free to rent now, cheapest first."),
    "rehearse": ("rehearse", "The whole life of a rented machine, on this computer; costs nothing."),
    "start": ("start", "Rent the cheapest machine that holds a model, with a lease that ends by itself."),
    "status": ("status", "What is running, how long it has left, what it costs and has cost."),
    "run": ("run", "Rent, serve, run one command against the endpoint, and end it all with proof."),
    "env": ("env", "The variables by which programs find the endpoint."),
    "logs": ("logs", "What the machine does to serve the model, and what the engine says."),
    "tunnel": ("tunnel", "The port of this computer that leads to the endpoint: start, stop, status."),
    "extend": ("extend", "Give a machine more hours, up to its cap."),
    "stop": ("stop", "End a machine, and prove it."),
    "ssh": ("ssh", "A shell on the machine, or one command there."),
    "costs": ("costs", "What it has cost, by day, model or GPU."),
    "reap": ("reap", "End what is over, from any computer that has the cloud's key."),
    "sandbox": (
        "sandbox",
        "Rehearse with a cloud on this computer: machines, faults, a fast clock. Costs nothing.",
    ),
    "configure": ("configure", "Set up renting: the key, the model, the lease, SSH, who guards."),
    "doctor": ("doctor", "Is everything in place, and what to do where it is not."),
    "clouds": ("clouds", "Where machines can be rented: list, check."),
    "config": ("config", "The settings: get, set, unset, edit, path."),
    "completion": ("completion", "Print the completion script of a shell."),
    "help": ("help", "Help on a topic: environment, exit-codes, json, pricing."),
}
"""Command name to its module in `soong.cli` and the line that the root help shows without importing it."""

GROUPS = {
    "Choose; no account needed": ("plan", "recommend", "models", "gpus", "offers", "export"),
    "Rent": ("available", "start", "status", "extend", "stop", "ssh", "costs"),
    "Serve": ("run", "env", "logs", "tunnel"),
    "Rehearse; costs nothing": ("rehearse", "sandbox"),
    "Set up and look after": ("configure", "clouds", "config", "doctor", "reap", "completion", "help"),
}
"""How the root help groups the commands; one that is in no group stands at the end."""

EPILOG = """\b
Examples:
  soong plan llama-3.1-8b
  soong recommend --task coding --context 32k --quality budget
  soong start --model llama-3.1-8b --cloud sandbox   (a rehearsal: costs nothing)
"""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now; None when there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"soong.cli.{COMMANDS[cmd_name][0]}")
        return cast("click.Command", module.command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` names.

        Raises:
            UsageError: there is none; the nearest name is suggested.
        """
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown_command(args[0], COMMANDS, "soong", hints=nested(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in the root help, from `COMMANDS`, so that help imports nothing."""
        grouped = {name for names in GROUPS.values() for name in names}
        rest = tuple(name for name in COMMANDS if name not in grouped)
        for title, names in (*GROUPS.items(), ("More", rest)):
            lines = [(name, COMMANDS[name][1]) for name in names if name in COMMANDS]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


def unknown_command(
    word: str, known: Iterable[str], parent: str, *, hints: tuple[str, ...] = ()
) -> UsageError:
    """The error for a command that does not exist, with those of that name elsewhere (`hints`), else the nearest."""
    from difflib import get_close_matches

    near = [] if hints else get_close_matches(word, list(known), n=1)
    meant = tuple(f"did you mean `{parent} {name}`?" for name in near)
    return UsageError(
        f"there is no command `{parent} {word}`",
        hints=(*hints, *meant, f"`{parent} --help` lists the commands"),
    )


def nested(word: str) -> tuple[str, ...]:
    """The commands of that name inside others, each as a hint: `soong models info` for `info`."""
    found = []
    for name, (module, _) in COMMANDS.items():
        group = import_module(f"soong.cli.{module}").command
        if isinstance(group, click.Group) and word in group.commands:
            found.append(f"did you mean `soong {name} {word}`?")
    return tuple(found)


def _print_version(ctx: click.Context, _: click.Parameter, value: object) -> None:
    if not value:
        return
    from soong import __version__

    click.echo(f"soong {__version__}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["--help"],
        "auto_envvar_prefix": "SOONG",
        "max_content_width": 100,
    },
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@output.options
@click.pass_context
def root(ctx: click.Context, out: output.Output) -> None:
    """Name an open-weights model: soong says how much GPU memory it needs and which GPU is the cheapest that holds it.

    Then it rents that GPU, serves the model, and proves that the rent ends. Choosing and rehearsing need no
    account, no key and no network; a Hugging Face id that is not in the catalogue is read from the Hub.
    """
    if ctx.invoked_subcommand is None:
        from soong.cli import home

        home.show(out)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit the process with its code; every failure becomes words, never a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(call(arguments))


def call(arguments: Sequence[str]) -> int:
    """Run one command in this process and return its exit code."""
    errors = output.ErrorPrinter(as_json="--json" in arguments)
    try:
        result = root.main(args=list(arguments), prog_name="soong", standalone_mode=False)
    except SoongError as error:
        _trace()
        errors.show(error)
        return exit_code_of(error)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        errors.say("interrupted")
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        errors.show(_as_usage_error(error))
        return ExitCode.USAGE
    except BrokenPipeError:
        _silence_stdout()
        return ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - the last resort: a person gets words, and a way to the traceback
        _trace()
        errors.show(_as_bug(error))
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.DONE


def _as_usage_error(error: click.ClickException) -> SoongError:
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "soong"
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hints=(f"`{command} --help` shows the options",))


def _as_bug(error: Exception) -> SoongError:
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return SoongError(
            f"the system refused: {error.strerror or error}{place}",
            hints=("SOONG_HOME=/another/folder moves every file that soong writes",),
        )
    return SoongError(
        f"soong stumbled over its own feet: {type(error).__name__}: {error}",
        why="this is a bug, not something you did",
        hints=("SOONG_DEBUG=1 in front of the same command shows where; please report it with that",),
    )


def _trace() -> None:
    if os.environ.get("SOONG_DEBUG"):
        import traceback

        traceback.print_exc()


def _silence_stdout() -> None:
    """The reader has gone: keep the interpreter from complaining about it while it closes stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
