"""Models whose last layer is no vocabulary: classifiers, reward models, embedders.

Source: vLLM 0.32 `models/adapters.py` as_seq_cls_model, `models/qwen2_rm.py`, `models/internlm2.py`
InternLM2ForRewardModel; their heads are in float32 (`config/model.py` head_dtype).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.architecture import AttentionCache
from soong.models.families import _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

CLASSIFIER = "ForSequenceClassification"

TWO_LAYER_SCORES = {"Qwen2ForRewardModel": 1, "Qwen2ForProcessRewardModel": 2}
"""Classes with a hidden layer before the score, and how many scores they give."""

SPLIT_SCORES = {"InternLM2ForRewardModel": "v_head"}
"""Classes whose score is divided by tensor parallelism, and its name."""

EMBEDDERS = {"LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "Gemma2Model", "Gemma3TextModel"}
"""Checkpoints without an output projection, though the class that vLLM runs for them makes one."""

ENCODERS = {"bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "new", "gte"}
"""Model types whose own reader adds their heads."""

HEADLESS = {"LlamaBidirectionalModel"}
"""Embedders whose engine class makes no output projection either: vLLM 0.33 `models/llama.py`."""

BOTH_HEADS = {"JambaForSequenceClassification"}
"""Classifiers that keep the output projection beside their score: vLLM 0.33 `models/jamba.py`."""

CAUSAL_BY_WORD = {"llama", "qwen2", "qwen3", "gemma3_text", "mistral", "deepseek_v3"}
"""Model types whose engine class asks the config whether attention is causal."""

DEFAULT_LABELS = 2
"""transformers 5 `configuration_utils.py` num_labels."""


def with_own_head(config: Config, architecture: Architecture) -> Architecture:
    """The architecture with the head that its class has in the vocabulary's stead, or as it is."""
    names = config.texts("architectures")
    name = names[0] if names else ""
    if config.text("model_type") in ENCODERS:
        return architecture
    if _looks_both_ways(config, name):
        architecture = msgspec.structs.replace(architecture, caches=_idle(architecture.caches))
    if name in FILTERS:
        weights = [weight for weight in architecture.weights if weight.part != "lm_head"]
        weights += FILTERS[name](config, architecture.hidden_size)
        caches = _idle(architecture.caches)
        return msgspec.structs.replace(architecture, weights=tuple(weights), caches=caches)
    if name in OWN_HEADS:
        weights = [weight for weight in architecture.weights if weight.part != "lm_head"]
        weights += OWN_HEADS[name](config, architecture.hidden_size)
        return msgspec.structs.replace(architecture, weights=tuple(weights))
    if name in HEADLESS:
        weights = [weight for weight in architecture.weights if weight.part != "lm_head"]
    elif name in EMBEDDERS:
        weights = [
            msgspec.structs.replace(weight, stored=False) if weight.part == "lm_head" else weight
            for weight in architecture.weights
        ]
    elif name.endswith(CLASSIFIER) or name in TWO_LAYER_SCORES or name in SPLIT_SCORES:
        weights = [
            weight for weight in architecture.weights if weight.part != "lm_head" or name in BOTH_HEADS
        ]
        weights += _scores(config, name, architecture.hidden_size)
    else:
        return architecture
    return msgspec.structs.replace(architecture, weights=tuple(weights))


def with_head_of_its_own(architecture: Architecture) -> Architecture:
    """The architecture with an output projection that the checkpoint does not hold, a copy of its embedding."""
    shape = (architecture.vocab_size, architecture.hidden_size)
    head = _parts.matrix("lm_head", shape, "other", "vocab")
    weights = (*architecture.weights, msgspec.structs.replace(head, stored=False))
    return msgspec.structs.replace(architecture, weights=weights)


def _idle(caches: tuple[Cache, ...]) -> tuple[Cache, ...]:
    """Layers of attention that keep nothing."""
    return tuple(
        msgspec.structs.replace(cache, layers=0, idle_layers=cache.layers)
        for cache in caches
        if isinstance(cache, AttentionCache)
    )


def _looks_both_ways(config: Config, name: str) -> bool:
    """Whether each token sees all others at once, so that nothing is cached.

    Source: vLLM 0.33 `models/config.py` (LlamaBidirectionalConfig and its like set `is_causal`), `models/llama.py`.
    """
    causal = config.values.get("is_causal") is not False or config.text("model_type") not in CAUSAL_BY_WORD
    both = name == "Gemma3TextModel" and config.flag("use_bidirectional_attention")
    return not causal or both or "Bidirectional" in name


def _ranking(_: Config, hidden_size: int) -> list[Weight]:
    """Jina's reranker v3: vLLM 0.33 `models/jina.py`."""
    half = hidden_size // 2
    return [
        _parts.matrix("projector.0", (half, hidden_size), "other"),
        _parts.matrix("projector.2", (JINA_PROJECTION, half), "other"),
    ]


def _labelled(config: Config, hidden_size: int) -> list[Weight]:
    """Voyage's embedding of fewer numbers: vLLM 0.33 `models/voyage.py`."""
    return [_parts.matrix("linear", (labels(config), hidden_size), "other")]


def _scored(_: Config, hidden_size: int) -> list[Weight]:
    """Jina's visual reranker: vLLM 0.33 `models/jina_vl.py`, which sets one label."""
    weights = [
        *_parts.linear("score.dense", hidden_size, hidden_size, "other", "column", bias=True),
        *_parts.linear("score.out_proj", 1, hidden_size, "other", "row", bias=True),
    ]
    return [msgspec.structs.replace(weight, dtype="float32", linear=False) for weight in weights]


def _private(config: Config, hidden_size: int) -> list[Weight]:
    """One label for each kind of private matter: vLLM 0.33 `models/openai_privacy_filter.py`."""
    count = labels(config) if "id2label" in config or "num_labels" in config else PRIVACY_LABELS
    return [
        _parts.matrix("score", (count, hidden_size), "other", dtype="float32"),
        _parts.vector("score.bias", count, "other", dtype="float32"),
    ]


PRIVACY_LABELS = 33
FILTERS = {"OpenAIPrivacyFilterForTokenClassification": _private}
"""Classes that label each token and look both ways."""

JINA_PROJECTION = 512
"""Numbers of a reranker's vector: vLLM 0.33 `models/jina.py` projector_dim."""

OWN_HEADS = {
    "JinaForRanking": _ranking,
    "VoyageQwen3BidirectionalEmbedModel": _labelled,
    "JinaVLForRanking": _scored,
}
"""Classes with a head of their own kind."""


def _scores(config: Config, name: str, hidden_size: int) -> list[Weight]:
    if name in SPLIT_SCORES:
        weights = _parts.linear(SPLIT_SCORES[name], 1, hidden_size, "other", "row")
    elif name in TWO_LAYER_SCORES:
        weights = [
            *_parts.linear("score.0", hidden_size, hidden_size, "other", "column", bias=True),
            *_parts.linear("score.2", TWO_LAYER_SCORES[name], hidden_size, "other", "row", bias=True),
        ]
    else:
        weights = [_parts.matrix("score", (labels(config), hidden_size), "other")]
    return [msgspec.structs.replace(weight, dtype="float32") for weight in weights]


def labels(config: Config) -> int:
    """How many scores a classifier gives."""
    named = config.values.get("id2label")
    if isinstance(named, dict) and named:
        return len(named)
    return config.integer("num_labels", default=DEFAULT_LABELS, least=1)
