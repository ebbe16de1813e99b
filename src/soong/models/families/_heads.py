"""Models whose last layer is no vocabulary: classifiers, reward models, embedders.

Source: vLLM 0.32 `models/adapters.py` as_seq_cls_model, `models/qwen2_rm.py`, `models/internlm2.py`
InternLM2ForRewardModel; their heads are in float32 (`config/model.py` head_dtype).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.families import _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

CLASSIFIER = "ForSequenceClassification"

TWO_LAYER_SCORES = {"Qwen2ForRewardModel": 1, "Qwen2ForProcessRewardModel": 2}
"""Classes with a hidden layer before the score, and how many scores they give."""

SPLIT_SCORES = {"InternLM2ForRewardModel": "v_head"}
"""Classes whose score is divided by tensor parallelism, and its name."""

EMBEDDERS = {"LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "Gemma2Model", "Gemma3TextModel"}
"""Checkpoints without an output projection, though the class that vLLM runs for them makes one."""

DEFAULT_LABELS = 2
"""transformers 5 `configuration_utils.py` num_labels."""


def with_own_head(config: Config, architecture: Architecture) -> Architecture:
    """The architecture with the head that its class has in the vocabulary's stead, or as it is."""
    names = config.texts("architectures")
    name = names[0] if names else ""
    if name in EMBEDDERS:
        weights = [
            msgspec.structs.replace(weight, stored=False) if weight.part == "lm_head" else weight
            for weight in architecture.weights
        ]
    elif name.endswith(CLASSIFIER) or name in TWO_LAYER_SCORES or name in SPLIT_SCORES:
        weights = [weight for weight in architecture.weights if weight.part != "lm_head"]
        weights += _scores(config, name, architecture.hidden_size)
    else:
        return architecture
    return msgspec.structs.replace(architecture, weights=tuple(weights))


def _scores(config: Config, name: str, hidden_size: int) -> list[Weight]:
    if name in SPLIT_SCORES:
        weights = _parts.linear(SPLIT_SCORES[name], 1, hidden_size, "other", "row")
    elif name in TWO_LAYER_SCORES:
        weights = [
            *_parts.linear("score.0", hidden_size, hidden_size, "other", "column", bias=True),
            *_parts.linear("score.2", TWO_LAYER_SCORES[name], hidden_size, "other", "row", bias=True),
        ]
    else:
        weights = [_parts.matrix("score", (_labels(config), hidden_size), "other")]
    return [msgspec.structs.replace(weight, dtype="float32") for weight in weights]


def _labels(config: Config) -> int:
    named = config.values.get("id2label")
    if isinstance(named, dict) and named:
        return len(named)
    return config.integer("num_labels", default=DEFAULT_LABELS, least=1)
