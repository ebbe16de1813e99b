"""`soong help TOPIC`: what belongs to no single command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soong.cli import output
from soong.cli.exit_codes import MEANINGS
from soong.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

ENVIRONMENT = """\
SOONG_HOME             one folder for everything soong keeps, in place of the system's own
SOONG_LAMBDA_API_KEY   the key of Lambda's API; else the command in lambda.api_key_command, else the file lambda.key
SOONG_VERBOSE=1        show on stderr what is asked of whom, as --verbose does; never a secret
SOONG_DEBUG=1          show the traceback behind an error
HF_ENDPOINT            the Hugging Face Hub to ask, in place of https://huggingface.co
HF_TOKEN               your token, for gated models; also read from Hugging Face's own file
HF_HUB_OFFLINE=1       do not ask the Hub
HF_HOME, HF_HUB_CACHE  where Hugging Face's cache is looked for
NO_COLOR, FORCE_COLOR  no colour, or colour even when piped
VISUAL, EDITOR         what `soong config edit` opens

A default for any option is SOONG_<COMMAND>_<OPTION>: SOONG_PLAN_ENGINE=vllm, SOONG_STATUS_WATCH=1.
Every setting of `soong config` has one too, which wins over the file:

"""


def _environment() -> str:
    """The variables, with one for each setting as `soong config` knows them."""
    from soong.settings import config

    lines = [f"{one.variable:<29}  {one.help}" for one in config.SETTINGS.values()]
    return ENVIRONMENT + "\n".join(lines)


JSON = """\
Every command takes --json: one JSON value on stdout, talk on stderr. An error is one object on
stderr with code, message, hints and docs, and stdout stays empty.
`soong plan MODEL --json` prints one soong.plan/1 object; names carry their units, and a figure
that is not known is null. `soong plan --batch FILE` answers one request a line."""

PRICING = """\
Prices are data with a date: the packaged list says when each was read. Your own rows in
prices.toml, in soong's configuration folder, lie over them. The cheapest offer whose verdict is
`fits` is recommended; memory size alone never decides."""

TOPICS: dict[str, Callable[[], str]] = {
    "environment": _environment,
    "exit-codes": lambda: "\n".join(f"{code.value:>3}  {meaning}" for code, meaning in MEANINGS.items()),
    "json": lambda: JSON,
    "pricing": lambda: PRICING,
}


@click.command("help", epilog="\b\nExamples:\n  soong help exit-codes\n  soong help environment\n")
@click.argument("topic", required=False)
@output.options
def command(topic: str | None, out: output.Output) -> None:
    """Help on TOPIC: environment, exit-codes, json, pricing."""
    if topic is None:
        out.answer(data=lambda: list(TOPICS), ids=TOPICS, human=lambda: "Topics: " + ", ".join(TOPICS))
        return
    text = TOPICS.get(topic)
    if text is None:
        from difflib import get_close_matches

        near = get_close_matches(topic, list(TOPICS), n=1)
        hint = f"soong help {near[0]}" if near else "topics: " + ", ".join(TOPICS)
        raise NotFoundError(f"no help on `{topic}`", hints=(hint,))
    out.answer(data=lambda: {"topic": topic, "text": text()}, ids=(), human=text)
