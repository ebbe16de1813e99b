"""Does it fit? The one rule, for exact plans and for the rule of thumb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong import units
from soong.memory.rule_of_thumb import HEADROOM_FACTOR

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import Footprint, Workload
    from soong.memory.rule_of_thumb import RuleOfThumb
    from soong.plan.plan import Verdict


def judge(footprint: Footprint, workload: Workload | None = None) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on one GPU's footprint, and why it is not `fits`.

    `fits`: the engine starts, its pool holds the whole workload, need × 1.1 ≤ the GPU's memory (the specification's
    headroom), and what is left over, in the pool and on the GPU, is more than the figures may be off.
    `tight`: the engine starts with less, or would refuse by no more than the figures may be off, or refuses its first
    start alone. `too-small`: it does not start, or it starts and refuses every request of the asked context (SGLang).
    """
    if footprint.refusal and footprint.starts_later:
        return "tight", (f"{FIRST_START}: {footprint.refusal}",)
    if footprint.refusal and footprint.may_start:
        return "tight", (f"within the error of these figures: {footprint.refusal}",)
    if footprint.refusal:
        return "too-small", (_why_too_small(footprint),)
    lacking = _lacking(footprint, workload)
    return ("tight", (lacking,)) if lacking else ("fits", ())


FIRST_START = "a second start has more, as kernels are at hand then; this one may fail"


def _why_too_small(footprint: Footprint) -> str:
    """The plain fact where the need is more than the GPU; else the engine's own reason."""
    if footprint.need_bytes > footprint.total_bytes:
        need, total = units.format_gib(footprint.need_bytes), units.format_gib(footprint.total_bytes)
        return f"needs {need}, the GPU has {total}"
    return footprint.refusal


def _lacking(footprint: Footprint, workload: Workload | None) -> str:
    """What keeps an engine that starts from fitting; empty when nothing does."""
    running = footprint.most_running
    if workload is not None and running is not None and running < workload.sequences:
        return f"runs {running:,} of {workload.sequences:,} sequences at once; the others wait"
    sure = footprint.startable_sequences
    if sure is not None and running is not None and sure < running:
        return f"only {sure:,} of {running:,} sequences at once surely have a block of recurrent state"
    if not _holds(footprint):
        return _too_many(footprint, workload)
    if footprint.need_bytes * HEADROOM_FACTOR > footprint.total_bytes:
        need, total = units.format_gib(footprint.need_bytes), units.format_gib(footprint.total_bytes)
        return f"needs {need} of {total}: under 10% headroom"
    if not _holds(footprint, error_bytes=footprint.pool_uncertainty_bytes):
        return (
            f"the pool's spare room is within its error, {units.format_gib(footprint.pool_uncertainty_bytes)}"
        )
    if footprint.free_bytes < footprint.uncertainty_bytes:
        return f"what stays free is within its error, {units.format_gib(footprint.uncertainty_bytes)}"
    return ""


def _holds(footprint: Footprint, *, error_bytes: int = 0) -> bool:
    """Whether each pool holds its part of the workload, were they smaller by such an error, which they share."""
    tokens, states = footprint.kv_pool_bytes, footprint.state_bytes
    in_states = footprint.workload_state_bytes
    if not in_states:
        return tokens + states - footprint.workload_kv_bytes >= error_bytes
    part = error_bytes * states // max(1, tokens + states)
    in_tokens = footprint.workload_kv_bytes - in_states
    return states - in_states >= part and tokens - in_tokens >= error_bytes - part


def _too_many(footprint: Footprint, workload: Workload | None) -> str:
    sequences = workload.sequences if workload else 1
    if workload is not None and workload.tokens_each < workload.context_tokens:
        return f"does not hold {sequences} sequences of {workload.tokens_each:,} tokens at once; some wait"
    return f"holds {footprint.max_sequences or 0} of {sequences} full sequences at once; the others wait"


def judge_by_rule_of_thumb(
    estimate: RuleOfThumb, gpu: Gpu, gpu_count: int
) -> tuple[Verdict, tuple[str, ...]]:
    """The specification's rule on labels: estimated × 1.1 ≤ the gigabytes in the GPUs' name."""
    label_gb = gpu.label_gb * gpu_count
    if estimate.with_headroom_gb <= label_gb:
        return "fits", ("rule of thumb: the architecture is not known",)
    needed = f"rule of thumb: {estimate.total_gb:.1f} GB × 1.1 = {estimate.with_headroom_gb:.1f} GB"
    if estimate.total_gb <= label_gb:
        return "tight", (f"{needed} of {label_gb} GB",)
    return "too-small", (f"{needed}, more than {label_gb} GB",)
