"""Which tool can rent which machine: where, with what GPU, and whether what the file asks for exists there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import UsageError
from soong.exports import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.gpus.gpu import Gpu
    from soong.offers.offer import Offer

TOOLS = {"skypilot": "SkyPilot", "dstack": "dstack"}
"""The formats whose tools rent machines, and what the tools are called; the others run where somebody has a machine."""
ALWAYS = {"skypilot": frozenset({"images", "autodown"}), "dstack": frozenset({"images"})}
"""What every file for a tool asks of the cloud."""
LACKED = {
    "images": "runs no container images there",
    "autodown": "cannot end an idle machine there",
    "machines": "has no several machines at once there",
    "ports": "opens no port there, which replicas need",
    "spot": "rents no spot machines there",
}


def missing(tool: str, cloud: str, *, spot: bool = False, machines: int = 1, replicas: int = 1) -> str:
    """Why a tool cannot do what a file asks of it at a cloud; empty where it can, or where no cloud is named.

    Args:
        tool: the format. cloud: ours. spot, machines, replicas: what the file asks for.

    >>> missing("skypilot", "verda")
    'SkyPilot runs no container images there'
    >>> missing("dstack", "verda"), missing("kubernetes", "verda")
    ('', '')
    """
    if tool not in TOOLS or not cloud:
        return ""
    known = names.cloud_names(cloud)
    name, lacks = getattr(known, tool), getattr(known, f"{tool}_lacks")
    if not name:
        return f"{TOOLS[tool]} does not rent there"
    needed = [*ALWAYS[tool], *["spot"] * spot, *["machines"] * (machines > 1)]
    needed += ["ports"] * (tool == "skypilot" and replicas > 1)
    return next(
        (f"{TOOLS[tool]} {words}" for need, words in LACKED.items() if need in needed and need in lacks), ""
    )


def can_rent(
    tool: str, offer: Offer, gpu: Gpu, *, spot: bool = False, machines: int = 1, replicas: int = 1
) -> bool:
    """Whether the tool can rent such a machine for the file. gpu: the offer's. spot: the file asks for spot ones."""
    if tool == "shell":
        return True
    if gpu.vendor not in {"nvidia", "unknown"}:  # the images that soong names are built for CUDA
        return False
    known = names.names_of(gpu)
    if tool == "kubernetes":
        return bool(known.kubernetes)
    if tool in TOOLS and not getattr(known, tool):
        return False
    return not missing(tool, offer.cloud, spot=spot or offer.spot, machines=machines, replicas=replicas)


def tool_for(offer: Offer, gpu: Gpu) -> str:
    """The format whose tool can rent this machine; `shell`, a script for a machine that you rent yourself, else."""
    return next((tool for tool in TOOLS if can_rent(tool, offer, gpu)), "shell")


def names_at(
    tool: str,
    clouds: Sequence[str],
    *,
    model: str,
    spot: bool = False,
    machines: int = 1,
    replicas: int = 1,
) -> list[str]:
    """What a tool calls those of the clouds where it can do what the file asks for; model: for the hint.

    Raises:
        UsageError: clouds are named, and it can at none of them.
    """

    def lacking(one: str, cloud: str) -> str:
        return missing(one, cloud, spot=spot, machines=machines, replicas=replicas)

    able = [cloud for cloud in clouds if not lacking(tool, cloud)]
    if clouds and not able:
        where = clouds[0]
        other = next((one for one in TOOLS if not lacking(one, where)), "shell")
        raise UsageError(
            f"{TOOLS[tool]} cannot run this at {where}",
            why=lacking(tool, where).replace(" there", f" at {where}"),
            hints=(f"soong export {other} {model} --cloud {where}", "the same without `--cloud`"),
        )
    return [str(getattr(names.cloud_names(cloud), tool)) for cloud in able]
