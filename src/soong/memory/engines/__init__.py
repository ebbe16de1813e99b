"""Engines: what each does with a GPU's memory; one module for each, to be read beside its source.

`footprint` answers how much, `supports` whether at all, `launch_argv` with which flags.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from soong.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from soong.gpus.gpu import Gpu
    from soong.memory.engines._vllm_explained import Part
    from soong.memory.footprint import EngineSettings, Footprint, ServedModel, Workload
    from soong.memory.kv_cache import LayerKind
    from soong.models.architecture import Architecture

ENGINES = ("vllm", "sglang", "llama.cpp")
"""The engines that are modelled; the first is the default."""

_loaded: dict[str, ModuleType] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory when an engine serves a model, on the fullest of the GPUs that share it.

    Args:
        model: what is served.
        gpu: one of the GPUs.
        workload: context, sequences and cache type.
        settings: engine, version, flags and how the model is split.

    Returns:
        Every term in bytes, whether the engine starts, and the tokens it would print.

    Raises:
        UsageError: no such engine, or a version that is not one.
    """
    loaded = as_loaded(model, settings)
    found: Footprint = _module(settings.name).footprint(loaded, gpu, workload, settings)
    return found


def as_loaded(model: ServedModel, settings: EngineSettings) -> ServedModel:
    """The model with the parts that the engine loads: without its towers where text alone is served."""
    if not model.architecture.multimodal or not (settings.text_only or settings.name == "sglang"):
        return model
    from soong.memory import towers

    return towers.as_loaded(model, settings)


def parts(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> tuple[Part, ...]:
    """Activations, graphs and runtime opened into lines with their figures; none for engines that do not tell."""
    opened = getattr(_module(settings.name), "parts", None)
    loaded = as_loaded(model, settings)
    found: tuple[Part, ...] = opened(loaded, gpu, workload, settings) if opened else ()
    return found


def kv_dtype(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> str | None:
    """The type of keys and values that the engine takes, or None where it does not tell; asked as `footprint` is."""
    own = getattr(_module(settings.name), "kv_dtype", None)
    found: str | None = own(model, gpu, workload, settings) if own else None
    return found


def cache_kinds(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings
) -> tuple[LayerKind, ...]:
    """What each kind of layer keeps, as vLLM or SGLang keeps it on this GPU; asked as `footprint` is."""
    found: tuple[LayerKind, ...] = _module(settings.name).cache_kinds(model, gpu, workload, settings)
    return found


def remarks(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings, *, lacking: Footprint | None
) -> tuple[str, ...]:
    """What else a person should know of a plan, in words; nothing for engines that have nothing to say.

    Args:
        model, gpu, workload, settings: as for `footprint`. lacking: the footprint, where it does not fit.
    """
    spoken = getattr(_module(settings.name), "remarks", None)
    found: tuple[str, ...] = spoken(model, gpu, workload, settings, lacking=lacking) if spoken else ()
    return found


def supports(model: ServedModel, gpu: Gpu, settings: EngineSettings) -> str | None:
    """Why the engine cannot run this model on this GPU, whatever the memory; None when it can."""
    from soong.memory.engines._support import reason_against

    return reason_against(model, gpu, settings)


def against_flags(workload: Workload, settings: EngineSettings) -> str:
    """Why the engine's version refuses the flags that workload and settings come to; empty where it does not."""
    from soong.memory.engines import _support

    return _support.against_flags(workload, settings)


def support_remark(model: ServedModel, settings: EngineSettings) -> str:
    """What a person must know of an engine that may not run this model, or whose version was not read; or nothing."""
    from soong.memory.engines import _registry

    own = "" if settings.name == "llama.cpp" else _registry.remark(model.architecture, settings)
    return "; ".join(filter(None, (own, _registry.beyond_the_rules(settings.name, settings.version))))


def engine_with(architecture: Architecture, preferred: str) -> tuple[str, str]:
    """An engine that has this model's class, and its version: the preferred one where it has it, or nothing is known.

    One that may run it by its Transformers backend comes before an older version of one that had the class.

    Args:
        architecture: of the model. preferred: vllm or sglang, at its newest version.
    """
    from soong.memory.engines import _registry

    newest = default_version(preferred)
    build = _registry.build_of(architecture)
    standing = _registry.standing(architecture.name, build, preferred, newest)
    if standing in {"native", "unknown"}:
        return preferred, newest
    name, version = _registry.elsewhere(architecture.name, build) or (preferred, newest)
    return (
        (preferred, newest)
        if standing == "by-transformers" and version != default_version(name)
        else (name, version)
    )


def check_version(engine: str, version: str) -> None:
    """That a text can be a version of this engine.

    Raises:
        UsageError: it is no version, or of the kind that only another engine's builds have.
    """
    builds = version[:1] == "b" and version[1:2].isdigit()
    if builds if engine == "llama.cpp" else version[:1].isdigit() or version[:2].lstrip("v").isdigit():
        return
    owner = ", but llama.cpp's builds are called so" if builds else ""
    raise UsageError(
        f"`{version[:60]}` is not a version of {engine}{owner}",
        hints=(f"--engine-version {default_version(engine)}", *(("--engine llama.cpp",) if builds else ())),
    )


def casts_to_float16(model: ServedModel, gpu: Gpu) -> bool:
    """Whether the engine would serve a bfloat16 model in float16, for want of bfloat16 on this GPU."""
    from soong.memory.engines import _support

    return _support.casts_to_float16(model, gpu)


def with_pool_flags(
    model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings
) -> EngineSettings:
    """The flags, with those that make a pool given in bytes where the engine has no flag for bytes."""
    own = getattr(_module(settings.name), "with_pool_flags", None)
    found: EngineSettings = own(model, gpu, workload, settings) if own else settings
    return found


def launch_argv(model_name: str, workload: Workload, settings: EngineSettings) -> tuple[str, ...]:
    """The command that starts the engine with exactly the planned flags.

    Args:
        model_name: the repository, folder or file as the engine takes it.
        workload: what was planned.
        settings: with which engine and flags.
    """
    argv: tuple[str, ...] = _module(settings.name).launch_argv(model_name, workload, settings)
    return argv


@lru_cache(maxsize=len(ENGINES))
def runs_on_arm64(name: str, version: str) -> bool:
    """Whether this version of the engine installs on an Arm host (GH200, GB10); from `data/engines.toml`."""
    from soong.memory.engines._constants import engine_tables, version_tuple

    since = engine_tables()[name].get("arm64_since")
    return since is not None and version_tuple(version) >= version_tuple(since)


def most_running(gpu: Gpu, settings: EngineSettings) -> int | None:
    """How many sequences the engine runs at once where its pool holds more; None where only the pool says."""
    if settings.max_num_seqs:
        return settings.max_num_seqs
    own = getattr(_module(settings.name), "most_running", None)
    found: int | None = own(gpu, settings) if own else None
    return found


def pass_tokens(gpu: Gpu, settings: EngineSettings) -> int | None:
    """Prompt tokens of one forward pass at the most; None where it does not depend on the GPU."""
    if settings.max_num_batched_tokens:
        return settings.max_num_batched_tokens
    own = getattr(_module(settings.name), "pass_tokens", None)
    found: int | None = own(gpu, settings) if own else None
    return found


@lru_cache(maxsize=8)
def default_version(engine: str) -> str:
    """The newest version of an engine whose rules were read.

    Raises:
        UsageError: no such engine.
    """
    from soong.memory.engines._constants import engine_tables

    _module(engine)
    version: str = engine_tables()[engine]["default_version"]
    return version


def _module(name: str) -> ModuleType:
    found = _loaded.get(name)
    if found is None:
        found = _loaded[name] = _import(name)
    return found


def _import(name: str) -> ModuleType:
    if name not in ENGINES:
        raise UsageError(
            f"Unknown engine '{name}'. Must be one of: {', '.join(ENGINES)}",
            hints=("soong plan MODEL --engine vllm",),
        )
    from importlib import import_module

    return import_module(f"soong.memory.engines.{name.replace('.', '_')}")
