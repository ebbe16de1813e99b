"""Plans as files for the tools that people already trust.

`deployment` turns a plan into one neutral value, `launching` into the script that every format runs; each other module
writes that value down as one tool reads it. `written` is the door.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment

FORMATS = ("skypilot", "dstack", "kubernetes", "compose", "shell")


def written(deployment: Deployment, tool: str) -> str:
    """The file for one tool.

    Args:
        deployment: what runs. tool: one of `FORMATS`.

    Raises:
        UsageError: the tool cannot express it; says which can.
    """
    text: str = import_module(f"soong.exports.{tool}").written(deployment)
    return text
