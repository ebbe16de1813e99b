"""`soong doctor`: is everything in place, and what to do where it is not."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from soong.cli import output, text
from soong.cli.exit_codes import ExitCode
from soong.errors import CredentialError, SoongError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.launch.provider import Provider, SshKey

State = Literal["ok", "warning", "failed", "skipped"]
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("-", "dim")}


class Check(NamedTuple):
    """One thing looked at. remedy: a command to paste; empty where all is well."""

    name: str
    state: State
    found: str
    remedy: str = ""


@click.command("doctor", epilog="\b\nExamples:\n  soong doctor\n  soong doctor --cloud sandbox --json\n")
@click.option("--cloud", help="lambda, sandbox, or local.")
@click.option("--fix", is_flag=True, help="Arm the guardian again where leases run without one.")
@output.options
def command(*, cloud: str | None, fix: bool, out: output.Output) -> int:
    """Look at keys, SSH, settings, clock, guardian and leases left behind; each failure with its remedy."""
    from soong.settings import config

    name = str(config.value("cloud", flag=cloud))
    checks = [*_here(), *_account(name, fix=fix, out=out)]
    out.answer(
        data=lambda: [check._asdict() for check in checks],
        ids=[check.name for check in checks if check.state == "failed"],
        human=lambda: "\n".join(_line(check) for check in checks),
    )
    return ExitCode.FAILED if any(check.state == "failed" for check in checks) else ExitCode.DONE


def _line(check: Check) -> str:
    mark, colour = MARKS[check.state]
    line = f"{text.style(mark, colour)} {check.name:<18} {check.found}"
    return f"{line}\n  {'':<18} → {check.remedy}" if check.remedy else line


def _here() -> Iterator[Check]:
    """What can be told without the network."""
    yield _settings()
    yield _ledger()
    missing = [tool for tool in ("ssh", "ssh-keygen") if shutil.which(tool) is None]
    if missing:
        yield Check("ssh", "failed", f"{', '.join(missing)} missing", "install OpenSSH's client")
    else:
        yield Check("ssh", "ok", "OpenSSH's client is here")
    yield _include()


def _settings() -> Check:
    from soong.settings import config

    try:
        found = [one for one in config.all_values() if one.origin != "default"]
    except SoongError as error:
        return Check("settings", "failed", str(error), "soong config edit")
    return Check("settings", "ok", f"{len(found)} set, {config.config_path()}")


def _ledger() -> Check:
    from soong.lease.ledger import open_ledger

    try:
        with open_ledger() as ledger:
            count = len(ledger.rentals())
            return Check("ledger", "ok", f"{count} rental{'' if count == 1 else 's'} known, {ledger.file}")
    except SoongError as error:
        return Check("ledger", "failed", str(error), "df -h ~")


def _include() -> Check:
    from soong.connect import ssh

    if ssh.is_included(Path.home() / ".ssh" / "config"):
        return Check("ssh soong-NAME", "ok", "~/.ssh/config includes soong's hosts")
    return Check(
        "ssh soong-NAME",
        "warning",
        "not set up; `soong ssh` works all the same",
        "soong configure --ssh-include",
    )


def _account(cloud: str, *, fix: bool, out: output.Output) -> Iterator[Check]:
    """What the cloud says: key, clock, SSH key, machines; and who guards them."""
    from soong.clouds import open_provider

    try:
        provider = open_provider(cloud)
        keys = provider.ssh_keys()
    except CredentialError as error:
        yield Check("key", "failed", str(error), _other_auth(cloud) or "soong configure")
        return
    except SoongError as error:
        yield Check("cloud", "failed", str(error), "try again in a minute")
        return
    yield Check("key", "ok", f"{cloud} takes it")
    yield _clock(provider)
    if provider.cloud != "local":
        yield _ssh_key(keys)
    yield from _machines(provider, fix=fix, out=out)


def _other_auth(cloud: str) -> str:
    """The remedy where the key works when it is sent the other way: the docs allow both, one may be refused."""
    from soong.settings import config

    if cloud != "lambda":
        return ""
    from soong.clouds.lambda_cloud.client import LambdaClient
    from soong.settings.secrets import lambda_api_key

    other: Literal["basic", "bearer"] = "basic" if config.value("lambda.auth") == "bearer" else "bearer"
    try:
        LambdaClient(lambda_api_key(), url=config.value("lambda.api_url"), scheme=other).ssh_keys()
    except SoongError:
        return ""
    return f"soong config set lambda.auth {other}   (the key works that way)"


def _clock(provider: Provider) -> Check:
    from soong.launch.preflight import clock_problem

    skew = provider.clock_skew_seconds
    if skew is None or not provider.costs_money:
        return Check("clock", "skipped", "the cloud did not tell its time")
    if problem := clock_problem(skew):
        return Check("clock", "failed", problem, "sudo timedatectl set-ntp true")
    return Check("clock", "ok", f"within {abs(skew):.0f} s of the cloud's")


def _ssh_key(account_keys: tuple[SshKey, ...]) -> Check:
    from soong.connect import keys
    from soong.settings import config

    try:
        found = keys.matching(keys.local_keys(config.value("ssh.key") or ""), account_keys)
    except SoongError as error:
        return Check("ssh key", "failed", str(error), error.hints[0] if error.hints else "")
    if found is None:
        return Check("ssh key", "warning", "none of yours is in the account", "soong configure")
    return Check("ssh key", "ok", f"{found[0].private_file} is `{found[1].name}` in the account")


def _machines(provider: Provider, *, fix: bool, out: output.Output) -> Iterator[Check]:
    from soong.launch.reaping import reap
    from soong.launch.settling import settle
    from soong.lease.ledger import open_ledger
    from soong.lease.owner import owner

    try:
        with open_ledger() as ledger:
            for found in settle(provider, ledger):
                yield Check("ledger", "warning", found.message)
            rows = reap(provider, owner=owner(), ledger=ledger, dry_run=True)
            running = ledger.open_rentals(cloud=provider.cloud, account=provider.account)
    except SoongError as error:
        yield Check("machines", "failed", str(error), "soong status")
        return
    for row in rows:
        price = f"${row.usd_per_hour:.2f}/h" if row.usd_per_hour is not None else "price not told"
        if row.outcome == "would-end":
            yield Check(
                "left behind", "failed", f"{row.instance_id} ({price}) is past its lease", "soong reap"
            )
        elif row.outcome in {"not-ours", "other-owner"}:
            yield Check("others", "warning", f"{row.instance_id} {row.instance_type} ({price}) {row.message}")
    yield _guardian(provider, len(running), fix=fix, out=out)


def _guardian(provider: Provider, running: int, *, fix: bool, out: output.Output) -> Check:
    from soong.lease.guardian import heartbeat

    trouble = heartbeat.trouble(provider.cloud)
    if not running:
        return Check("guardian", "ok", "no lease to guard")
    if trouble and fix:
        return _armed_again(provider, out)
    if trouble:
        found = f"{running} lease{' runs' if running == 1 else 's run'}, and {trouble}"
        return Check("guardian", "failed", found, f"soong doctor --fix --cloud {provider.cloud}")
    beat = heartbeat.last(provider.cloud)
    ago = max(0.0, time.time() - beat.at) if beat else 0.0
    return Check("guardian", "ok", f"its last round was {ago:.0f} s ago")


def _armed_again(provider: Provider, out: output.Output) -> Check:
    from soong.cli.account import mechanisms
    from soong.lease.guardian import arm

    try:
        words = arm(provider.cloud, mechanisms(provider), tell=out.say).words
    except SoongError as error:
        return Check("guardian", "failed", str(error), f"soong reap --cloud {provider.cloud}")
    return Check("guardian", "ok", f"armed again: {words}")
