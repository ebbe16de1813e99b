"""`soong completion`: scripts for the shells that people use."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from soong.errors import SoongError

INSTALL = {
    "bash": 'eval "$(soong completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(soong completion zsh)"    # in ~/.zshrc',
    "fish": "soong completion fish | source    # in ~/.config/fish/config.fish",
}


@click.command(
    "completion",
    epilog='\b\nExamples:\n  eval "$(soong completion bash)"\n  soong completion fish | source\n',
)
@click.argument("shell", type=click.Choice(list(INSTALL)))
def command(shell: str) -> None:
    """Print the completion script of SHELL."""
    from soong.cli.app import root

    kind = get_completion_class(shell)
    if kind is None:
        raise SoongError(f"no completion for {shell}")
    sys.stdout.write(kind(root, {}, "soong", "_SOONG_COMPLETE").source() + "\n")
