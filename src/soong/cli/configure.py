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
    from soong.launch.provider import Provider

SUGGESTED = (
    "llama-3.1-8b",
    "qwen2.5-coder-32b-int4",
    "qwen3-coder-30b-a3b",
    "gpt-oss-20b",
    "deepseek-r1-70b",
)
"""Offered with their prices; any other model can be typed."""


@click.command(
    "configure",
    epilog="\b\nExamples:\n  soong configure\n"
    "  soong configure --key-command 'op read op://Private/Lambda/key' --model llama-3.1-8b\n"
    "  soong configure --key-stdin --ssh-include < key.txt\n",
)
@click.option("--cloud", type=click.Choice(["lambda", "sandbox"]), help="Where to rent.")
@click.option(
    "--key-stdin", is_flag=True, help="Read the API key from stdin and keep it in a file of your own."
)
@click.option("--key-command", help="A command that prints the API key.")
@click.option("--model", help="The model to start when none is named.")
@click.option("--hours", help="How long a lease is when not said.")
@click.option("--cap-hours", help="The longest a lease can ever become.")
@click.option("--ssh-key", help="Your SSH key.")
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
    ssh_include: bool,
    reaper: str | None,
    out: output.Output,
) -> int:
    """Set up renting: the key, and whether it works; the model, the lease, SSH, and who ends a forgotten machine."""
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
    if not (changes or key_stdin or ssh_include):
        if not out.can_ask:
            raise UsageError(
                "nothing to configure, and nobody to ask",
                hints=("soong configure --key-stdin < key.txt", "soong config set model llama-3.1-8b"),
            )
        return _tour(out)
    _apply(changes, key_stdin=key_stdin, ssh_include=ssh_include, out=out)
    _answer(out)
    return ExitCode.DONE


def _apply(changes: dict[str, str], *, key_stdin: bool, ssh_include: bool, out: output.Output) -> None:
    from soong.settings import config

    if key_stdin:
        _keep_key(sys.stdin.read(), out)
    for key, value in changes.items():
        config.set_value(key, value)
    if key_stdin or "lambda.api_key_command" in changes:
        _checked_provider("lambda", out)
    if ssh_include:
        _include(out)


def _keep_key(text: str, out: output.Output) -> None:
    from soong.settings.secrets import store_lambda_api_key

    out.say(f"the key is kept in {store_lambda_api_key(text.strip())}, readable by you alone")


def _checked_provider(cloud: str, out: output.Output) -> Provider:
    """The cloud's account, once its key has been seen to work."""
    from soong.clouds import open_provider

    provider = open_provider(cloud)
    keys = provider.ssh_keys()
    out.say(
        f"the key works: {cloud} answers, {len(keys)} SSH key{'' if len(keys) == 1 else 's'} in the account"
    )
    return provider


def _tour(out: output.Output) -> int:
    from soong.settings import config

    places = (
        ("lambda", "Lambda Cloud: real machines, real money"),
        ("sandbox", "the sandbox: a rehearsal, costs nothing"),
    )
    cloud = prompts.ask_choice("Where do you want to rent?", places, out=out, option="--cloud")
    config.set_value("cloud", cloud)
    provider = _ask_key(out) if cloud == "lambda" else _checked_provider(cloud, out)
    config.set_value("model", _ask_model(out))
    hours = prompts.ask_text("Hours of a lease, when you do not say?", out=out, option="--hours", default="4")
    config.set_value("lease.hours", hours)
    cap = prompts.ask_text(
        "The most hours a lease may ever become?", out=out, option="--cap-hours", default="8"
    )
    config.set_value("lease.cap_hours", cap)
    _ask_ssh(provider, out)
    _ask_guards(provider, out)
    _answer(out)
    return ExitCode.DONE


def _ask_key(out: output.Output) -> Provider:
    """A key that works: the one that is there, or one that is typed (never shown) or read by a command."""
    from soong.settings import config

    while True:
        try:
            return _checked_provider("lambda", out)
        except CredentialError as error:
            out.say(str(error))
        ways = (
            ("file", "type it; it is kept in a file that only you can read"),
            ("command", "a command that prints it (1Password, pass, …)"),
        )
        if (
            prompts.ask_choice("How does soong get the API key?", ways, out=out, option="--key-stdin")
            == "file"
        ):
            _keep_key(prompts.ask_secret("API key", out=out, option="--key-stdin"), out)
        else:
            line = prompts.ask_text("Command", out=out, option="--key-command")
            config.set_value("lambda.api_key_command", line)


def _ask_model(out: output.Output) -> str:
    choices = [(model, f"{model:<26} {_price(model)}") for model in SUGGESTED]
    chosen = prompts.ask_choice(
        "Which model do you start most?", [*choices, ("", "another one")], out=out, option="--model"
    )
    return chosen or prompts.ask_text("Model", out=out, option="--model", check=_known)


def _price(model: str) -> str:
    from soong.plan.api import plan_model

    pick = plan_model(model, allow_network=False).chosen
    if pick is None or pick.offer is None:
        return "no single machine holds it"
    return f"${pick.offer.usd_per_hour:.2f}/h on {pick.offer.instance_type} (price of {pick.offer.as_of})"


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
        if prompts.confirm(f"Put {what} into the account?", out=out, option="--ssh-key"):
            mine = local[0] if local else keys.make_own_key()
            added = provider.add_ssh_key("soong", mine.public_line)
            out.say(f"added as `{added.name}`")
    if not ssh.is_included(_ssh_config()) and prompts.confirm(
        "Let `ssh soong-NAME` work, by one line at the top of ~/.ssh/config?", out=out, option="--ssh-include"
    ):
        _include(out)


def _ssh_config() -> Path:
    return Path.home() / ".ssh" / "config"


def _include(out: output.Output) -> None:
    from soong.connect import ssh

    ssh.add_include(_ssh_config())
    out.say(f"`ssh soong-NAME` works now: {_ssh_config()} includes soong's hosts")


def _ask_guards(provider: Provider, out: output.Output) -> None:
    """Arm the guardian once, to see what this computer can do, and name what it cannot."""
    from soong.cli.account import mechanisms
    from soong.lease.guardian import arm, disarm
    from soong.settings import config

    guard = arm(provider.cloud, mechanisms(provider), tell=out.say)
    disarm(provider.cloud, mechanisms(provider))
    out.say(f"leases will be ended by {guard.words}; it was tried just now, and works")
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
        config.set_value("lease.reaper", place)
        out.say(f"`soong reap --install {place}` writes what it needs")


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
