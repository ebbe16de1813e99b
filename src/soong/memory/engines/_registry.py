"""Which model classes and quantization methods a version of an engine has; the table is data/registries.toml.

A class that an engine lacks may still run by its Transformers backend, where Transformers has the class and lets its
attention be replaced. Words that no table holds are not judged: a repository may bring code of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from soong.memory.engines._constants import engine_tables, version_tuple
from soong.models.architecture import AttentionCache
from soong.tables import packaged_document

if TYPE_CHECKING:
    from soong.memory.footprint import EngineSettings
    from soong.models.architecture import Architecture

Standing = Literal["native", "by-transformers", "lacking", "unknown"]

Spans = dict[str, tuple[str, ...]]
"""A word to the first and last version read that have it: none of them, the first, or both."""

SETTABLE = "*"
"""A class of Transformers that names no backend, whose attention can be set from outside all the same."""

ALSO_READ_AS = {
    "gptq": ("gptq-marlin",),
    "awq": ("awq-marlin",),
    "gpt-oss-mxfp4": ("mxfp4",),
    "auto-round": ("inc",),
    "intel/auto-round": ("auto-round", "inc"),
    "fbgemm_fp8": ("fbgemm-fp8",),
}
"""A method's word in the files, and the engines' words for what reads it."""

POOLED = (
    "ForTextEncoding", "EmbeddingModel", "ForSequenceClassification", "ForTokenClassification", "ForRewardModeling",
    "ClassificationModel", "RewardModel", "Model",
)  # fmt: skip
GENERATING = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
"""Ends of classes: vLLM makes the former of the latter, 0.33 `config/model.py` _SUFFIX_TO_DEFAULTS."""


class _Engine(Struct, frozen=True):
    """One engine's part of the table. by_transformers: since when its backend runs dense text, towers, mixtures."""

    source: str
    read: tuple[str, ...]
    by_transformers: tuple[str, str, str]
    attention_settable_since: str
    transformers: tuple[tuple[str, str], ...]
    classes: Spans
    methods: Spans
    modelopt: Spans


class _Transformers(Struct, frozen=True):
    """The classes of Transformers, each with the first version read that lets a backend attend."""

    source: str
    read: tuple[str, ...]
    classes: dict[str, str]


class _Registries(Struct, frozen=True):
    """The whole table."""

    as_of: str
    vllm: _Engine
    sglang: _Engine
    transformers: _Transformers


Build = tuple[bool, bool, bool]
"""What a backend must be able to run: towers, a mixture, attention to an encoder."""


def build_of(architecture: Architecture) -> Build:
    """What the Transformers backend would have to run of this model."""
    crosses = any(isinstance(cache, AttentionCache) and cache.cross for cache in architecture.caches)
    return architecture.multimodal, architecture.experts > 0, crosses


@lru_cache(maxsize=4096)
def standing(name: str, build: Build, engine: str, version: str) -> Standing:
    """Whether an engine's version runs a model class.

    Args:
        name: the class, as a config.json names it. build: as `build_of` says. engine: vllm or sglang. version: of it.

    Returns:
        `unknown` for a class that no table holds.
    """
    table, asked = _engine(engine), version_tuple(version)
    if _has(table.classes, name, table.read, asked) or (engine == "vllm" and _converted(table, name, asked)):
        return "native"
    if "dev" in version and name in table.classes and asked < version_tuple(table.classes[name][0]):
        return "unknown"  # such builds are made of what the next releases bring
    if not any(name in known for known in (_table().vllm.classes, _table().sglang.classes, _transformers())):
        return "unknown"
    return "by-transformers" if _runs_by_transformers(table, name, build, asked) else "lacking"


def _table() -> _Registries:
    found: _Registries = packaged_document("registries", _Registries)
    return found


def _engine(engine: str) -> _Engine:
    found: _Engine = getattr(_table(), engine)
    return found


def _transformers() -> dict[str, str]:
    return _table().transformers.classes


def _has(spans: Spans, word: str, read: tuple[str, ...], asked: tuple[int, ...]) -> bool:
    """Whether a version has a word, or may have it: between the versions read, the benefit of the doubt."""
    span = spans.get(word)
    if span is None:
        return False
    if not span:
        return True
    first, last = span[0], span[1] if len(span) > 1 else ""
    before = read.index(first) - 1
    if before >= 0 and asked < version_tuple(first) and asked <= version_tuple(read[before]):
        return False
    return not last or asked <= version_tuple(last) or asked < version_tuple(read[read.index(last) + 1])


def _converted(table: _Engine, name: str, asked: tuple[int, ...]) -> bool:
    """Whether vLLM makes this pooling class of a generating one that it has."""
    end = next((end for end in POOLED if name.endswith(end)), "")
    bases = (name.removesuffix(end) + base for base in GENERATING) if end else ()
    return any(_has(table.classes, base, table.read, asked) for base in bases)


def _runs_by_transformers(table: _Engine, name: str, build: Build, asked: tuple[int, ...]) -> bool:
    """Whether the engine's Transformers backend takes the class, as far as the versions read say.

    The backend attends from each layer to the decoder's own tokens, never to an encoder's: vLLM 0.33
    `models/transformers/base.py` create_attention_instances.
    """
    first, (towers, mixture, crosses) = _transformers().get(name, ""), build
    text_since, towers_since, mixture_since = map(version_tuple, table.by_transformers)
    needed = max(text_since, towers_since if towers else (), mixture_since if mixture else ())
    if crosses or asked < needed or not first:
        return False
    if first == SETTABLE:
        since = table.attention_settable_since
        return bool(since) and asked >= version_tuple(since)
    versions = _table().transformers.read
    at = versions.index(first)
    allowed = [newest for since, newest in table.transformers if version_tuple(since) <= asked]
    lacking = versions[at - 1] if at else ""
    return not lacking or not allowed or version_tuple(allowed[-1]) > version_tuple(lacking)


def reason_against(architecture: Architecture, settings: EngineSettings) -> str:
    """Why the engine's version has no class for this model, and which has; empty where it has one or may."""
    name, build = architecture.name, build_of(architecture)
    if standing(name, build, settings.name, settings.version) != "lacking":
        return ""
    return _lacks(name, build, settings.name, settings.version)


def remark(architecture: Architecture, settings: EngineSettings) -> str:
    """What a person must know of a class that runs by the Transformers backend alone."""
    name = architecture.name
    if standing(name, build_of(architecture), settings.name, settings.version) != "by-transformers":
        return ""
    return (
        f"{settings.name} {settings.version} has no {name} of its own: its Transformers backend may run it, "
        "whose memory differs"
    )


@lru_cache(maxsize=512)
def _lacks(name: str, build: Build, engine: str, version: str) -> str:
    span = _engine(engine).classes.get(name, ())
    asked = version_tuple(version)
    when = ""
    if span:
        when = f" (first in {span[0]})" if asked < version_tuple(span[0]) else f" (last in {span[-1]})"
    newest = str(engine_tables()[engine]["default_version"])
    own = standing(name, build, engine, newest) == "native"
    other = (engine, newest) if own else elsewhere(name, build)
    has = f"; `--engine {other[0]} --engine-version {other[1]}` has it" if other else ""
    return f"{engine} {version} has no {name}{when}{has}"


@lru_cache(maxsize=512)
def elsewhere(name: str, build: Build) -> tuple[str, str] | None:
    """An engine and its version that have a class of this name: the newest of one, else the last that had it."""
    for engine in ("sglang", "vllm"):
        newest = str(engine_tables()[engine]["default_version"])
        if standing(name, build, engine, newest) == "native":
            return engine, newest
    for engine in ("vllm", "sglang"):
        span = _engine(engine).classes.get(name)
        if span:
            return engine, span[-1]
    return None


@lru_cache(maxsize=1024)
def reads_method(engine: str, version: str, method: str) -> bool:
    """Whether an engine's version reads files of a quantization method, as soong spells it."""
    table, asked = _engine(engine), version_tuple(version)
    words = (method.replace("_", "-"), *ALSO_READ_AS.get(method, ()))
    return any(_has(table.methods, word, table.read, asked) for word in words)


@lru_cache(maxsize=256)
def reads_modelopt(engine: str, version: str, algorithm: str) -> bool:
    """Whether an engine's version reads an algorithm of ModelOpt's, its `quant_algo`."""
    table = _engine(engine)
    return _has(table.modelopt, algorithm.upper(), table.read, version_tuple(version))


@lru_cache(maxsize=256)
def beyond_the_rules(engine: str, version: str) -> str:
    """What a person must know of a version outside of those that were read."""
    asked, newest = version_tuple(version), str(engine_tables()[engine]["default_version"])
    said = ""
    if asked > version_tuple(newest):
        said = f"newer than the rules, which end with {newest}"
    elif engine != "llama.cpp" and asked < version_tuple(oldest := _engine(engine).read[0]):
        said = f"older than the rules, which begin with {oldest}"  # llama.cpp says so by itself
    return f"{engine} {version} is {said}: planned by those{_owner(engine, version)}" if said else ""


def _owner(engine: str, version: str) -> str:
    """The engine that has just this version, where the one that is asked for is not known to."""
    other = "vllm" if engine == "sglang" else "sglang"
    if engine == "llama.cpp" or version not in _engine(other).read:
        return ""
    return f" ({version} is a version of {other})"
