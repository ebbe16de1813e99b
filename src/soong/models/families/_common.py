"""What nearly every decoder's config says in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from soong.errors import ConfigError
from soong.models.architecture import Architecture
from soong.models.rotary import early_rotary_table_bytes, rotary_table_bytes

if TYPE_CHECKING:
    from soong.models.architecture import Cache, Weight
    from soong.models.config_json import Config

DTYPES = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
}

PICKED_NUMBERS = 2
"""The place of a picked token, in 16-bit numbers: an int32. Source: vLLM 0.33 `models/deepseek_v32/nvidia/model.py`,
`models/deepseek_v4/nvidia/model.py` topk_indices_buffer, one for all layers.
"""


class Base(Struct, frozen=True, gc=False):
    """The sizes that every decoder has."""

    layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    tied: bool


def read_base(config: Config, *, tied_by_default: bool = False) -> Base:
    """Layers, widths, vocabulary and whether the head shares the embedding.

    `tied_by_default`: what the family's own configuration class assumes where the file is silent.
    """
    return Base(
        layers=config.layers(),
        hidden_size=config.integer("hidden_size", least=1),
        intermediate_size=config.integer("intermediate_size", default=0),
        vocab_size=config.integer("vocab_size", least=1),
        tied=config.flag("tie_word_embeddings", default=tied_by_default),
    )


def attention_sizes(config: Config) -> tuple[int, int, int]:
    """Query heads, key-value heads and head size.

    Raises:
        ConfigError: there are no heads, or the head size is neither given nor a whole quotient.
    """
    heads = config.integer("num_attention_heads", least=1)
    kv_heads = config.integer("num_key_value_heads", default=heads, least=1)
    head_dim = config.integer("head_dim", default=0) or config.integer("hidden_size", least=1) // heads
    if head_dim < 1:
        raise ConfigError(f"`{config.where('num_attention_heads')}` is larger than the hidden size")
    return heads, kv_heads, head_dim


def dtype(config: Config, default: str = "bfloat16") -> str:
    """The type of unquantised weights; `default` where the file is silent, which engines also assume."""
    return DTYPES.get(config.text("dtype") or config.text("torch_dtype"), default)


LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Where configs state a length: vLLM 0.33 `transformers_utils/model_arch_config_convertor.py`."""

ALREADY_SCALED = {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
"""Rotary scalings whose factor the stated length already holds: vLLM 0.33 `config/model.py`."""


def context_limit(config: Config) -> int | None:
    """The longest context in tokens that the authors state, after rope scaling, as vLLM derives it.

    Source: vLLM 0.33 `config/model.py` `_get_and_verify_max_len`: the smallest stated length, or `model_max_length`
    before all others, times the factor of linear and dynamic scaling; Gemma 3 states the scaled length.
    """
    lengths = [config.integer(key) for key in LENGTH_KEYS if key in config]
    if not lengths:
        return None
    limit = config.integer("model_max_length", default=0) or min(lengths)
    if "gemma3" in config.text("model_type"):
        return limit
    factor = 1.0
    for scaling in _rotary_scalings(config):
        kind = scaling.text("rope_type") or scaling.text("type") or "default"
        if kind not in ALREADY_SCALED:
            factor = scaling.number("factor", factor)
        if factor <= 0:
            raise ConfigError(f"`{scaling.where('factor')}` is {factor:g}, which no real model has")
    return int(limit * factor)


def _rotary_scalings(config: Config) -> list[Config]:
    """The rotary settings: one, or one for each kind of layer."""
    scaling = (
        config.section("rope_scaling") if "rope_scaling" in config else config.section("rope_parameters")
    )
    nested = [scaling.section(key) for key, value in scaling.values.items() if isinstance(value, dict)]
    return nested or [scaling]


def architecture(
    config: Config,
    base: Base,
    *,
    heads: int,
    weights: tuple[Weight, ...],
    caches: tuple[Cache, ...],
    **more: Any,
) -> Architecture:
    """The finished value; `more` holds what only some families set."""
    names, rotary_bytes = config.texts("architectures"), more.pop("rotary_bytes", None)
    more.setdefault("input_buffer_numbers", PICKED_NUMBERS * config.integer("index_topk", default=0))
    return Architecture(
        name=more.pop("name", None) or (names[0] if names else config.text("model_type")),
        model_type=config.text("model_type"),
        dtype=dtype(config),
        context_limit_tokens=context_limit(config),
        hidden_size=base.hidden_size,
        vocab_size=base.vocab_size,
        intermediate_size=more.pop("intermediate_size", base.intermediate_size),
        attention_heads=heads,
        rotary_bytes=rotary_bytes or rotary_table_bytes(config),
        early_rotary_bytes=more.pop("early_rotary_bytes", None)
        or rotary_bytes
        or early_rotary_table_bytes(config),
        weights=weights,
        caches=caches,
        **more,
    )
