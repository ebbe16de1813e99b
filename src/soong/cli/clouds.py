"""`soong clouds`: where machines can be rented, and whether the way there is open."""

from __future__ import annotations

from typing import Any

import click

from soong import units
from soong.cli import output, text
from soong.clouds import CLOUDS, open_provider
from soong.settings import config, secrets


@click.group(
    "clouds",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  soong clouds\n  soong clouds check lambda --json\n",
)
@output.options
@click.pass_context
def command(ctx: click.Context, out: output.Output) -> None:
    """Where machines can be rented; asks nobody."""
    if ctx.invoked_subcommand is None:
        chosen = config.value("cloud")
        rows = [_row(name, about, chosen) for name, (_, about) in CLOUDS.items()]
        out.answer(data=lambda: rows, ids=CLOUDS, human=lambda: _table(rows))


@command.command("check", epilog="\b\nExamples:\n  soong clouds check\n  soong clouds check sandbox --json\n")
@click.argument("name", required=False)
@output.options
def check(name: str | None, out: output.Output) -> None:
    """Ask the cloud NAME (the default one when not given) with your key: what runs, what it has for rent."""
    provider = open_provider(config.value("cloud", flag=name))
    billing = [instance for instance in provider.instances() if instance.is_billing]
    offers = provider.offers()
    rate = sum(instance.usd_per_hour or 0.0 for instance in billing)
    facts = {
        "cloud": provider.cloud,
        "account": provider.account,
        "costs_money": provider.costs_money,
        "console_url": provider.console_url,
        "instances_billing": len(billing),
        "usd_per_hour": rate,
        "instance_types": len({offer.instance_type for offer in offers}),
        "instance_types_free": len({offer.instance_type for offer in offers if offer.available}),
    }
    out.answer(data=lambda: facts, ids=[provider.cloud], human=lambda: _words(facts))


def _row(name: str, about: str, chosen: str) -> dict[str, Any]:
    origin = secrets.lambda_key_origin() if name == "lambda" else None
    return {
        "cloud": name,
        "about": about,
        "is_default": name == chosen,
        "needs_key": name == "lambda",
        "key_origin": origin,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            row["cloud"] + (" (default)" if row["is_default"] else ""),
            row["about"],
            (row["key_origin"] or text.style("none: soong configure", "yellow"))
            if row["needs_key"]
            else "not needed",
        ]
        for row in rows
    ]
    return text.table(["Cloud", "What it is", "Key from"], cells, title="Clouds")


def _words(facts: dict[str, Any]) -> str:
    rate = units.format_usd(facts["usd_per_hour"])
    return "\n".join(
        [
            f"{facts['cloud']} answers, and takes the key (account {facts['account']}).",
            f"Machines billing now:   {facts['instances_billing']}, {rate}/hour in all",
            f"Types for rent:         {facts['instance_types']}, of which {facts['instance_types_free']} free now",
            f"To end one by hand:     {facts['console_url']}",
        ]
    )
