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
    from soong.speed.throughput import Load, Throughput

SECONDS_PER_HOUR = 3600

Verdict = Literal["fits", "tight", "too-small", "unsupported"]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One machine that was considered.

    verdict: `fits` (need × 1.1 ≤ what the driver reports, and more is free than the figure may be off),
        `tight` (the engine starts, with less to spare), `too-small`, `unsupported`.
    reasons: why not, or what to know. footprint: per GPU; None where only the rule of thumb applies.
    engine_argv: the command that serves it with exactly these figures; empty when it does not start.
    throughput: how fast it answers; None where it does not start or nothing is known of the GPU's speed.
    usd_per_million_output_tokens: at that speed and the offer's price; None where either is not known.
    meets_target: whether each user sees the tokens a second that were asked for; None where none were.
    expert_parallel: routed experts stay whole, some on each GPU.
    reading: how fast prompts are read by a model that answers with vectors or scores; its figures for answers mean
        nothing, and `throughput` is None. None for all that write text.
    max_num_seqs: how many sequences at once the engine is told to run; None where it takes its own number.
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
    meets_target: bool | None = None
    expert_parallel: bool = False
    reading: Throughput | None = None
    max_num_seqs: int | None = None

    @property
    def name(self) -> str:
        """The one word that names it: what a person would rent."""
        return self.offer.instance_type if self.offer else f"{self.gpu_count}x {self.gpu.id}"

    @property
    def starts(self) -> bool:
        """Whether the engine would come up."""
        return self.verdict in {"fits", "tight"}

    @property
    def will_do(self) -> bool:
        """Whether it may be recommended: it fits, and reaches the target where there is one."""
        return self.verdict == "fits" and self.meets_target is not False

    @property
    def launchable(self) -> bool:
        """Whether soong itself can rent it; a machine without an offer is nobody's to refuse."""
        return self.offer is None or self.offer.launchable

    def job_hours(self, job_tokens: int) -> float | None:
        """How long it takes for that many output tokens; None where the speed is not known."""
        speed = self.throughput
        return job_tokens / (speed.decode_tokens_per_second * SECONDS_PER_HOUR) if speed else None

    def hours_of_job(self, request: Request) -> float | None:
        """How long it takes for the job that is asked for; None where there is none, or the speed is not known."""
        job_tokens = request.job_of(self.throughput.load) if self.throughput else None
        return None if job_tokens is None else self.job_hours(job_tokens)


class LeftOut(msgspec.Struct, frozen=True):
    """A GPU that has no row, and the reason."""

    gpu: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A question and its answer.

    candidates: best first by the request's rank, which is the price where nothing else is asked for.
    choice: the index of the recommended one: the first that `fits` and reaches the target, of those that soong can rent
        where there are any; None when none does.
    load: what the speeds are for; where the batch is searched, each candidate's own stands in its `throughput`.
    """

    request: Request
    model: ResolvedModel
    workload: Workload
    settings: EngineSettings
    rule_of_thumb: RuleOfThumb
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]
    choice: int | None
    load: Load

    @property
    def chosen(self) -> Candidate | None:
        """The recommended candidate."""
        return None if self.choice is None else self.candidates[self.choice]

    @property
    def job_tokens(self) -> int | None:
        """The output tokens of the job that is asked for; None where none is."""
        return self.request.job_of(self.load)

    @property
    def front(self) -> tuple[int, ...]:
        """The indices of the candidates that no other beats in price and speed, cheapest first."""
        from soong.plan.ranking import front

        return front(self.candidates)

    @property
    def better_elsewhere(self) -> Candidate | None:
        """A candidate that would be recommended if soong could rent it; None where the recommended one is the best."""
        best = next((candidate for candidate in self.candidates if candidate.will_do), None)
        return None if best is None or best is self.chosen or best.launchable else best


def sequences_words(plan: Plan) -> str:
    """How many sequences, and how long each is where that is less than the context: `8 sequences of 4,300`."""
    workload = plan.workload
    if plan.request.searches_batch:
        return "as many sequences as will do"
    if workload.sequences == 1:
        return "one sequence"
    each = f" of {workload.tokens_each:,}" if workload.tokens_each < workload.context_tokens else ""
    return f"{workload.sequences:,} sequences{each}"
