"""Does it fit? The one rule, for exact plans and for the rule of thumb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong import units
from soong.memory.rule_of_thumb import HEADROOM_FACTOR

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import Footprint
    from soong.memory.rule_of_thumb import RuleOfThumb
    from soong.plan.plan import Verdict


def judge(footprint: Footprint) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on one GPU's footprint, and why it is not `fits`.

    `fits`: the engine starts, need × 1.1 ≤ the GPU's memory (the specification's headroom), and what stays beyond
    the need is more than the figure may be off. `tight`: the engine starts with less. `too-small`: it does not.
    """
    if not footprint.starts:
        return "too-small", (footprint.refusal,)
    spare_bytes = footprint.total_bytes - footprint.need_bytes
    if footprint.need_bytes * HEADROOM_FACTOR > footprint.total_bytes:
        need = units.format_gib(footprint.need_bytes)
        return "tight", (f"needs {need} of {units.format_gib(footprint.total_bytes)}: under 10% headroom",)
    if spare_bytes <= footprint.uncertainty_bytes:
        return "tight", (f"the figure may be off by {units.format_gib(footprint.uncertainty_bytes)}",)
    return "fits", ()


def judge_by_rule_of_thumb(estimate: RuleOfThumb, gpu: Gpu, gpu_count: int) -> tuple[Verdict, tuple[str, ...]]:
    """The specification's rule on labels: estimated × 1.1 ≤ the gigabytes in the GPUs' name."""
    label_gb = gpu.label_gb * gpu_count
    if estimate.with_headroom_gb <= label_gb:
        return "fits", ("rule of thumb: the architecture is not known",)
    needed = f"rule of thumb: {estimate.total_gb:.1f} GB × 1.1 = {estimate.with_headroom_gb:.1f} GB"
    if estimate.total_gb <= label_gb:
        return "tight", (f"{needed} of {label_gb} GB",)
    return "too-small", (f"{needed}, more than {label_gb} GB",)
