"""`soong config`: the settings, each with the place it comes from."""

from __future__ import annotations

import os
from typing import Any

import click

from soong.cli import output, text
from soong.errors import UsageError
from soong.settings import config, paths


@click.group(
    "config",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  soong config\n  soong config set lease.hours 2h\n",
)
@output.options
@click.pass_context
def command(ctx: click.Context, out: output.Output) -> None:
    """All settings, and where each value comes from: a variable, the file, or the default."""
    if ctx.invoked_subcommand is None:
        found = config.all_values()
        out.answer(
            data=lambda: [_document(one) for one in found],
            ids=config.SETTINGS,
            human=lambda: _table(found),
        )


@command.command(
    "get", epilog="\b\nExamples:\n  soong config get lease.hours\n  soong config get model --json\n"
)
@click.argument("key")
@output.options
def get(key: str, out: output.Output) -> None:
    """The value of one setting; nothing on stdout where it has none."""
    found = config.look_up(_known(key))
    if found.value is None:
        out.say(f"`{key}` is not set")
    lines = [] if found.value is None else [_shown(found.value)]
    out.answer(data=lambda: _document(found), ids=lines, human=lambda: "\n".join(lines))


@command.command(
    "set",
    epilog="\b\nExamples:\n  soong config set cloud sandbox\n  soong config set budget.monthly_usd 100\n",
)
@click.argument("key")
@click.argument("value")
@output.options
def set_(key: str, value: str, out: output.Output) -> None:
    """Write one setting into the file; its comments stay."""
    _check_known(_known(key), value)
    found = config.set_value(key, value)
    out.answer(
        data=lambda: _document(found),
        ids=(),
        human=lambda: f"{key} = {_shown(found.value)}  ({found.where})",
    )
    if os.environ.get(found.setting.variable, "").strip():
        out.hint(f"{found.setting.variable} is set in this shell, and wins over the file")


@command.command(
    "unset", epilog="\b\nExamples:\n  soong config unset region\n  soong config unset lambda.filesystem\n"
)
@click.argument("key")
@output.options
def unset(key: str, out: output.Output) -> None:
    """Take one setting out of the file, so that its default holds again."""
    was_there = config.unset_value(key)
    words = f"{key} is no longer in the file" if was_there else f"{key} was not in the file"
    out.answer(data=lambda: {"key": key, "was_set": was_there}, ids=(), human=lambda: words)


@command.command("edit", epilog="\b\nExamples:\n  soong config edit\n  EDITOR=nano soong config edit\n")
@output.options
def edit(out: output.Output) -> None:
    """Open the file in your editor, and check it afterwards."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if out.no_input or not (editor or out.can_ask):
        raise UsageError(
            "there is no terminal to edit at",
            hints=("soong config set KEY VALUE", f"or edit {config.config_path()}"),
        )
    path = config.config_path()
    if not path.exists():
        from soong.settings.files import replace_text

        paths.made(path.parent)
        replace_text(path, _template())
    click.edit(filename=str(path))
    config.all_values()
    out.answer(data=lambda: {"path": path}, ids=(), human=lambda: f"{path} is sound")


@command.command("path", epilog="\b\nExamples:\n  soong config path\n  cat $(soong config path)\n")
@output.options
def path_command(out: output.Output) -> None:
    """The file that holds the settings; it need not exist."""
    path = config.config_path()
    out.answer(data=lambda: {"path": path, "exists": path.exists()}, ids=[str(path)], human=lambda: str(path))


def _check_known(key: str, value: str) -> None:
    """Refuse a cloud that nobody knows now, and not in each command that reads the setting.

    Raises:
        NotFoundError: there is none.
    """
    if key == "cloud":
        from soong.clouds import check_name

        check_name(value.strip().lower())
    if key == "prices.clouds":
        from soong.offers.sources import check_clouds, cloud_words

        check_clouds(cloud_words(value))


def _known(key: str) -> str:
    return config.find_setting(key).key


def _document(found: config.Found) -> dict[str, Any]:
    return {
        "key": found.setting.key,
        "value": found.value,
        "origin": found.origin,
        "where": found.where or None,
        "variable": found.setting.variable,
        "help": found.setting.help,
    }


def _table(found: tuple[config.Found, ...]) -> str:
    return text.table(
        ["Setting", "Value", "From", "What it does"],
        [
            [
                one.setting.key,
                "" if one.value is None else _shown(one.value),
                text.style("default", "dim") if one.origin == "default" else one.where,
                one.setting.help,
            ]
            for one in found
        ],
        title="Settings",
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _template() -> str:
    """Every setting as a comment, for somebody who opens the file for the first time."""
    lines = [
        "# soong's settings. Take the # away from a line to set it; `soong config` shows what holds.",
        "",
    ]
    table = ""
    for setting in config.SETTINGS.values():
        parent, _, name = setting.key.rpartition(".")
        if parent != table:
            lines += ["", f"[{parent}]"]
            table = parent
        default = setting.default
        value = f'"{default or ""}"' if isinstance(default, str | None) else _shown(default)
        lines += [f"# {setting.help}", f"# {name} = {value}"]
    return "\n".join(lines) + "\n"
