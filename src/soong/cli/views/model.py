"""The page of one model, and several side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong import units
from soong.cli.text import heading, table
from soong.cli.views.plan import price
from soong.memory.rule_of_thumb import HEADROOM_FACTOR
from soong.plan.describing import machine_name, total_need_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.plan.describing import Described
    from soong.plan.plan import Candidate


def document(described: Described) -> dict[str, Any]:
    """Model and plan as JSON."""
    from soong.plan.document import plan_document

    return {"model": described.model, "plan": plan_document(described.plan)}


def details(described: Described) -> str:
    """Every section of the specification's page: paths, size, memory two ways, GPU, price, texts."""
    model = described.model
    title = model.name if model else described.plan.model.id
    parts = [heading(title), ""]
    parts += [*_facts(described), "", "VRAM Breakdown:", _breakdown(described), *_basis_notes(described), ""]
    parts += _recommended(described)
    if model is not None:
        parts += _texts("Good for", model.good_for) + _texts("Not good for", model.not_good_for)
        parts += [f"\nNotes: {model.notes}"] if model.notes else []
    return "\n".join(parts)


def _facts(described: Described) -> list[str]:
    model, plan = described.model, described.plan
    resolved = plan.model
    path = model.hf_path if model else resolved.serve_from
    lines = [f"HuggingFace Path: {path}"]
    if resolved.serve_from != path:
        lines.append(f"Served From: {resolved.serve_from}")
    lines.append(f"Parameters: {_parameters(described)}")
    lines.append(f"Quantization: {resolved.quantization_label}")
    lines.append(f"Context Length: {plan.workload.context_tokens:,} tokens{_limit(described)}")
    if model is not None:
        gated = " (gated: accept its terms on Hugging Face first)" if model.gated else ""
        lines.append(f"Licence: {model.licence}{gated}")
    return lines


def _parameters(described: Described) -> str:
    resolved = described.plan.model
    if not resolved.parameters:
        return "unknown"
    text = f"{units.format_count(resolved.parameters)} ({resolved.parameters:,})"
    if resolved.active_parameters and resolved.active_parameters < resolved.parameters:
        text += f", {units.format_count(resolved.active_parameters)} active per token"
    return text


def _limit(described: Described) -> str:
    limit = described.plan.model.context_limit_tokens
    return f" (the model's limit: {limit:,})" if limit else ""


def _shown(described: Described) -> Candidate | None:
    plan = described.plan
    starting = next((candidate for candidate in plan.candidates if candidate.starts), None)
    return plan.chosen or starting or (plan.candidates[-1] if plan.candidates else None)


def _breakdown(described: Described) -> str:
    """The rule of thumb (decimal GB) beside the exact plan (GiB, all GPUs together)."""
    rule = described.plan.rule_of_thumb
    exact = _exact_parts(described)
    rows = [
        ("Base weights", units.format_gb(rule.weights_gb), exact.get("weights", "")),
        ("KV cache", units.format_gb(rule.kv_cache_gb), exact.get("kv", "")),
        ("Overhead", units.format_gb(rule.overhead_gb), exact.get("overhead", "")),
        ("Activations", units.format_gb(rule.activations_gb), exact.get("activations", "")),
        ("Total estimated", units.format_gb(rule.total_gb), exact.get("total", "")),
        ("With 10% headroom", units.format_gb(rule.with_headroom_gb), exact.get("headroom", "")),
    ]
    candidate = _shown(described)
    where = f"Exact, on {machine_name(candidate)}" if candidate and candidate.footprint else "Exact"
    return table(["", "Rule of thumb", where], rows, right=(1, 2))


def _exact_parts(described: Described) -> dict[str, str]:
    candidate = _shown(described)
    if candidate is None or candidate.footprint is None:
        return {}
    footprint, gpus = candidate.footprint, candidate.tensor_parallel
    total = total_need_bytes(described.plan, candidate)
    return {
        "weights": units.format_gib(footprint.weights_bytes * gpus),
        "kv": units.format_gib(footprint.workload_kv_bytes * gpus),
        "overhead": units.format_gib((footprint.runtime_bytes + footprint.cuda_graphs_bytes) * gpus),
        "activations": units.format_gib(footprint.activations_bytes * gpus),
        "total": units.format_gib(total),
        "headroom": units.format_gib(round(total * HEADROOM_FACTOR)),
    }


def _basis_notes(described: Described) -> list[str]:
    plan = described.plan
    if _exact_parts(described):
        engine = f"{plan.settings.name} {plan.settings.version}"
        return [f"The exact plan ({engine}) decides; the rule of thumb is shown to compare."]
    return ["Only the rule of thumb is known for this model: its architecture has not been read."]


def _recommended(described: Described) -> list[str]:
    chosen = described.plan.chosen
    if chosen is None:
        return [
            "Recommended GPU: none for rent here holds it with 10% to spare",
            f"  hint: soong plan {described.plan.model.id}",
        ]
    lines = [f"Recommended GPU: {machine_name(chosen)}"]
    if chosen.offer:
        lines.append(f"  Price: {price(chosen, None).removeprefix(', ')}, type {chosen.offer.instance_type}")
    return lines


def _texts(title: str, texts: Iterable[str]) -> list[str]:
    lines = [f"  • {text}" for text in texts]
    return [f"\n{title}:", *lines] if lines else []


def comparison(described: list[Described]) -> str:
    """Models side by side, one column each."""
    rows = [
        ("Best for", *(one.model.best_for if one.model else "" for one in described)),
        ("Parameters", *(_short_parameters(one) for one in described)),
        ("VRAM", *(units.format_gib(total_need_bytes(one.plan, _shown(one))) for one in described)),
        (
            "Min GPU",
            *(machine_name(one.plan.chosen) if one.plan.chosen else "none here" for one in described),
        ),
        ("Context", *(f"{one.plan.workload.context_tokens:,}" for one in described)),
        ("Cost", *(_cost(one) for one in described)),
        ("Strengths", *(_bullets(one.model.strengths) if one.model else "" for one in described)),
        ("Weaknesses", *(_bullets(one.model.weaknesses) if one.model else "" for one in described)),
        ("Use when", *(one.model.use_when if one.model else "" for one in described)),
    ]
    return table(["", *(one.plan.model.id for one in described)], rows)


def _short_parameters(described: Described) -> str:
    resolved = described.plan.model
    size = units.format_count(resolved.parameters) if resolved.parameters else "?"
    return f"{size} ({resolved.quantization_label})"


def _cost(described: Described) -> str:
    offer = described.plan.chosen.offer if described.plan.chosen else None
    return f"${offer.usd_per_hour:.2f}/hour ({offer.cloud}, {offer.as_of})" if offer else ""


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"• {text}" for text in texts)
