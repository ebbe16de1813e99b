"""The published runs as values: what served what on which GPUs, under which load, and how fast it was.

`published/runs.jsonl` holds one run a line with the address it stands at; `published/configs.jsonl` the keys of a
`config.json` that sizes follow from, for models that the catalogue lacks.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import msgspec

from soong.errors import SoongError
from soong.gpus.catalogue import all_gpus
from soong.gpus.gpu import Gpu  # noqa: TC001 - msgspec needs it
from soong.memory.engines import default_version, footprint
from soong.memory.footprint import EngineSettings, ServedModel, Workload
from soong.models.resolve import resolve
from soong.plan.candidates import served_model

PUBLISHED = Path(__file__).parent / "published"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One published run.

    source: where it stands. collection: whose measurements it belongs to. as_called: the model's name there.
    model: of the catalogue or of configs.jsonl; one of the same shapes, where `as_called` names another.
    load: `closed`: always so many requests; `burst`: all at once, and none after; `queued`: as many as the engine
        takes. kv_dtype: of the cache, where the repository that was served asks for another than ours of the format.
    input_tokens, output_tokens: of each request, means where they differ. sequences: absent: as many as fit.
    output_tokens_per_second: of all users. tokens_per_second_per_user: 1 / time per output token.
    note: how the row was read. unscored: why nobody can be held to it. doubt: what on its own page belies the GPU that
        it names; such a run counts, and the tables also say how the others fare.
    """

    id: str
    source: str
    collection: str
    as_called: str
    format: str
    gpu: str
    gpu_count: int
    tensor_parallel: int
    engine: str
    load: str
    model: str = ""
    kv_dtype: str = "auto"
    version: str = ""
    input_tokens: int = 1
    output_tokens: int = 1
    sequences: int | None = None
    output_tokens_per_second: float | None = None
    tokens_per_second_per_user: float | None = None
    ttft_ms: float | None = None
    note: str = ""
    unscored: str = ""
    doubt: str = ""

    @property
    def family(self) -> str:
        """What is left out together when it is asked how an unknown model fares: the model's own name, any format."""
        return self.model or self.as_called

    @property
    def serving_engine(self) -> str:
        """The engine that is asked; TensorRT-LLM is none of ours, and vLLM stands for it."""
        return "vllm" if self.engine == "tensorrt-llm" else self.engine

    @property
    def measured(self) -> float:
        """What is compared: tokens a second of all users, or of one where nothing else is stated."""
        return self.output_tokens_per_second or self.tokens_per_second_per_user or 0.0

    @property
    def is_total(self) -> bool:
        """Whether `measured` counts all users."""
        return self.output_tokens_per_second is not None


class Case(msgspec.Struct, frozen=True):
    """A run with all that is needed to predict it."""

    run: Run
    served: ServedModel
    gpu: Gpu
    settings: EngineSettings
    replicas: int


QUEUED_SEQUENCES = 4096
"""More than any engine takes at once."""


@cache
def runs() -> tuple[Run, ...]:
    """All published runs, in the file's order."""
    lines = (PUBLISHED / "runs.jsonl").read_text().splitlines()
    return tuple(msgspec.json.decode(line, type=Run) for line in lines)


@cache
def configs() -> dict[str, dict[str, object]]:
    """config.json keys by model, for those that the catalogue lacks."""
    path = PUBLISHED / "configs.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["model"]: row["config"] for row in found}


class LeftOut(msgspec.Struct, frozen=True):
    """A run that is not compared, and why."""

    run: Run
    why: str


def cases() -> tuple[list[Case], list[LeftOut]]:
    """The runs that can be predicted, and those that cannot."""
    gpus = {gpu.id: gpu for gpu in all_gpus()}
    found: list[Case] = []
    left: list[LeftOut] = []
    for run in runs():
        if run.unscored or run.gpu not in gpus:
            left.append(LeftOut(run, run.unscored or f"no row for the GPU {run.gpu}"))
            continue
        served = served_as(run.model, run.format, run.serving_engine)
        if isinstance(served, str):
            left.append(LeftOut(run, served))
            continue
        case = Case(run, served, gpus[run.gpu], _settings(run), _replicas(run))
        why = _overflowing(case)
        if why:
            left.append(LeftOut(run, why))
            continue
        found.append(case)
    return found, left


def _overflowing(case: Case) -> str:
    """Why part of a model must have run elsewhere: its weights alone are more than the GPU has."""
    lengths = Workload(
        context_tokens=case.run.input_tokens + case.run.output_tokens, kv_dtype=case.run.kv_dtype
    )
    need = footprint(case.served, case.gpu, lengths, case.settings).loaded_bytes
    if need < case.gpu.memory_bytes:
        return ""
    return f"{need / 1e9:.1f} GB of weights on {case.gpu.name}: part of it ran on the processor"


def _replicas(run: Run) -> int:
    return max(1, run.gpu_count // run.tensor_parallel) if "replicas" in run.note else 1


def _settings(run: Run) -> EngineSettings:
    name = run.serving_engine
    stated = run.engine == name and run.version[:1].isdecimal()
    version = run.version if stated else default_version(name)
    return EngineSettings(name=name, version=version, tensor_parallel=run.tensor_parallel)


@cache
def served_as(model: str, word: str, engine: str) -> ServedModel | str:
    """A model in a format, or why it cannot be had."""
    gguf = engine == "llama.cpp"
    try:
        found = resolve(_named(model), quantization=word, allow_network=False, for_llama_cpp=gguf)
    except SoongError as error:
        return str(error)
    return served_model(found) or "only its size is known"


@cache
def _named(model: str) -> str:
    config = configs().get(model)
    if config is None:
        return model
    folder = Path(tempfile.mkdtemp(prefix="soong-speed-"))
    path = folder / f"{model.rpartition('/')[2]}.json"
    path.write_text(json.dumps(config))
    return str(path)
