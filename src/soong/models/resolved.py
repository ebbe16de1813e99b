"""The value that a model's name becomes: what one repository or file offers, ready to be planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.gguf import GgufFile
    from soong.models.quantization import Quantization

Source = Literal["catalogue", "hub", "folder", "config", "gguf"]
WeightsBasis = Literal["headers", "config", "rule-of-thumb"]

MOST_KEPT = 256
"""So many answers of each kind are kept within one process."""


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A model as one repository or file offers it, ready to be planned.

    Attributes:
        id: the catalogue's id, ORG/NAME, or the path as it was typed.
        source: catalogue, hub (also from Hugging Face's cache), folder, config (a bare config.json) or gguf.
        serve_from: what an engine is given: the repository, or the path of the folder or file.
        architecture: its weights and caches; None where soong has no reader for its model type, so that only
            the rule of thumb can speak.
        quantization: how its files store the weights; `assumed` is set where only a word was given.
        parameters: every number of the checkpoint, scales not counted.
        active_parameters: what one token is multiplied with; None where not known.
        weights_bytes: of the checkpoint's tensors.
        weights_basis: where that size comes from: the files' headers (or a source that states their sum), the
            shapes that the config implies, or parameters × bytes.
        context_limit_tokens: the longest context the authors state; None where not stated.
        default_context_tokens: the catalogue's; None elsewhere.
        key: a short hash of all that decides the memory.
        config: the config.json (or the catalogue's part of it); None for GGUF files and rows without one.
        hf_quant: hf_quant_config.json, where there is one.
        gguf: the file's own table; None for all else.
        gguf_from: what llama.cpp is given: a file's path, or ORG/NAME:MIXTURE; "" where no GGUF file is known.
        licence, gated: of the repository that is served, from the catalogue or the Hub; "" and None where not known.
        stated_label: the catalogue's word for plain 16-bit weights, which people take for one thing.
    """

    id: str
    source: Source
    serve_from: str
    architecture: Architecture | None
    quantization: Quantization
    parameters: int
    active_parameters: int | None
    weights_bytes: int
    weights_basis: WeightsBasis
    context_limit_tokens: int | None
    default_context_tokens: int | None
    key: str
    config: dict[str, Any] | None = None
    hf_quant: dict[str, Any] | None = None
    gguf: GgufFile | None = None
    gguf_from: str = ""
    licence: str = ""
    gated: bool | None = None
    stated_label: str = ""

    @property
    def quantization_label(self) -> str:
        """For people: "BF16", "INT4 (AWQ)", "Q4_K_M"; the catalogue's own word between the two 16-bit types."""
        return self.stated_label or self.quantization.label

    @property
    def quantization_id(self) -> str:
        """The word of the catalogue: fp32, fp16, bf16, int8, int4, fp8, mxfp4, nvfp4."""
        return quantization_word(self.quantization)

    def catalogue_facts(self) -> dict[str, Any]:
        """What a row of the user's catalogue should keep of a repository that was read; see `Model`."""
        if self.source != "hub":
            return {}
        from soong.models.facts import row_of

        return row_of(self)


def quantization_word(quantization: Quantization) -> str:
    """The catalogue's word for a storage."""
    if not quantization.formats:
        return {"float32": "fp32", "float16": "fp16"}.get(quantization.dtype, "bf16")
    if quantization.compute == "fp4":
        return "nvfp4" if any(form.kind == "nvfp4" for form in quantization.formats) else "mxfp4"
    return "bf16" if quantization.compute == "bf16" else quantization.compute


def same_size(one: str, other: str) -> bool:
    """Whether two words of the catalogue are for files of one size."""
    return one == other or {one, other} == {"fp16", "bf16"}


def keep(kept: dict[Any, Any], key: object, value: object) -> None:
    """Keep an answer; the oldest is forgotten where there are too many."""
    while len(kept) >= MOST_KEPT:
        del kept[next(iter(kept))]
    kept[key] = value


def short_hash(data: bytes) -> str:
    """A key for caches of this process; hashlib would add four milliseconds of imports to every command."""
    return f"{hash(data) & 0xFFFFFFFFFFFFFFFF:016x}{len(data):x}"
