"""What a person means by MODEL: one word becomes one `ResolvedModel`, wherever its facts come from.

Tried in this order: what is plainly a path (`./x`, `/x`, `x.gguf`, `x.json`), a folder of that very name that
holds a config.json, the catalogue (ids and repositories; offline and at once), Hugging Face's cache on this
machine, the Hub. Answers are kept, so that a batch may name one model a thousand times; a file that changes
its time or size is read again.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from soong.errors import ConfigError, NotFoundError, RemoteError, SoongError, UsageError
from soong.models import catalogue
from soong.models.config_json import Config, parse_config
from soong.models.families import UnknownFamilyError, read_architecture
from soong.models.model import SIXTEEN_BIT
from soong.models.quantization import Quantization, checkpoint_bytes, read_quantization, uniform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soong.models.architecture import Architecture
    from soong.models.gguf import GgufFile
    from soong.models.hub import Progress, Repository
    from soong.models.model import Format, Model
    from soong.models.safetensors import TensorInfo

Source = Literal["catalogue", "hub", "folder", "config", "gguf"]
WeightsBasis = Literal["headers", "config", "rule-of-thumb"]

MOST_KEPT = 256
KEPT_SECONDS = 300.0
"""How long the Hub's answer is good for within one process."""

FAILURE_KEPT_SECONDS = 60.0
"""A Hub that does not answer is not asked again for each line of a batch."""

LONGEST_WORD = 4096

WORD_BYTES = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
    "mxfp4": 0.5,
    "nvfp4": 0.5,
}
"""Bytes of one parameter by the rule of thumb: the specification's table, and its neighbours of the same width."""

HUB_PAGES = ("https://huggingface.co/", "https://hf.co/")


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A model as one repository or file offers it, ready to be planned.

    Attributes:
        id: the catalogue's id, ORG/NAME, or the path as it was typed.
        source: catalogue, hub (also from Hugging Face's cache), folder, config (a bare config.json) or gguf.
        serve_from: what an engine is given: the repository, or the path of the folder or file.
        architecture: its weights and caches; None where soong has no reader for its model type, so that only
            the rule of thumb can speak.
        quantization: how its files store the weights; `assumed` is set where only a word was given.
        parameters: every number of the checkpoint, scales not counted.
        active_parameters: what one token is multiplied with; None where not known.
        weights_bytes: of the checkpoint's tensors.
        weights_basis: where that size comes from: the files' headers (or a source that states their sum), the
            shapes that the config implies, or parameters × bytes.
        context_limit_tokens: the longest context the authors state; None where not stated.
        default_context_tokens: the catalogue's; None elsewhere.
        key: a short hash of all that decides the memory.
        config: the config.json (or the catalogue's part of it); None for GGUF files and rows without one.
        hf_quant: hf_quant_config.json, where there is one.
        gguf: the file's own table; None for all else.
        gguf_from: what llama.cpp is given: a file's path, or ORG/NAME:MIXTURE; "" where no GGUF file is known.
        licence, gated: of the repository that is served, from the catalogue or the Hub; "" and None where not known.
        stated_label: the catalogue's word for plain 16-bit weights, which people take for one thing.
    """

    id: str
    source: Source
    serve_from: str
    architecture: Architecture | None
    quantization: Quantization
    parameters: int
    active_parameters: int | None
    weights_bytes: int
    weights_basis: WeightsBasis
    context_limit_tokens: int | None
    default_context_tokens: int | None
    key: str
    config: dict[str, Any] | None = None
    hf_quant: dict[str, Any] | None = None
    gguf: GgufFile | None = None
    gguf_from: str = ""
    licence: str = ""
    gated: bool | None = None
    stated_label: str = ""

    @property
    def quantization_label(self) -> str:
        """For people: "BF16", "INT4 (AWQ)", "Q4_K_M"; the catalogue's own word between the two 16-bit types."""
        return self.stated_label or self.quantization.label

    @property
    def quantization_id(self) -> str:
        """The word of the catalogue: fp32, fp16, bf16, int8, int4, fp8, mxfp4, nvfp4."""
        return quantization_word(self.quantization)

    def catalogue_facts(self) -> dict[str, Any]:
        """What a row of the user's catalogue should keep of a repository that was read; see `Model`."""
        if self.source != "hub":
            return {}
        from soong.models.facts import row_of

        return row_of(self)


def resolve(
    word: str,
    *,
    quantization: str | None = None,
    allow_network: bool = True,
    progress: Progress | None = None,
    for_llama_cpp: bool = False,
) -> ResolvedModel:
    """The model that a word means.

    Args:
        word: a catalogue id, ORG/NAME (also with @REVISION, or its page's address), a folder with a
            config.json, a config.json, or a .gguf file.
        quantization: plan for this format ("int4") in place of the one its files have; a repository of the
            catalogue that holds it is preferred, else the format is assumed.
        allow_network: whether the Hub may be asked for what is not on this machine.
        progress: told of the files read from the Hub.
        for_llama_cpp: of a catalogue model, plan a GGUF file: the catalogue's, else the usual mixture.

    Raises:
        UsageError: the word is empty or malformed. ConfigError: a file cannot be used.
        NotFoundError: no such model, file or repository. CredentialError: it is gated, or the token is refused.
        RemoteError, TimedOutError: the Hub does not answer, or answers nonsense.
    """
    word = word.strip()
    if not word or len(word) > LONGEST_WORD or "\0" in word:
        raise UsageError("the model's name is empty" if not word else "the model's name cannot be a name")
    if _is_plainly_path(word):
        return _from_path(word, quantization)
    for page in HUB_PAGES:
        word = word.removeprefix(page)
    word = word.rstrip("/")
    if "/" in word and os.path.isfile(os.path.join(word, "config.json")):  # noqa: PTH113, PTH118 - no import
        return _from_folder(word, quantization)
    if catalogue.is_known(word):
        return _from_catalogue(word, quantization, for_llama_cpp=for_llama_cpp)
    if "/" in word:
        return _from_hub(word, quantization, allow_network=allow_network, progress=progress)
    if os.path.isfile(os.path.join(word, "config.json")):  # noqa: PTH113, PTH118
        return _from_folder(word, quantization)
    if os.path.isdir(word):  # noqa: PTH112
        return _from_folder(word, quantization)
    raise catalogue.not_found(word)


def quantization_word(quantization: Quantization) -> str:
    """The catalogue's word for a storage."""
    if not quantization.formats:
        return {"float32": "fp32", "float16": "fp16"}.get(quantization.dtype, "bf16")
    if quantization.compute == "fp4":
        return "nvfp4" if any(form.kind == "nvfp4" for form in quantization.formats) else "mxfp4"
    return "bf16" if quantization.compute == "bf16" else quantization.compute


# ── a path ───────────────────────────────────────────────────────────────────────────────────────────


def _is_plainly_path(word: str) -> bool:
    if word.startswith(("/", "./", "../", "~")) or word in {".", ".."}:
        return True
    return word.lower().endswith((".gguf", ".json"))


def _from_path(word: str, quantization: str | None) -> ResolvedModel:
    path = os.path.expanduser(word)  # noqa: PTH111 - no import for a thousand lines of a batch
    if os.path.isdir(path):  # noqa: PTH112
        return _from_folder(path, quantization, typed=word)
    if not os.path.exists(path):  # noqa: PTH110
        raise NotFoundError(
            f"no file or folder {word}", hints=("a model of Hugging Face is written ORG/NAME",)
        )
    if not os.path.isfile(path):  # noqa: PTH113 - a pipe would be waited for
        raise ConfigError(f"{word} is neither a file nor a folder")
    if path.lower().endswith(".gguf"):
        return _from_gguf(path, quantization, typed=word)
    return _bare_config(path, word, quantization, (_state(path), _state(_quant_beside(path))))


def _from_folder(path: str, quantization: str | None, *, typed: str = "") -> ResolvedModel:
    typed = typed or path
    config = os.path.join(path, "config.json")  # noqa: PTH118
    if not os.path.isfile(config):  # noqa: PTH113
        return _from_gguf(_only_gguf(path, typed), quantization, typed=typed)
    return _folder(path, typed, quantization, _folder_state(path))


def _only_gguf(path: str, typed: str) -> str:
    """The one GGUF model of a folder without a config.json."""
    try:
        names = sorted(name for name in os.listdir(path) if name.lower().endswith(".gguf"))  # noqa: PTH208
    except OSError as error:
        raise ConfigError(f"cannot read {typed}", why=error.strerror or str(error)) from None
    models = [name for name in names if "-of-" not in name or "-00001-of-" in name]
    if len(models) == 1:
        return os.path.join(path, models[0])  # noqa: PTH118
    if models:
        hints = tuple(f"soong plan {os.path.join(typed, name)}" for name in models[:5])  # noqa: PTH118
        raise UsageError(f"{typed} holds {len(models)} GGUF files", why="name one of them", hints=hints)
    raise NotFoundError(f"{typed} holds no config.json", why="a model's folder has one")


def _from_gguf(path: str, quantization: str | None, *, typed: str) -> ResolvedModel:
    from pathlib import Path

    from soong.models.gguf import read_gguf

    return _gguf(read_gguf(Path(path)), path, typed, quantization)


State = tuple[str, int, int]
"""A file's path, time of change in nanoseconds, and size: enough to tell one state of it from another."""


def _state(path: str) -> State:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return path, 0, -1
    return path, found.st_mtime_ns, found.st_size


def _folder_state(path: str) -> tuple[State, ...]:
    """Of every file that is read, and of the shards that might be."""
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith((".safetensors", ".json")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}", why=error.strerror or str(error)) from None
    return tuple(_state(os.path.join(path, name)) for name in names)  # noqa: PTH118


@lru_cache(maxsize=MOST_KEPT)
def _bare_config(
    path: str,
    typed: str,
    quantization: str | None,
    states: tuple[State, State],  # noqa: ARG001 - the cache's key
) -> ResolvedModel:
    from pathlib import Path

    facts = _Facts(id=typed, source="config", serve_from=os.path.dirname(path) or ".")  # noqa: PTH120
    return _read(_file_config(Path(path)), _optional_config(_quant_beside(path)), None, facts, quantization)


def _quant_beside(path: str) -> str:
    """Where ModelOpt's description of a bare config would stand.

    `config.json` has `hf_quant_config.json` beside it, a renamed `NAME.json` has `NAME.hf_quant_config.json`.
    """
    folder, name = os.path.split(path)
    stem = "" if name == "config.json" else f"{name.removesuffix('.json')}."
    return os.path.join(folder, f"{stem}hf_quant_config.json")  # noqa: PTH118


@lru_cache(maxsize=MOST_KEPT)
def _folder(
    path: str,
    typed: str,
    quantization: str | None,
    states: tuple[State, ...],  # noqa: ARG001 - the cache's key
) -> ResolvedModel:
    facts = _Facts(id=typed, source="folder", serve_from=path)
    return _read_folder(path, facts, quantization)


def _read_folder(path: str, facts: _Facts, quantization: str | None) -> ResolvedModel:
    from pathlib import Path

    folder = Path(path)
    config = _file_config(folder / "config.json")
    hf_quant = _optional_config(str(folder / "hf_quant_config.json"))
    return _read(config, hf_quant, _folder_tensors(folder), facts, quantization)


def _file_config(path: Path) -> Config:
    from soong.models.config_json import read_config

    return read_config(path)


def _optional_config(path: str) -> Config | None:
    from pathlib import Path

    return _file_config(Path(path)) if os.path.isfile(path) else None  # noqa: PTH113


def _folder_tensors(folder: Path) -> tuple[TensorInfo, ...] | None:
    """The tensors of a folder's safetensors files; None where they are not all there.

    The index decides, since some repositories hold their weights twice (`consolidated.safetensors`).
    """
    from soong.models import safetensors
    from soong.models.hub import INDEX_FILE, shard_names

    index = folder / INDEX_FILE
    try:
        if index.is_file():
            files = [folder / name for name in shard_names(index.read_bytes(), str(index))]
        elif (folder / "model.safetensors").is_file():
            files = [folder / "model.safetensors"]
        else:
            files = []
        if not files or not all(file.is_file() for file in files):
            return None
    except OSError as error:
        raise ConfigError(f"cannot read {folder}", why=error.strerror or str(error)) from None
    return tuple(tensor for file in files for tensor in safetensors.read_header(file))


@lru_cache(maxsize=MOST_KEPT)
def _gguf(file: GgufFile, path: str, typed: str, quantization: str | None) -> ResolvedModel:
    from soong.models import gguf_architecture

    architecture = gguf_architecture.read_architecture(file)
    storage = gguf_architecture.read_quantization(file)
    if quantization is not None and not _same_size(quantization, quantization_word(storage)):
        raise UsageError(
            f"{typed} is stored as {storage.label}, which `--quantization {quantization}` cannot change",
            hints=("leave `--quantization` out",),
        )
    return ResolvedModel(
        id=typed,
        source="gguf",
        serve_from=path,
        architecture=architecture,
        quantization=storage,
        parameters=file.parameters,
        active_parameters=architecture.active_parameters,
        weights_bytes=file.weights_bytes,
        weights_basis="headers",
        context_limit_tokens=architecture.context_limit_tokens,
        default_context_tokens=None,
        gguf_from=path,
        key=_hash(msgspec.json.encode((architecture, storage.label, file.bytes_by_type))),
        gguf=file,
    )


# ── the catalogue ────────────────────────────────────────────────────────────────────────────────────

_by_word: dict[tuple[str, str | None, bool], ResolvedModel] = {}
_built_from: list[tuple[Model, ...]] = []
"""The catalogue that `_by_word` was built from; another one (the user's table changed) empties it."""


def _from_catalogue(word: str, quantization: str | None, *, for_llama_cpp: bool) -> ResolvedModel:
    models = catalogue.all_models()
    if not _built_from or _built_from[0] is not models:
        _by_word.clear()
        _built_from[:] = [models]
    key = (word.lower(), quantization, for_llama_cpp)
    found = _by_word.get(key)
    if found is None:
        model = catalogue.find_model(word)
        wanted = _mixture_for(model, quantization) if for_llama_cpp else quantization
        found = _of_model(model, wanted)
        _keep(_by_word, key, found)
    return found


def _keep(kept: dict[Any, Any], key: object, value: object) -> None:
    while len(kept) >= MOST_KEPT:
        del kept[next(iter(kept))]
    kept[key] = value


USUAL_MIXTURE = "Q4_K_M"
"""What llama.cpp itself takes from a repository when no file is named: `common/download.cpp` find_best_model."""

NEAREST_MIXTURES = {"int4": "Q4_K_M", "int8": "Q8_0", "mxfp4": "MXFP4_MOE"}
"""The GGUF file that people mean by a word of the catalogue."""


def _mixture_for(model: Model, wanted: str | None) -> str | None:
    """The mixture to plan for llama.cpp; other words stay as they are, so that the engine can refuse them."""
    if wanted is not None:
        return NEAREST_MIXTURES.get(wanted, wanted)
    held = [row.quantization for row in model.gguf]
    return USUAL_MIXTURE if USUAL_MIXTURE in held or not held else held[0]


def _of_model(model: Model, wanted: str | None) -> ResolvedModel:
    """A row of the catalogue, in the wanted format where a repository of the row holds it."""
    if wanted is not None and not _same_size(wanted, model.quantization):
        held = next((row for row in model.formats if _same_size(wanted, row.quantization)), None)
        if held is not None:
            model, wanted = model.in_format(held), None
    elif wanted is not None:
        wanted = None
    file = next((row for row in model.gguf if wanted and row.quantization == wanted.upper()), None)
    row = model.serving_format
    # What the row says of the model is then not of this repository.
    differs = row is not None and row.config is not None
    facts = _Facts(
        id=model.id,
        source="catalogue",
        serve_from=file.repository if file else model.serving_repository or model.id,
        gguf_from=f"{file.repository}:{_tag(file)}" if file else "",
        licence=model.licence,
        gated=model.gated if model.serving_repository == model.hf_path and not file else None,
        default_context_tokens=model.default_context_tokens,
        context_limit_tokens=None if differs else model.context_limit_tokens,
        parameters=None if differs else model.parameters,
        active_parameters=None if differs else model.active_parameters,
        word=model.quantization,
        weights_bytes=row.weights_bytes if row else None,
    )
    if model.serving_config is None:
        return _of_size(facts, wanted or model.quantization)
    return _read(Config(model.serving_config), None, None, facts, wanted)


def _tag(file: Format) -> str:
    """The word by which llama.cpp finds the file: it stands before a dot or dash of its name."""
    return TAGS.get(file.quantization, file.quantization)


TAGS = {"MXFP4_MOE": "mxfp4"}
"""`gpt-oss-20b-mxfp4.gguf`, as llama.cpp's own tests ask for it (`tests/test-quant-type-selection.cpp`)."""


def _of_size(facts: _Facts, word: str) -> ResolvedModel:
    """A row that states a size and a format alone."""
    parameters = facts.parameters or 0
    return ResolvedModel(
        id=facts.id,
        source=facts.source,
        serve_from=facts.serve_from,
        architecture=None,
        quantization=uniform(word),
        parameters=parameters,
        active_parameters=facts.active_parameters,
        weights_bytes=_thumb_bytes(parameters, word),
        weights_basis="rule-of-thumb",
        context_limit_tokens=facts.context_limit_tokens,
        default_context_tokens=facts.default_context_tokens,
        key=_hash(msgspec.json.encode((facts.id, parameters, word))),
        gguf_from=facts.gguf_from,
        licence=facts.licence,
        gated=facts.gated,
    )


def _thumb_bytes(parameters: int, word: str) -> int:
    if word in WORD_BYTES:
        return round(parameters * WORD_BYTES[word])
    from soong.models import gguf_mixture

    each = gguf_mixture.bytes_per_parameter(word) if gguf_mixture.is_mixture(word) else 2.0
    return round(parameters * each)


def _same_size(one: str, other: str) -> bool:
    return one == other or {one, other} == {"fp16", "bf16"}


# ── Hugging Face ─────────────────────────────────────────────────────────────────────────────────────

_asked: dict[tuple[str, ...], tuple[float, Repository | SoongError]] = {}


def _from_hub(
    word: str, quantization: str | None, *, allow_network: bool, progress: Progress | None
) -> ResolvedModel:
    from soong.models.hub_cache import check_name, check_revision, settings_from_environment, snapshot

    name, _, revision = word.partition("@")
    check_name(name)
    revision = check_revision(revision) if revision else "main"
    settings = settings_from_environment()
    folder = snapshot(settings, name, revision)
    facts = _Facts(id=name, source="hub", serve_from=name)
    online = allow_network and not settings.offline
    cached: ResolvedModel | None = None
    if folder is not None:
        cached = _snapshot(str(folder), facts, quantization, _folder_state(str(folder)))
        if cached.weights_basis == "headers" or not online:
            return cached
    if not online:
        raise _offline(name)

    def ask() -> Repository:
        from soong.models.hub import read_repository

        return read_repository(name, revision, settings=settings, progress=progress)

    key = (settings.endpoint, name, revision, settings.token or "")
    try:
        return _of_repository(_asked_once(key, ask), quantization)
    except RemoteError:
        if cached is None:
            raise
        return cached


def _offline(name: str) -> RemoteError:
    near = tuple(f"did you mean `{other}`?" for other in catalogue.similar(name))
    return RemoteError(
        f"{name} is not on this machine, and the network may not be asked",
        hints=(*near, catalogue.HOW_TO_LIST, "HF_HUB_OFFLINE=0 in front of a command allows it again"),
    )


@lru_cache(maxsize=MOST_KEPT)
def _snapshot(
    path: str,
    facts: _Facts,
    quantization: str | None,
    states: tuple[State, ...],  # noqa: ARG001 - the cache's key
) -> ResolvedModel:
    return _read_folder(path, facts, quantization)


def _asked_once(key: tuple[str, ...], ask: Callable[[], Repository]) -> Repository:
    from time import monotonic

    kept = _asked.get(key)
    if kept is None or kept[0] < monotonic():
        answer: Repository | SoongError
        try:
            answer = ask()
        except SoongError as error:
            answer = error
        seconds = FAILURE_KEPT_SECONDS if isinstance(answer, SoongError) else KEPT_SECONDS
        kept = (monotonic() + seconds, answer)
        _keep(_asked, key, kept)
    if isinstance(kept[1], SoongError):
        raise kept[1].with_traceback(None)  # else each raise would lengthen the same traceback
    return kept[1]


@lru_cache(maxsize=MOST_KEPT)
def _of_repository(repository: Repository, quantization: str | None) -> ResolvedModel:
    name = repository.name
    facts = _Facts(id=name, source="hub", serve_from=name, licence=repository.licence, gated=repository.gated)
    config = parse_config(repository.config, f"config.json of {name}")
    hf_quant = None
    if repository.hf_quant is not None:
        hf_quant = parse_config(repository.hf_quant, f"hf_quant_config.json of {name}")
    return _read(config, hf_quant, repository.tensors, facts, quantization)


# ── from facts to the value ──────────────────────────────────────────────────────────────────────────


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beside the config. `word`: the format that the catalogue states."""

    id: str
    source: Source
    serve_from: str
    gguf_from: str = ""
    licence: str = ""
    gated: bool | None = None
    default_context_tokens: int | None = None
    context_limit_tokens: int | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    word: str = ""
    weights_bytes: int | None = None


def _read(
    config: Config,
    hf_quant: Config | None,
    tensors: tuple[TensorInfo, ...] | None,
    facts: _Facts,
    wanted: str | None,
) -> ResolvedModel:
    """The value from a config and, where they could be read, the headers of the weights."""
    architecture, unknown = _architecture(config)
    if architecture is not None and re.search(_EMBEDDER, facts.id):
        architecture = without_head(architecture)
    storage = _storage(config, hf_quant, architecture, facts, tensors)
    size_bytes = facts.weights_bytes
    parameters = facts.parameters or (architecture.parameters if architecture else 0)
    if tensors is not None:
        from soong.models import safetensors

        size_bytes = safetensors.totals(tensors).size_bytes
        parameters = parameters or safetensors.parameter_count(tensors, storage)
    if not parameters:
        assert unknown is not None  # noqa: S101 - an architecture has parameters
        raise unknown
    if wanted is not None and not _same_size(wanted, quantization_word(storage)):
        storage, size_bytes = _wanted_storage(wanted, architecture, storage.dtype)
    known = size_bytes is not None and storage.method != "gguf"
    basis: WeightsBasis = "headers" if known else "config"
    if size_bytes is None and architecture is not None:
        size_bytes = checkpoint_bytes(architecture, storage)
    elif size_bytes is None:
        size_bytes, basis = _thumb_bytes(parameters, quantization_word(storage)), "rule-of-thumb"
    own_limit = architecture.context_limit_tokens if architecture else None
    own_active = architecture.active_parameters if architecture else None
    return ResolvedModel(
        id=facts.id,
        source=facts.source,
        serve_from=facts.serve_from,
        architecture=architecture,
        quantization=storage,
        parameters=parameters,
        active_parameters=facts.active_parameters or own_active,
        weights_bytes=size_bytes,
        weights_basis=basis,
        context_limit_tokens=facts.context_limit_tokens or own_limit,
        default_context_tokens=facts.default_context_tokens,
        key=_hash(
            msgspec.json.encode((config.values, hf_quant.values if hf_quant else None, wanted, size_bytes))
        ),
        config=dict(config.values),
        hf_quant=dict(hf_quant.values) if hf_quant else None,
        gguf_from=facts.gguf_from,
        licence=facts.licence,
        gated=facts.gated,
        stated_label=facts.word.upper() if facts.word in SIXTEEN_BIT and not storage.formats else "",
    )


def _wanted_storage(
    word: str, architecture: Architecture | None, dtype: str
) -> tuple[Quantization, int | None]:
    """The storage that a word asks for which no repository holds, and its size where the word says that too."""
    from soong.models import gguf_mixture

    if architecture is None or not gguf_mixture.is_mixture(word):
        return uniform(word, dtype, on_loading=True), None
    storage = gguf_mixture.mixture(architecture, word)
    return storage, gguf_mixture.file_bytes(architecture, storage)


_EMBEDDER = r"(?i)(?<![a-z])embed(ding|dings|der)?(?![a-z])"
"""Names of models that turn text into vectors; their configs are those of the chat model they grew from."""


def without_head(architecture: Architecture) -> Architecture:
    """The model of an embedder's repository, which has no output projection, though the engine's class makes one."""
    weights = tuple(
        msgspec.structs.replace(weight, stored=False) if weight.part == "lm_head" else weight
        for weight in architecture.weights
    )
    return msgspec.structs.replace(architecture, weights=weights)


def _architecture(config: Config) -> tuple[Architecture | None, UnknownFamilyError | None]:
    try:
        return read_architecture(config), None
    except UnknownFamilyError as error:
        return None, error


def _storage(
    config: Config,
    hf_quant: Config | None,
    architecture: Architecture | None,
    facts: _Facts,
    tensors: tuple[TensorInfo, ...] | None,
) -> Quantization:
    from soong.models.families import _common

    dtype = architecture.dtype if architecture else _common.dtype(config)
    storage = read_quantization(config, hf_quant, dtype=dtype)
    if tensors is not None and not storage.formats:
        # Some configs say float32 over files of bfloat16: the files are right about themselves.
        storage = read_quantization(config, hf_quant, dtype=_header_dtype(tensors) or dtype)
    stated = facts.word
    if (
        stated
        and not storage.formats
        and not _same_size(stated, quantization_word(storage))
        and stated != "fp32"
    ):
        return uniform(stated, dtype)  # a row that says INT4 but not how: a format is assumed
    return storage


def _header_dtype(tensors: tuple[TensorInfo, ...]) -> str:
    """The float type that most bytes of the files have; empty where they hold none."""
    from soong.models import safetensors

    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    held = safetensors.totals(tensors).bytes_by_dtype
    floats = {name: held[short] for short, name in names.items() if held.get(short)}
    return max(floats, key=floats.__getitem__, default="")


def _hash(data: bytes) -> str:
    """A key for caches of this process; hashlib would add four milliseconds of imports to every command."""
    return f"{hash(data) & 0xFFFFFFFFFFFFFFFF:016x}{len(data):x}"
