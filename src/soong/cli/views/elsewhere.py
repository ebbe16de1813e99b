"""The command for a machine that soong does not rent: the plan as a file for a tool that does."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.offers.offer import Offer


def tool_at(cloud: str) -> str:
    """The format of `soong export` whose tool rents at that cloud; `shell`, a script, where none does."""
    from soong.exports.renting import TOOLS, missing

    return next((tool for tool in TOOLS if not missing(tool, cloud)), "shell")


def export_command(model: str, offer: Offer, gpu: Gpu) -> str:
    """`soong export skypilot llama-3.1-8b --cloud runpod --target 40`: for a tool that can rent this very machine.

    The options that were typed are typed again, so that the file is of the machine that the plan shows. A machine that
    no tool rents is named by its GPU, for a script.

    Args:
        model: as a person names it. offer, gpu: the machine.
    """
    from soong.exports.renting import tool_for

    tool = tool_for(offer, gpu)
    again = _typed_again()
    if tool == "shell" and "--gpu" not in again:
        again += ["--gpu", gpu.id, *(["--gpu-count", str(offer.gpu_count)] if offer.gpu_count > 1 else [])]
    return shlex.join(["soong", "export", tool, model, "--cloud", offer.cloud, *again])


def _typed_again() -> list[str]:
    import click

    from soong.cli import plan_options
    from soong.cli.export import command

    context = click.get_current_context(silent=True)
    left_out = {"model", "cloud", "file", "force", *plan_options.SHOWN_ONLY}
    return plan_options.as_typed(context, left_out=left_out, known_to=command) if context else []
