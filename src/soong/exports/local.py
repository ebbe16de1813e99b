"""Weights that lie on this computer, which most tools cannot reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import UsageError

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment


def refuse(deployment: Deployment, tool: str) -> None:
    """Nothing, for a model of the Hub.

    Raises:
        UsageError: the weights lie in a file or folder here.
    """
    if deployment.local:
        raise UsageError(
            f"{tool} cannot reach the weights of {deployment.model} on this computer",
            why="its machines download from the Hugging Face Hub",
            hints=(
                "name a repository: ORG/NAME",
                "the same with `compose` or `shell` in place of the format",
            ),
        )
