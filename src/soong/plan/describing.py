"""A model with its plan: the row that `soong models` lists and the page that `soong models info` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import NotFoundError
from soong.gpus.catalogue import all_gpus
from soong.models.catalogue import find_model
from soong.plan.listing import ListedModel
from soong.plan.planner import make_plan
from soong.plan.request import Request

if TYPE_CHECKING:
    from soong.models.model import Model
    from soong.plan.plan import Candidate, Plan

COMPARED_BY_DEFAULT = (
    "deepseek-r1-70b",
    "qwen2.5-coder-32b",
    "qwen2.5-coder-32b-int4",
    "llama-3.1-70b",
    "llama-3.1-8b",
)
"""The five models that the specification's page compares."""

GB = 10**9


class Described(msgspec.Struct, frozen=True):
    """A model with its plan; `model` is None for one that is not in the catalogue."""

    model: Model | None
    plan: Plan


def listed(model: Model) -> ListedModel:
    """The row of one model."""
    plan = make_plan(Request(model=model.id), allow_network=False, first_fit_only=True)
    chosen = plan.chosen
    shown = chosen or _nearest(plan)
    offer = chosen.offer if chosen else None
    return ListedModel(
        id=model.id,
        name=model.name,
        parameters=model.parameters,
        quantization=plan.model.quantization_label,
        context_tokens=plan.workload.context_tokens,
        vram_bytes=total_need_bytes(plan, shown),
        basis=plan.model.weights_basis,
        min_gpu=machine_name(chosen) if chosen else None,
        instance_type=offer.instance_type if offer else None,
        usd_per_hour=offer.usd_per_hour if offer else None,
        price_as_of=offer.as_of if offer else None,
        custom=model.custom,
    )


def _nearest(plan: Plan) -> Candidate | None:
    """The candidate that comes nearest to holding a model that nothing holds: the one with most memory."""
    return max(
        plan.candidates, key=lambda candidate: candidate.gpu.memory_bytes * candidate.gpu_count, default=None
    )


def total_need_bytes(plan: Plan, candidate: Candidate | None) -> int:
    """What the workload needs on all GPUs together; by the rule of thumb where the architecture is not known."""
    if candidate is None or candidate.footprint is None:
        return round(plan.rule_of_thumb.total_gb * GB)
    return candidate.footprint.need_bytes * candidate.tensor_parallel * plan.request.pipeline_parallel


def machine_name(candidate: Candidate) -> str:
    """`1x A6000 (48 GB)`: as the list and the page say it."""
    return f"{candidate.gpu_count}x {candidate.gpu.name} ({candidate.gpu.label_gb} GB)"


def describe(word: str) -> Described:
    """A model of the catalogue or any other that `soong plan` takes, with its plan.

    Raises:
        NotFoundError, RemoteError, CredentialError, ConfigError: as `soong.models.resolve.resolve`.
    """
    plan = make_plan(Request(model=word))
    try:
        model: Model | None = find_model(word)
    except NotFoundError:
        model = None
    return Described(model, plan)


def minimum_label_gb(with_headroom_gb: float) -> int | None:
    """The smallest memory size, in the shops' gigabytes, of any known GPU that holds a rule-of-thumb need."""
    sizes = sorted({gpu.label_gb for gpu in all_gpus()})
    return next((size for size in sizes if with_headroom_gb <= size), None)
