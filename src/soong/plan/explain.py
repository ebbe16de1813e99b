"""The arithmetic of one candidate, line by line: each formula with its figures, and where each number came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong import units
from soong.memory import engines
from soong.memory.dividing import is_routed
from soong.memory.kv_cache import resolve_kv_dtype
from soong.memory.rule_of_thumb import HEADROOM_FACTOR
from soong.memory.weights import filled_up_to, weights_per_gpu
from soong.models.answers import keeps_nothing
from soong.models.architecture import AttentionCache
from soong.plan.candidates import ENGINE_OF_GGUF, served_model, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from soong.memory.engines._vllm_explained import Part
    from soong.memory.footprint import EngineSettings, Footprint
    from soong.memory.kv_cache import LayerKind
    from soong.models.architecture import Weight
    from soong.plan.plan import Candidate, Plan
    from soong.speed.throughput import Throughput

BASIS = {
    "headers": "the headers of its safetensors or GGUF files",
    "config": "the shapes that its config.json implies",
    "rule-of-thumb": "its parameter count alone",
}


def explain(plan: Plan, candidate: Candidate) -> Iterator[str]:
    """Lines of text for `soong plan --explain`."""
    offer = candidate.offer
    where = f" ({offer.instance_type}, {offer.cloud})" if offer else ""
    yield f"{plan.model.id} on {candidate.gpu_count}x {candidate.gpu.name}{where}, {candidate.verdict}"
    yield f"Rules: {plan.settings.name} {plan.settings.version}."
    yield f"The GPU: {candidate.gpu.source} ({candidate.gpu.as_of})."
    yield ""
    if candidate.footprint is None:
        yield from _rule_of_thumb(plan)
        return
    if plan.settings.name == ENGINE_OF_GGUF:
        from soong.plan.explain_llama_cpp import explain_llama_cpp

        yield from explain_llama_cpp(plan, candidate)
        yield ""
        yield from _rule_of_thumb(plan)
        return
    yield from _weights(plan, candidate)
    yield from _kv_cache(plan, candidate)
    yield from _rest(plan, candidate)
    yield from _sum(candidate.footprint)
    yield ""
    yield from _speed(candidate)
    yield from _rule_of_thumb(plan)


def _speed(candidate: Candidate) -> Iterator[str]:
    """How fast it answers, what that costs, and how the cost follows from the price."""
    speed, offer = candidate.throughput, candidate.offer
    if speed is None:
        yield from _reading(candidate.reading)
        return
    load, total = speed.load, speed.decode_tokens_per_second
    in_all = f", {load.requests:,} requests in all" if load.requests else ""
    yield f"Speed, {load.sequences:,} at once{in_all}, {load.input_tokens:,} tokens in and {load.output_tokens:,} out:"
    each = speed.decode_tokens_per_second_per_user
    for name, amount, note in (
        ("prompts", speed.prefill_tokens_per_second, "while nothing else is computed"),
        ("answers", each, f"for each user; decoding waits for {BOUNDS[speed.bound]}"),
        ("in all", total, "for all of them together, the prompts' time included"),
    ):
        yield f"  {name:<12}{amount:>14,.1f} tokens/s  {note}"
    yield f"  measured runs were {speed.low_factor:.2f} to {speed.high_factor:.2f} times such figures: {speed.basis}"
    cost = candidate.usd_per_million_output_tokens
    if offer is not None and cost is not None:
        yield f"  a million output tokens: ${offer.usd_per_hour:.2f} ÷ ({total:,.1f} × 3,600) × 1,000,000 = ${cost:.2f}"
    yield ""


BOUNDS = {
    "memory": "memory's bandwidth",
    "compute": "multiplications",
    "communication": "the link between the GPUs",
    "overhead": "the engine itself",
}


def _reading(speed: Throughput | None) -> Iterator[str]:
    """How fast a model reads that writes nothing."""
    if speed is None:
        return
    yield f"Speed, {speed.load.sequences:,} at once, {speed.load.input_tokens:,} tokens each:"
    yield f"  {'prompts':<12}{speed.prefill_tokens_per_second:>14,.1f} tokens/s  and no answers: vectors or scores"
    yield f"  measured runs were {speed.low_factor:.2f} to {speed.high_factor:.2f} times such figures: {speed.basis}"
    yield ""


def _weights(plan: Plan, candidate: Candidate) -> Iterator[str]:
    """Bytes of each part on one GPU."""
    served = served_model(plan.model)
    if served is None or candidate.footprint is None:
        return
    settings = _settings(plan, candidate)
    served = engines.as_loaded(served, settings)
    share = weights_per_gpu(
        served.architecture,
        served.quantization,
        tensor_parallel=candidate.tensor_parallel,
        engine=settings.name,
        engine_version=settings.version,
        compute_capability=candidate.gpu.compute_capability,
        pipeline_parallel=settings.pipeline_parallel,
        expert_parallel=settings.expert_parallel,
    )
    yield f"Weights per GPU, from {BASIS[plan.model.weights_basis]}; tensor parallel {candidate.tensor_parallel}:"
    parameters = plan.model.parameters
    if parameters and plan.model.weights_bytes:
        each = plan.model.weights_bytes / parameters
        yield f"  checkpoint: {parameters:,} parameters in {plan.model.weights_bytes:,} bytes ({each:.3f} bytes each)"
    for part, size in sorted(share.parts.items(), key=lambda pair: -pair[1]):
        if size:
            yield _line(part, size)
            yield from _tensors(
                (weight for weight in served.architecture.served_weights() if weight.part == part),
                settings,
            )
    for name, size, note in (
        ("tables", share.buffers_bytes, "rotary tables and unpacked matrices, kept beside the weights"),
        ("padding", share.padding_bytes, "what the kernel's layout adds"),
        ("rounding", share.rounding_bytes, "what PyTorch's allocator adds to large tensors"),
        ("given back", -share.released_bytes, "room for biases that the checkpoint does not have"),
        (
            "inputs",
            max(0, candidate.footprint.loaded_bytes - share.loaded_bytes),
            "room for what towers hand to the decoder, for each token of a batch",
        ),
    ):
        if size:
            yield _line(name, size, note)
    yield _line("weights", candidate.footprint.loaded_bytes, "= the sum on one GPU")
    yield ""


def _tensors(weights: Iterable[Weight], settings: EngineSettings) -> Iterator[str]:
    """How often each tensor of a part stands in the model, its shape, and how tensor parallel splits it."""
    for weight in weights:
        if weight.elements >= LEAST_SHOWN_ELEMENTS:
            shape = " × ".join(f"{size:,}" for size in weight.shape)
            times = f"{weight.count:,} × " if weight.count > 1 else ""
            yield f"    {weight.path}: {times}{shape}, {_split(weight, settings)}"


def _split(weight: Weight, settings: EngineSettings) -> str:
    whole_experts_on = settings.tensor_parallel if settings.expert_parallel else 1
    if whole_experts_on > 1 and is_routed(weight):
        return f"whole, {-(-weight.copies // whole_experts_on):,} of {weight.copies:,} in a layer on one GPU"
    width = filled_up_to(weight, settings)
    return SPLITS[weight.shard] + (f", each share filled up to {width}" if width else "")


LEAST_SHOWN_ELEMENTS = 1 << 16
"""Norms and biases would double the lines and add a thousandth of the bytes."""

SPLITS = {
    "replicated": "whole on every GPU",
    "column": "rows divided",
    "row": "columns divided",
    "vocab": "padded to 64 rows, rows divided",
    "kv": "divided by key-value heads",
}


def _kv_cache(plan: Plan, candidate: Candidate) -> Iterator[str]:
    """Each kind of cache layer with its bytes, then the pool."""
    served, footprint = served_model(plan.model), candidate.footprint
    if served is None or footprint is None:
        return
    if keeps_nothing(served.architecture) and not footprint.kv_pool_bytes:
        yield "No KV cache: nothing of a text is kept between passes, and no pool is made."
        yield ""
        return
    asked = (served, candidate.gpu, plan.workload, _settings(plan, candidate))
    taken = engines.kv_dtype(*asked)
    dtype = taken or resolve_kv_dtype(plan.workload.kv_dtype, served.kv_dtype, served.architecture.dtype)
    yield f"KV cache per GPU, kept in {dtype}:"
    for cache in served.architecture.caches:
        if isinstance(cache, AttentionCache) and cache.layers:
            heads = f"{cache.kv_heads} key-value heads ÷ {candidate.tensor_parallel} GPUs (at least 1)"
            yield f"  {cache.layers} layers: {heads} × ({cache.key_dim} + {cache.value_dim}) numbers a token"
    for kind in engines.cache_kinds(*asked):
        yield f"  {describe_kind(kind)}"
    if footprint.kv_bytes_per_token:
        yield _line("one more token", footprint.kv_bytes_per_token, "over all layers that grow")
    if footprint.state_bytes_per_sequence:
        yield _line(
            "one sequence", footprint.state_bytes_per_sequence, "recurrent state and full windows, once"
        )
    tokens, many = plan.workload.tokens_each, plan.workload.sequences
    yield _line(
        "the workload",
        footprint.workload_kv_bytes,
        f"= {many} × {tokens:,} tokens, by the engine's own blocks",
    )
    if footprint.kv_pool_tokens is not None:
        yield _line(
            "the engine's pool",
            footprint.kv_pool_bytes,
            _pool_note(footprint),
        )
    yield ""


def _pool_note(footprint: Footprint) -> str:
    share = (
        f"what memory fraction {footprint.memory_fraction:g} leaves; " if footprint.memory_fraction else ""
    )
    return f"{share}it will report {footprint.kv_pool_tokens:,} tokens"


def describe_kind(kind: LayerKind) -> str:
    """`32 full layers × 4,096 bytes a token = 131,072`, and the like for windows and states."""
    if kind.state_bytes:
        total = kind.layers * kind.state_bytes
        return f"{kind.layers} {kind.state_kind or 'state'} layers × {kind.state_bytes:,} bytes a sequence = {total:,}"
    total = kind.layers * kind.token_bytes
    line = f"{kind.layers} {kind.name} layers × {kind.token_bytes:,} bytes a token = {total:,}"
    if kind.ratio > 1:
        line += f", one entry for every {kind.ratio} tokens"
    if kind.window:
        line += f", window {kind.window:,} tokens"
    return line


def _rest(plan: Plan, candidate: Candidate) -> Iterator[str]:
    """Activations, graphs and runtime, each opened where the engine's model tells its parts."""
    footprint = candidate.footprint
    if footprint is None:
        return
    parts = _parts(plan, candidate)
    yield "Beside them:"
    yield _line(
        "activations",
        footprint.activations_bytes,
        "the peak of the engine's own profile run",
    )
    yield from _opened(parts, "activations")
    yield _line("CUDA graphs", footprint.cuda_graphs_bytes)
    yield from _opened(parts, "graphs")
    added = footprint.loaded_bytes - footprint.weights_bytes
    yield _line(
        "runtime",
        footprint.runtime_bytes - added,
        "CUDA context, communication buffers, library workspaces",
    )
    yield from _opened(parts, "runtime")
    yield ""


def _parts(plan: Plan, candidate: Candidate) -> tuple[Part, ...]:
    served = served_model(plan.model)
    if served is None:
        return ()
    return engines.parts(served, candidate.gpu, plan.workload, _settings(plan, candidate))


def _settings(plan: Plan, candidate: Candidate) -> EngineSettings:
    """The flags of the machine's split, with the sequences at once that it is told."""
    settings = settings_for(
        plan.request, plan.model, candidate.tensor_parallel, expert_parallel=candidate.expert_parallel
    )
    return replace(settings, max_num_seqs=candidate.max_num_seqs)


def _opened(parts: tuple[Part, ...], of: str) -> Iterator[str]:
    for part in parts:
        if part.of == of and part.size_bytes:
            yield f"    {part.name}: {part.size_bytes:,} bytes, {part.formula}"


def _sum(footprint: Footprint) -> Iterator[str]:
    headroom = footprint.need_bytes * HEADROOM_FACTOR
    yield "Need = weights + workload's KV + activations + graphs + runtime:"
    yield _line("need", footprint.need_bytes)
    yield _line(
        "with 10% headroom",
        round(headroom),
        f"against {units.format_gib(footprint.total_bytes, 2)} that the driver reports",
    )
    yield _line(
        "uncertainty",
        footprint.uncertainty_bytes,
        "how far the free figure may be off, from the measured error",
    )


def _line(name: str, size_bytes: int, note: str = "") -> str:
    return f"  {name:<18} {size_bytes:>18,} bytes  {units.format_gib(size_bytes, 2):>11}  {note}".rstrip()


def _rule_of_thumb(plan: Plan) -> Iterator[str]:
    rule = plan.rule_of_thumb
    yield (
        f"Rule of thumb: {rule.weights_gb:.1f} weights + {rule.kv_cache_gb:.1f} KV cache"
        f" + {rule.overhead_gb:.1f} overhead + {rule.activations_gb:.1f} activations"
        f" = {rule.total_gb:.1f} GB, × 1.1 = {rule.with_headroom_gb:.1f} GB"
    )
