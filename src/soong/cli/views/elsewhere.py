"""The command for a cloud where soong does not rent: the plan as a file for a tool that does."""

from __future__ import annotations


def tool_for(cloud: str) -> str:
    """The format of `soong export` whose tool rents at that cloud; `shell`, a script, where none does."""
    from soong.exports.names import cloud_names

    names = cloud_names(cloud)
    return "skypilot" if names.skypilot else "dstack" if names.dstack else "shell"


def export_command(model: str, cloud: str) -> str:
    """`soong export skypilot llama-3.1-8b --cloud runpod`.

    Args:
        model: as a person names it. cloud: ours.
    """
    return f"soong export {tool_for(cloud)} {model} --cloud {cloud}"
