"""The arithmetic of one llama.cpp candidate: the buffers that its log will print, each opened into its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong import units
from soong.memory.engines import llama_cpp
from soong.memory.rule_of_thumb import HEADROOM_FACTOR
from soong.plan.candidates import served_model, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from soong.memory.engines._llama_explained import Line
    from soong.plan.plan import Candidate, Plan

BASIS = {
    "headers": "the GGUF file's own table",
    "config": "what llama-quantize makes of the config's shapes",
    "rule-of-thumb": "the parameter count alone",
}


def explain_llama_cpp(plan: Plan, candidate: Candidate) -> Iterator[str]:
    """Lines of text for `soong plan --explain` between the GPU and the rule of thumb."""
    served, footprint = served_model(plan.model), candidate.footprint
    if served is None or footprint is None:
        return
    settings = settings_for(plan.request, plan.model, candidate.tensor_parallel)
    lines = llama_cpp.explained(served, plan.workload, settings)
    gpus = settings.tensor_parallel * settings.pipeline_parallel
    where = f" on the fullest of {gpus} GPUs" if gpus > 1 else ""
    label = plan.model.quantization.label if plan.model.quantization.method == "gguf" else "converted to GGUF"
    basis = BASIS[plan.model.weights_basis if plan.model.quantization.method == "gguf" else "config"]
    yield f"Tensors of {label}{where}, from {basis}:"
    yield from _section(lines, "weights")
    yield _line("model buffer", footprint.weights_bytes, "= the sum")
    yield "  left on the host, whatever is offloaded:"
    yield from _section(lines, "host", indent="  ")
    yield ""
    yield f"KV cache{where}; {llama_cpp.context_note(plan.workload)}:"
    yield from _section(lines, "cache")
    yield _line("KV buffer", footprint.kv_pool_bytes, "= the sum, allocated at start")
    if footprint.state_bytes:
        yield from _section(lines, "state")
        yield _line("RS buffer", footprint.state_bytes, "= the sum, one state a slot")
    yield ""
    yield "Compute buffer, reserved for one micro batch of all slots:"
    yield from _section(lines, "compute")
    yield _line("compute buffer", footprint.activations_bytes, "= the sum")
    yield ""
    yield "Beside them:"
    yield from _section(lines, "runtime")
    yield ""
    yield "Need = model + KV + RS + compute buffers + what stands beside them:"
    yield _line("need", footprint.need_bytes)
    total = units.format_gib(footprint.total_bytes, 2)
    yield _line(
        "with 10% headroom",
        round(footprint.need_bytes * HEADROOM_FACTOR),
        f"against {total} that the driver reports",
    )
    yield _line(
        "uncertainty",
        footprint.uncertainty_bytes,
        "how far the free figure may be off, from the measured error",
    )


def _section(lines: Iterable[Line], section: str, indent: str = "") -> Iterator[str]:
    for line in lines:
        if line.section == section and line.size_bytes:
            yield indent + _line(line.name, line.size_bytes, line.note)


def _line(name: str, size_bytes: int, note: str = "") -> str:
    return f"  {name:<18} {size_bytes:>18,} bytes  {units.format_gib(size_bytes, 2):>11}  {note}".rstrip()
