"""A model by what lies on this machine: a folder, a bare config.json, a GGUF file.

Answers are kept as long as no file changes its time or size.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from soong.errors import ConfigError, NotFoundError, UsageError
from soong.models.reading import Facts, read
from soong.models.resolved import MOST_KEPT, ResolvedModel, quantization_word, same_size, short_hash

if TYPE_CHECKING:
    from pathlib import Path

    from soong.models.config_json import Config
    from soong.models.gguf import GgufFile
    from soong.models.safetensors import TensorInfo


def from_path(word: str, quantization: str | None) -> ResolvedModel:
    """The model of what is plainly a path: a folder, a config.json or a GGUF file.

    Raises:
        NotFoundError: nothing is there. ConfigError, UsageError: it is nothing that can be read.
    """
    path = os.path.expanduser(word)  # noqa: PTH111 - no import for a thousand lines of a batch
    if os.path.isdir(path):  # noqa: PTH112
        return from_folder(path, quantization, typed=word)
    if not os.path.exists(path):  # noqa: PTH110
        raise NotFoundError(
            f"no file or folder {word}", hints=("a model of Hugging Face is written ORG/NAME",)
        )
    if not os.path.isfile(path):  # noqa: PTH113 - a pipe would be waited for
        raise ConfigError(f"{word} is neither a file nor a folder")
    if path.lower().endswith(".gguf"):
        return _from_gguf(path, quantization, typed=word)
    return _bare_config(path, word, quantization, (_state(path), _state(_quant_beside(path))))


def from_folder(path: str, quantization: str | None, *, typed: str = "") -> ResolvedModel:
    """The model of a folder. typed: how the person wrote it, where that differs."""
    typed = typed or path
    config = os.path.join(path, "config.json")  # noqa: PTH118
    if not os.path.isfile(config):  # noqa: PTH113
        return _from_gguf(_only_gguf(path, typed), quantization, typed=typed)
    return _folder(path, typed, quantization, folder_state(path))


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


def folder_state(path: str) -> tuple[State, ...]:
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

    facts = Facts(id=typed, source="config", serve_from=os.path.dirname(path) or ".")  # noqa: PTH120
    return read(_file_config(Path(path)), _optional_config(_quant_beside(path)), None, facts, quantization)


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
    facts = Facts(id=typed, source="folder", serve_from=path)
    return read_folder(path, facts, quantization)


def read_folder(path: str, facts: Facts, quantization: str | None) -> ResolvedModel:
    """The value of a folder with a config.json, its weights' headers read where they are all there."""
    from pathlib import Path

    folder = Path(path)
    config = _file_config(folder / "config.json")
    hf_quant = _optional_config(str(folder / "hf_quant_config.json"))
    if (folder / "modules.json").is_file():
        facts = msgspec.structs.replace(facts, pools=True)
    return read(config, hf_quant, _folder_tensors(folder), facts, quantization)


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
    if quantization is not None and not same_size(quantization, quantization_word(storage)):
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
        key=short_hash(msgspec.json.encode((architecture, storage.label, file.bytes_by_type))),
        gguf=file,
    )
