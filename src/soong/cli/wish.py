"""What a start wishes for: its options, the plan that they make, and the machines that would do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from soong import units
from soong.errors import NothingFitsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.cli import output
    from soong.gpus.gpu import Gpu
    from soong.launch.groups import Group
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan


class Wish(NamedTuple):
    """The options of one start.

    replicas: how many machines. all_or_nothing: fewer are ended again. replaces: one that is lost may be replaced.
    joins: the group that the machines are for, where it runs already. within_bill: for no more than its bill.
    """

    model: str
    gpu: str | None
    region: str | None
    hours: float | None
    max_usd: float | None
    name: str | None
    wait_hours: float
    filesystem: str | None
    plan_options: dict[str, Any]
    serves: bool = False
    engine_env: str = ""
    local_port: int = 0
    idle_hours: float = 0.0
    replicas: int = 1
    all_or_nothing: bool = False
    replaces: bool = False
    joins: Group | None = None
    within_bill: bool = False

    @property
    def is_group(self) -> bool:
        """Whether the machines get a router in front of them."""
        return self.replicas > 1 or self.joins is not None


def wish_of(
    *,
    model: str | None,
    gpu: str | None = None,
    region: str | None = None,
    hours: str | None = None,
    max_cost: str | None = None,
    name: str | None = None,
    wait: str | None = None,
    filesystem: str | None = None,
    idle: str | None = None,
    serves: bool = True,
    engine_env: str = "",
    local_port: int = 0,
    replicas: int = 1,
    all_or_nothing: bool = False,
    replaces: bool = False,
    **plan_options: Any,
) -> Wish:
    """The wish that options, as they were typed, and settings make; see `Wish`.

    Raises:
        UsageError: no model, or a value that cannot be used.
    """
    from soong.settings import config

    _check_name(name)
    most = units.parse_usd(max_cost, what="`--max-cost`") if max_cost is not None else None
    typed = units.parse_hours(hours, what="`--hours`") if hours is not None else None
    return Wish(
        model=_model(model),
        gpu=config.value("gpu", flag=gpu),
        region=config.value("region", flag=region),
        hours=typed if typed is not None or most is not None else config.value("lease.hours"),
        max_usd=most if most is not None else config.value("budget.per_start_usd"),
        name=name,
        wait_hours=units.parse_hours(wait, what="`--wait`") if wait is not None else 0.0,
        filesystem=config.value("lambda.filesystem", flag=filesystem),
        plan_options={
            "engine": _engine(plan_options.get("engine")),
            **{key: value for key, value in plan_options.items() if value is not None},
        },
        serves=serves,
        engine_env=engine_env,
        local_port=local_port,
        idle_hours=_idle_hours(idle, serves=serves),
        replicas=replicas,
        all_or_nothing=all_or_nothing,
        replaces=replaces,
    )


def _model(typed: str | None) -> str:
    """The model that was typed or configured.

    Raises:
        UsageError: neither was.
    """
    from soong.settings import config

    model = config.value("model", flag=typed)
    if not model:
        raise UsageError(
            "which model?",
            hints=("soong start --model llama-3.1-8b", "soong config set model llama-3.1-8b", "soong models"),
        )
    return str(model)


def _check_name(name: str | None) -> None:
    """Raises UsageError for what cannot name a machine."""
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name, re.ASCII):
        raise UsageError(
            f"`{name}` cannot be a machine's name", hints=("use small letters, digits and dashes",)
        )


def _engine(typed: str | None) -> str | None:
    """The engine that was typed or configured; None where neither was: a GGUF file has another one than the rest."""
    from soong.settings import config

    found = config.look_up("engine", flag=typed)
    return None if found.origin == "default" else str(found.value)


def _idle_hours(typed: str | None, *, serves: bool) -> float:
    """How long it may idle; 0 for as long as its lease.

    Raises:
        UsageError: nothing is served, so nothing tells of requests.
    """
    from soong.settings import config

    if typed is not None and not serves:
        raise UsageError(
            "`--idle` counts requests to the engine, and with `--no-serve` there is none",
            hints=("the same without `--idle`",),
        )
    return float(config.value("lease.idle", flag=typed) or 0.0)


def planned(wish: Wish, offers: Sequence[Offer], *, gpus: Sequence[Gpu] = ()) -> Plan:
    """The plan of a wish, over one offer for each type. gpus: which only this place has."""
    from soong.launch.choosing import types_of
    from soong.plan.planner import make_plan
    from soong.plan.request import read_request

    options = {"model": wish.model, "gpu": wish.gpu, **wish.plan_options}
    return make_plan(read_request(options), offers=types_of(offers, region=wish.region), gpus=gpus)


def chosen(plan: Plan, wish: Wish, out: output.Output) -> tuple[Planned, ...]:
    """The machines to ask for, cheapest first; warns where the person's own choice is too small.

    Raises:
        NothingFitsError: none fits.
    """
    from soong.launch.choosing import usable
    from soong.launch.preflight import disk_problem

    picks = usable(plan, named=wish.gpu is not None)
    roomy = tuple(one for one in picks if one.offer and not disk_problem(plan.model.weights_bytes, one.offer))
    if not roomy:
        why = disk_problem(plan.model.weights_bytes, picks[0].offer) if picks and picks[0].offer else ""
        if not picks and len(plan.candidates) == 1:
            why = "; ".join(plan.candidates[0].reasons)
        raise NothingFitsError(
            f"no machine for rent holds {plan.model.id}",
            why=why,
            hints=(f"soong plan {wish.model}", f"soong plan {wish.model} --context 4096"),
        )
    if roomy[0].verdict in {"too-small", "unsupported"}:
        _warn(roomy[0], out)
    return roomy


def _warn(pick: Planned, out: output.Output) -> None:
    """The page's words for a GPU that is too small, and what the plan says of it."""
    needed = pick.footprint.total_bytes if pick.footprint else 0
    if pick.verdict == "too-small" and needed:
        have, need = pick.gpu.label_gb * pick.gpu_count, round(needed * pick.gpu_count / 1e9)
        out.say(f"Warning: Selected GPU has {have}GB but model needs ~{need}GB")
    for reason in pick.reasons:
        out.say(f"Warning: {reason}")
