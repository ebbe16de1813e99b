"""Other estimators, asked for the same cases, where they are installed: `pip install 'soong[peers]'`.

Each is called through its own functions, offline, with the case's config.json. Most read a checkpoint's size from the
Hub; here they are given its exact size, and the engine's true memory fraction, so that only what they compute is
compared. What gives no answer per GPU is divided evenly among the GPUs. Their answers are kept in
`published/peers.jsonl`, each with the version that gave it, so that the tables can be printed without them.

    python -m benchmarks.accuracy --ask-peers     ask those that are installed, and keep their answers
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import logging
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
from benchmarks.accuracy import asking
from benchmarks.accuracy.answers import Answer
from benchmarks.accuracy.cases import CASES, GIB, Log, Models, logs

from soong.models.quantization import checkpoint_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from soong.plan.plan import Plan

KEPT = CASES / "peers.jsonl"


class PeerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `published/peers.jsonl`."""

    peer: str
    version: str
    as_of: str
    case: str
    answer: Answer


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What every estimator is told. checkpoint_bytes: of all files together; fraction: the engine's own."""

    name: str
    folder: str
    config: dict[str, Any]
    checkpoint_bytes: int
    engine: str
    gpu: str
    gpu_bytes: int
    gpus: int
    tensor_parallel: int
    pipeline_parallel: int
    fraction: float
    context: int
    kv_dtype: str
    pool_bytes: int | None

    @property
    def budget_bytes(self) -> float:
        """What the engine may use of one GPU."""
        return self.gpu_bytes * self.fraction


def question_of(log: Log, plan: Plan, models: Models) -> Question:
    """The case as a question to anyone."""
    candidate = plan.candidates[0]
    model = plan.model
    footprint = candidate.footprint
    size = model.weights_bytes
    if model.architecture is not None and model.weights_basis != "headers":
        size = checkpoint_bytes(model.architecture, model.quantization)
    return Question(
        name=log.repository,
        folder=str(models.folder_of(log.repository, model)),
        config=model.config or {},
        checkpoint_bytes=size,
        engine=log.engine,
        gpu=candidate.gpu.id,
        gpu_bytes=candidate.gpu.memory_bytes,
        gpus=log.tensor_parallel * log.pipeline_parallel,
        tensor_parallel=log.tensor_parallel,
        pipeline_parallel=log.pipeline_parallel,
        fraction=(footprint.memory_fraction if footprint else None) or 0.9,
        context=plan.workload.context_tokens,
        kv_dtype=plan.workload.kv_dtype,
        pool_bytes=round(log.pool_gib * GIB) if log.pool_gib else None,
    )


def _answer(
    question: Question, *, weights: float, per_token: float, pool: float | None, **more: Any
) -> Answer:
    """The figures that follow from a peer's own: tokens are pool / bytes per token in each of them."""
    held = question.pool_bytes
    return Answer(
        weights_bytes=round(weights),
        kv_bytes_per_token=per_token,
        tokens_of_pool=round(held / per_token) if held and per_token else None,
        tokens=max(0, round(pool / per_token)) if pool is not None and per_token else None,
        pool_bytes=None if pool is None else round(pool),
        **more,
    )


def _hf_mem(question: Question) -> Answer:
    """Weights from the files, keys and values for one context; knows no GPU and no engine."""
    cache = importlib.import_module("hf_mem.safetensors.kv_cache")
    config = dict(question.config)
    if isinstance(config.get("text_config"), dict):
        outer: dict[str, Any] = {
            key: config[key] for key in ("dtype", "torch_dtype", "quantization_config") if key in config
        }
        config = {**outer, **config["text_config"]}
    metadata = SimpleNamespace(components={"Transformer": SimpleNamespace(dtypes={"F8_E4M3": None})})
    asked = question.kv_dtype if question.kv_dtype != "float16" else "auto"
    dtype = cache.resolve_kv_cache_dtype(config, asked, metadata, question.name)
    total = cache.compute_safetensors_kv_cache_size(config, dtype, question.context)
    return _answer(
        question,
        weights=question.checkpoint_bytes / question.gpus,
        per_token=total / question.context / question.gpus,
        pool=None,
    )


def _kvfit(question: Question) -> Answer:
    """Weights from the files, caches by architecture, a plan by tensor parallel within a share of the GPU."""
    architectures, planner = (
        importlib.import_module(f"kvfit.{name}") for name in ("architectures", "planner")
    )
    hardware, command = (importlib.import_module(f"kvfit.{name}") for name in ("hardware", "cli"))
    word = {"bfloat16": "bf16", "float16": "fp16"}.get(question.kv_dtype, question.kv_dtype)
    dtype = command.resolve_cache_dtype(question.config, word)[0]
    cache = architectures.estimate_cache(
        question.config, context_tokens=question.context, kv_bytes=command.DTYPE_BYTES.get(dtype, 2.0)
    )
    card = hardware.parse_hardware(f"custom:{question.gpu_bytes / GIB}")
    layout = planner.plan_topologies(
        cache,
        weight_bytes=question.checkpoint_bytes,
        hardware=card,
        gpus=question.gpus,
        utilization=question.fraction,
        tensor_parallel=question.tensor_parallel,
    )[0]
    per_token = layout.kv_per_sequence_per_rank_bytes / question.context
    pool = layout.budget_per_rank_bytes - layout.weights_per_rank_bytes - layout.fixed_cache_per_rank_bytes
    verdict = {"fits": "fits", "unsupported": "unsupported"}.get(layout.verdict, "too-small")
    return _answer(
        question, weights=layout.weights_per_rank_bytes, per_token=per_token, pool=pool, verdict=verdict
    )


def _llm_d_planner(question: Question) -> Answer:
    """Activations by architecture and fixed runtime, measured on vLLM 0.19; even shares."""
    planner: Any = importlib.import_module("planner.capacity_planner")
    stated = {key: value for key, value in _without_rope(question.config).items() if key != "model_type"}
    config = planner.AutoConfig.for_model(question.config["model_type"], **stated)
    planner.model_params_by_dtype = lambda _name, _token=None: {"BF16": question.checkpoint_bytes / 2}
    planner.model_memory_req = lambda _name, _config, _token=None: question.checkpoint_bytes / GIB
    total = planner.allocatable_kv_cache_memory(
        question.name, config, question.gpu_bytes / GIB, question.fraction, question.tensor_parallel,
        question.pipeline_parallel, max_model_len=question.context,
    )  # fmt: skip
    detail = planner.KVCacheDetail(question.name, config, question.context)
    pool = total * GIB / question.gpus
    weights = question.checkpoint_bytes / question.gpus
    activations = planner.estimate_vllm_activation_memory(config, question.tensor_parallel) * GIB
    graphs = planner.estimate_vllm_cuda_graph_memory() * GIB
    per_token = detail.per_token_memory_bytes / question.gpus
    return _answer(
        question,
        weights=weights,
        per_token=per_token,
        pool=pool,
        activations_bytes=round(activations),
        graphs_bytes=round(graphs),
        outside_bytes=round(weights + activations + graphs),
        total_bytes=round(weights + activations + graphs + pool),
        verdict="fits" if pool >= per_token * question.context else "too-small",
    )


def _without_rope(config: dict[str, Any]) -> dict[str, Any]:
    """The config without its rotary settings, which decide no cache and are not kept whole in the cases."""
    return {
        key: _without_rope(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in {"rope_scaling", "rope_parameters"}
    }


AICONFIGURATOR_SYSTEMS = {
    "h100-80gb-sxm5": "h100_sxm", "h100-80gb-pcie": "h100_pcie", "h200-141gb-sxm5": "h200_sxm", "l40s-48gb": "l40s",
    "a100-80gb-sxm4": "a100_sxm", "a100-40gb-pcie": "a100_pcie", "l4-24gb": "l4", "b200-180gb": "b200_sxm",
    "rtxpro6000-96gb": "rtx_pro_6000_server",
}  # fmt: skip
"""The machines that it has tables of, by our ids; for others its own simple fallback answers."""


def _aiconfigurator(question: Question) -> Answer:
    """The memory model that its throughput tables come with; its simple fallback where it cannot build the model."""
    memory = importlib.import_module("aiconfigurator_core.sdk.memory")
    tables = importlib.import_module("aiconfigurator_core.sdk.perf_database")
    system = AICONFIGURATOR_SYSTEMS.get(question.gpu, "h100_sxm")
    version = tables.get_latest_database_version(system, question.engine)
    machine = (question.folder, system, question.engine, version)
    batch = {"max_num_tokens": 8192, "max_batch_size": 256}
    split = {
        "tp_size": question.tensor_parallel,
        "pp_size": question.pipeline_parallel,
        "moe_tp_size": question.tensor_parallel,
        "moe_ep_size": 1,
        "kvcache_quant_mode": "fp8" if question.kv_dtype == "fp8" else None,
    }
    try:
        parts = memory.KVCacheEstimator.from_request(*machine, **batch, **split).breakdown
    except Exception:  # noqa: BLE001 - the same that its own fallback waits for
        return _by_its_fallback(memory, question, machine, {**batch, **split})
    pool = question.budget_bytes - parts["non_kv_bytes"]
    inverse, held = parts["tokens_from_kv_bytes"], question.pool_bytes
    tokens, tokens_of_pool = (inverse(pool) if pool > 0 else 0), inverse(held) if held else None
    per_token = held / tokens_of_pool if held and tokens_of_pool else parts["kv_size_per_token_bytes"]
    return Answer(
        weights_bytes=round(parts["weights_bytes"]),
        kv_bytes_per_token=per_token,
        tokens_of_pool=tokens_of_pool,
        tokens=tokens,
        pool_bytes=max(0, round(pool)),
        activations_bytes=round(parts["activations_bytes"]),
        verdict="fits" if tokens >= question.context else "too-small",
    )


def _by_its_fallback(
    memory: Any, question: Question, machine: tuple[str, ...], rest: dict[str, Any]
) -> Answer:
    found = memory.estimate_kv_cache(
        *machine,
        memory_fraction_kind="of_total",
        memory_fraction_value=question.fraction,
        gpu_memory_capacity_bytes_override=question.gpu_bytes,
        allow_naive_fallback=True,
        **rest,
    )
    per_token, held = float(found["kv_size_per_token_bytes"]), question.pool_bytes
    return Answer(
        kv_bytes_per_token=per_token,
        tokens_of_pool=round(held / per_token) if held else None,
        tokens=int(found["total_kv_size_tokens"]),
        pool_bytes=round(found["total_kv_size_bytes"]),
        verdict="fits" if found["total_kv_size_tokens"] >= question.context else "too-small",
    )


def _modelinfo(question: Question) -> Answer:
    """Weights from the files, a penalty by percentage for several GPUs, keys and values of plain attention."""
    calculator = importlib.import_module("modelinfo.calculator")
    found = calculator.calculate_footprint(
        {"__metadata__": {"lazy_fetch": True, "total_size": question.checkpoint_bytes}},
        context_length=question.context,
        config=question.config,
        gpu_count=question.gpus,
        is_vllm=True,
        gpu_vram_bytes=question.gpu_bytes * question.gpus,
        gpu_util=question.fraction,
    )
    per_token = 2 * found["num_layers"] * found["kv_dim"] * 2 / question.gpus
    pool = found["vllm_metrics"]["paged_kv_pool"] / question.gpus
    return _answer(
        question,
        weights=found["base_memory_bytes"] / question.gpus,
        per_token=per_token,
        pool=pool,
        verdict="fits" if pool >= per_token * question.context else "too-small",
    )


PEERS: dict[str, tuple[str, Callable[[Question], Answer]]] = {
    "kvfit": ("kvfit", _kvfit),
    "hf-mem": ("hf-mem", _hf_mem),
    "llm-d-planner": ("llm-d-planner", _llm_d_planner),
    "aiconfigurator": ("aiconfigurator", _aiconfigurator),
    "modelinfo": ("modelinfo-cli", _modelinfo),
}
"""Name in the tables to its package and the function that asks it."""


def installed() -> dict[str, str]:
    """The peers that can be asked here, with their versions."""
    found = {}
    for name, (package, _) in PEERS.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(package)
    return found


def ask(models: Models, day: str) -> Iterator[PeerAnswer]:
    """Ask everyone installed for every case; an error is an answer too."""
    logging.disable(logging.CRITICAL)
    versions = installed()
    for log in logs():
        plan = asking.launch(log, models)
        question = question_of(log, plan, models)
        for name, version in versions.items():
            answer = asked(PEERS[name][1], question)
            if not log.on_a_known_gpu:  # nothing that rests on the size of a GPU that is not known
                answer = msgspec.structs.replace(answer, pool_bytes=None, tokens=None, verdict=None)
            yield PeerAnswer(peer=name, version=version, as_of=day, case=log.id, answer=answer)


def asked(peer: Callable[[Question], Answer], question: Question) -> Answer:
    """A peer's answer in silence; what it raises is its answer too."""
    talk = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
            warnings.simplefilter("ignore")
            return peer(question)
    except Exception as error:  # noqa: BLE001 - whatever another program raises is its answer
        return Answer(error=f"{type(error).__name__}: {error}"[:200])


def keep(answers: list[PeerAnswer], path: Path = KEPT) -> None:
    """Write the answers; those of peers that were not asked now stay as they were."""
    asked = {answer.peer for answer in answers}
    others = [answer for answer in kept(path) if answer.peer not in asked]
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(_brief(answer)) + b"\n" for answer in [*others, *answers]))


def _brief(answer: PeerAnswer) -> dict[str, Any]:
    said = {
        key: value for key, value in msgspec.to_builtins(answer.answer).items() if value not in (None, "")
    }
    return {**msgspec.to_builtins(answer), "answer": said}


def kept(path: Path = KEPT) -> list[PeerAnswer]:
    """The answers kept."""
    if not path.is_file():
        return []
    decoder = msgspec.json.Decoder(PeerAnswer)
    return [decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()]


def by_case(answers: list[PeerAnswer]) -> dict[str, dict[str, Answer]]:
    """Peer to case to answer."""
    found: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        found.setdefault(f"{answer.peer} {answer.version}", {})[answer.case] = answer.answer
    return found
