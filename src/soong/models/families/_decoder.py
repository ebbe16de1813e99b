"""Assemble a decoder from the few things in which families differ.

Nearly every decoder is Llama with other names, some biases, norms in other places, or a window on some layers.
A `Build` says just that; `assemble` reads the sizes from the config and lists the weights and caches. What a `Build`
cannot say (experts, extra tables, draft layers) a family module adds with its own few lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache
from soong.models.config_json import Config
from soong.models.families import _common, _parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soong.models.architecture import Architecture, Cache, Shard, Weight

Layers = tuple[int, ...]
Switch = bool | str
"""True, False, or the key of the config that decides."""

HeadNorm = Literal["", "head", "each", "all"]
"""Norms of queries and keys. head: one scale of the head's size; each: one per head; all: one over all heads."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """How a family departs from Llama.

    defaults: what the family's configuration class assumes where the file is silent.
    root, body, embed, final_norm, head: the checkpoint's names around the layers; `root` replaces "model".
    qkv, out: projections; one name thrice where the checkpoint holds them fused.
    qkv_bias, out_bias, mlp_bias, head_bias: which linears have a bias.
    head_norm, head_norm_names, head_norm_switch: norms of queries and keys, and the key that turns them on.
    head_norm_split: tensor parallel divides them with their heads.
    mlp, up, down: the MLP; `up` is one name where it is not gated, two where it is, the same name twice where fused.
    norms, norm_bias: the layer's norms (LayerNorm where they have a bias); `final_norm` "" where there is none.
    window_rule: listed: where `layer_types` says so, each layer without such a list; all: the same, without regard to
    `max_window_layers`; none: the engine's class passes no layer's window on.
    window_every: without a list, all but one layer in so many slide. window_switch: the key that allows sliding.
    window_extra: tokens that an engine adds to the stated window.
    """

    tied: bool = False
    defaults: dict[str, Any] = {}
    root: str = ""
    body: str = "layers.{}"
    embed: str = "embed_tokens"
    final_norm: str = "norm"
    head: str = "lm_head"
    qkv: tuple[str, str, str] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    qkv_bias: Switch = "attention_bias"
    out_bias: Switch = "attention_bias"
    mlp_bias: Switch = False
    head_bias: Switch = False
    head_norm: HeadNorm = ""
    head_norm_names: tuple[str, str] = ("self_attn.q_norm", "self_attn.k_norm")
    head_norm_switch: str = ""
    head_norm_bias: bool = False
    head_norm_split: bool = False
    mlp: str = "mlp."
    up: tuple[str, ...] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm_bias: bool = False
    window_rule: Literal["none", "listed", "all"] = "listed"
    window_every: int = 0
    window_switch: str = ""
    window_extra: int = 0


class Heads(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of one kind of attention layer."""

    hidden_size: int
    query: int
    kv: int
    size: int
    value_size: int = 0

    @property
    def values(self) -> int:
        """Numbers in the value of one head."""
        return self.value_size or self.size


class Decoder(msgspec.Struct, frozen=True, kw_only=True):
    """What family modules need to add their own weights. `body` is the path of a layer, with `{}` for its number."""

    config: Config
    build: Build
    base: _common.Base
    heads: Heads
    root: str
    body: str
    layers: Layers


def with_defaults(config: Config, defaults: dict[str, Any]) -> Config:
    """The config, with what its family's class assumes where the file does not name a key at all."""
    if all(key in config.values for key in defaults):
        return config
    return Config({**defaults, **config.values}, config.address)


def open_decoder(config: Config, build: Build, prefix: str = "model") -> Decoder:
    """Read the sizes that every decoder has, under any of the names that configs use for them."""
    if build.defaults:
        config = with_defaults(config, build.defaults)
    hidden_size = config.integer("hidden_size", "n_embd", "n_embed", "d_model", least=1)
    base = _common.Base(
        layers=config.layers("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
        hidden_size=hidden_size,
        intermediate_size=config.integer(
            "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", default=0
        ),
        vocab_size=config.integer("padded_vocab_size", "vocab_size", least=1),
        tied=config.flag("tie_word_embeddings", default=build.tied),
    )
    query = config.integer("num_attention_heads", "n_head", "n_heads", "num_heads", least=1)
    kv = config.integer("num_key_value_heads", "num_kv_heads", default=query, least=1)
    size = config.integer("head_dim", "kv_channels", default=0) or hidden_size // query
    if size < 1:
        raise ConfigError(f"`{config.where('num_attention_heads')}` is larger than the hidden size")
    root = build.root if build.root and prefix == "model" else prefix
    return Decoder(
        config=config,
        build=build,
        base=base,
        heads=Heads(hidden_size=hidden_size, query=query, kv=kv, size=size),
        root=root,
        body=f"{root}.{build.body}" if root else build.body,
        layers=tuple(range(base.layers)),
    )


def assemble(
    decoder: Decoder,
    *,
    attention: Iterable[Weight] | None = None,
    feed_forward: Iterable[Weight] | None = None,
    extra: Iterable[Weight] = (),
    caches: tuple[Cache, ...] | None = None,
    **more: Any,
) -> Architecture:
    """The architecture: embedding, layers, final norm, head and whatever is `extra`.

    `attention`, `feed_forward` and `caches` replace what the build alone would give; `more` is for the architecture.
    """
    base, build = decoder.base, decoder.build
    root = f"{decoder.root}." if decoder.root else ""
    embedding_size = decoder.config.integer("word_embed_proj_dim", default=base.hidden_size)
    weights = (
        _parts.embedding(root + build.embed, base.vocab_size, embedding_size),
        *(attention_weights(decoder, decoder.heads, decoder.layers) if attention is None else attention),
        *(
            mlp_weights(decoder, base.intermediate_size, decoder.layers)
            if feed_forward is None
            else feed_forward
        ),
        *norm_weights(decoder, decoder.layers),
        *(
            _parts.norm(root + build.final_norm, base.hidden_size, bias=build.norm_bias)
            if build.final_norm
            else ()
        ),
        *_parts.lm_head(
            base.vocab_size,
            embedding_size,
            tied=base.tied,
            bias=is_on(decoder.config, build.head_bias),
            path=build.head,
        ),
        *extra,
    )
    return _common.architecture(
        decoder.config,
        base,
        heads=decoder.heads.query,
        weights=weights,
        caches=window_caches(decoder) if caches is None else caches,
        **more,
    )


def is_on(config: Config, switch: Switch) -> bool:
    """Whether a switch is on, by itself or by the config."""
    return config.flag(switch) if isinstance(switch, str) else switch


def attention_weights(
    decoder: Decoder, heads: Heads, layers: Layers, *, body: str = "", norms: bool = True
) -> list[Weight]:
    """Projections of queries, keys, values and outputs, and norms of heads; nothing for no layers."""
    if not layers:
        return []
    build, config, body = decoder.build, decoder.config, body or decoder.body
    query, key, value = (f"{body}.{name}" for name in build.qkv)
    bias, hidden_size = is_on(config, build.qkv_bias), heads.hidden_size
    keys, values = heads.kv * heads.size, heads.kv * heads.values
    linear = _parts.linear
    return [
        *linear(
            query, heads.query * heads.size, hidden_size, "attention", "column", layers=layers, bias=bias
        ),
        *linear(key, keys, hidden_size, "attention", "kv", layers=layers, bias=bias, heads=heads.kv),
        *linear(value, values, hidden_size, "attention", "kv", layers=layers, bias=bias, heads=heads.kv),
        *linear(
            f"{body}.{build.out}",
            hidden_size,
            heads.query * heads.values,
            "attention",
            "row",
            layers=layers,
            bias=is_on(config, build.out_bias),
        ),
        *(head_norms(decoder, heads, layers, body) if norms else ()),
    ]


def head_norms(decoder: Decoder, heads: Heads, layers: Layers, body: str) -> list[Weight]:
    """Norms of queries and keys."""
    build = decoder.build
    if not build.head_norm or (build.head_norm_switch and not decoder.config.flag(build.head_norm_switch)):
        return []
    weights = []
    shards: tuple[Shard, Shard] = ("column", "kv") if build.head_norm_split else ("replicated", "replicated")
    counts = (heads.query, heads.kv)
    for name, count, shard in zip(build.head_norm_names, counts, shards, strict=True):
        size = heads.size if build.head_norm == "head" else heads.size * count
        names = (name, f"{name}.bias") if build.head_norm_bias else (name,)
        weights += [
            _parts.vector(f"{body}.{path}", size, "norm", shard, layers=layers, heads=heads.kv)
            for path in names
        ]
    return weights


def mlp_weights(
    decoder: Decoder, intermediate_size: int, layers: Layers, *, path: str = "", body: str = ""
) -> list[Weight]:
    """A plain or gated MLP; nothing for no layers. `path` replaces the build's own path within the layer."""
    if not layers:
        return []
    build, hidden_size = decoder.build, decoder.base.hidden_size
    prefix = f"{body or decoder.body}.{path or build.mlp}"
    if intermediate_size < 1:
        raise ConfigError(f"config.json lacks `{decoder.config.where('intermediate_size')}`")
    bias = is_on(decoder.config, build.mlp_bias)
    weights: list[Weight] = []
    for name in build.up:
        weights += _parts.linear(
            prefix + name, intermediate_size, hidden_size, "mlp", "column", layers=layers, bias=bias
        )
    weights += _parts.linear(
        prefix + build.down, hidden_size, intermediate_size, "mlp", "row", layers=layers, bias=bias
    )
    return weights


def sinks(decoder: Decoder) -> list[Weight]:
    """One learned number per query head, to which attention may go instead of a token."""
    path, heads = f"{decoder.body}.self_attn.sinks", decoder.heads.query
    return [_parts.vector(path, heads, "attention", "column", layers=decoder.layers)]


def norm_weights(decoder: Decoder, layers: Layers, *, body: str = "") -> list[Weight]:
    """The norms of the layers."""
    weights = []
    for name in decoder.build.norms:
        weights += _parts.norm(
            f"{body or decoder.body}.{name}",
            decoder.base.hidden_size,
            layers=layers,
            bias=decoder.build.norm_bias,
        )
    return weights


def layer_windows(decoder: Decoder) -> tuple[int, ...]:
    """How many tokens each layer keeps; 0 for all of them.

    Source: vLLM 0.33 `engine/arg_utils.py` (a window without a list of kinds holds for every layer), `models/llama.py`
    and its kin; where the list is missing, the rule of the family's configuration class in transformers 5.
    """
    config, build, layers = decoder.config, decoder.build, decoder.base.layers
    window = config.integer("sliding_window", default=0)
    if not window or build.window_rule == "none":
        return (0,) * layers
    if build.window_switch and not config.flag(build.window_switch):
        return (0,) * layers
    window += build.window_extra
    kinds = layer_kinds(config, "layer_types", layers)
    if kinds:
        return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    if build.window_switch and build.window_rule != "all":
        first = config.integer("max_window_layers", default=28)
        return tuple(window if layer >= first else 0 for layer in range(layers))
    every = _pattern(config, build.window_every)
    return tuple(window if not every or (layer + 1) % every else 0 for layer in range(layers))


def layer_kinds(config: Config, key: str, layers: int) -> tuple[str, ...]:
    """The kind of each layer where the config lists them, else nothing.

    Raises:
        ConfigError: the list is shorter than the model.
    """
    kinds = config.texts(key)
    if kinds and len(kinds) < layers:
        raise ConfigError(f"`{config.where(key)}` names {len(kinds)} of {layers} layers")
    return kinds[:layers]


def draft_layers(config: Config, *keys: str, layers: int) -> int:
    """How many layers for multi-token prediction the checkpoint holds.

    Raises:
        ConfigError: more than the model has layers itself.
    """
    count = config.integer(*keys, default=0)
    if count > layers:
        raise ConfigError(f"`{config.where(keys[0])}` is {count:,}, which no real model has")
    return count


def _pattern(config: Config, default: int) -> int:
    """One full layer in how many: a number, or a word such as LLLG."""
    if not default:
        return 0
    value = config.values.get("sliding_window_pattern")
    return len(value) if isinstance(value, str) else config.integer("sliding_window_pattern", default=default)


def window_caches(decoder: Decoder, heads: Heads | None = None) -> tuple[AttentionCache, ...]:
    """Keys and values of all layers, those with the same window together."""
    return grouped_caches((window, heads or decoder.heads) for window in layer_windows(decoder))


def grouped_caches(layers: Iterable[tuple[int, Heads]]) -> tuple[AttentionCache, ...]:
    """Caches of layers given one by one as window and heads; equal ones become one value."""
    counts: dict[tuple[int, int, int, int], int] = {}
    for window, heads in layers:
        kind = (window, heads.kv, heads.size, heads.values)
        counts[kind] = counts.get(kind, 0) + 1
    return tuple(
        AttentionCache(layers=count, kv_heads=kv, key_dim=size, value_dim=values, window=window)
        for (window, kv, size, values), count in counts.items()
    )
