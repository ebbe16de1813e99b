"""One model on one machine: how it is split, which flags make it run, what it needs, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong.memory import engines
from soong.memory.dividing import tensor_parallel_problem
from soong.memory.footprint import EngineSettings, ServedModel
from soong.plan.plan import Candidate
from soong.plan.verdict import judge, judge_by_rule_of_thumb

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import Footprint, Workload
    from soong.memory.rule_of_thumb import RuleOfThumb
    from soong.models.resolve import ResolvedModel
    from soong.offers.offer import Offer
    from soong.plan.plan import Verdict
    from soong.plan.request import Request

DEFAULT_ENGINE = "sglang"
ENGINE_OF_GGUF = "llama.cpp"

ROOMIER_FRACTIONS = (0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95)
"""Fractions to try where the engine's default leaves too small a pool: SGLang's default on a 24 GB card is 0.7, and
both engines' own advice is to raise it as long as memory stays free."""

_STARTS = {"fits", "tight"}


class Machine(NamedTuple):
    """GPUs side by side, the offer they come with, and what a person must know of how the GPU was chosen."""

    gpu: Gpu
    gpu_count: int
    offer: Offer | None
    note: str = ""


class Question(NamedTuple):
    """What is the same for every machine of a plan. `served` is None where only the model's size is known.

    settings: the engine's flags by tensor-parallel size, filled as machines ask for them. argv: the commands, by
    tensor-parallel size and memory fraction, the two flags that machines differ in; filled likewise.
    """

    model: ResolvedModel
    served: ServedModel | None
    estimate: RuleOfThumb
    workload: Workload
    request: Request
    settings: dict[int, EngineSettings]
    argv: dict[tuple[int, float | None], tuple[str, ...]]

    def settings_of(self, tensor_parallel: int) -> EngineSettings:
        """The engine's flags for one way to split the model."""
        found = self.settings.get(tensor_parallel)
        if found is None:
            found = self.settings[tensor_parallel] = settings_for(self.request, self.model, tensor_parallel)
        return found

    def source_for(self, settings: EngineSettings) -> str:
        """What the engine loads; empty where llama.cpp would need a file that nobody is known to offer."""
        return self.model.gguf_from if settings.name == ENGINE_OF_GGUF else self.model.serve_from

    def argv_of(self, settings: EngineSettings) -> tuple[str, ...]:
        """The command that starts the engine with these flags; empty where there is nothing to load."""
        if not self.source_for(settings):
            return ()
        key = (settings.tensor_parallel, settings.memory_fraction)
        found = self.argv.get(key)
        if found is None:
            found = engines.launch_argv(self.source_for(settings), self.workload, settings)
            self.argv[key] = found
        return found


def served_model(model: ResolvedModel) -> ServedModel | None:
    """The model as `soong.memory` takes it; None when only its size is known."""
    if model.architecture is None:
        return None
    return ServedModel(
        key=model.key,
        architecture=model.architecture,
        quantization=model.quantization,
        weights_bytes=model.weights_bytes,
        weights_basis=model.weights_basis,
        kv_dtype=model.quantization.kv_cache_dtype,
    )


def settings_for(request: Request, model: ResolvedModel, tensor_parallel: int) -> EngineSettings:
    """The engine's flags for one way to split the model; GGUF goes to llama.cpp unless an engine is named."""
    name = request.engine or (ENGINE_OF_GGUF if model.quantization.method == "gguf" else DEFAULT_ENGINE)
    return EngineSettings(
        name=name,
        version=request.engine_version or engines.default_version(name),
        memory_fraction=request.memory_fraction,
        kv_cache_memory_bytes=request.kv_cache_memory_bytes,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=request.pipeline_parallel,
        enforce_eager=request.enforce_eager,
        max_num_batched_tokens=request.max_num_batched_tokens,
        max_num_seqs=request.max_num_seqs,
    )


def judged(question: Question, machine: Machine) -> Candidate:
    """The candidate that a machine is for this question."""
    served = question.served
    if served is None:
        return _by_rule_of_thumb(question, machine)
    parallel, note = _tensor_parallel(served, question.request, machine.gpu_count)
    settings = question.settings_of(max(parallel, 1))
    support = _support(served, machine.gpu, settings)
    problem = _beyond_limit(question) or (note if parallel == 0 else support.problem)
    problem = problem or _processor_problem(machine.gpu, settings)
    footprint = engines.footprint(served, machine.gpu, question.workload, settings)
    if problem:
        return _made(question, machine, settings, footprint, "unsupported", (problem,))
    verdict, reasons = judge(footprint, question.workload.sequences)
    if verdict != "fits":
        roomier = _roomier(question, settings, footprint, machine.gpu, starts=footprint.starts)
        if roomier is not None:
            settings, footprint, verdict, reasons = roomier
    if verdict in _STARTS and support.casts_to_float16:
        verdict, reasons = "tight", (*reasons, "no bf16 on this GPU: the engine casts the model to float16")
    if verdict == "fits" and machine.gpu.vendor == "cpu" and settings.name != ENGINE_OF_GGUF:
        verdict, reasons = "tight", (*reasons, f"{settings.name} on a processor shares memory by other rules")
    reasons = _with_remarks(reasons, note, machine)
    if settings.name == ENGINE_OF_GGUF:
        lacking = footprint if verdict == "too-small" else None
        reasons = (*reasons, *_llama_cpp_notes(question, settings, machine.gpu, lacking))
    return _made(question, machine, settings, footprint, verdict, reasons)


def _with_remarks(reasons: tuple[str, ...], note: str, machine: Machine) -> tuple[str, ...]:
    """The reasons, with what a person must know of the split, of the GPU's name and of the host."""
    for remark in (note, machine.note, _host_note(machine.gpu)):
        if remark:
            reasons = (*reasons, remark)
    return reasons


def _llama_cpp_notes(
    question: Question, settings: EngineSettings, gpu: Gpu, lacking: Footprint | None
) -> tuple[str, ...]:
    """What llama.cpp can do with a GPU that is too small, and what keeps the command from being given."""
    served = question.served
    if served is None:
        return ()
    remarks = engines.remarks(served, gpu, question.workload, settings, lacking=lacking)
    return remarks if question.source_for(settings) else (*remarks, NO_FILE)


NO_FILE = (
    "no GGUF file of it is known, so no command: make one with llama.cpp's `convert_hf_to_gguf.py` and"
    " `llama-quantize`, then plan that file"
)


def _beyond_limit(question: Question) -> str:
    """Why the engine refuses the context; llama.cpp takes any, with a warning.

    Source: vLLM 0.33 `config/model.py` _get_and_verify_max_len, SGLang 0.5.23 `configs/model_config.py`.
    """
    served, context = question.served, question.workload.context_tokens
    limit = served.architecture.context_limit_tokens if served else None
    if limit is None or context <= limit or question.settings_of(1).name == ENGINE_OF_GGUF:
        return ""
    return f"the engine refuses {context:,} tokens of context: the model's own limit is {limit:,}"


def _made(
    question: Question,
    machine: Machine,
    settings: EngineSettings,
    footprint: Footprint,
    verdict: Verdict,
    reasons: tuple[str, ...],
) -> Candidate:
    argv = question.argv_of(settings) if verdict in _STARTS else ()
    return Candidate(
        gpu=machine.gpu,
        gpu_count=machine.gpu_count,
        tensor_parallel=settings.tensor_parallel,
        verdict=verdict,
        reasons=reasons,
        footprint=footprint,
        offer=machine.offer,
        engine_argv=argv,
    )


def _by_rule_of_thumb(question: Question, machine: Machine) -> Candidate:
    verdict, reasons = judge_by_rule_of_thumb(question.estimate, machine.gpu, machine.gpu_count)
    return Candidate(
        gpu=machine.gpu,
        gpu_count=machine.gpu_count,
        tensor_parallel=machine.gpu_count,
        verdict=verdict,
        reasons=reasons,
        footprint=None,
        offer=machine.offer,
        engine_argv=(),
    )


def _processor_problem(gpu: Gpu, settings: EngineSettings) -> str:
    if gpu.vendor == "cpu" and settings.name == "sglang":
        return "without a GPU: take `--engine llama.cpp` and a GGUF model"
    return ""


def _host_note(gpu: Gpu) -> str:
    if gpu.vendor == "cpu":
        return "no GPU: counted in this computer's free memory as it would be on a GPU's; slow"
    return "arm64 host: needs the engine's arm64 build" if gpu.cpu_architecture == "arm64" else ""


def _roomier(
    question: Question, settings: EngineSettings, footprint: Footprint, gpu: Gpu, *, starts: bool
) -> tuple[EngineSettings, Footprint, Verdict, tuple[str, ...]] | None:
    """The smallest memory fraction above the engine's default that makes the plan fit, or at least start.

    Nothing is tried where the fraction or the pool was given, or where the need alone is more than the GPU has; and
    nothing is taken that leaves less free than the figures may be off.

    Args:
        question, settings, gpu: what is asked. footprint: with the default fraction.
        starts: the engine starts with the default already, so that only a fit is better.
    """
    default = footprint.memory_fraction
    given = settings.memory_fraction is not None or settings.kv_cache_memory_bytes is not None
    if question.served is None or given or default is None or footprint.need_bytes > footprint.total_bytes:
        return None
    fallback = None
    for fraction in (fraction for fraction in ROOMIER_FRACTIONS if fraction > default):
        raised = msgspec.structs.replace(settings, memory_fraction=fraction)
        found = engines.footprint(question.served, gpu, question.workload, raised)
        if found.free_bytes < found.uncertainty_bytes:
            break
        verdict, reasons = judge(found, question.workload.sequences)
        remark = f"memory fraction {fraction:g}: the engine's default {default:g} leaves too small a pool"
        if verdict == "fits":
            return raised, found, verdict, (remark,)
        if found.starts and not starts and fallback is None:
            fallback = raised, found, verdict, (remark, *reasons)
    return fallback


def _tensor_parallel(served: ServedModel, request: Request, gpu_count: int) -> tuple[int, str]:
    """The split for a machine, as `_split` finds it; remembered by the model's key and what was asked."""
    key = (
        served.key,
        gpu_count,
        request.tensor_parallel,
        request.pipeline_parallel,
        request.engine,
        request.engine_version,
    )
    found = _splits_by_key.get(key)
    if found is None:
        if len(_splits_by_key) >= MOST_KEPT:
            _splits_by_key.clear()
        found = _splits_by_key[key] = _split(served, request, gpu_count)
    return found


def _split(served: ServedModel, request: Request, gpu_count: int) -> tuple[int, str]:
    """How many GPUs share each layer, and a note where that is not all of them; 0 where the asked split cannot be."""
    if request.tensor_parallel is not None:
        problem = _split_problem(served, request, request.tensor_parallel)
        return (0, problem) if problem else (request.tensor_parallel, "")
    most = max(1, gpu_count // request.pipeline_parallel)
    for parts in range(most, 1, -1):
        if _split_problem(served, request, parts) is None:
            return (
                parts,
                "" if parts == most else f"uses {parts} of {most} GPUs: the heads do not divide further",
            )
    return 1, "" if most == 1 else f"uses 1 of {most} GPUs: the heads do not divide further"


def _split_problem(served: ServedModel, request: Request, parts: int) -> str | None:
    """Why so many GPUs cannot share a layer; llama.cpp hands out whole layers, so nothing need divide."""
    gguf = served.quantization.method == "gguf"
    if request.engine == ENGINE_OF_GGUF or (request.engine is None and gguf):
        return None
    return tensor_parallel_problem(
        served.architecture,
        parts,
        served.quantization,
        engine=request.engine or "vllm",
        engine_version=request.engine_version or "",
    )


class _Support(NamedTuple):
    """What an engine says to a model on one kind of GPU. problem: why it cannot run it at all; empty when it can."""

    problem: str
    casts_to_float16: bool


def _support(served: ServedModel, gpu: Gpu, settings: EngineSettings) -> _Support:
    """What the engine says; remembered, since thousands of plans ask the same."""
    key = (
        served.key,
        gpu.id,
        gpu.compute_capability,
        settings.name,
        settings.version,
        settings.tensor_parallel,
    )
    found = _support_by_key.get(key)
    if found is None:
        if len(_support_by_key) >= MOST_KEPT:
            _support_by_key.clear()
        found = _support_by_key[key] = _Support(
            engines.supports(served, gpu, settings) or "",
            settings.name != ENGINE_OF_GGUF and engines.casts_to_float16(served, gpu),
        )
    return found


MOST_KEPT = 16384
_support_by_key: dict[tuple[object, ...], _Support] = {}
_splits_by_key: dict[tuple[object, ...], tuple[int, str]] = {}
