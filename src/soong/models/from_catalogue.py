"""A model by its name in the catalogue: at once, without any disk or network but the table itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models import catalogue
from soong.models.config_json import Config
from soong.models.reading import Facts, of_size, read
from soong.models.resolved import keep, same_size

if TYPE_CHECKING:
    from soong.models.model import Format, Model
    from soong.models.resolved import ResolvedModel

_by_word: dict[tuple[str, str | None, bool], ResolvedModel] = {}
_built_from: list[tuple[Model, ...]] = []
"""The catalogue that `_by_word` was built from; another one (the user's table changed) empties it."""


def resolve(word: str, quantization: str | None, *, for_llama_cpp: bool) -> ResolvedModel:
    """The model of a row; see `soong.models.resolve.resolve`."""
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
        keep(_by_word, key, found)
    return found


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
    if wanted is not None and not same_size(wanted, model.quantization):
        held = next((row for row in model.formats if same_size(wanted, row.quantization)), None)
        if held is not None:
            model, wanted = model.in_format(held), None
        elif (namesake := _namesake_in(model, wanted)) is not None:
            model, wanted = msgspec.structs.replace(namesake, id=model.id), None
    elif wanted is not None:
        wanted = None
    file = next((row for row in model.gguf if wanted and row.quantization == wanted.upper()), None)
    row = model.serving_format
    # What the row says of the model is then not of this repository.
    differs = row is not None and row.config is not None
    facts = Facts(
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
        return of_size(facts, wanted or model.quantization)
    return read(Config(model.serving_config), None, None, facts, wanted)


def _namesake_in(model: Model, wanted: str) -> Model | None:
    """The same model under another id of the catalogue, whose own format is the wanted one."""
    same = [one for one in catalogue.all_models() if one.hf_path == model.hf_path] if model.hf_path else []
    return next((one for one in same if one.id != model.id and same_size(wanted, one.quantization)), None)


def _tag(file: Format) -> str:
    """The word by which llama.cpp finds the file: it stands before a dot or dash of its name."""
    return TAGS.get(file.quantization, file.quantization)


TAGS = {"MXFP4_MOE": "mxfp4"}
"""`gpt-oss-20b-mxfp4.gguf`, as llama.cpp's own tests ask for it (`tests/test-quant-type-selection.cpp`)."""
