"""The screen of `soong plan`: one answer, one bar, every machine that was considered, one command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from soong import units
from soong.cli.text import prose, style
from soong.cli.views.bar import Slice, cells, legend
from soong.cli.views.candidates import (
    candidates_table,
    days_line,
    dollars,
    folded_line,
    is_plainly_too_small,
    marks_line,
    rate,
    shown_rows,
    span,
)
from soong.cli.views.printed import printed_line
from soong.memory import engines
from soong.models.answers import keeps_nothing
from soong.offers.freshness import age_words, is_stale
from soong.plan.loading import has_no_files
from soong.plan.plan import sequences_words
from soong.plan.ranking import nearest
from soong.speed.prepared import first_token_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.memory.footprint import Footprint
    from soong.plan.plan import Candidate, Plan
    from soong.plan.searching import Alternative
    from soong.speed.throughput import Throughput

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
    shown = plan.chosen or nearest(plan.candidates)
    parts = [headline(plan), ""]
    if shown is not None:
        parts += [*_memory(plan, shown), *_without_cache(plan, shown), *_speed(plan, shown), ""]
    listed = shown_rows(plan, show_all=show_all)
    parts.append(candidates_table(plan, listed.rows))
    notes = (folded_line(listed), marks_line(plan, listed.rows), days_line(plan, listed.rows))
    parts += [line for line in notes if line]
    parts += [*_why_not(plan, listed.rows), *_left_out(plan), *_closing(plan, shown)]
    parts += _otherwise(plan, alternatives)
    return prose("\n".join(parts))


def headline(plan: Plan) -> str:
    """Model, size, format and workload in two lines, and a warning where the context is beyond the model's."""
    model, workload = plan.model, plan.workload
    size = units.format_count(model.parameters) if model.parameters else "size unknown"
    if model.active_parameters and model.active_parameters < MOSTLY_ACTIVE * model.parameters:
        size += f" ({units.format_count(model.active_parameters)} active)"
    weights = f", {units.format_gib(model.weights_bytes)} of weights" if model.weights_bytes else ""
    many = sequences_words(plan)
    lines = [
        f"{style(model.id, 'bold')}  {size}, {model.quantization_label}{weights}",
        style(
            f"{workload.context_tokens:,} tokens of context, {many}{_speed_for(plan)}{plan.settings.name} "
            f"{plan.settings.version}; {BASIS[model.weights_basis]}",
            "dim",
        ),
    ]
    limit = model.context_limit_tokens
    if limit and workload.context_tokens > limit:
        lines.append(style(f"warning: the model's own limit is {limit:,} tokens", "yellow"))
    return "\n".join(lines)


def _speed_for(plan: Plan) -> str:
    """The load that speeds are for, where there are any: another context may mean another prompt."""
    load = plan.load
    if not any(candidate.throughput for candidate in plan.candidates):
        return ", "
    return f"; speed for {load.input_tokens:,} in, {load.output_tokens:,} out; "


MOSTLY_ACTIVE = 0.95
"""Below this share of active parameters a model is a mixture of experts to a person."""


def _memory(plan: Plan, candidate: Candidate) -> list[str]:
    if candidate.footprint is None:
        return []
    footprint = candidate.footprint
    each = f"each of {candidate.gpu_count} GPUs" if candidate.tensor_parallel > 1 else "the GPU"
    title = f"{candidate.gpu.name}, {units.format_gib(footprint.total_bytes)} on {each}:"
    printed = printed_line(plan, candidate)
    lines = [title, bar(footprint), legend(slices(footprint))]
    return [*lines, style(printed, "dim")] if printed else lines


def slices(footprint: Footprint) -> list[Slice]:
    """A GPU's memory in the order in which an engine takes it; what the KV pool has beyond the workload is spare."""
    pool = footprint.kv_pool_bytes + footprint.state_bytes
    used_kv = min(footprint.workload_kv_bytes, pool) if footprint.starts else footprint.workload_kv_bytes
    return [
        Slice("weights", footprint.weights_bytes, "█", "blue"),
        Slice("KV for this workload", used_kv, "▓", "cyan"),
        Slice("KV to spare", max(0, pool - used_kv), "▒", "green"),
        Slice("activations", footprint.activations_bytes, "◆", "yellow"),
        Slice("CUDA graphs", footprint.cuda_graphs_bytes, "▚", "magenta"),
        Slice("runtime", footprint.runtime_bytes, "▞", "magenta"),
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
        return _reading(candidate)
    each, load = speed.decode_tokens_per_second_per_user, speed.load
    low, high = rate(each * speed.low_factor), rate(each * speed.high_factor)
    line = f"Speed: {rate(each)} tokens/s for each user ({low} to {high})"
    if load.sequences > 1:
        total = speed.decode_tokens_per_second
        low, high = rate(total * speed.low_factor), rate(total * speed.high_factor)
        line += f", {rate(total)} for all {load.sequences:,} ({low} to {high})"
    line += _first_token(plan, speed)
    cost = candidate.usd_per_million_output_tokens
    if cost is not None:
        least, most = dollars(cost / speed.high_factor), dollars(cost / speed.low_factor)
        line += f"; ${dollars(cost)} a million output tokens ({least} to {most})"
    many = f"{load.requests:,} requests, " if load.requests else ""
    about = f"{many}{load.input_tokens:,} tokens in, {load.output_tokens:,} out; {speed.basis}"
    lines = [line, style(f"  {_batch_words(plan, candidate, load.sequences)}{about}", "dim")]
    return [*lines, *_near_target(plan, speed), *_job(plan, candidate)]


def _reading(candidate: Candidate) -> list[str]:
    """How fast a model reads that writes nothing."""
    speed = candidate.reading
    if speed is None:
        return []
    figure, load = speed.prefill_tokens_per_second, speed.load
    low, high = rate(figure * speed.low_factor), rate(figure * speed.high_factor)
    return [
        f"Speed: reads {rate(figure)} tokens/s ({low} to {high}); it answers with vectors or scores, and writes none",
        style(f"  {load.sequences:,} at once, {load.input_tokens:,} tokens each; {speed.basis}", "dim"),
    ]


def _without_cache(plan: Plan, candidate: Candidate) -> list[str]:
    """What holds an engine back that keeps nothing of a text: the batch that it is told to read."""
    footprint, architecture = candidate.footprint, plan.model.architecture
    if footprint is None or architecture is None or not keeps_nothing(architecture):
        return []
    if footprint.kv_pool_bytes or footprint.max_sequences is None:
        return []
    return [
        f"No KV cache: each text is read whole, in one pass; up to {footprint.max_sequences:,} of them at once"
        " (--max-num-seqs)"
    ]


def _first_token(plan: Plan, speed: Throughput) -> str:
    """When an answer begins, and which queue is in that."""
    load, asked = speed.load, plan.load.sequences
    first = speed.time_to_first_token_seconds
    low, high = first_token_range(plan.settings.name, load)
    after = f"first token after {seconds(first)} ({seconds(first * low)} to {seconds(first * high)})"
    if load.requests:
        return f", {after} on average, the queue included"
    if load.sequences < asked and not plan.request.searches_batch:
        return f"; {asked - load.sequences:,} of {asked:,} wait for their turn, then {after}"
    return f", {after}"


def _near_target(plan: Plan, speed: Throughput) -> list[str]:
    """A word where the target is met by what is expected, and not at the slow end of the range."""
    target, each = plan.request.target_tokens_per_second, speed.decode_tokens_per_second_per_user
    if target is None or each < target or each * speed.low_factor >= target:
        return []
    safe = target / speed.low_factor
    return [
        f"The target of {target:g} is what to expect; to have it at the slow end too: --target {safe:.0f}"
    ]


def _batch_words(plan: Plan, candidate: Candidate, batch: int) -> str:
    """How many at once, and what kept it from being more."""
    if not plan.request.searches_batch:
        return ""
    if plan.load.requests and plan.request.target_tokens_per_second is None:
        return f"{batch:,} at once; "
    if batch == engines.most_running(candidate.gpu, plan.settings):
        return f"batch {batch:,}, the most that {plan.settings.name} runs by itself; "
    if plan.request.target_tokens_per_second is None:
        return f"batch {batch:,}, the largest that memory holds; "
    return f"batch {batch:,}, the largest that memory and the target allow; "


def _job(plan: Plan, candidate: Candidate) -> list[str]:
    job, offer = plan.job_tokens, candidate.offer
    hours = candidate.hours_of_job(plan.request)
    if job is None or hours is None:
        return []
    speed = candidate.throughput
    assert speed is not None  # noqa: S101 - without a speed there are no hours
    range_words = f" ({span(hours / speed.high_factor)} to {span(hours / speed.low_factor)})"
    cost = f", {units.format_usd(hours * offer.usd_per_hour)}" if offer else ""
    return [
        f"Job: {job:,} output tokens in {span(hours)}{range_words}{cost}, after the machine is up and the model loaded"
    ]


def seconds(amount: float) -> str:
    """`0.12 s`, `3.4 s`, `12m`."""
    if amount >= 120:
        return span(amount / 3600)
    return f"{amount:.2f} s" if amount < 1 else f"{amount:,.1f} s"


def _why_not(plan: Plan, rows: Sequence[int]) -> list[str]:
    """The reasons beside the verdicts of the rows shown, each once, with the machines it holds for."""
    by_reason: dict[str, list[str]] = {}
    for candidate in (plan.candidates[index] for index in rows):
        if is_plainly_too_small(candidate):
            continue
        too_slow = candidate.verdict == "fits" and candidate.meets_target is False  # as the table says
        for reason in candidate.reasons[: -1 if too_slow else None]:
            by_reason.setdefault(reason, []).append(candidate.name)
    everywhere = len(rows)
    return [
        f"{'Every machine' if 1 < len(names) == everywhere else ', '.join(names)}: {reason}"
        for reason, names in by_reason.items()
    ]


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
    return [*lines, *_served_by(plan, shown)]


def _served_by(plan: Plan, shown: Candidate) -> list[str]:
    """The command, and what it leaves out; or why there is none."""
    if not shown.engine_argv:
        if not has_no_files(plan.model, plan.settings.name):
            return []
        return [
            f"This is what it would need: no repository with {plan.model.id} in {plan.model.quantization_label}"
            " is known. Name one that has it: soong plan ORG/NAME"
        ]
    lines = [f"Serve it there with:\n  {shlex.join(shown.engine_argv)}"]
    if shown.gpu_count > FEWEST_OF_SEVERAL_MACHINES:
        lines += _machines(plan, shown)
    return lines


FEWEST_OF_SEVERAL_MACHINES = 4
"""No GPU comes in machines of fewer (`most_per_machine` of the exports' table); a look at it is spared for the rest."""


def _machines(plan: Plan, shown: Candidate) -> list[str]:
    """What the command and the speed leave out where the GPUs are those of several machines."""
    from soong.exports.names import names_of

    most = names_of(shown.gpu).most_per_machine
    if shown.offer is not None or shown.gpu_count <= most:
        return []
    words = f"{plan.model.id} --gpu {shown.gpu.id} --gpu-count {shown.gpu_count}"
    return [
        f"{-(-shown.gpu_count // most)} machines, as one has {most} {shown.gpu.name} at most: each runs the command"
        " with its own --nnodes and --node-rank, and the network between them is in neither figure."
        f" `soong export kubernetes {words}` (or skypilot, dstack) writes it out."
    ]


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
        return [f"Price only: soong cannot rent there; {_export(plan, shown)}."]
    better = plan.better_elsewhere
    if better is None or better.offer is None:
        return []
    return [f"Better, price only: {better.name}{price(better, plan.request.hours)}; {_export(plan, better)}."]


def _export(plan: Plan, candidate: Candidate) -> str:
    from soong.cli.views.elsewhere import export_command

    if candidate.offer is None:
        return "no tool that soong writes for rents it"
    command = export_command(plan.model.id, candidate.offer, candidate.gpu)
    what = "a script to run there" if command.startswith("soong export shell") else "a file for it"
    return f"`{command}` writes {what}"


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
    if needs_gb < has_gb:
        return [f"Warning: Selected GPU is too small: {'; '.join(candidate.reasons)}", hint]
    lines = [f"Warning: Selected GPU has {has_gb}GB but model needs ~{needs_gb}GB", hint]
    if _starts_in_4_bit(plan):
        lines.append(f"hint: soong plan {plan.model.id} {_asked_again(plan)} --quantization int4")
    lines[1:1] = candidate.reasons[1:]
    return lines


def _asked_again(plan: Plan) -> str:
    """The options that decide what fits, as the person gave them."""
    request = plan.request
    given = (
        ("--gpu", request.gpu),
        ("--gpu-count", request.gpu_count),
        ("--engine", request.engine),
        ("--context", request.context_tokens),
        ("--sequences", request.sequences),
    )
    return " ".join(f"{option} {value}" for option, value in given if value is not None)


def _starts_in_4_bit(plan: Plan) -> bool:
    """Whether the same question asked of a 4-bit format has a machine that starts."""
    from msgspec.structs import replace

    from soong.errors import SoongError
    from soong.plan.planner import make_plan

    if plan.model.quantization_id in {"int4", "mxfp4", "nvfp4"}:
        return False
    try:
        lighter = make_plan(replace(plan.request, quantization="int4"))
    except SoongError:
        return False
    return any(candidate.verdict in {"fits", "tight"} for candidate in lighter.candidates)


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

    candidate = plan.chosen or nearest(plan.candidates)
    if candidate is None:
        return "No machine matches these options."
    return "\n".join(explain(plan, candidate))
