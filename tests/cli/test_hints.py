"""A hint is there to be pasted: each that begins with `soong` is a command, with options that exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

import soong
from soong.cli.app import root

SOURCES = sorted(Path(soong.__file__).parent.rglob("*.py"))
PLACEHOLDER = "4"
"""Stands for what a hint fills in: a number, a name or a path; any word does for parsing."""


def words_of(node: ast.expr) -> str:
    """The text of a string, with a word where it fills something in; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) or PLACEHOLDER for part in node.values)
    return ""


def strings(node: ast.AST) -> list[str]:
    """Every whole string below a node; the parts of an f-string are none."""
    if isinstance(node, ast.expr) and words_of(node):
        return [words_of(node)]
    return [text for child in ast.iter_child_nodes(node) for text in strings(child)]


def hints() -> list[tuple[str, str]]:
    """(place, command) of every hint, remedy and next step in the sources that names a soong command."""
    found = []
    for file in SOURCES:
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func).rpartition(".")[2]
            texts = [word.value for word in call.keywords if word.arg == "hints"]
            texts += call.args if name in {"hint", "Check"} else []
            for text in texts:
                found += [
                    (f"{file.name}:{call.lineno}", one) for whole in strings(text) for one in commands(whole)
                ]
    return sorted(set(found))


def commands(text: str) -> list[str]:
    """The commands in a hint: all of it, or what stands in backticks."""
    quoted = re.findall(r"`(soong [^`]+)`", text)
    return quoted or ([text] if re.match(r"soong [a-z]", text) else [])


def test_there_are_hints() -> None:
    assert len(hints()) > 40


@pytest.mark.parametrize(("place", "command"), hints())
def test_every_hint_parses(place: str, command: str) -> None:
    words = shlex.split(command.partition(" < ")[0])[1:]
    group: click.Command = root
    context = click.Context(root, info_name="soong")
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        name, found, words = group.resolve_command(context, list(words))
        assert found is not None, f"{place}: {command}"
        context = click.Context(found, info_name=name, parent=context)
        group = found
    try:
        group.make_context(context.info_name, words, parent=context.parent)
    except click.exceptions.Exit:
        pass
    except click.ClickException as error:
        pytest.fail(f"{place}: `{command}`: {error.format_message()}")
