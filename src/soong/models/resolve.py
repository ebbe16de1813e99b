"""What a person means by MODEL: one word becomes one `ResolvedModel`, wherever its facts come from.

Tried in this order: what is plainly a path (`./x`, `/x`, `x.gguf`, `x.json`), a folder of that very name that
holds a config.json, the catalogue (ids and repositories; offline and at once), Hugging Face's cache on this
machine, the Hub. Answers are kept, so that a batch may name one model a thousand times; a file that changes
its time or size is read again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from soong.errors import UsageError
from soong.models import catalogue, from_catalogue
from soong.models.resolved import ResolvedModel

if TYPE_CHECKING:
    from soong.models.hub import Progress

__all__ = ["ResolvedModel", "resolve"]

LONGEST_WORD = 4096

HUB_PAGES = ("https://huggingface.co/", "https://hf.co/")


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
        from soong.models.from_files import from_path

        return from_path(word, quantization)
    for page in HUB_PAGES:
        word = word.removeprefix(page)
    word = word.rstrip("/")
    if "/" in word and _holds_config(word):
        return _from_folder(word, quantization)
    if catalogue.is_known(word):
        return from_catalogue.resolve(word, quantization, for_llama_cpp=for_llama_cpp)
    if "/" in word:
        from soong.models import from_hub

        return from_hub.resolve(word, quantization, allow_network=allow_network, progress=progress)
    if os.path.isdir(word):  # noqa: PTH112
        return _from_folder(word, quantization)
    raise catalogue.not_found(word)


def _is_plainly_path(word: str) -> bool:
    if word.startswith(("/", "./", "../", "~")) or word in {".", ".."}:
        return True
    return word.lower().endswith((".gguf", ".json"))


def _holds_config(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "config.json"))  # noqa: PTH113, PTH118 - no import for a batch


def _from_folder(path: str, quantization: str | None) -> ResolvedModel:
    from soong.models.from_files import from_folder

    return from_folder(path, quantization)
