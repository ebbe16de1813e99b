"""The screen of `soong plan`: one answer, one bar, every machine that was considered, one command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from soong import units
from soong.cli.text import screen_width, style, table
from soong.cli.views.bar import Slice, cells, legend

if TYPE_CHECKING:
    from soong.memory.footprint import Footprint
    from soong.plan.plan import Candidate, Plan

BAR_WIDTH = 64
STYLES = {"fits": "green", "tight": "yellow", "too-small": "red", "unsupported": "magenta"}
BASIS = {
    "headers": "weights from the files' own headers",
    "config": "weights from the shapes in config.json",
    "rule-of-thumb": "rule of thumb: parameters × bytes, the architecture is not known",
}


def row_id(candidate: Candidate) -> str:
    """The one word that names a candidate: what a person would rent."""
    return candidate.offer.instance_type if candidate.offer else f"{candidate.gpu_count}x {candidate.gpu.id}"


def screen(plan: Plan) -> str:
    """The plan on one screen."""
    shown = plan.chosen or _nearest(plan)
    parts = [headline(plan), ""]
    if shown is not None:
        parts += [*_memory(shown), ""]
    parts += [candidates_table(plan), *_why_not(plan), *_left_out(plan), *_closing(plan, shown)]
    return "\n".join(parts)


def headline(plan: Plan) -> str:
    """Model, size, format and workload in two lines, and a warning where the context is beyond the model's."""
    model, workload = plan.model, plan.workload
    size = units.format_count(model.parameters) if model.parameters else "size unknown"
    if model.active_parameters and model.active_parameters < MOSTLY_ACTIVE * model.parameters:
        size += f" ({units.format_count(model.active_parameters)} active)"
    weights = f", {units.format_gib(model.weights_bytes)} of weights" if model.weights_bytes else ""
    many = f"{workload.sequences} sequences" if workload.sequences > 1 else "one sequence"
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
    """What to draw when nothing is recommended: the cheapest that starts, else the one that lacks least."""
    starting = next((candidate for candidate in plan.candidates if candidate.starts), None)
    with_footprint = [candidate for candidate in plan.candidates if candidate.footprint]
    lacking = max(
        with_footprint,
        key=lambda candidate: _spare_bytes(candidate.footprint) if candidate.footprint else 0,
        default=None,
    )
    return starting or lacking


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


def candidates_table(plan: Plan) -> str:
    """Every machine that was considered, cheapest first; the recommended row is marked."""
    rows = [_row(candidate, marked=index == plan.choice) for index, candidate in enumerate(plan.candidates)]
    columns = ["Type", "GPU", "$/hour", "Verdict", "Need/GPU", "Context", "Seqs"]
    if screen_width() < WIDE:
        # The type's name says which GPU, and must stay whole: people copy it.
        narrow = [[row[0], *row[2:]] for row in rows]
        return table([columns[0], *columns[2:]], narrow, right=(1, 3, 4, 5))
    return table(columns, rows, right=(2, 4, 5, 6))


WIDE = 100
"""Columns of a terminal from which the table has room for the GPU's name beside the type."""


def _row(candidate: Candidate, *, marked: bool) -> list[str]:
    footprint, offer = candidate.footprint, candidate.offer
    runs = candidate.starts
    name = row_id(candidate)
    longest = footprint.max_context_tokens if footprint else None
    many = footprint.max_sequences if footprint else None
    return [
        style(f"▶ {name}", "bold") if marked else f"  {name}",
        f"{candidate.gpu_count}x {candidate.gpu.name}",
        f"{offer.usd_per_hour:.2f}" if offer else "no price",
        style(candidate.verdict, STYLES[candidate.verdict]),
        units.format_gib(footprint.need_bytes) if footprint else "",
        f"{longest:,}" if runs and longest else "",
        f"{many:,}" if runs and many is not None else "",
    ]


def _why_not(plan: Plan) -> list[str]:
    """The reasons beside the verdicts, each once, with the machines it holds for."""
    by_reason: dict[str, list[str]] = {}
    for candidate in plan.candidates:
        if _plainly_too_small(candidate):
            continue
        for reason in candidate.reasons:
            by_reason.setdefault(reason, []).append(row_id(candidate))
    everywhere = len(plan.candidates)
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
    return [style(f"Left out, {reason}: {', '.join(gpus)}", "dim") for reason, gpus in by_reason.items()]


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
        return ["", f"Nothing considered here runs {plan.model.id}; the nearest is {row_id(shown)}{needed}."]
    lead = "Recommended" if plan.chosen else "Nothing fits with 10% to spare. The cheapest that starts"
    lines = ["", f"{lead}: {row_id(shown)}{price(shown, plan.request.hours)}"]
    if plan.model.gated:
        lines.append(
            f"Gated: accept the terms of {plan.model.serve_from} on Hugging Face first, and set HF_TOKEN."
        )
    if shown.engine_argv:
        lines.append(f"Serve it there with:\n  {shlex.join(shown.engine_argv)}")
    return lines


def _selected_too_small(plan: Plan, candidate: Candidate) -> list[str]:
    """What the specification says of a GPU that was chosen by hand, and the two ways on."""
    footprint = candidate.footprint
    hint = f"hint: soong plan {plan.model.id}  # every machine, cheapest first"
    if footprint is None or candidate.verdict != "too-small":
        return [f"{row_id(candidate)} cannot run it: {'; '.join(candidate.reasons)}", hint]
    has_gb = candidate.gpu.label_gb * candidate.gpu_count
    needs_gb = round(footprint.need_bytes * candidate.tensor_parallel / GB)
    lines = [f"Warning: Selected GPU has {has_gb}GB but model needs ~{needs_gb}GB", hint]
    if plan.model.quantization_id not in {"int4", "mxfp4", "nvfp4"}:
        lines.append(f"hint: soong plan {plan.model.id} --gpu {plan.request.gpu} --quantization int4")
    lines[1:1] = candidate.reasons[1:]
    return lines


GB = 10**9


def price(candidate: Candidate, hours: float | None) -> str:
    """`, $1.09/hour on lambda (price of 2026-09-05)`, and the cost of the hours asked for."""
    offer = candidate.offer
    if offer is None:
        return ", no price known"
    when = "live" if offer.live else f"price of {offer.as_of}"
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
