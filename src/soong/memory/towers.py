"""A model that also sees or hears, served for text alone: which parts an engine then leaves out.

vLLM builds what reads images, video and sound inside `_mark_tower_model` (`models/interfaces.py`); where every kind of
input is limited to none, as `--language-model-only` does (`config/multimodal.py get_limit_per_prompt`), what is built
there is thrown away: projectors with their towers. The encoder is then not profiled, and tokens are looked up by the
decoder itself (`config/model.py _supports_multimodal_inputs`). SGLang has the same flag for a few classes
(`server_args.py LANGUAGE_MODEL_ONLY_ARCHITECTURES`), and leaves the towers of others out unless it is asked for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.memory.engines._constants import engine_tables, rules, version_tuple
from soong.models.architecture import AttentionCache
from soong.models.quantization.quantization import TOWERS

if TYPE_CHECKING:
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.models.architecture import Architecture

HANDED_TO_LAYERS = "merger_list"
"""In the path of what a tower hands to several layers of the decoder, for which vLLM keeps room (`qwen3_vl.py`)."""

MOST_KEPT = 1024
"""Models without their towers that are remembered in one process."""
_kept: dict[tuple[str, bool], ServedModel] = {}


def as_loaded(model: ServedModel, settings: EngineSettings) -> ServedModel:
    """The model as the engine loads it: itself, or without its towers, remembered by its key.

    Args:
        model: as its repository has it. settings: with `text_only` where the engine is told so.
    """
    if not model.architecture.multimodal or not _leaves_out(model.architecture, settings):
        return model
    keeps_room = not rules(settings.name, settings.version).get("tower_room_with_tower", True)
    key = (model.key, keeps_room)
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        found = _kept[key] = msgspec.structs.replace(
            model,
            key=f"{model.key}-text{'-room' if keeps_room else ''}",
            architecture=text_alone(model.architecture, keeps_room=keeps_room),
        )
    return found


def text_alone(architecture: Architecture, *, keeps_room: bool = False) -> Architecture:
    """The architecture without what sees or hears.

    Args:
        architecture: of a multimodal model.
        keeps_room: the room for what the tower would hand to several layers stays, as in vLLM before 0.28.
    """
    left = tuple(weight for weight in architecture.weights if weight.part not in TOWERS)
    handed = any(HANDED_TO_LAYERS in weight.path for weight in architecture.weights if weight.part in TOWERS)
    return msgspec.structs.replace(
        architecture,
        weights=left,
        multimodal=False,
        whole_items=False,
        vision_shape=None,
        rotary_bytes=architecture.rotary_bytes - architecture.tower_tables_bytes,
        early_rotary_bytes=architecture.early_rotary_bytes - architecture.tower_tables_bytes,
        tower_tables_bytes=0,
        input_buffer_numbers=0 if handed and not keeps_room else architecture.input_buffer_numbers,
    )


def is_asked(architecture: Architecture, engine: str, engine_version: str) -> bool:
    """Whether text alone is another thing than what the engine does with this model by itself."""
    if engine == "llama.cpp" or not architecture.multimodal:
        return False
    return architecture.name not in rules(engine, engine_version).get("text_only_unasked", ())


def reason_against(architecture: Architecture, settings: EngineSettings) -> str:
    """Why the engine cannot serve the model for text alone, or nothing."""
    since: str = engine_tables()[settings.name]["text_only_since"]
    if version_tuple(settings.version) < version_tuple(since):
        return f"{settings.name} {settings.version} has no `--language-model-only`: {since} does"
    classes = rules(settings.name, settings.version).get("text_only_architectures")
    if classes is not None and architecture.name not in classes:
        few = f"{settings.name} {settings.version} leaves encoders out of {_listed(classes)} alone"
        return f"{few}, not of {architecture.name}: take `--engine vllm`"
    if any(isinstance(cache, AttentionCache) and cache.cross for cache in architecture.caches):
        return "text alone is nothing to a decoder of what an encoder hears or sees (leave out `--text-only`)"
    return ""


def _listed(classes: list[str]) -> str:
    return ", ".join(name.removesuffix("ForConditionalGeneration") for name in classes)


def _leaves_out(architecture: Architecture, settings: EngineSettings) -> bool:
    if settings.name == "llama.cpp":
        return False
    if architecture.name in rules(settings.name, settings.version).get("text_only_unasked", ()):
        return True
    stays = engine_tables()[settings.name].get("towers_stay", ())
    return settings.text_only and architecture.name not in stays
