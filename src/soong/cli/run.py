"""`soong run`: rent, serve, run one command with the endpoint in its environment, and end it all with proof."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from soong.cli import output, plan_options
from soong.cli.exit_codes import ExitCode, exit_code_of
from soong.errors import SoongError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from soong.cli.account import Account
    from soong.cli.wish import Wish
    from soong.lease.ledger import Rental

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _Silent(output.Output):
    """Talks as its twin does; stdout belongs to the command that is run."""

    def answer(self, **_: Any) -> None:
        """Nothing."""


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True},
    epilog="\b\nExamples:\n  soong run llama-3.1-8b -- python evaluate.py\n"
    "  soong run qwen3-8b --hours 1 --yes -- sh -c 'curl $OPENAI_BASE_URL/models'\n",
)
@click.argument("model")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-- COMMAND")
@click.option("--gpu", help="Only this GPU or instance type; else the cheapest that fits.")
@click.option("--region", help="Only this region.")
@click.option("--hours", help="The longest it may take: 4 (the default), 90m, 1h30m.")
@click.option("--max-cost", help="The most it may cost, in dollars; ends the lease when that is reached.")
@click.option("--wait", is_flag=False, flag_value="2h", default=None, metavar="[TIME]", help="Wait for room.")
@click.option("--context", help="Longest sequence in tokens: 8192, 32k.")
@click.option("--sequences", help="How many such sequences at once.")
@click.option("--engine", help="sglang (the default), vllm or llama.cpp.")
@click.option("--quantization", help="Which of the model's formats.")
@click.option("--text-only", is_flag=True, default=None, help=plan_options.TEXT_ONLY)
@click.option(
    "--replicas", type=click.IntRange(1, 16), default=1, help="So many machines behind one endpoint."
)
@click.option("--port", type=int, help="Of this computer, where the endpoint will be reached.")
@click.option(
    "--engine-env", metavar="PATH", help="An engine's environment that is there, instead of a new one."
)
@click.option("--filesystem", help="A filesystem of the account to mount.")
@click.option("--idle", metavar="TIME", help="End it after so long without a request: 30m, 1h.")
@click.option("--laptop-only", is_flag=True, help="Consent to a long lease that only this computer guards.")
@click.option("--cloud", help="lambda, sandbox, or local.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output.options
def command(
    model: str,
    words: tuple[str, ...],
    *,
    engine_env: str | None,
    port: int | None,
    laptop_only: bool,
    cloud: str | None,
    yes: bool,
    out: output.Output,
    **options: Any,
) -> int:
    """Rent a machine, serve MODEL, run COMMAND with OPENAI_BASE_URL and OPENAI_API_KEY set, and end the machine.

    Ends with the command's own code, and with 6 where that is 0 and the machine is not proved gone.
    """
    import secrets

    from soong.cli import account as accounts
    from soong.cli import wish as wishes
    from soong.launch.preflight import check_port, free_port
    from soong.settings import config

    _check_command(words)
    environment = str(config.value("serve.environment", flag=engine_env) or "")
    wish = wishes.wish_of(
        model=model,
        name=f"run-{secrets.token_hex(3)}",
        engine_env=environment,
        local_port=port or free_port(),
        **options,
    )
    check_port(wish.local_port)
    talk = _Silent(quiet=out.quiet, as_json=out.as_json, no_input=out.no_input, color=out.color)
    with accounts.opened(cloud, talk, begins=True) as account:
        if account.provider.cloud == "sandbox" and not environment:
            raise UsageError("a rehearsal serves only with `--engine-env PATH`", hints=("soong run --help",))
        return _run(account, wish, words, talk, yes=yes, laptop_only=laptop_only)


def _check_command(words: Sequence[str]) -> None:
    """Before anything is paid for.

    Raises:
        UsageError: there is no such program.
    """
    import shutil

    if shutil.which(words[0]) is None:
        raise UsageError(
            f"there is no program `{words[0]}`", hints=("write it after `--`, as a shell would",)
        )


def _run(
    account: Account, wish: Wish, words: Sequence[str], out: output.Output, *, yes: bool, laptop_only: bool
) -> int:
    """Start, run, stop; whatever happens in between, what was rented is ended."""
    from soong.cli import launching, start

    failure: BaseException | None = None
    code: int = ExitCode.DONE
    with _signals_interrupt():
        try:
            start.carry_out(account, wish, out, dry_run=False, yes=yes, laptop_only=laptop_only)
            rental = next((one for one in _rentals(account, wish) if one.serving == "ready"), None)
            if rental is not None:
                code = _ran(words, rental, out)
        except BaseException as error:  # noqa: BLE001 - whatever it is; it is raised again below
            failure = error
    if isinstance(failure, SoongError):  # what it rented is ended now
        failure.hints = tuple(hint for hint in failure.hints if not isinstance(hint, launching.StillBills))
    try:
        unproved = _ended(account, wish, out)
    except Exception as error:
        if failure is None:
            raise
        unproved = _unforeseen(error)
    if failure is not None:
        if unproved is not None:
            output.ErrorPrinter(as_json=out.as_json).show(unproved)
        raise failure
    if unproved is not None:
        output.ErrorPrinter(as_json=out.as_json).show(unproved)
        return code or exit_code_of(unproved)
    return code


def _unforeseen(error: Exception) -> SoongError:
    """What went wrong in ending the machines, to be shown beside the error that came first."""
    return SoongError(
        f"the end is not proved: {type(error).__name__}: {error}",
        why="the guardian goes on with it",
        hints=("soong status", "soong stop"),
    )


def _rentals(account: Account, wish: Wish) -> list[Rental]:
    """What this run has rented, if it may still bill: one machine, or the replicas of one group."""
    return [one for one in account.ledger.open_rentals() if one.group_name == wish.name]


def _ran(words: Sequence[str], rental: Rental, out: output.Output) -> int:
    """Run the command; Ctrl-C is its own to answer, and SIGTERM is handed on. Returns its code as a shell would."""
    from soong.cli.env import variables_of

    out.say(f"running {words[0]}")
    try:
        process = subprocess.Popen(list(words), env={**os.environ, **variables_of(rental)})  # noqa: S603
    except OSError as error:
        raise UsageError(f"`{words[0]}` cannot be run: {error.strerror}") from error
    with (
        process,
        _handled((signal.SIGINT,), lambda *_: None),
        _handled(ENDING_SIGNALS, lambda number, _: process.send_signal(number)),
    ):
        code = process.wait()
    return 128 - code if code < 0 else code


def _ended(account: Account, wish: Wish, out: output.Output) -> SoongError | None:
    """End what was rented, with proof; the error where there is none. A second Ctrl-C leaves it to the guardian."""
    from soong.cli.account import tidy
    from soong.launch import stopping

    for attempt in range(2):
        rentals = _rentals(account, wish)
        if not rentals:
            break
        try:
            names = ", ".join(one.name for one in rentals)
            out.say(f"ending {names}" + ("; Ctrl-C again leaves that to the guardian" if attempt else ""))
            stopping.stop_all(
                account.provider, account.ledger, rentals, why="soong run is over", tell=out.say
            )
        except SoongError as error:
            return error
        except KeyboardInterrupt:
            if attempt:
                raise
        else:
            now = account.provider.clock.now()
            for one in rentals:
                out.say(f"{one.name} is gone. It cost ${account.ledger.get(one.id).cost_usd(now):.2f}.")
    tidy(account.ledger)
    return None


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """A request to end this process, or a terminal that closes, is a Ctrl-C: what was rented must be ended."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _handled(ENDING_SIGNALS, interrupt):
        yield


@contextmanager
def _handled(signals: Sequence[signal.Signals], handler: Callable[..., object]) -> Iterator[None]:
    before = {}
    with suppress(ValueError):  # not the main thread: a test
        before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
