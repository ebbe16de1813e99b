"""The skeleton of hybrid decoders: the kind of each layer, and the pieces that stand around the mixers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.families import _common, _mamba, _parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.models.architecture import Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


RECURRENT_WORDS = frozenset({"mamba", "linear_attention"})
"""What configs call a Mamba layer: `linear_attention` since transformers 5.19."""


def layers_of(kinds: tuple[str, ...], kind: str) -> Layers:
    """The numbers of the layers of one kind."""
    return tuple(layer for layer, own in enumerate(kinds) if own == kind)


def numbered(indices: Iterable[int], layers: int) -> Layers:
    """The layers that a config lists by number, each once, without those it does not have."""
    return tuple(sorted({layer for layer in indices if 0 <= layer < layers}))


def others(layers: Layers, chosen: Layers) -> Layers:
    """The layers that are not among the chosen ones."""
    known = set(chosen)
    return tuple(layer for layer in layers if layer not in known)


def named_layers(config: Config, *keys: str, layers: int) -> tuple[str, ...]:
    """The kind of each layer as the first of `keys` lists them; empty where none does.

    Raises:
        ConfigError: the list is shorter than the model.
    """
    for key in keys:
        kinds = config.texts(key)
        if kinds:
            if len(kinds) < layers:
                raise ConfigError(f"`{config.where(key)}` names {len(kinds)} of {layers} layers")
            return kinds[:layers]
    return ()


def attention_weights(
    prefix: str, config: Config, layers: Layers, *, bias: bool | None = None, out: str = "o_proj"
) -> list[Weight]:
    """Grouped attention in some of the layers; nothing where no layer has it."""
    if not layers:
        return []
    heads, kv_heads, head_dim = _common.attention_sizes(config)
    biased = config.flag("attention_bias") if bias is None else bias
    return _parts.grouped_attention(
        prefix,
        hidden_size=config.integer("hidden_size", least=1),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        layers=layers,
        bias=biased,
        out_bias=biased,
        names=("q_proj", "k_proj", "v_proj", out),
    )


def attention_caches(config: Config, layers: int) -> tuple[Cache, ...]:
    """Keys and values of the layers with attention; nothing where there are none."""
    if not layers:
        return ()
    _, kv_heads, head_dim = _common.attention_sizes(config)
    return (AttentionCache(layers=layers, kv_heads=kv_heads, key_dim=head_dim, value_dim=head_dim),)


def gated_mlp(prefix: str, config: Config, layers: Layers, *, bias: bool = False) -> list[Weight]:
    """SwiGLU in some of the layers; nothing where no layer has it."""
    if not layers:
        return []
    return _parts.gated_mlp(
        prefix,
        hidden_size=config.integer("hidden_size", least=1),
        intermediate_size=config.integer("intermediate_size", least=1),
        layers=layers,
        bias=bias,
    )


def ibm_mamba2(config: Config, *, width: int = 0, norm: bool = True) -> _mamba.Mamba2:
    """Mamba-2 in the words of Bamba, Falcon-H1 and Granite 4; `width` where the config states it apart."""
    hidden_size = config.integer("hidden_size", least=1)
    heads = config.integer("mamba_n_heads", least=1)
    width = width or config.integer("mamba_expand", default=2) * hidden_size
    return _mamba.Mamba2(
        hidden_size=hidden_size,
        heads=heads,
        head_dim=_given(config, "mamba_d_head") or width // heads,
        groups=config.integer("mamba_n_groups", default=1, least=1),
        state_size=config.integer("mamba_d_state", least=1),
        kernel=config.integer("mamba_d_conv", default=4, least=1),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        bias=config.flag("mamba_proj_bias"),
        norm=norm,
    )


def _given(config: Config, key: str) -> int:
    """A size that may be left to the code with the word "auto"; 0 then."""
    return 0 if config.values.get(key) == "auto" else config.integer(key, default=0)
