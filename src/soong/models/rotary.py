"""The tables of cosines and sines that engines compute once per model and keep on every GPU.

They are no weights, yet a long context makes them heavy: 2.5 GiB for ten million positions. Source: vLLM 0.33
`layers/rotary_embedding/__init__.py` get_rope, which shares one table among layers with the same settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.config_json import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_POSITIONS = 8192
"""What vLLM's model files assume where the config is silent."""

WITHOUT_ROTARY = frozenset(
    {
        "opt",
        "gpt2",
        "gpt-sw3",
        "gpt_bigcode",
        "mpt",
        "bloom",
        "bert",
        "roberta",
        "xlm-roberta",
        "inkling_text",
        "jamba",
        "mamba",
        "mamba2",
    }
    | {"falcon_mamba", "nemotron_h", "whisper", "kimi_linear"}
)
"""Model types that know positions otherwise, or not at all."""

HALF_ROTARY = {"chatglm": 0.5, "glm4": 0.5, "glm": 0.5, "stablelm": 0.25, "gpt_neox": 0.25, "phi": 0.5}
"""The rotated share of a head where the config leaves it to the model's own code."""

VIDEO_FACTOR = 4
"""Qwen2-VL's tables reach four times as far, for long videos: vLLM `rotary_embedding/mrope.py`."""


def rotary_table_bytes(config: Config) -> int:
    """Bytes of all rotary tables of a text decoder, on each GPU.

    Args:
        config: the text model's section of config.json.
    """
    model_type = config.text("model_type")
    if (
        model_type in WITHOUT_ROTARY
        or config.flag("alibi")
        or config.text("position_embedding_type") == "nope"
    ):
        return 0
    # gpt-oss and its kin ask for float32 tables: vLLM `models/gpt_oss.py`.
    number_bytes = 4 if model_type in {"gpt_oss", "openai_privacy_filter"} else 2
    tables = {(size, rows, key) for size, rows, key in _tables(config, model_type)}
    return sum(size * rows for size, rows, _ in tables) * number_bytes


def early_rotary_table_bytes(config: Config) -> int:
    """The same for vLLM before 0.32, whose interleaved M-RoPE (Qwen3-VL, Qwen3.5) kept four times the positions.

    Qwen3.5-27B in logs of 0.19 loads 0.09 GiB more than 0.32's own model code allocates: three more tables.
    """
    settings = (
        config.section("rope_parameters") if "rope_parameters" in config else config.section("rope_scaling")
    )
    named = config.text("model_type").startswith(("qwen3_vl", "qwen3_5"))  # some files leave it to the class
    interleaved = named or ("mrope_section" in settings and settings.flag("mrope_interleaved"))
    return rotary_table_bytes(config) * (VIDEO_FACTOR if interleaved else 1)


def _tables(config: Config, model_type: str) -> Iterator[tuple[int, int, str]]:
    """Rotated numbers of a head, positions, and what tells equal-sized tables apart."""
    head = _head_size(config)
    settings = (
        config.section("rope_parameters") if "rope_parameters" in config else config.section("rope_scaling")
    )
    kinds = [key for key, value in settings.values.items() if isinstance(value, dict)]
    for kind in kinds:
        own = settings.section(kind)
        size = config.integer("global_head_dim", default=head) if kind == "full_attention" else head
        yield _rotated(config, own, size, model_type), _positions(config, own), kind
    if kinds:
        return
    if model_type.startswith("gemma4"):  # its class has two tables where the file names none
        yield config.integer("global_head_dim", default=head), _positions(config, settings), "global"
    yield _rotated(config, settings, head, model_type), _positions(config, settings), "full_attention"
    if _has_local_table(config, model_type):
        yield head, _positions(config, Config({})), "sliding_attention"


def _has_local_table(config: Config, model_type: str) -> bool:
    """Gemma 3, Olmo 3 and ModernBERT turn sliding layers at another base, or without the long-context scaling."""
    return (
        model_type.startswith("gemma3")
        or "rope_local_base_freq" in config
        or model_type in {"olmo3", "modernbert"}
    )


def _head_size(config: Config) -> int:
    stated = config.integer("qk_rope_head_dim", "head_dim", "kv_channels", "head_size", default=0)
    if stated:
        return stated
    heads = config.integer("num_attention_heads", "n_head", "num_heads", default=0)
    return config.integer("hidden_size", "n_embd", "n_embed", default=0) // heads if heads else 0


def _rotated(config: Config, settings: Config, head: int, model_type: str) -> int:
    if "qk_rope_head_dim" in config or _kind(settings) == "proportional":
        return head
    if "rotary_dim" in config:
        return config.integer("rotary_dim")
    share = HALF_ROTARY.get(model_type, 1.0)
    for section, key in (
        (config, "rotary_pct"),
        (config, "partial_rotary_factor"),
        (settings, "partial_rotary_factor"),
    ):
        share = section.number(key, share)
    return int(head * share)


def _positions(config: Config, settings: Config) -> int:
    keys: tuple[str, ...] = (
        "max_position_embeddings",
        "max_sequence_length",
        "n_positions",
        "seq_length",
        "max_seq_len",
    )
    if config.text("model_type").startswith("cohere"):  # vLLM `models/commandr.py`, `cohere2_moe.py`
        keys = ("model_max_length", *keys)
    stated = config.integer(*keys, default=DEFAULT_POSITIONS)
    kind, factor = _kind(settings), settings.number("factor", 1.0)
    original = settings.integer("original_max_position_embeddings", default=stated)
    if kind in {"linear", "ntk"}:
        return int(stated * factor)
    if kind in {"yarn", "deepseek_yarn"}:
        return int(original * factor)
    if kind in {"longrope", "su"}:
        return stated + config.integer("original_max_position_embeddings", default=original)
    video = kind == "mrope" or ("mrope_section" in settings and not settings.flag("mrope_interleaved"))
    return stated * VIDEO_FACTOR if video else stated


def _kind(settings: Config) -> str:
    kind = settings.values.get("rope_type") or settings.values.get("type") or "default"
    return kind if isinstance(kind, str) else "default"
