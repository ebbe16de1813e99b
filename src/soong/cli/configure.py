"""`soong configure`: the guided tour. Every answer is also a flag, or a `soong config set`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soong.cli import output, prompts
from soong.cli.exit_codes import ExitCode
from soong.errors import CredentialError, SoongError, UsageError

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.launch.provider import Provider
    from soong.offers.offer import Offer

SUGGESTED = (
    "llama-3.1-8b",
    "qwen2.5-coder-32b-int4",
    "qwen3-coder-30b-a3b",
    "gpt-oss-20b",
    "deepseek-r1-70b",
)
"""Offered with their prices; any other model can be typed."""

SUGGESTED_HERE = ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b")
"""The same for this computer."""


@click.command(
    "configure",
    epilog="\b\nExamples:\n  soong configure\n"
    "  soong configure --key-command 'op read op://Private/Lambda/key' --model llama-3.1-8b\n"
    "  soong configure --key-stdin --ssh-include < key.txt\n",
)
@click.option("--cloud", help="Where to rent: lambda, sandbox, or local.")
@click.option(
    "--key-stdin", is_flag=True, help="Read the API key from stdin and keep it in a file of your own."
)
@click.option("--key-command", help="A command that prints the API key.")
@click.option("--model", help="The model to start when none is named.")
@click.option("--hours", help="How long a lease is when not said.")
@click.option("--cap-hours", help="The longest a lease can ever become.")
@click.option("--ssh-key", help="Your SSH key.")
@click.option(
    "--add-ssh-key", is_flag=True, help="Put your SSH key into the account, where none of yours is there."
)
@click.option("--ssh-include", is_flag=True, help="Let `ssh soong-NAME` work: one line in ~/.ssh/config.")
@click.option("--reaper", help="Where a reaper runs that does not need this computer, in your words.")
@output.options
def command(
    *,
    cloud: str | None,
    key_stdin: bool,
    key_command: str | None,
    model: str | None,
    hours: str | None,
    cap_hours: str | None,
    ssh_key: str | None,
    add_ssh_key: bool,
    ssh_include: bool,
    reaper: str | None,
    out: output.Output,
) -> int:
    """Set up renting: the key, and whether it works; the model, the lease, SSH, and who ends a forgotten machine."""
    from soong.clouds import check_name
    from soong.settings import config

    if cloud is not None:
        check_name(cloud)
    given = {
        "cloud": cloud,
        "lambda.api_key_command": key_command,
        "model": model,
        "lease.hours": hours,
        "lease.cap_hours": cap_hours,
        "ssh.key": ssh_key,
        "lease.reaper": reaper,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if not (changes or key_stdin or add_ssh_key or ssh_include):
        if not out.can_ask:
            raise UsageError(
                "nothing to configure, and nobody to ask",
                hints=("soong configure --key-stdin < key.txt", "soong config set model llama-3.1-8b"),
            )
        return _tour(out)
    _apply(changes, key_stdin=key_stdin, out=out)
    if add_ssh_key:
        _add_ssh_key(_checked_provider(str(config.value("cloud")), out), out)
    if ssh_include:
        _include(out)
    _answer(out)
    return ExitCode.DONE


def _apply(changes: dict[str, str], *, key_stdin: bool, out: output.Output) -> None:
    from soong.settings import config

    if key_stdin:
        _keep_key(sys.stdin.read(), out)
    for key, value in changes.items():
        config.set_value(key, value)
    if "lambda.api_key_command" in changes:
        _checked_provider("lambda", out)


def _keep_key(text: str, out: output.Output) -> Provider:
    """Try a key and keep it. One that is refused is not kept: it would take the place of one that works.

    Raises:
        CredentialError: it was refused. RemoteError: it could not be tried; it is kept.
    """
    from soong.clouds.lambda_cloud.client import LambdaClient
    from soong.clouds.lambda_cloud.provider import LambdaProvider
    from soong.errors import RemoteError
    from soong.settings import config
    from soong.settings.secrets import store_lambda_api_key, typed_lambda_api_key

    url, scheme = config.value("lambda.api_url"), config.value("lambda.auth")
    provider = LambdaProvider(LambdaClient(typed_lambda_api_key(text), url=url, scheme=scheme))
    try:
        _tried(provider, out)
    except RemoteError:
        out.say(f"the key was not tried, and is kept in {store_lambda_api_key(text)}")
        raise
    out.say(f"it is kept in {store_lambda_api_key(text)}, readable by you alone")
    if config.unset_value("lambda.api_key_command"):
        out.say("lambda.api_key_command is unset: its key would win")
    return provider


def _tried(provider: Provider, out: output.Output) -> None:
    count = len(provider.ssh_keys())
    out.say(
        f"the key works: {provider.cloud} answers, {count} SSH key{'' if count == 1 else 's'} in the account"
    )


def _checked_provider(cloud: str, out: output.Output) -> Provider:
    """The cloud's account, once its key has been seen to work."""
    from soong.clouds import open_provider

    provider = open_provider(cloud)
    _tried(provider, out)
    return provider


def _tour(out: output.Output) -> int:
    from soong.settings import config

    places = (
        ("lambda", "Lambda Cloud: real machines, real money"),
        ("sandbox", "the sandbox: a rehearsal, costs nothing"),
        ("local", "this computer's own GPU or processor, costs nothing"),
    )
    cloud = prompts.ask_choice("Where do you want to rent?", places, out=out, option="--cloud")
    config.set_value("cloud", cloud)
    if cloud == "local":
        return _tour_of_this_computer(out)
    provider = _ask_key(out) if cloud == "lambda" else _checked_provider(cloud, out)
    config.set_value("model", _ask_model(provider, out))
    _ask_hours(out)
    _ask_ssh(provider, out)
    _ask_guards(provider, out)
    _answer(out)
    return ExitCode.DONE


def _tour_of_this_computer(out: output.Output) -> int:
    """What there is to ask where nothing is rented: no key, no SSH, and nobody else who could end it."""
    from soong.clouds.local.provider import open_provider
    from soong.settings import config

    provider = open_provider()
    found = ", ".join(f"{one.gpu_count} × {one.gpu}" for one in provider.offers()) or "nothing that serves"
    out.say(f"this computer has: {found}")
    for problem in provider.problems:
        out.say(f"Warning: {problem}")
    has_gpu = any(gpu.vendor != "cpu" for gpu in provider.gpus)
    if not has_gpu:
        out.say("without a GPU llama.cpp serves: it is the engine of every `soong start` from here on")
        config.set_value("engine", "llama.cpp")
    config.set_value("model", _ask_model(provider, out, SUGGESTED_HERE))
    _ask_hours(out)
    _try_guardian(provider, out)
    _answer(out)
    return ExitCode.DONE


def _ask_hours(out: output.Output) -> None:
    """How long leases are, and may become; what is set already is offered first."""
    from soong import units
    from soong.settings import config

    def parsed(text: str) -> float:
        return units.parse_hours(text, what="hours")

    def at_least_a_lease(text: str) -> None:
        if parsed(text) < parsed(hours):
            raise UsageError(f"a lease is {hours} h already: the cap cannot be less")

    question = "Hours of a lease, when you do not say?"
    default = f"{config.value('lease.hours'):g}"
    hours = prompts.ask_text(question, out=out, option="--hours", default=default, check=parsed)
    question = "The most hours a lease may ever become?"
    default = f"{max(parsed(hours), config.value('lease.cap_hours')):g}"
    cap = prompts.ask_text(question, out=out, option="--cap-hours", default=default, check=at_least_a_lease)
    config.set_value("lease.hours", hours)
    config.set_value("lease.cap_hours", cap)


def _ask_key(out: output.Output) -> Provider:
    """A key that works: the one that is there, or one that is typed (never shown) or read by a command.

    Raises:
        CredentialError: the one in the environment is refused; it would win over any that is typed.
    """
    from soong.settings import secrets

    try:
        return _checked_provider("lambda", out)
    except CredentialError as error:
        if secrets.lambda_key_origin() == secrets.LAMBDA_VARIABLE:
            raise CredentialError(str(error), hints=(f"unset {secrets.LAMBDA_VARIABLE}",)) from error
        problem = error
    while True:
        out.say(str(problem))
        try:
            return _new_key(out)
        except CredentialError as error:
            problem = error


def _new_key(out: output.Output) -> Provider:
    """A key by the way that the person picks.

    Raises:
        CredentialError: it does not work; nothing is kept.
    """
    from soong.settings import config

    ways = (
        ("file", "type it; it is kept in a file that only you can read"),
        ("command", "a command that prints it (1Password, pass, …)"),
    )
    way = prompts.ask_choice("How does soong get the API key?", ways, out=out, option="--key-stdin")
    if way == "file":
        return _keep_key(prompts.ask_secret("API key", out=out, option="--key-stdin"), out)
    before = config.value("lambda.api_key_command")
    line = prompts.ask_text("Command", out=out, option="--key-command")
    config.set_value("lambda.api_key_command", line)
    try:
        return _checked_provider("lambda", out)
    except CredentialError:
        if before:
            config.set_value("lambda.api_key_command", before)
        else:
            config.unset_value("lambda.api_key_command")
        raise


def _ask_model(provider: Provider, out: output.Output, suggested: tuple[str, ...] = SUGGESTED) -> str:
    offers, gpus = _live_offers(provider), getattr(provider, "gpus", ())
    choices = [(model, f"{model:<26} {_price(model, offers, gpus)}") for model in suggested]
    chosen = prompts.ask_choice(
        "Which model do you start most?", [*choices, ("", "another one")], out=out, option="--model"
    )
    return chosen or prompts.ask_text("Model", out=out, option="--model", check=_known)


def _live_offers(provider: Provider) -> tuple[Offer, ...] | None:
    """The cloud's prices of this minute, one for each type; None where it does not tell them."""
    from soong.launch.choosing import types_of

    try:
        return types_of(provider.offers())
    except SoongError:
        return None


def _price(model: str, offers: tuple[Offer, ...] | None, gpus: tuple[Gpu, ...]) -> str:
    from soong.plan.planner import make_plan
    from soong.plan.request import read_request

    wish = {"model": model}
    if gpus and all(gpu.vendor == "cpu" for gpu in gpus):
        wish["engine"] = "llama.cpp"
    pick = make_plan(read_request(wish), offers=offers, gpus=gpus, allow_network=False).chosen
    if pick is None or pick.offer is None:
        return "too large for this computer" if gpus else "no single machine holds it"
    if not pick.offer.usd_per_hour:
        return f"fits, {pick.offer.instance_type}"
    when = "now" if offers else f"on {pick.offer.as_of}"
    return f"${pick.offer.usd_per_hour:.2f}/h {when}, {pick.offer.instance_type}"


def _known(model: str) -> object:
    from soong.models.resolve import resolve

    try:
        return resolve(model)
    except SoongError as error:
        raise UsageError(str(error)) from error


def _ask_ssh(provider: Provider, out: output.Output) -> None:
    from soong.connect import keys, ssh
    from soong.settings import config

    local = keys.local_keys(config.value("ssh.key") or "")
    found = keys.matching(local, provider.ssh_keys())
    if found is not None:
        out.say(f"SSH: {found[0].private_file} is in the account as `{found[1].name}`")
    else:
        what = local[0].private_file + ".pub" if local else "a new key, made for soong alone"
        if prompts.confirm(f"Put {what} into the account?", out=out, option="--add-ssh-key"):
            _add_ssh_key(provider, out)
    if not ssh.is_included(_ssh_config()) and prompts.confirm(
        "Let `ssh soong-NAME` work, by one line at the top of ~/.ssh/config?", out=out, option="--ssh-include"
    ):
        _include(out)


def _add_ssh_key(provider: Provider, out: output.Output) -> None:
    """The person's key in the account: there already, or added under a name that no other key has."""
    from soong.connect import keys
    from soong.lease.owner import owner
    from soong.settings import config

    with keys.one_at_a_time():
        local, listed = keys.local_keys(config.value("ssh.key") or ""), provider.ssh_keys()
        found = keys.matching(local, listed)
        if found is None:
            mine = local[0] if local else keys.make_own_key()
            name = keys.free_name(owner(), listed, wanted=config.value("ssh.key_name") or "")
            found = mine, provider.add_ssh_key(name, mine.public_line)
    out.say(f"SSH: {found[0].private_file} is in the account as `{found[1].name}`")


def _ssh_config() -> Path:
    return Path.home() / ".ssh" / "config"


def _include(out: output.Output) -> None:
    from soong.connect import ssh

    ssh.add_include(_ssh_config())
    out.say(f"`ssh soong-NAME` works now: {_ssh_config()} includes soong's hosts")


def _ask_guards(provider: Provider, out: output.Output) -> None:
    """Arm the guardian once, to see what this computer can do, and name what it cannot."""
    _try_guardian(provider, out)
    out.say(
        "while this computer is off or asleep it can end nothing: leases over 4 h need a reaper elsewhere"
    )
    places = (
        ("", "not now"),
        ("systemd", "a machine of mine that stays on, with systemd"),
        ("cron", "a machine of mine that stays on, with cron"),
        ("github-actions", "a scheduled job of a private repository"),
        ("kubernetes", "a cluster"),
    )
    place = prompts.ask_choice(
        "Where could a reaper run that does not need this computer?", places, out=out, option="--reaper"
    )
    if place:
        _note_reaper(place, out)


def _try_guardian(provider: Provider, out: output.Output) -> None:
    from soong.cli.account import mechanisms
    from soong.lease.guardian import arm, disarm
    from soong.lease.ledger import open_ledger

    try:
        guard = arm(provider.cloud, mechanisms(provider), tell=out.say)
    except SoongError as error:
        out.say(f"Warning: no guardian could be armed here, so `soong start` will launch nothing: {error}")
        return
    with open_ledger() as ledger:
        if not ledger.open_rentals(cloud=provider.cloud):
            disarm(provider.cloud, mechanisms(provider))
    out.say(f"leases will be ended by {guard.words}; it was tried just now, and works")


def _note_reaper(place: str, out: output.Output) -> None:
    """Count on a reaper elsewhere once it runs, and not before: long leases are let through on its word."""
    from soong.settings import config

    if prompts.confirm("Does `soong reap` run there already?", out=out, option="--reaper"):
        config.set_value("lease.reaper", place)
        return
    out.say(
        f"`soong reap --install {place}` writes what it needs; then `soong config set lease.reaper {place}`. "
        "Until then a lease over 4 h asks for your consent"
    )


def _answer(out: output.Output) -> None:
    from soong.settings import config

    found = [one for one in config.all_values() if one.origin != "default"]
    out.answer(
        data=lambda: {one.setting.key: one.value for one in found},
        ids=[one.setting.key for one in found],
        human=lambda: "\n".join(["settings:", *(_line(one) for one in found), "next: soong start --dry-run"]),
    )


def _line(found: Any) -> str:
    return f"  {found.setting.key:<24} {found.value}"
