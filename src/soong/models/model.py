"""A model that has a name: one row of the catalogue, packaged or the user's own.

A row says where a model's files are, how they are packed, and what the model is good for. Its memory, GPU and
price are not here: they are computed from `config`, by the same readers that read a `config.json` from disk.
"""

# No annotations as text here: msgspec compiles each of them when it first reads the table, a fortieth of `soong plan`.

from typing import Annotated, Any

import msgspec
from msgspec import Meta

SIXTEEN_BIT = frozenset({"bf16", "fp16"})
"""Two words for the same size; a repository of either has no `quantization_config`."""

MOST_PARAMETERS = 10**15
"""A thousand trillion: more is a slip of the keyboard."""

MOST_CONTEXT_TOKENS = 10**9

MOST_LAYERS = 1000
"""A range of more is none."""

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Tokens = Annotated[int, Meta(ge=1, le=MOST_CONTEXT_TOKENS)]


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One repository that holds a model in one number format.

    Attributes:
        quantization: fp32, fp16, bf16, int8, int4, fp8, mxfp4, nvfp4.
        repository: on Hugging Face, as ORG/NAME.
        weights_bytes: of the checkpoint's tensors, where a source states it exactly.
        quantization_config: how it is packed, as in the repository's config.json; None for plain weights. A name of
            a list may hold a range, `blocks.{0..26}.attn.qkv`, for one name a layer.
        config: the keys in which the repository's config.json differs from the model's.
        source, as_of: where this row was read, and the day, ISO.
    """

    quantization: Name
    repository: Name
    weights_bytes: Annotated[int, Meta(ge=1)] | None = None
    quantization_config: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    source: str = ""
    as_of: str = ""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the catalogue.

    Attributes:
        id: short and lower case; what people type.
        name: as people say it.
        family: for grouping: Llama, Qwen, ...
        hf_path: the authors' own repository on Hugging Face.
        parameters: every number in the checkpoint, quantization scales not counted.
        active_parameters: what one token is multiplied with; None for dense models and where not known.
        quantization: the format that is planned by default.
        context_limit_tokens: the longest context the authors state.
        default_context_tokens: the context that is planned for when none is asked for.
        licence: SPDX-like, or the licence's own name; empty where not known for sure.
        gated: whether the repository asks for an agreement first; None where not known for sure.
        config: the keys of config.json that decide sizes; None where a user's row only states a size.
        formats: the repositories that hold it, the default format's first.
        gguf: repositories with files for llama.cpp, by the file's mixture (Q4_K_M); the one to take first.
        good_for, not_good_for, notes, best_for, use_when, strengths, weaknesses: for people.
        tasks: of reasoning, coding, general, quick, vision.
        released: year and month.
        source, as_of: where the figures were read, and the day, ISO.
        custom: a row of the user's own.
    """

    id: Annotated[str, Meta(min_length=1, max_length=100)]
    name: str = ""
    family: str = ""
    hf_path: str = ""
    parameters: Annotated[int, Meta(ge=1, le=MOST_PARAMETERS)]
    active_parameters: Annotated[int, Meta(ge=1, le=MOST_PARAMETERS)] | None = None
    quantization: Name
    context_limit_tokens: Tokens | None = None
    default_context_tokens: Tokens = 8192
    licence: str = ""
    gated: bool | None = None
    config: dict[str, Any] | None = None
    formats: tuple[Format, ...] = ()
    gguf: tuple[Format, ...] = ()
    good_for: tuple[str, ...] = ()
    not_good_for: tuple[str, ...] = ()
    notes: str = ""
    best_for: str = ""
    use_when: str = ""
    strengths: tuple[str, ...] = ()
    weaknesses: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    released: str = ""
    source: str = ""
    as_of: str = ""
    custom: bool = False

    @property
    def title(self) -> str:
        """The name for people; the id where there is none."""
        return self.name or self.id

    @property
    def serving_format(self) -> Format | None:
        """The row of the repository whose files really hold the default quantization."""
        for row in self.formats:
            if row.quantization == self.quantization:
                return row
        if self.quantization in SIXTEEN_BIT:
            return next((row for row in self.formats if row.quantization in SIXTEEN_BIT), None)
        return None

    @property
    def serving_repository(self) -> str:
        """The repository to download for the default quantization: often not the authors' own.

        Falls back to `hf_path` where no repository of that format is known.
        """
        row = self.serving_format
        return row.repository if row else self.hf_path

    @property
    def quantization_config(self) -> dict[str, Any] | None:
        """How the default format is packed; None for plain weights."""
        row = self.serving_format
        return row.quantization_config if row else None

    @property
    def serving_config(self) -> dict[str, Any] | None:
        """What `config.json` of the serving repository says of sizes; None where only a count is known."""
        if self.config is None:
            return None
        row = self.serving_format
        config = {**self.config, **row.config} if row and row.config else self.config
        packed = self.quantization_config
        return {**config, "quantization_config": unfolded(packed)} if packed else config

    def in_format(self, chosen: Format) -> "Model":
        """This model with one of its formats as the default."""
        others = tuple(row for row in self.formats if row is not chosen)
        return msgspec.structs.replace(self, quantization=chosen.quantization, formats=(chosen, *others))


def unfolded(value: Any) -> Any:
    """A quantization config with one name a layer where a list of it states a range of them."""
    if isinstance(value, dict):
        return {key: unfolded(item) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        return value
    items: list[Any] = []
    for item in value:
        head, found, rest = item.partition("{") if isinstance(item, str) else ("", "", "")
        first, dots, last = rest.partition("}")[0].partition("..")
        if found and dots and first.isdecimal() and last.isdecimal() and int(last) < MOST_LAYERS:
            tail = rest.partition("}")[2]
            items += [f"{head}{layer}{tail}" for layer in range(int(first), int(last) + 1)]
        else:
            items.append(unfolded(item))
    return items
