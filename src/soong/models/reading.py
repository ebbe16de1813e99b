"""From a config, and what is known beside it, to the value: architecture, storage, and the size of the weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from soong.models.families import UnknownFamilyError, read_architecture
from soong.models.model import SIXTEEN_BIT
from soong.models.quantization import Quantization, checkpoint_bytes, read_quantization, uniform
from soong.models.resolved import ResolvedModel, quantization_word, same_size, short_hash

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config
    from soong.models.resolved import Source, WeightsBasis
    from soong.models.safetensors import TensorInfo

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


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beside the config.

    word: the format that the catalogue states. pools: sentence-transformers' modules.json lies beside it, by which vLLM
    tells an embedder (0.33 `config/model.py` _get_default_runner_type).
    """

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
    pools: bool = False


def read(
    config: Config,
    hf_quant: Config | None,
    tensors: tuple[TensorInfo, ...] | None,
    facts: Facts,
    wanted: str | None,
) -> ResolvedModel:
    """The value from a config and, where they could be read, the headers of the weights.

    Args:
        config, hf_quant: config.json and hf_quant_config.json. tensors: of the headers.
        facts: what is known beside them. wanted: the format to plan for; None for the one that the files have.

    Raises:
        UnknownFamilyError: there is no reader for its model type, and nothing tells how many parameters it has.
        ConfigError: the config cannot be used.
    """
    architecture, unknown = _architecture(config)
    pools = facts.pools or _is_named_an_embedder(facts.id)
    if architecture is not None and pools:
        architecture = without_head(architecture)
    stored = _storage(config, hf_quant, architecture, facts, tensors)
    parameters = _parameters(facts, architecture, tensors, stored)
    if not parameters:
        assert unknown is not None  # noqa: S101 - an architecture has parameters
        raise unknown
    storage, size_bytes, basis = _sized(architecture, stored, parameters, facts, tensors, wanted)
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
        key=short_hash(
            msgspec.json.encode(
                (config.values, hf_quant.values if hf_quant else None, wanted, size_bytes, pools)
            )
        ),
        config=dict(config.values),
        hf_quant=dict(hf_quant.values) if hf_quant else None,
        gguf_from=facts.gguf_from,
        licence=facts.licence,
        gated=facts.gated,
        stated_label=facts.word.upper() if facts.word in SIXTEEN_BIT and not storage.formats else "",
    )


def _parameters(
    facts: Facts,
    architecture: Architecture | None,
    tensors: tuple[TensorInfo, ...] | None,
    stored: Quantization,
) -> int:
    """As stated, else by the shapes, else by the headers; 0 where none of them tells."""
    parameters = facts.parameters or (architecture.parameters if architecture else 0)
    if parameters or tensors is None:
        return parameters
    from soong.models import safetensors

    return safetensors.parameter_count(tensors, stored)


def _sized(
    architecture: Architecture | None,
    stored: Quantization,
    parameters: int,
    facts: Facts,
    tensors: tuple[TensorInfo, ...] | None,
    wanted: str | None,
) -> tuple[Quantization, int, WeightsBasis]:
    """The storage to plan for, its bytes, and where that size comes from. stored: as the files are."""
    storage, size_bytes = stored, facts.weights_bytes
    if tensors is not None:
        from soong.models import safetensors

        size_bytes = safetensors.totals(tensors).size_bytes
    if wanted is not None and not same_size(wanted, quantization_word(stored)):
        storage, size_bytes = _wanted_storage(wanted, architecture, stored.dtype)
    if size_bytes is not None:
        return storage, size_bytes, "config" if storage.method == "gguf" else "headers"
    if architecture is not None:
        return storage, checkpoint_bytes(architecture, storage), "config"
    return storage, thumb_bytes(parameters, quantization_word(storage)), "rule-of-thumb"


def of_size(facts: Facts, word: str) -> ResolvedModel:
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
        weights_bytes=thumb_bytes(parameters, word),
        weights_basis="rule-of-thumb",
        context_limit_tokens=facts.context_limit_tokens,
        default_context_tokens=facts.default_context_tokens,
        key=short_hash(msgspec.json.encode((facts.id, parameters, word))),
        gguf_from=facts.gguf_from,
        licence=facts.licence,
        gated=facts.gated,
    )


def thumb_bytes(parameters: int, word: str) -> int:
    """What so many parameters weigh in a format, by the rule of thumb."""
    if word in WORD_BYTES:
        return round(parameters * WORD_BYTES[word])
    from soong.models import gguf_mixture

    each = gguf_mixture.bytes_per_parameter(word) if gguf_mixture.is_mixture(word) else 2.0
    return round(parameters * each)


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


def _is_named_an_embedder(model_id: str) -> bool:
    """Whether the last word of a repository or path says so; folders above it tell of other things."""
    if "embed" not in model_id.lower():
        return False
    name = model_id.rstrip("/").removesuffix("/config.json").rpartition("/")[2]
    return re.search(_EMBEDDER, name) is not None


def without_head(architecture: Architecture) -> Architecture:
    """The model of an embedder's repository, which has no output projection, though the engine's class makes one."""
    weights = tuple(
        msgspec.structs.replace(weight, stored=False) if weight.part == "lm_head" else weight
        for weight in architecture.weights
    )
    return msgspec.structs.replace(architecture, weights=weights, pooled=True)


def _architecture(config: Config) -> tuple[Architecture | None, UnknownFamilyError | None]:
    try:
        return read_architecture(config), None
    except UnknownFamilyError as error:
        return None, error


def _storage(
    config: Config,
    hf_quant: Config | None,
    architecture: Architecture | None,
    facts: Facts,
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
        and not same_size(stated, quantization_word(storage))
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
