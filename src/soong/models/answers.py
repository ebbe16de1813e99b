"""Whether a model answers in text, or with vectors and scores, which nobody decodes.

Engines tell by the name of the class: vLLM 0.33 `config/model.py` _SUFFIX_TO_DEFAULTS and `models/registry.py`, SGLang
0.5.23 `configs/model_config.py` is_generation_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

NUMBERS = (
    "Model", "Classification", "ForTextEncoding", "ForRewardModeling", "ForMaskedLM", "ForRanking", "ForRetrieval",
)  # fmt: skip
"""How the names of classes end that answer with vectors or scores; a `...Model` is one without its output layer."""

TEXT_ALL_THE_SAME = (
    "ChatModel",
    "LMHeadModel",
    "LMModel",
    "GLMModel",
    "OmniModel",
    "AudioModel",
    "UltravoxModel",
)
"""Of those that end in `Model`, the ones in vLLM's lists of generating classes."""

BARE_DECODERS = frozenset({"LlamaModel", "MistralModel", "Qwen2Model", "Gemma2Model"})
"""Names that vLLM lists as embedders but gives the class that generates, which it then serves unless told otherwise."""


def writes_text(architecture: Architecture) -> bool:
    """Whether the model generates text; one that keeps nothing is an encoder, which does not."""
    name = architecture.name
    if architecture.pooled or keeps_nothing(architecture):
        return False
    return not name.endswith(NUMBERS) or name.endswith(TEXT_ALL_THE_SAME) or name in BARE_DECODERS


def keeps_nothing(architecture: Architecture) -> bool:
    """Whether nothing of a sequence is kept between passes: an encoder reads each text once, both ways."""
    return not any(cache.layers for cache in architecture.caches)
