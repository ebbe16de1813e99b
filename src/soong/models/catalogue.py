"""The models that have names: the packaged rows with the user's own laid over them, and how to find one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong import tables
from soong.errors import NotFoundError
from soong.models.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.models.model import Format

SUBJECT = "models"

TASKS = ("reasoning", "coding", "general", "quick", "vision")
"""What a model may be listed for."""

HOW_TO_LIST = "Use 'soong models' to see available models."


def all_models() -> tuple[Model, ...]:
    """Every model: packaged, then the user's, whose rows replace packaged ones of the same id.

    Raises:
        ConfigError: the user's table cannot be read.
    """
    return _current().models


def packaged_ids() -> frozenset[str]:
    """The ids that come with soong and cannot be removed."""
    return frozenset(model.id for model in tables.packaged(SUBJECT, Model))


def find_model(word: str) -> Model:
    """The model that a person means.

    Args:
        word: an id in any case, or the name of a repository that holds the model (`Qwen/Qwen3-8B-FP8`), which
            also chooses the format.

    Raises:
        NotFoundError: there is none; the hints name similar ids.
        ConfigError: the user's table cannot be read.
    """
    catalogue = _current()
    wanted = word.strip().lower()
    model = catalogue.by_id.get(wanted)
    if model is not None:
        return model
    held = catalogue.by_repository.get(wanted)
    if held is None:
        raise not_found(word)
    model, chosen = held
    return model if chosen is None or chosen is model.serving_format else model.in_format(chosen)


def is_known(word: str) -> bool:
    """Whether `find_model` finds it."""
    catalogue = _current()
    wanted = word.strip().lower()
    return wanted in catalogue.by_id or wanted in catalogue.by_repository


def not_found(word: str) -> NotFoundError:
    """The error for a model that nobody knows, with what to do next."""
    shown = word if len(word) <= 100 else f"{word[:97]}..."
    near = tuple(f"did you mean `{name}`?" for name in similar(word))
    return NotFoundError(f"Model '{shown}' not found.", hints=(HOW_TO_LIST, *near))


def similar(word: str, most: int = 3) -> tuple[str, ...]:
    """Ids that look like a word, best first."""
    from difflib import get_close_matches

    wanted = word.strip().lower()[:100].rpartition("/")[2]
    ids = [model.id for model in all_models()]
    return tuple(get_close_matches(wanted, ids, n=most, cutoff=0.6))


def search(text: str, models: Iterable[Model] | None = None) -> tuple[Model, ...]:
    """Models whose id, name, repositories or texts hold every word of `text`, in any case and order."""
    words = text.lower().split()
    return tuple(model for model in _given(models) if all(word in _searchable(model) for word in words))


def for_task(task: str, models: Iterable[Model] | None = None) -> tuple[Model, ...]:
    """Models listed for a task, those listed for it first of all in front.

    Raises:
        NotFoundError: no model is ever listed for it.
    """
    wanted = task.strip().lower()
    if wanted not in TASKS:
        from difflib import get_close_matches

        near = tuple(f"did you mean `{name}`?" for name in get_close_matches(wanted[:60], TASKS, n=1))
        raise NotFoundError(f"Invalid task '{task[:60]}'. Must be one of: {', '.join(TASKS)}", hints=near)
    listed = [model for model in _given(models) if wanted in model.tasks]
    return tuple(sorted(listed, key=lambda model: model.tasks.index(wanted)))


class _Catalogue(NamedTuple):
    models: tuple[Model, ...]
    by_id: dict[str, Model]
    by_repository: dict[str, tuple[Model, Format | None]]
    packaged: tuple[Model, ...]
    own: tuple[Model, ...]


_last: list[_Catalogue] = []
"""The catalogue as last built; good as long as the tables give the same rows."""


def _current() -> _Catalogue:
    packaged, own = tables.packaged(SUBJECT, Model), tables.user_rows(SUBJECT, Model)
    if not _last or _last[0].packaged is not packaged or _last[0].own is not own:
        _last[:] = [_built(packaged, own)]
    return _last[0]


def _built(packaged: tuple[Model, ...], own: tuple[Model, ...]) -> _Catalogue:
    laid = {model.id.lower(): model for model in packaged}
    laid.update((model.id.lower(), msgspec.structs.replace(model, custom=True)) for model in own)
    by_repository: dict[str, tuple[Model, Format | None]] = {}
    for model in laid.values():
        for row in model.formats:
            by_repository.setdefault(row.repository.lower(), (model, row))
    for model in laid.values():
        if model.hf_path:
            by_repository.setdefault(model.hf_path.lower(), (model, None))
    return _Catalogue(tuple(laid.values()), laid, by_repository, packaged, own)


def _given(models: Iterable[Model] | None) -> Iterable[Model]:
    return all_models() if models is None else models


def _searchable(model: Model) -> str:
    texts = (model.id, model.name, model.family, model.hf_path, model.licence, model.notes, model.best_for)
    repositories = (row.repository for row in model.formats)
    return "\n".join((*texts, *repositories, *model.good_for, *model.strengths, *model.tasks)).lower()
