"""What a model weighs as a GGUF file of a given name (`Q4_K_M`) where there is no file to read.

`llama-quantize` gives each matrix a type by its purpose, its layer and its row length. These are the rules of
llama.cpp `src/llama-quant.cpp` (tensor_allows_quantization, llama_tensor_get_type_impl, tensor_type_fallback) for the
mixtures that people publish, with an importance matrix where that makes a difference. What is not a matrix stays in
float32: norms, biases, routers, convolutions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from soong.models.architecture import LatentCache
from soong.models.gguf import GGML_TYPES
from soong.models.quantization.formats import Format
from soong.models.quantization.matching import Names
from soong.models.quantization.quantization import Quantization, Rule, checkpoint_bytes, matrix_sides

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.models.architecture import Architecture, Weight

BASE_TYPES = {
    "Q2_K": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_0": "Q4_0", "Q4_1": "Q4_1",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_0": "Q5_0", "Q5_1": "Q5_1", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K", "Q8_0": "Q8_0", "IQ3_S": "IQ3_S", "IQ3_M": "IQ3_S", "IQ4_XS": "IQ4_XS", "IQ4_NL": "IQ4_NL",
    "MXFP4_MOE": "MXFP4", "F16": "F16", "BF16": "BF16", "F32": "F32",
}  # fmt: skip
"""The word of a file name to the type of most of its matrices: llama_ftype_get_default_type."""

SHORTER_BLOCKS = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
}  # fmt: skip
"""For rows that do not divide into 256: tensor_type_fallback."""

EIGHT_EXPERTS = 8
"""Mixtral: keys and values get Q8_0, which costs little there."""

SHARED_HEADS = 4
"""From so many query heads a key head on, values are worth more bits."""

LAYERS_OF_70B = 80

PLAIN = frozenset({"F32", "F16", "BF16"})
_TYPES = {name: (block, size * 8 / block) for name, block, size in GGML_TYPES.values()}

_VALUE = re.compile(r".*(v_proj|wv)")
_JOINED = re.compile(r".*(qkv_proj|query_key_value|Wqkv|W_pack|c_attn|in_proj_qkvz?)")
_KEY = re.compile(r".*(k_proj|wk)")
_OUT = re.compile(r".*(self_attn|attention|self_attention|mixer|attn)\.(o_proj|out_proj|dense|wo)")
_LATENT_UP = re.compile(r".*kv_b_proj")
_KEPT = re.compile(r".*(per_layer_model_projection|altup|laurel).*")
_RECURRENT_OUT = re.compile(r".*(mixer|linear_attn|mamba)\.out_proj")


class _Model(NamedTuple):
    """What the rules ask of a model. layers: all; values: matrices that count as values, in order."""

    layers: int
    values: int
    heads_per_key: int
    experts: int
    large: bool
    tied: bool


def is_mixture(word: str) -> bool:
    """Whether a word names a kind of GGUF file: `Q4_K_M`, `IQ4_XS`, `Q8_0`; in any case of letters."""
    return word.upper() in BASE_TYPES and word.upper() not in PLAIN


def bytes_per_parameter(word: str) -> float:
    """Of the type that most matrices of such a file have; for models of which only the size is known."""
    return _TYPES[BASE_TYPES[word.upper()]][1] / 8


def mixture(architecture: Architecture, word: str) -> Quantization:
    """How `llama-quantize` would store a model.

    Args:
        architecture: as its config describes it.
        word: one of `BASE_TYPES`.

    Returns:
        The storage of every matrix, embeddings and output included.
    """
    label = word.upper()
    base = BASE_TYPES[label]
    names: dict[str, list[str]] = {}
    formats: dict[str, Format] = {}
    model = _model(architecture)
    for weight in _matrices(architecture):
        for layer, type_name in _types(weight, label, base, model, architecture):
            form = _format(type_name)
            formats[form.label] = form
            if type_name != base:
                names.setdefault(form.label, []).append(weight.path.replace("{}", str(layer)))
    rules = [Rule(Names(listed), formats[label]) for label, listed in names.items()]
    return Quantization(
        method="gguf",
        label=label,
        dtype="float32",
        default=_format(base),
        rules=tuple(rules),
        covers_towers=True,
        covers_head=True,
        covers_embedding=True,
    )


def file_bytes(architecture: Architecture, storage: Quantization) -> int:
    """Bytes of a file's tensors: no towers, which have a file of their own, and no layers for drafting."""
    from msgspec.structs import replace

    left_out = {"vision", "audio", "projector", "mtp"}
    held = tuple(weight for weight in architecture.weights if weight.part not in left_out)
    return checkpoint_bytes(replace(architecture, weights=held), storage)


def _matrices(architecture: Architecture) -> list[Weight]:
    left_out = {"vision", "audio", "projector", "mtp", "norm", "router"}
    return [
        weight
        for weight in architecture.weights
        if weight.part not in left_out and (weight.linear or weight.part == "embedding")
    ]


def _model(architecture: Architecture) -> _Model:
    matrices = _matrices(architecture)
    kv_heads = max((w.heads for w in matrices if w.shard == "kv"), default=0)
    layers = 1 + max((max(w.layers, default=-1) for w in matrices), default=-1)
    tied = all(weight.part != "lm_head" for weight in matrices)
    heads = architecture.attention_heads
    return _Model(
        layers=layers,
        values=sum(len(w.layers) for w in matrices if _is_value(w)),
        heads_per_key=heads // kv_heads if kv_heads else 1,
        experts=architecture.experts,
        large=layers == LAYERS_OF_70B and heads != kv_heads and architecture.model_type in {"llama", "qwen2"},
        tied=tied,
    )


def _is_value(weight: Weight) -> bool:
    if _RECURRENT_OUT.fullmatch(weight.path) or weight.part not in {"attention", "kv"}:
        return False
    if _JOINED.fullmatch(weight.path):
        return weight.shard != "kv"  # the three parts of a joined matrix are one tensor
    return bool(_VALUE.fullmatch(weight.path))


def _types(
    weight: Weight, label: str, base: str, model: _Model, architecture: Architecture
) -> list[tuple[int, str]]:
    """The type of a weight in each of its layers."""
    if base in PLAIN:
        return [(0, base)]
    columns = _columns(weight, architecture)
    if _KEPT.fullmatch(weight.path):
        return [(layer, "F16") for layer in weight.layers or (0,)]
    return [
        (layer, _fallback(_wanted(weight, label, base, model, place, layer), columns))
        for place, layer in enumerate(weight.layers or (0,))
    ]


def _columns(weight: Weight, architecture: Architecture) -> int:
    """Row length in the file; of MLA's `kv_b_proj` the half that is stored transposed has the shorter rows."""
    if _LATENT_UP.fullmatch(weight.path) and architecture.attention_heads:
        latent = next((one for one in architecture.caches if isinstance(one, LatentCache)), None)
        if latent is not None:
            return weight.shape[0] // architecture.attention_heads // 2
    return matrix_sides(weight)[1]


def _fallback(type_name: str, columns: int) -> str:
    block = _TYPES[type_name][0]
    if columns % block == 0:
        return type_name
    shorter = SHORTER_BLOCKS.get(type_name, type_name)
    return shorter if columns % _TYPES[shorter][0] == 0 else "F16"


def _wanted(weight: Weight, label: str, base: str, model: _Model, place: int, layer: int) -> str:
    if weight.part == "lm_head" or (weight.part == "embedding" and model.tied):
        return _output_type(label, base, matrix_sides(weight)[1])
    if label == "MXFP4_MOE":
        return "MXFP4" if weight.part == "experts" else "Q8_0"
    if _is_value(weight) or _JOINED.fullmatch(weight.path):
        return _value_type(label, base, model, place)
    if weight.part in {"mlp", "experts"} and weight.shard == "row":
        return _DOWN[label](base, layer, model.layers) if label in _DOWN else base
    if _KEY.fullmatch(weight.path) and model.experts == EIGHT_EXPERTS:
        return "Q8_0"
    if _OUT.fullmatch(weight.path) and not _RECURRENT_OUT.fullmatch(weight.path):
        return _attention_out_type(label, base, model)
    return base


def _output_type(label: str, base: str, columns: int) -> str:
    if label == "MXFP4_MOE" or columns % _TYPES[base][0]:
        return "Q8_0"
    return base if base == "Q8_0" else "Q6_K"


def _value_type(label: str, base: str, model: _Model, place: int) -> str:
    shared = model.heads_per_key >= SHARED_HEADS
    wanted = base
    if label == "Q2_K":
        wanted = "Q4_K" if shared else "Q3_K"
    elif label == "Q3_K_M":
        wanted = "Q5_K" if place < 2 else "Q4_K"
    elif label == "Q3_K_L":
        wanted = "Q5_K"
    elif label == "IQ3_M" or (label == "IQ3_S" and shared):
        wanted = "Q4_K"
    elif label in {"IQ4_XS", "IQ4_NL"} and shared:
        wanted = "Q5_K"
    elif label in {"Q4_K_M", "Q5_K_M"} and _more_bits(place, model.values):
        wanted = "Q6_K"
    elif label == "Q4_K_S" and place < 4:
        wanted = "Q5_K"
    if model.large and wanted in {"Q3_K", "Q4_K"}:
        wanted = "Q5_K"
    return "Q8_0" if model.experts == EIGHT_EXPERTS else wanted


def _more_bits(place: int, layers: int) -> bool:
    """The first and last eighth, and every third layer between: use_more_bits."""
    return place < layers // 8 or place >= 7 * layers // 8 or (place - layers // 8) % 3 == 2


def _attention_out_type(label: str, base: str, model: _Model) -> str:
    if model.experts == EIGHT_EXPERTS:
        low = {"Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS"}
        return "Q5_K" if label in low else base
    return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(label, base)


_DOWN: dict[str, Callable[[str, int, int], str]] = {
    "Q2_K": lambda _base, _layer, _layers: "Q3_K",
    "Q3_K_M": lambda _base, layer, layers: "Q5_K" if layer < layers // 16 else "Q4_K",
    "Q3_K_L": lambda _base, _layer, _layers: "Q5_K",
    "IQ3_M": lambda base, layer, layers: "Q4_K" if layer < layers // 8 else base,
    "Q4_K_S": lambda base, layer, layers: "Q5_K" if layer < layers // 8 else base,
    "Q4_K_M": lambda base, layer, layers: "Q6_K" if _more_bits(layer, layers) else base,
    "Q5_K_M": lambda base, layer, layers: "Q6_K" if _more_bits(layer, layers) else base,
    "Q4_0": lambda base, layer, layers: "Q4_1" if layer < layers // 8 else base,
    "Q5_0": lambda base, layer, layers: "Q5_1" if layer < layers // 8 else base,
}
"""The type of an MLP's way back, by layer."""


def _format(type_name: str) -> Format:
    return Format(kind="bits", bits=_TYPES[type_name][1], label=type_name)
