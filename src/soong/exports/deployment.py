"""What runs where, for how long: a plan as one value that every format is written from."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal

import msgspec

from soong import units
from soong.errors import NothingFitsError, UsageError
from soong.exports import names, renting
from soong.offers.sources import ALL, cloud_words
from soong.plan.loading import has_no_files
from soong.serve import command as serving
from soong.serve import orders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.gpus.gpu import Gpu
    from soong.offers.offer import Offer
    from soong.plan.plan import Candidate, Plan

Consent = Literal["required", "unknown", "no"]

PORT = 8000
"""Where the engine listens; vLLM's own default."""
LONGEST_NAME = 41
"""dstack's names have at most so many characters, the fewest of the tools'."""
SPARE_BYTES = 20 * 2**30
"""For the cache volume beside the weights: tokenizer, compiled kernels, a download that is begun again."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for beside the plan.

    Attributes:
        replicas: how many engines. hours: when it all ends. idle_minutes: how long a machine may stay without work.
        gpus_per_machine: None for the most that one machine has. tool: the format, which says where can be rented.
        command: that made the file. version: of soong. today: ISO.
    """

    replicas: int = 1
    hours: float = 4.0
    idle_minutes: int = 10
    gpus_per_machine: int | None = None
    tool: str = "shell"
    command: str = ""
    version: str = ""
    today: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a file says.

    Attributes:
        name: lower case, at most 41 letters, digits and dashes. model: as people say it.
        source: what the engine loads: ORG/NAME (with a revision or a mixture), or a path. local: that it is a path.
        argv: the plan's whole command, with host, port and parsers; the program's name first.
        env: for the engine; no secret.
        consent: whether the Hub asks for one, and so for a token.
        nodes: machines of one replica. gpus_per_node: GPUs of each.
        deadline_seconds: the longest that download, loading and compiling may take.
        disk_bytes: for the weights' cache.
        usd_per_hour: of one replica; None where no price is known.
        notes: what a person must know. offer_pinned: only that cloud was asked for.
    """

    name: str
    model: str
    source: str
    local: bool
    engine: str
    version: str
    argv: tuple[str, ...]
    env: dict[str, str]
    consent: Consent
    gpu: Gpu
    nodes: int
    gpus_per_node: int
    deadline_seconds: int
    disk_bytes: int
    plan: Plan
    candidate: Candidate
    wishes: Wishes
    offer: Offer | None
    usd_per_hour: float | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> int:
        """When it all ends, from the start."""
        return round(self.wishes.hours * 3600)

    @property
    def clouds(self) -> tuple[str, ...]:
        """The clouds that were asked for; none where any will do."""
        clouds = cloud_words(self.plan.request.cloud or ALL)
        return () if ALL in clouds else clouds

    def names_of_clouds(self, tool: str) -> list[str]:
        """What a tool calls those of the clouds where it can run this; none where any will do.

        Raises:
            UsageError: the tool cannot run this at any of them.
        """
        return renting.names_at(
            tool,
            self.clouds,
            model=self.model,
            spot=self.plan.request.spot,
            machines=self.nodes,
            replicas=self.wishes.replicas,
        )

    @property
    def image(self) -> names.Image:
        """The engine's container image.

        Raises:
            UsageError: none is known.
        """
        return names.image_of(self.engine, self.version, self.gpu, model=self.model)


def chosen(plan: Plan) -> Candidate:
    """The machine to export: the best, whoever can rent it, or the named one where the engine starts on it.

    Raises:
        NothingFitsError: there is none; with the plan's reasons.
    """
    best = plan.better_elsewhere or plan.chosen
    if best is not None:
        return best
    named = plan.request.gpu is not None or plan.request.gpu_memory_bytes is not None
    if named and plan.candidates and plan.candidates[0].starts:
        return plan.candidates[0]
    raise NothingFitsError(
        f"nothing that was considered holds {plan.model.id}",
        why="; ".join(_reasons(plan.candidates)) or "no machine was considered",
        hints=(f"soong plan {plan.model.id}", *_bigger(plan)),
    )


def _reasons(candidates: Sequence[Candidate]) -> list[str]:
    """Of the nearest machines: those that start all the same first, then the largest."""
    most = sorted(candidates, key=lambda one: (not one.starts, -one.gpu.memory_bytes * one.gpu_count))
    return [
        f"{one.gpu_count}x {one.gpu.name}: {one.verdict}{', ' if one.reasons else ''}{', '.join(one.reasons)}"
        for one in most[:MOST_REASONS]
    ]


MOST_REASONS = 3


def _bigger(plan: Plan) -> tuple[str, ...]:
    tight = next((one for one in plan.candidates if one.starts), None)
    if tight is not None:
        return (
            f"the same with `--gpu {tight.gpu.id} --gpu-count {tight.gpu_count}` takes one that is tight",
        )
    if plan.request.gpu is not None:
        return ("the same without `--gpu` considers every machine that has a price",)
    return (
        "the same with `--gpu-count 16 --tensor-parallel 8 --pipeline-parallel 2 --gpu h200` spans machines",
    )


def made(plan: Plan, wishes: Wishes, *, offers: Sequence[Offer] = ()) -> Deployment:
    """The deployment of a plan.

    Args:
        plan: with its choice. wishes: the rest. offers: to price machines that the plan has no price of: several
            together, or of clouds that it was not asked about.

    Raises:
        NothingFitsError: the plan has no machine that holds it. UsageError: it has no command, or cannot be split so.
    """
    candidate = chosen(plan)
    _check_servable(plan, candidate)
    command = serving.engine_command(candidate.engine_argv, plan.model, version=plan.settings.version)
    used = candidate.tensor_parallel * plan.settings.pipeline_parallel
    nodes, per_node = _machines(plan, candidate, used, wishes)
    source, argv = argv_of(candidate.engine_argv, command.argv)
    offer, usd_per_hour = _price(candidate, nodes, per_node, _rentable(candidate, nodes, offers, wishes))
    return Deployment(
        name=name_of(command.served_name),
        model=plan.model.id if plan.model.source in {"catalogue", "hub"} else command.served_name,
        source=source,
        local=plan.model.source in {"folder", "gguf"},
        engine=command.engine,
        version=command.version,
        argv=argv,
        env=command.env,
        consent=_consent(plan),
        gpu=candidate.gpu,
        nodes=nodes,
        gpus_per_node=per_node,
        deadline_seconds=_deadline_seconds(plan),
        disk_bytes=math.ceil(plan.model.weights_bytes * 1.1) + SPARE_BYTES,
        plan=plan,
        candidate=candidate,
        wishes=wishes,
        offer=offer,
        usd_per_hour=usd_per_hour,
        notes=(
            *command.notes,
            *_notes(candidate, used, nodes),
            *_too_short(plan, wishes),
            *_not_there(plan, offer),
        ),
    )


def _check_servable(plan: Plan, candidate: Candidate) -> None:
    """Make sure that there are weights, and a command that serves them.

    Raises:
        UsageError: there is none.
    """
    if plan.model.source == "config":
        raise UsageError(
            f"{plan.model.id} describes a model and has no weights to serve",
            hints=("soong export FORMAT ORG/NAME",),
        )
    if has_no_files(plan.model, plan.settings.name):
        serving.check_files(candidate.engine_argv, plan.model)
    if not candidate.engine_argv:
        raise UsageError(
            f"there is no command that serves {plan.model.id} with {plan.settings.name}",
            why="; ".join(candidate.reasons),
            hints=(
                "the same with another `--engine`",
                f"soong plan {plan.model.id} --engine {plan.settings.name}",
            ),
        )


def name_of(served_name: str) -> str:
    """A name that every tool takes.

    >>> name_of("meta-llama/Llama-3.1-8B-Instruct")
    'soong-llama-3-1-8b-instruct'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", served_name.rsplit("/", 1)[-1].lower()).strip("-") or "model"
    return f"soong-{plain}"[:LONGEST_NAME].rstrip("-")


def argv_of(planned: Sequence[str], whole: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What is loaded, and the command: the planned words as they are, then those that serving adds.

    The engine listens to all of the machine or container, since what keeps strangers out is the key.
    """
    place = {"vllm": 2, "llama-server": 2}.get(planned[0]) or list(planned).index("--model-path") + 1
    source, revision = planned[place], ""
    words = list(planned)
    if planned[0] != "llama-server" and not source.startswith((".", "/", "~")):
        words[place], _, revision = source.partition("@")
    extra = ["0.0.0.0" if word == serving.LOOPBACK else word for word in whole[len(planned) :]]  # noqa: S104
    extra = [str(PORT) if word == serving.PORT else word for word in extra]
    return source, (*words, *extra, *(("--revision", revision) if revision else ()))


def _machines(plan: Plan, candidate: Candidate, used: int, wishes: Wishes) -> tuple[int, int]:
    """How many machines, and how many GPUs of each: as few machines as hold them, all alike.

    Raises:
        UsageError: the GPUs cannot be spread evenly, or the engine cannot span machines.
    """
    most = wishes.gpus_per_machine or names.names_of(candidate.gpu).most_per_machine
    parallel = candidate.tensor_parallel
    fitting = (
        size
        for size in range(min(most, used), 0, -1)
        if used % size == 0 and (size % parallel == 0 or parallel % size == 0)
    )
    per_node = next(fitting, 1)
    nodes = used // per_node
    if nodes > 1 and plan.settings.name == "llama.cpp":
        raise UsageError(
            f"llama.cpp is not planned over several machines, and one has {most} {candidate.gpu.name} at most",
            hints=("the same with `--engine vllm`", f"the same with `--gpu-count {most}`"),
        )
    return nodes, per_node


def _price(
    candidate: Candidate, nodes: int, per_node: int, offers: Sequence[Offer]
) -> tuple[Offer | None, float | None]:
    """The offer of one machine, and what one replica costs an hour."""
    if nodes == 1 and candidate.offer is not None:
        return candidate.offer, candidate.offer.usd_per_hour
    fitting = [
        one for one in offers if one.gpu == candidate.gpu.id and one.gpu_count == per_node and not one.spot
    ]
    cheapest = min(fitting, key=lambda one: one.usd_per_hour, default=None)
    return cheapest, nodes * cheapest.usd_per_hour if cheapest else None


def _rentable(candidate: Candidate, nodes: int, offers: Sequence[Offer], wishes: Wishes) -> list[Offer]:
    """The offers of these GPUs that the file's tool can rent."""
    return [
        offer
        for offer in offers
        if offer.gpu == candidate.gpu.id
        and renting.can_rent(
            wishes.tool, offer, candidate.gpu, spot=offer.spot, machines=nodes, replicas=wishes.replicas
        )
    ]


def _consent(plan: Plan) -> Consent:
    if plan.model.source in {"folder", "gguf"} or plan.model.gated is False:
        return "no"
    return "required" if plan.model.gated else "unknown"


def _deadline_seconds(plan: Plan) -> int:
    """Download by the slowest line that is waited for, loading and compiling; as a rented machine is given.

    See `soong.serve.orders` for where these figures come from.
    """
    weights_bytes = plan.model.weights_bytes
    download = orders.WEIGHTS_BASE_SECONDS + weights_bytes / orders.SLOWEST_BYTES_PER_SECOND
    return math.ceil(download + orders.ready_seconds(weights_bytes))


def _notes(candidate: Candidate, used: int, nodes: int) -> tuple[str, ...]:
    notes = [f"{candidate.verdict}: {reason}" for reason in candidate.reasons]
    if nodes == 1 and used != candidate.gpu_count:
        notes.append(f"the priced machine has {candidate.gpu_count} GPUs, of which the plan uses {used}")
    if nodes > 1:
        notes.append(
            "the figures count each GPU alone; machines must reach each other on every port, best over a fast network"
        )
    return tuple(notes)


def _too_short(plan: Plan, wishes: Wishes) -> tuple[str, ...]:
    """A word where all the hours may go into the download: paid for, and never served."""
    deadline_hours = _deadline_seconds(plan) / 3600
    if deadline_hours < wishes.hours:
        return ()
    bytes_per_second = orders.SLOWEST_BYTES_PER_SECOND
    return (
        f"it ends after {units.format_hours(wishes.hours)}, and on a slow line "
        f"({bytes_per_second * 8 / 1e6:,.0f} Mbit/s) the {units.format_gib(plan.model.weights_bytes)} of weights alone "
        f"may take {plan.model.weights_bytes / bytes_per_second / 3600:.0f} h; "
        f"`--hours {math.ceil(deadline_hours + 1)}` leaves time to serve",
    )


def _not_there(plan: Plan, offer: Offer | None) -> tuple[str, ...]:
    """A word where the file asks one cloud for machines that it is not known to rent."""
    cloud = plan.request.cloud
    if offer is not None or cloud in {None, "all"}:
        return ()
    return (f"no such machine of {cloud} is in the prices that soong knows; it may not be for rent there",)
