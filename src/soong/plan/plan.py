"""The planner's answer: every candidate with its reasons, and the one to take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, Footprint, Workload
    from soong.memory.rule_of_thumb import RuleOfThumb
    from soong.models.resolve import ResolvedModel
    from soong.offers.offer import Offer
    from soong.plan.request import Request
    from soong.speed.throughput import Throughput

Verdict = Literal["fits", "tight", "too-small", "unsupported"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One machine that was considered.

    verdict: `fits` (need × 1.1 ≤ what the driver reports, and more is free than the figure may be off),
        `tight` (the engine starts, with less to spare), `too-small`, `unsupported`.
    reasons: why not, or what to know. footprint: per GPU; None where only the rule of thumb applies.
    engine_argv: the command that serves it with exactly these figures; empty when it does not start.
    throughput: how fast it answers; None where it does not start or nothing is known of the GPU's speed.
    usd_per_million_output_tokens: at that speed and the offer's price; None where either is not known.
    """

    gpu: Gpu
    gpu_count: int
    tensor_parallel: int
    verdict: Verdict
    reasons: tuple[str, ...]
    footprint: Footprint | None
    offer: Offer | None
    engine_argv: tuple[str, ...]
    throughput: Throughput | None = None
    usd_per_million_output_tokens: float | None = None

    @property
    def starts(self) -> bool:
        """Whether the engine would come up."""
        return self.verdict in {"fits", "tight"}


class LeftOut(msgspec.Struct, frozen=True):
    """A GPU that has no row, and the reason."""

    gpu: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A question and its answer.

    candidates: cheapest first; those without a price last. choice: the index of the recommended one, the cheapest
    that `fits`; None when none does.
    """

    request: Request
    model: ResolvedModel
    workload: Workload
    settings: EngineSettings
    rule_of_thumb: RuleOfThumb
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]
    choice: int | None

    @property
    def chosen(self) -> Candidate | None:
        """The recommended candidate."""
        return None if self.choice is None else self.candidates[self.choice]
