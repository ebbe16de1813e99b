"""The comment at the head of every file: which plan, its figures, what it costs, how it starts and how it ends."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from soong import units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.exports.deployment import Deployment

WIDTH = 110


def header(
    deployment: Deployment, *, start: Sequence[str], ends: str, reach: str, notes: Sequence[str] = ()
) -> str:
    """Lines that begin with `#`.

    Args:
        deployment: what runs. start: the commands that start it. ends: what ends it, and when.
        reach: where the endpoint is then. notes: beside the deployment's own.
    """
    made = (
        f"Made by soong {deployment.wishes.version} on {deployment.wishes.today}: {deployment.wishes.command}"
    )
    paragraphs = [
        _what(deployment),
        made,
        _memory(deployment),
        _price(deployment),
        *_speed(deployment),
        f"Ends: {ends}",
        f"Endpoint: {reach}",
        *(f"Note: {note}" for note in (*deployment.notes, *notes)),
    ]
    lines = [line for paragraph in paragraphs for line in _wrapped(paragraph)]
    commands = [f"    {printable(one)}" for one in start]
    return "".join(f"# {line}".rstrip() + "\n" for line in (*lines, "Start:", *commands))


def printable(text: str) -> str:
    """The text on one line, with nothing that could end a comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _wrapped(paragraph: str) -> list[str]:
    return textwrap.wrap(
        printable(paragraph),
        WIDTH - 2,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _what(deployment: Deployment) -> str:
    machines = f"{deployment.nodes} machines of " if deployment.nodes > 1 else ""
    replicas = f", {deployment.wishes.replicas} replicas" if deployment.wishes.replicas > 1 else ""
    workload = deployment.plan.workload
    sequences = "one sequence" if workload.sequences == 1 else f"{workload.sequences:,} sequences"
    return (
        f"{deployment.model} ({deployment.plan.model.quantization_label}) on {machines}{deployment.gpus_per_node}x "
        f"{deployment.gpu.name}{replicas}, {deployment.engine} {deployment.version}, {workload.context_tokens:,} "
        f"tokens of context, {sequences}."
    )


def _memory(deployment: Deployment) -> str:
    footprint = deployment.candidate.footprint
    if footprint is None:
        return "Memory: by the rule of thumb alone."
    gib = units.format_gib
    pool = f", room for {footprint.kv_pool_tokens:,} tokens" if footprint.kv_pool_tokens else ""
    return (
        f"Memory of each GPU: needs {gib(footprint.need_bytes)} of {gib(footprint.total_bytes)}: weights "
        f"{gib(footprint.weights_bytes)}, KV pool {gib(footprint.kv_pool_bytes + footprint.state_bytes)}{pool}, "
        f"activations {gib(footprint.activations_bytes)}, runtime and graphs "
        f"{gib(footprint.runtime_bytes + footprint.cuda_graphs_bytes)}, free {gib(footprint.free_bytes)}."
    )


def _price(deployment: Deployment) -> str:
    offer, usd = deployment.offer, deployment.usd_per_hour
    if offer is None or usd is None:
        return "Price: none is known for such a machine; the tool's own price counts."
    machines = (
        f"{deployment.nodes} times {offer.instance_type}" if deployment.nodes > 1 else offer.instance_type
    )
    replicas, hours = deployment.wishes.replicas, deployment.wishes.hours
    each = " each replica" if replicas > 1 else ""
    total = usd * replicas * hours
    on_demand = (
        " on demand, as no spot price is known," if deployment.plan.request.spot and not offer.spot else ""
    )
    return (
        f"Price: ${usd:.2f} an hour{each}{on_demand} for {machines} of {offer.cloud} as of {offer.as_of}; "
        f"${total:.2f} for {units.format_hours(hours)}. Elsewhere the tool's own price counts."
    )


def _speed(deployment: Deployment) -> tuple[str, ...]:
    speed = deployment.candidate.throughput
    if speed is None or deployment.nodes > 1:  # the network between machines is not in the figure
        return ()
    low, high = (speed.decode_tokens_per_second * factor for factor in (speed.low_factor, speed.high_factor))
    return (
        f"Speed: about {speed.decode_tokens_per_second:,.0f} output tokens a second ({low:,.0f} to {high:,.0f}) "
        f"with {speed.load.sequences} at once, prompts of {speed.load.input_tokens:,} and answers of "
        f"{speed.load.output_tokens:,} tokens.",
    )
