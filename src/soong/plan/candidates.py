"""One model on one machine: how it is split, which flags make it run, what it needs, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.memory import engines, towers
from soong.memory.dividing import tensor_parallel_problem
from soong.memory.footprint import EngineSettings, ServedModel
from soong.models.answers import writes_text
from soong.plan.loading import has_no_files, loading_flags
from soong.plan.pace import pace, unknown_pace, usd_per_million
from soong.plan.plan import Candidate
from soong.plan.sequences import with_sequences
from soong.plan.verdict import judge, judge_by_rule_of_thumb
from soong.speed.roofline import throughput

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import Footprint, Workload
    from soong.memory.rule_of_thumb import RuleOfThumb
    from soong.models.resolve import ResolvedModel
    from soong.offers.offer import Offer
    from soong.plan.plan import Verdict
    from soong.plan.request import Request
    from soong.speed.throughput import Load, Throughput

DEFAULT_ENGINE = "sglang"
ENGINE_OF_GGUF = "llama.cpp"

ROOMIER_FRACTIONS = (0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95)
"""Fractions to try where the engine's default leaves too small a pool: SGLang's default on a 24 GB card is 0.7, and
both engines' own advice is to raise it as long as memory stays free."""

_STARTS = {"fits", "tight"}


class Machine(msgspec.Struct, frozen=True, gc=False):
    """GPUs side by side, the offer they come with, and what a person must know of how the GPU was chosen."""

    gpu: Gpu
    gpu_count: int
    offer: Offer | None
    note: str = ""


class Split(msgspec.Struct, frozen=True, gc=False):
    """How so many GPUs share a model.

    parallel: the tensor-parallel size; 0 where they cannot. note: what a person must know of it. settings: the flags,
    which say whether routed experts are divided too or stand whole.
    support: what the engine says to each kind of GPU, by id and compute capability; filled as machines ask.
    """

    parallel: int
    note: str
    settings: EngineSettings
    support: dict[tuple[str, object], Support]


class Support(msgspec.Struct, frozen=True, gc=False):
    """What an engine says to a model on one kind of GPU.

    problem: why it cannot run it at all; empty when it can. remark: what a person must know of how it loads it.
    """

    problem: str
    casts_to_float16: bool
    remark: str = ""


class Question(msgspec.Struct, frozen=True, gc=False):
    """What is the same for every machine of a plan. `served` is None where only the model's size is known.

    load: what the speeds are for; its `sequences` are those asked for, or one where the batch is searched.
    beyond_limit: why the engine refuses the context or the flags, on any machine.
    paced: whether speeds are more than taken, for a target or at a batch that is searched.
    settings: the engine's flags by tensor-parallel size and whether experts stay whole, filled as machines ask for
    them. argv: the commands, by the flags that machines differ in.
    splits: by number of GPUs.
    """

    model: ResolvedModel
    served: ServedModel | None
    estimate: RuleOfThumb
    workload: Workload
    request: Request
    load: Load
    beyond_limit: str
    paced: bool
    settings: dict[tuple[int, bool], EngineSettings]
    argv: dict[tuple[float | None, ...], tuple[str, ...]]
    splits: dict[int, Split]

    def settings_of(self, tensor_parallel: int, *, expert_parallel: bool = False) -> EngineSettings:
        """The engine's flags for one way to split the model."""
        key = (tensor_parallel, expert_parallel)
        found = self.settings.get(key)
        if found is None:
            found = settings_for(self.request, self.model, tensor_parallel, expert_parallel=expert_parallel)
            self.settings[key] = found
        return found

    def split_of(self, served: ServedModel, gpu_count: int) -> Split:
        """How so many GPUs share the model."""
        found = self.splits.get(gpu_count)
        if found is None:
            parallel, note, apart = _tensor_parallel(served, self.request, gpu_count)
            settings = self.settings_of(max(parallel, 1), expert_parallel=apart)
            found = Split(parallel, note, settings, _supports_of(served, settings))
            self.splits[gpu_count] = found
        return found

    def source_for(self, settings: EngineSettings) -> str:
        """What the engine loads; empty where llama.cpp would need a file that nobody is known to offer."""
        return self.model.gguf_from if settings.name == ENGINE_OF_GGUF else self.model.serve_from

    def argv_of(self, settings: EngineSettings) -> tuple[str, ...]:
        """The command that starts the engine with these flags; empty where there is nothing to load."""
        key = (
            settings.tensor_parallel, settings.expert_parallel, settings.memory_fraction, settings.max_num_seqs,
            settings.pool_tokens, settings.state_slots,
        )  # fmt: skip
        found = self.argv.get(key)
        if found is None:
            found = self.argv[key] = self._argv(settings)
        return found

    def _argv(self, settings: EngineSettings) -> tuple[str, ...]:
        source = self.source_for(settings)
        if not source or has_no_files(self.model, settings.name):
            return ()
        planned = engines.launch_argv(source, self.workload, settings)
        return (*planned, *loading_flags(self.model, settings.name, settings.version))


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


def settings_for(
    request: Request, model: ResolvedModel, tensor_parallel: int, *, expert_parallel: bool = False
) -> EngineSettings:
    """The engine's flags for one way to split the model; GGUF goes to llama.cpp unless an engine is named.

    expert_parallel: experts stay whole though nobody asked for it.
    """
    name, version = _engine_and_version(request, model)
    return EngineSettings(
        name=name,
        version=version,
        memory_fraction=request.memory_fraction,
        kv_cache_memory_bytes=request.kv_cache_memory_bytes,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=request.pipeline_parallel,
        enforce_eager=request.enforce_eager,
        max_num_batched_tokens=request.max_num_batched_tokens,
        max_num_seqs=request.max_num_seqs,
        expert_parallel=expert_parallel or request.expert_parallel,
        text_only=request.text_only and _leaves_out_more(model, name, version),
    )


def _leaves_out_more(model: ResolvedModel, engine: str, version: str) -> bool:
    """Whether an engine that is to serve text alone leaves out what it would load by itself."""
    return model.architecture is not None and towers.is_asked(model.architecture, engine, version)


def engine_of(request: Request, model: ResolvedModel) -> str:
    """The engine that is asked for; without a word, llama.cpp for GGUF and SGLang for all else that it has."""
    return _engine_and_version(request, model)[0]


def _engine_and_version(request: Request, model: ResolvedModel) -> tuple[str, str]:
    """The engine and version that are asked for; without a word those that have the model's class.

    Raises:
        UsageError: the version is not one of this engine.
    """
    name, version = request.engine, request.engine_version
    if name is None and model.quantization.method == "gguf":
        name = ENGINE_OF_GGUF
    if name is None and model.architecture is not None and version is None:
        return engines.engine_with(model.architecture, DEFAULT_ENGINE)
    name = name or DEFAULT_ENGINE
    if version is not None:
        engines.check_version(name, version)
    return name, version or engines.default_version(name)


def is_supported(question: Question, machine: Machine) -> bool:
    """Whether the engine runs the model on these GPUs at all, whatever the memory: quicker than to judge it."""
    if question.served is None:
        return True
    split = question.split_of(question.served, machine.gpu_count)
    return split.parallel > 0 and not _support(question.served, machine.gpu, split).problem


def judged(question: Question, machine: Machine) -> Candidate:
    """The candidate that a machine is for this question."""
    served = question.served
    if served is None:
        return _by_rule_of_thumb(question, machine)
    return _made(question, machine, *_settled(question, served, machine))


def judged_if_it_fits(question: Question, machine: Machine) -> Candidate | None:
    """As `judged`; None where the memory does not fit, and then quicker: the speed is not asked."""
    served = question.served
    if served is None:
        return _by_rule_of_thumb(question, machine)
    settled = _settled(question, served, machine)
    return _made(question, machine, *settled) if settled[2] == "fits" else None


def _settled(
    question: Question, served: ServedModel, machine: Machine
) -> tuple[EngineSettings, Footprint, Verdict, tuple[str, ...]]:
    """The flags, the memory, the verdict and its reasons."""
    gpu = machine.gpu
    split = question.split_of(served, machine.gpu_count)
    settings, note = split.settings, split.note
    support = split.support.get((gpu.id, gpu.compute_capability)) or _support(served, gpu, split)
    problem = question.beyond_limit or (support.problem if split.parallel else note)
    problem = problem or _processor_problem(gpu, settings)
    footprint = engines.footprint(served, gpu, question.workload, settings)
    if problem:
        return settings, footprint, "unsupported", (problem,)
    settings, footprint, told = with_sequences(served, gpu, question.workload, settings, footprint)
    verdict, reasons = judge(footprint, question.workload)
    if verdict != "fits":
        roomier = _roomier(question, settings, footprint, gpu, starts=not footprint.refusal)
        if roomier is not None:
            settings, footprint, verdict, reasons = roomier
    reasons = (told, *reasons) if told else reasons
    if settings.kv_cache_memory_bytes is not None and verdict in _STARTS:
        settings = engines.with_pool_flags(served, gpu, question.workload, settings)
    if verdict in _STARTS and support.casts_to_float16:
        reasons = (*reasons, "no bf16 on this GPU: the engine casts the model to float16")
    if verdict == "fits" and gpu.vendor == "cpu" and settings.name != ENGINE_OF_GGUF:
        verdict, reasons = "tight", (*reasons, f"{settings.name} on a processor shares memory by other rules")
    reasons = _with_remarks((*reasons, support.remark) if support.remark else reasons, note, machine)
    if settings.name == ENGINE_OF_GGUF:
        lacking = footprint if verdict == "too-small" else None
        reasons = (*reasons, *_llama_cpp_notes(question, settings, gpu, lacking))
    return settings, footprint, verdict, reasons


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


def beyond_limit(request: Request, model: ResolvedModel, workload: Workload) -> str:
    """Why no request can be had, on any machine: of such a context, or with flags that the engine has not.

    Beyond the model's context vLLM and SGLang do not start, llama.cpp gives what the model has.

    Source: vLLM 0.33 `config/model.py` _get_and_verify_max_len, SGLang 0.5.23 `configs/model_config.py`, llama.cpp
    b10662 `tools/server/server-context.cpp` n_ctx_slot.
    """
    limit = model.architecture.context_limit_tokens if model.architecture else None
    context_tokens = workload.context_tokens
    if limit is None or context_tokens <= limit:
        return engines.against_flags(workload, settings_for(request, model, 1)) if model.architecture else ""
    refuses = "caps each slot below" if engine_of(request, model) == ENGINE_OF_GGUF else "refuses"
    return f"the engine {refuses} {context_tokens:,} tokens of context: the model's own limit is {limit:,}"


def _made(
    question: Question,
    machine: Machine,
    settings: EngineSettings,
    footprint: Footprint,
    verdict: Verdict,
    reasons: tuple[str, ...],
) -> Candidate:
    gpu, gpu_count, offer = machine.gpu, machine.gpu_count, machine.offer
    speed, reading, meets = None, None, None
    argv: tuple[str, ...] = ()
    if verdict in _STARTS:
        if question.served is not None and not writes_text(question.served.architecture):
            reading, meets, reasons = _read_alone(question, question.served, machine, settings, reasons)
        elif question.paced:
            found = pace(question, gpu, gpu_count, settings)
            speed, meets = found.throughput, found.meets_target
            reasons = (*reasons, found.reason) if found.reason else reasons
            if meets is not False:
                settings, footprint, reasons = _for_batch(question, gpu, settings, footprint, reasons, speed)
        elif question.served is not None:
            speed = throughput(
                question.served, gpu, question.load, settings, gpu_count, kv_dtype=question.request.kv_dtype
            )
        argv = question.argv_of(settings)
    dollars = usd_per_million(offer.usd_per_hour, speed) if offer and speed else None
    return Candidate(  # by place, which is ten times as quick as by name
        gpu,
        gpu_count,
        settings.tensor_parallel,
        verdict,
        reasons,
        footprint,
        offer,
        argv,  # engine_argv
        speed,  # throughput
        dollars,  # usd_per_million_output_tokens
        meets,  # meets_target
        settings.expert_parallel and settings.tensor_parallel > 1,
        reading,
        settings.max_num_seqs,
    )


def _read_alone(
    question: Question,
    served: ServedModel,
    machine: Machine,
    settings: EngineSettings,
    reasons: tuple[str, ...],
) -> tuple[Throughput | None, bool | None, tuple[str, ...]]:
    """How fast a model that writes nothing reads, and what becomes of a target for what is written."""
    load = msgspec.structs.replace(question.load, requests=0)
    reading = throughput(served, machine.gpu, load, settings, machine.gpu_count)
    if question.request.target_tokens_per_second is None:
        return reading, None, reasons
    return reading, False, (*reasons, "it answers with vectors or scores, so no user sees tokens of a target")


def with_offer(candidate: Candidate, offer: Offer | None) -> Candidate:
    """The same machine at another price."""
    speed = candidate.throughput
    dollars = usd_per_million(offer.usd_per_hour, speed) if offer and speed else None
    return msgspec.structs.replace(candidate, offer=offer, usd_per_million_output_tokens=dollars)


def _for_batch(
    question: Question,
    gpu: Gpu,
    settings: EngineSettings,
    footprint: Footprint,
    reasons: tuple[str, ...],
    speed: Throughput | None,
) -> tuple[EngineSettings, Footprint, tuple[str, ...]]:
    """The flags that keep an engine at a batch that was searched, and the memory with them.

    With a target the engine must be told where to stop, or a full house would slow everyone below it. Without one it
    takes what its pool holds by itself; llama.cpp alone must be given its slots.
    """
    request = question.request
    if speed is None or not request.searches_batch:
        return settings, footprint, reasons
    batch = speed.load.sequences
    if settings.name == ENGINE_OF_GGUF:
        slots = f"the speed is for {batch} slots: plan them with `--sequences {batch}`"
        return settings, footprint, (*reasons, slots) if batch > 1 else reasons
    if request.target_tokens_per_second is None or settings.max_num_seqs or question.served is None:
        return settings, footprint, reasons
    settings = msgspec.structs.replace(settings, max_num_seqs=batch)
    return settings, engines.footprint(question.served, gpu, question.workload, settings), reasons


def _by_rule_of_thumb(question: Question, machine: Machine) -> Candidate:
    verdict, reasons = judge_by_rule_of_thumb(question.estimate, machine.gpu, machine.gpu_count)
    speed = unknown_pace(question.request)
    return Candidate(
        gpu=machine.gpu,
        gpu_count=machine.gpu_count,
        tensor_parallel=machine.gpu_count,
        verdict=verdict,
        reasons=(*reasons, speed.reason) if speed.reason and verdict in _STARTS else reasons,
        footprint=None,
        offer=machine.offer,
        engine_argv=(),
        meets_target=speed.meets_target,
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
        starts: the engine starts with the default already and takes such requests, so that only a fit is better.
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
        verdict, reasons = judge(found, question.workload)
        remark = f"memory fraction {fraction:g}: the engine's default {default:g} leaves too small a pool"
        if verdict == "fits":
            return raised, found, verdict, (remark,)
        if not (found.refusal or starts or fallback):
            fallback = raised, found, verdict, (remark, *reasons)
    return fallback


def _tensor_parallel(served: ServedModel, request: Request, gpu_count: int) -> tuple[int, str, bool]:
    """The split for a machine, as `_split` finds it; remembered by the model's key and what was asked."""
    key = (
        served.key,
        gpu_count,
        request.tensor_parallel,
        request.pipeline_parallel,
        request.engine,
        request.engine_version,
        request.expert_parallel,
    )
    found = _splits_by_key.get(key)
    if found is None:
        if len(_splits_by_key) >= MOST_KEPT:
            _splits_by_key.clear()
        found = _splits_by_key[key] = _split(served, request, gpu_count)
    return found


def _split(served: ServedModel, request: Request, gpu_count: int) -> tuple[int, str, bool]:
    """How many GPUs share each layer, a note where that is not all of them, and whether experts stay whole unasked.

    0 where the asked split cannot be. Experts stay whole where they alone stand against so many GPUs.
    """
    if request.tensor_parallel is not None:
        problem, apart = _problem_or_apart(served, request, request.tensor_parallel)
        return (request.tensor_parallel if apart or not problem else 0), problem, apart
    most = max(1, gpu_count // request.pipeline_parallel)
    for parts in range(most, 1, -1):
        note, apart = _problem_or_apart(served, request, parts)
        if apart or not note:
            left = "" if parts == most else _left_over(served, request, parts, most)
            return parts, "; ".join(filter(None, (left, note))), apart
    return 1, "" if most == 1 else _left_over(served, request, 1, most), False


def _problem_or_apart(served: ServedModel, request: Request, parts: int) -> tuple[str, bool]:
    """Why so many GPUs cannot divide a layer, or nothing; and whether they can once experts stay whole."""
    problem = _split_problem(served, request, parts) or ""
    count = served.architecture.experts
    if not problem or not count or _split_problem(served, request, parts, apart=True):
        return problem, False
    each = f"{-(-count // parts)} of {count}"
    return f"expert parallelism, {each} experts whole on each GPU: divided, {problem}", True


def _left_over(served: ServedModel, request: Request, parts: int, most: int) -> str:
    """Why some of the GPUs stay without work: what stands against the next larger power of two, or against all."""
    wanted = min(parts * 2, most)
    why = _split_problem(served, request, wanted) or _split_problem(served, request, most)
    return f"uses {parts} of {most} GPUs: {why or 'the heads do not divide further'}"


def _split_problem(served: ServedModel, request: Request, parts: int, *, apart: bool = False) -> str | None:
    """Why so many GPUs cannot share a layer; llama.cpp hands out whole layers, so nothing need divide.

    apart: with experts whole, asked for or not.
    """
    gguf = served.quantization.method == "gguf"
    if request.engine == ENGINE_OF_GGUF or (request.engine is None and gguf):
        return None
    engine, version = request.engine or DEFAULT_ENGINE, request.engine_version or ""
    if request.engine is None and not version:
        engine, version = engines.engine_with(served.architecture, DEFAULT_ENGINE)
    return tensor_parallel_problem(
        served.architecture,
        parts,
        served.quantization,
        engine=engine,
        engine_version=version,
        expert_parallel=apart or request.expert_parallel,
    )


def _support(served: ServedModel, gpu: Gpu, split: Split) -> Support:
    """What the engine says; remembered, since thousands of plans ask the same."""
    key, settings = (gpu.id, gpu.compute_capability), split.settings
    found = split.support.get(key)
    if found is None:
        found = split.support[key] = Support(
            engines.supports(served, gpu, settings) or "",
            settings.name != ENGINE_OF_GGUF and engines.casts_to_float16(served, gpu),
            "; ".join(filter(None, (_unnamed(served, settings), engines.support_remark(served, settings)))),
        )
    return found


def _unnamed(served: ServedModel, settings: EngineSettings) -> str:
    """The remark on files that are quantised without saying so where vLLM looks."""
    if settings.name != "vllm" or served.quantization.named or not served.quantization.formats:
        return ""
    return "these files name no quantization method that vLLM looks for: it builds the layers in 16 bits"


def _supports_of(served: ServedModel, settings: EngineSettings) -> dict[tuple[str, object], Support]:
    """What an engine is known to say to a model split so, by GPU."""
    key = (
        served.key,
        settings.name,
        settings.version,
        settings.tensor_parallel,
        settings.expert_parallel,
        settings.text_only,
        settings.kv_cache_memory_bytes,
        settings.memory_fraction,
        settings.max_num_seqs,
        settings.enforce_eager,
    )
    found = _support_by_key.get(key)
    if found is None:
        if len(_support_by_key) >= MOST_KEPT:
            _support_by_key.clear()
        found = _support_by_key[key] = {}
    return found


MOST_KEPT = 4096
_support_by_key: dict[tuple[object, ...], dict[tuple[str, object], Support]] = {}
_splits_by_key: dict[tuple[object, ...], tuple[int, str, bool]] = {}
