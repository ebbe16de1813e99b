"""Mamba, Falcon-Mamba and Mamba-2: mixers alone, no attention, no MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _common, _mamba, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, StateCache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


def read(config: Config, prefix: str = "backbone") -> Architecture:
    """The architecture of a Mamba, Falcon-Mamba or Mamba-2 config.

    Source: vLLM 0.33 `models/mamba.py`, `mamba2.py`; transformers `modeling_mamba.py`, `modeling_mamba2.py`.
    """
    second = config.text("model_type") == "mamba2"
    base = _common.read_base(config, tied_by_default=not second)
    layers = tuple(range(base.layers))
    mixer = f"{prefix}.layers.{{}}.mixer"
    weights, cache = (_second if second else _first)(mixer, config, layers)
    everything = (
        _parts.embedding(f"{prefix}.embeddings", base.vocab_size, base.hidden_size),
        *weights,
        *_parts.norm(f"{prefix}.layers.{{}}.norm", base.hidden_size, layers=layers),
        *_parts.norm(f"{prefix}.norm_f", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    width = config.integer("intermediate_size", default=_width(config))
    return _common.architecture(
        config, base, heads=0, weights=everything, caches=(cache,), intermediate_size=width
    )


def _width(config: Config) -> int:
    return config.integer("expand", default=2, least=1) * config.integer("hidden_size", least=1)


def _first(mixer: str, config: Config, layers: Layers) -> tuple[list[Weight], StateCache]:
    hidden_size = config.integer("hidden_size", least=1)
    automatic = config.values.get("time_step_rank", "auto") == "auto"
    sizes = _mamba.Mamba1(
        hidden_size=hidden_size,
        width=config.integer("intermediate_size", "d_inner", default=_width(config)),
        state_size=config.integer("state_size", default=16, least=1),
        rank=-(-hidden_size // 16) if automatic else config.integer("time_step_rank", least=1),
        kernel=config.integer("conv_kernel", default=4, least=1),
        conv_bias=config.flag("use_conv_bias", default=True),
        bias=config.flag("use_bias"),
    )
    return _mamba.mamba1_weights(mixer, sizes, layers=layers), _mamba.mamba1_cache(sizes, len(layers))


def _second(mixer: str, config: Config, layers: Layers) -> tuple[list[Weight], StateCache]:
    heads = config.integer("num_heads", default=128, least=1)
    sizes = _mamba.Mamba2(
        hidden_size=config.integer("hidden_size", least=1),
        heads=heads,
        head_dim=config.integer("head_dim", default=_width(config) // heads, least=1),
        groups=config.integer("n_groups", default=8, least=1),
        state_size=config.integer("state_size", default=128, least=1),
        kernel=config.integer("conv_kernel", default=4, least=1),
        conv_bias=config.flag("use_conv_bias", default=True),
        bias=config.flag("use_bias"),
    )
    return _mamba.mamba2_weights(mixer, sizes, layers=layers), _mamba.mamba2_cache(sizes, len(layers))
