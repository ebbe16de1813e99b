"""The screen of `soong plan`: one answer, one bar, every machine that was considered, one command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from soong import units
from soong.cli.text import style
from soong.cli.views.bar import Slice, cells, legend
from soong.cli.views.candidates import (
    candidates_table,
    dollars,
    folded_line,
    marks_line,
    rate,
    shown_rows,
    span,
)
from soong.offers.freshness import age_words, is_stale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.memory.footprint import Footprint
    from soong.plan.plan import Candidate, Plan
    from soong.plan.searching import Alternative

BAR_WIDTH = 64
BASIS = {
    "headers": "weights from the files' own headers",
    "config": "weights from the shapes in config.json",
    "rule-of-thumb": "rule of thumb: parameters × bytes, the architecture is not known",
}


def screen(plan: Plan, alternatives: Sequence[Alternative] | None = None, *, show_all: bool = False) -> str:
    """The plan on one screen.

    Args:
        plan: the answer. alternatives: what a search found; None where none was made.
        show_all: dominated rows too.
    """
    shown = plan.chosen or _nearest(plan)
    parts = [headline(plan), ""]
    if shown is not None:
        parts += [*_memory(shown), *_speed(plan, shown), ""]
    listed = shown_rows(plan, show_all=show_all)
    parts.append(candidates_table(plan, listed.rows))
    parts += [line for line in (folded_line(listed), marks_line(plan, listed.rows)) if line]
    parts += [*_why_not(plan, listed.rows), *_left_out(plan), *_closing(plan, shown)]
    parts += _otherwise(plan, alternatives)
    return "\n".join(parts)


def headline(plan: Plan) -> str:
    """Model, size, format and workload in two lines, and a warning where the context is beyond the model's."""
    model, workload = plan.model, plan.workload
    size = units.format_count(model.parameters) if model.parameters else "size unknown"
    if model.active_parameters and model.active_parameters < MOSTLY_ACTIVE * model.parameters:
        size += f" ({units.format_count(model.active_parameters)} active)"
    weights = f", {units.format_gib(model.weights_bytes)} of weights" if model.weights_bytes else ""
    many = f"{workload.sequences} sequences" if workload.sequences > 1 else "one sequence"
    if plan.request.searches_batch:
        many = "as many sequences as will do"
    lines = [
        f"{style(model.id, 'bold')}  {size}, {model.quantization_label}{weights}",
        style(
            f"{workload.context_tokens:,} tokens of context, {many}, {plan.settings.name} {plan.settings.version}; "
            f"{BASIS[model.weights_basis]}",
            "dim",
        ),
    ]
    limit = model.context_limit_tokens
    if limit and workload.context_tokens > limit:
        lines.append(style(f"warning: the model's own limit is {limit:,} tokens", "yellow"))
    return "\n".join(lines)


MOSTLY_ACTIVE = 0.95
"""Below this share of active parameters a model is a mixture of experts to a person."""


def _nearest(plan: Plan) -> Candidate | None:
    """What to draw when nothing is recommended: the first that starts, else the one that lacks least.

    Where what fits is too slow for the target: the fastest.
    """
    slow = [
        candidate for candidate in plan.candidates if candidate.verdict == "fits" and candidate.throughput
    ]
    if slow:
        return max(slow, key=_rate_of)
    starting = next((candidate for candidate in plan.candidates if candidate.starts), None)
    with_footprint = [candidate for candidate in plan.candidates if candidate.footprint]
    lacking = max(
        with_footprint,
        key=lambda candidate: _spare_bytes(candidate.footprint) if candidate.footprint else 0,
        default=None,
    )
    return starting or lacking


def _rate_of(candidate: Candidate) -> float:
    return candidate.throughput.decode_tokens_per_second_per_user if candidate.throughput else 0.0


def _spare_bytes(footprint: Footprint) -> int:
    return footprint.total_bytes - footprint.need_bytes


def _memory(candidate: Candidate) -> list[str]:
    if candidate.footprint is None:
        return []
    footprint = candidate.footprint
    each = f"each of {candidate.gpu_count} GPUs" if candidate.tensor_parallel > 1 else "the GPU"
    title = f"{candidate.gpu.name}, {units.format_gib(footprint.total_bytes)} on {each}:"
    return [title, bar(footprint), legend(slices(footprint))]


def slices(footprint: Footprint) -> list[Slice]:
    """A GPU's memory in the order in which an engine takes it; what the KV pool has beyond the workload is spare."""
    pool = footprint.kv_pool_bytes + footprint.state_bytes
    used_kv = min(footprint.workload_kv_bytes, pool) if footprint.starts else footprint.workload_kv_bytes
    return [
        Slice("weights", footprint.weights_bytes, "█", "blue"),
        Slice("KV for this workload", used_kv, "▓", "cyan"),
        Slice("KV to spare", max(0, pool - used_kv), "▒", "green"),
        Slice("activations", footprint.activations_bytes, "◆", "yellow"),
        Slice("runtime and graphs", footprint.runtime_bytes + footprint.cuda_graphs_bytes, "▚", "magenta"),
        Slice("free", max(0, footprint.free_bytes), "·", "dim"),
    ]


def bar(footprint: Footprint) -> str:
    """The bar, to scale; where the need is larger than the GPU, the scale is the need and `┃` marks the GPU's end."""
    parts = slices(footprint)
    need = sum(part.size_bytes for part in parts)
    scale = max(need, footprint.total_bytes)
    counts = cells([part.size_bytes for part in parts], scale, BAR_WIDTH)
    drawn = (style(part.mark * count, part.style) for part, count in zip(parts, counts, strict=True))
    line = f"▕{''.join(drawn)}▏"
    if need > footprint.total_bytes:
        end = round(BAR_WIDTH * footprint.total_bytes / scale)
        line += "\n" + " " * end + style(" ┃ the GPU ends here", "red")
    return line


def _speed(plan: Plan, candidate: Candidate) -> list[str]:
    """How fast the shown machine answers, how sure that is, and what the figures rest on."""
    speed = candidate.throughput
    if speed is None:
        return []
    each, load = speed.decode_tokens_per_second_per_user, speed.load
    low, high = rate(each * speed.low_factor), rate(each * speed.high_factor)
    line = f"Speed: {rate(each)} tokens/s for each user ({low} to {high})"
    if load.sequences > 1:
        line += f", {rate(speed.decode_tokens_per_second)} for all {load.sequences:,}"
    line += f", first token after {seconds(speed.time_to_first_token_seconds)}"
    cost = candidate.usd_per_million_output_tokens
    if cost is not None:
        line += f"; ${dollars(cost)} a million output tokens"
    about = f"{load.input_tokens:,} tokens in, {load.output_tokens:,} out; {speed.basis}"
    lines = [line, style(f"  {_batch_words(plan, load.sequences)}{about}", "dim")]
    return [*lines, *_job(plan, candidate)]


def _batch_words(plan: Plan, batch: int) -> str:
    if not plan.request.searches_batch:
        return ""
    if plan.request.target_tokens_per_second is None:
        return f"batch {batch:,}, the largest that memory holds; "
    return f"batch {batch:,}, the largest that memory and the target allow; "


def _job(plan: Plan, candidate: Candidate) -> list[str]:
    job, offer = plan.request.job, candidate.offer
    hours = candidate.job_hours(job) if job else None
    if job is None or hours is None:
        return []
    cost = f", {units.format_usd(hours * offer.usd_per_hour)}" if offer else ""
    return [f"Job: {job:,} output tokens in {span(hours)}{cost}"]


def seconds(amount: float) -> str:
    """`0.12 s`, `3.4 s`."""
    return f"{amount:.2f} s" if amount < 1 else f"{amount:,.1f} s"


def _why_not(plan: Plan, rows: Sequence[int]) -> list[str]:
    """The reasons beside the verdicts of the rows shown, each once, with the machines it holds for."""
    by_reason: dict[str, list[str]] = {}
    for candidate in (plan.candidates[index] for index in rows):
        if _plainly_too_small(candidate):
            continue
        too_slow = candidate.verdict == "fits" and candidate.meets_target is False  # as the table says
        for reason in candidate.reasons[: -1 if too_slow else None]:
            by_reason.setdefault(reason, []).append(candidate.name)
    everywhere = len(rows)
    return [
        f"{'Every machine' if 1 < len(names) == everywhere else ', '.join(names)}: {reason}"
        for reason, names in by_reason.items()
    ]


def _plainly_too_small(candidate: Candidate) -> bool:
    """The table's columns say it already: the need is more than the card."""
    footprint = candidate.footprint
    too_small = candidate.verdict == "too-small"
    return too_small and footprint is not None and footprint.need_bytes > footprint.total_bytes


def _left_out(plan: Plan) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for left in plan.left_out:
        by_reason.setdefault(left.reason, []).append(left.gpu)
    return [
        style(f"Left out, {reason}: {_named_or_counted(gpus)}", "dim") for reason, gpus in by_reason.items()
    ]


MOST_NAMED = 6
"""So many ids are read; a longer list is counted, and `--json` has all of it."""


def _named_or_counted(gpus: list[str]) -> str:
    if len(gpus) <= MOST_NAMED:
        return ", ".join(gpus)
    return f"{len(gpus)} GPUs that `soong gpus` lists"


def _closing(plan: Plan, shown: Candidate | None) -> list[str]:
    """The verdict in words, what it costs, and the command."""
    if shown is None:
        return ["", "No machine matches these options."]
    if not shown.starts and plan.request.gpu is not None and shown.footprint is not None:
        return ["", *_selected_too_small(plan, shown)]
    if all(candidate.verdict == "unsupported" for candidate in plan.candidates):
        return ["", f"Nothing considered here runs {plan.model.id}: {shown.reasons[0]}."]
    if not shown.starts:
        needed = f" (needs {units.format_gib(shown.footprint.need_bytes)} per GPU)" if shown.footprint else ""
        return ["", f"Nothing considered here runs {plan.model.id}; the nearest is {shown.name}{needed}."]
    lines = [
        "",
        f"{_lead(plan)}: {shown.name}{price(shown, plan.request.hours)}",
        *_elsewhere(plan, shown),
    ]
    if plan.model.gated:
        lines.append(
            f"Gated: accept the terms of {plan.model.serve_from} on Hugging Face first, and set HF_TOKEN."
        )
    if shown.engine_argv:
        lines.append(f"Serve it there with:\n  {shlex.join(shown.engine_argv)}")
    return lines


def _lead(plan: Plan) -> str:
    if plan.chosen:
        return RECOMMENDED[plan.request.rank]
    if any(candidate.verdict == "fits" for candidate in plan.candidates):
        target = plan.request.target_tokens_per_second or 0
        return f"Nothing that fits gives each user {target:g} tokens/s. The fastest"
    return "Nothing fits with 10% to spare. The cheapest that starts"


RECOMMENDED = {
    "price": "Recommended",
    "cost-per-token": "Recommended, cheapest per token",
    "time": "Recommended, soonest done",
}


def _elsewhere(plan: Plan, shown: Candidate) -> list[str]:
    """Where soong cannot rent what is best: the command that writes a file for a tool that can."""
    if not shown.launchable:
        return [f"Price only: soong cannot rent there; `{_export(plan, shown)}` writes a file for it."]
    better = plan.better_elsewhere
    if better is None or better.offer is None:
        return []
    return [
        f"Better, price only: {better.name}{price(better, plan.request.hours)};"
        f" `{_export(plan, better)}` writes a file for it."
    ]


def _export(plan: Plan, candidate: Candidate) -> str:
    from soong.cli.views.elsewhere import export_command

    return export_command(plan.model.id, candidate.offer.cloud if candidate.offer else "")


def _otherwise(plan: Plan, alternatives: Sequence[Alternative] | None) -> list[str]:
    """What a search found; without one, the one line of advice where another format is clearly cheaper."""
    if alternatives is not None:
        from soong.cli.views import searching as view

        return view.found(plan, alternatives)
    if plan.model.source != "catalogue":
        return []
    from soong.plan.cheaper import cheaper_format

    one = cheaper_format(plan)
    if one is None:
        return []
    from soong.cli.views import searching as view

    return ["", *view.advice(plan, one)]


def _selected_too_small(plan: Plan, candidate: Candidate) -> list[str]:
    """What the specification says of a GPU that was chosen by hand, and the two ways on."""
    footprint = candidate.footprint
    hint = f"hint: soong plan {plan.model.id}  # every machine, cheapest first"
    if footprint is None or candidate.verdict != "too-small":
        return [f"{candidate.name} cannot run it: {'; '.join(candidate.reasons)}", hint]
    has_gb = candidate.gpu.label_gb * candidate.gpu_count
    needs_gb = round(footprint.need_bytes * candidate.tensor_parallel / GB)
    lines = [f"Warning: Selected GPU has {has_gb}GB but model needs ~{needs_gb}GB", hint]
    if plan.model.quantization_id not in {"int4", "mxfp4", "nvfp4"}:
        lines.append(f"hint: soong plan {plan.model.id} --gpu {plan.request.gpu} --quantization int4")
    lines[1:1] = candidate.reasons[1:]
    return lines


GB = 10**9


def price(candidate: Candidate, hours: float | None) -> str:
    """`, $1.09/hour on lambda (price of 2026-09-05, 79 days old)`, and the cost of the hours asked for."""
    offer = candidate.offer
    if offer is None:
        return ", no price known"
    when = (
        "live"
        if offer.live
        else f"price of {offer.as_of}" + (f", {age_words(offer)}" if is_stale(offer) else "")
    )
    when = f"spot, {when}" if offer.spot else when
    total = (
        f", {units.format_hours(hours)} cost {units.format_usd(offer.usd_per_hour * hours)}" if hours else ""
    )
    return f", ${offer.usd_per_hour:.2f}/hour on {offer.cloud} ({when}){total}"


def explained(plan: Plan) -> str:
    """The arithmetic of the chosen (or nearest) candidate, line by line."""
    from soong.plan.explain import explain

    candidate = plan.chosen or _nearest(plan)
    if candidate is None:
        return "No machine matches these options."
    return "\n".join(explain(plan, candidate))
