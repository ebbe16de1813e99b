"""Zamba 2: Mamba-2 everywhere, and in some layers one of a few shared attention blocks with adapters of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.models.architecture import AttentionCache
from soong.models.families import _blocks, _common, _mamba, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Part, Shard, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


class Shared(NamedTuple):
    """The sizes of the shared blocks. `width`: what attention reads, the hidden state beside the embedding."""

    hidden_size: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    rank: int


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Zamba 2 config. Source: vLLM 0.32 `models/zamba2.py`."""
    base = _common.read_base(config, tied_by_default=True)
    kinds = _blocks.named_layers(config, "layers_block_type", "layer_types", layers=base.layers)
    hybrid = _blocks.layers_of(kinds, "hybrid") or _blocks.numbered(
        config.integers("hybrid_layer_ids"), base.layers
    )
    plain = _blocks.others(tuple(range(base.layers)), hybrid)
    sizes, mamba = _shared(config), _mamba_sizes(config)
    body = f"{prefix}.layers.{{}}"
    weights = [
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *_parts.norm(f"{prefix}.final_layernorm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    ]
    for path, layers in ((body, plain), (f"{body}.mamba_decoder", hybrid)):
        weights += _mamba.mamba2_weights(f"{path}.mamba", mamba, layers=layers)
        weights += _norm(f"{path}.input_layernorm", base.hidden_size, layers)
    caches: tuple[Cache, ...] = (_mamba.mamba2_cache(mamba, base.layers),)
    if hybrid:
        weights += _blocks_of(f"{body}.shared_transformer", config, sizes, hybrid)
        weights += _parts.linear(
            f"{body}.linear", base.hidden_size, base.hidden_size, "other", "replicated", layers=hybrid
        )
        size = sizes.head_dim
        caches = (
            AttentionCache(layers=len(hybrid), kv_heads=sizes.kv_heads, key_dim=size, value_dim=size),
            *caches,
        )
    return _common.architecture(config, base, heads=sizes.heads, weights=tuple(weights), caches=caches)


def _norm(path: str, size: int, layers: Layers) -> list[Weight]:
    return _parts.norm(path, size, layers=layers) if layers else []


def _shared(config: Config) -> Shared:
    hidden_size = config.integer("hidden_size", least=1)
    heads = config.integer("num_attention_heads", least=1)
    width = config.integer("attention_hidden_size", default=2 * hidden_size, least=1)
    return Shared(
        hidden_size=hidden_size,
        width=width,
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", default=heads, least=1),
        head_dim=config.integer("attention_head_dim", default=2 * hidden_size // heads, least=1),
        intermediate_size=config.integer("intermediate_size", default=4 * hidden_size, least=1),
        rank=config.integer("adapter_rank", default=128, least=1),
    )


def _mamba_sizes(config: Config) -> _mamba.Mamba2:
    hidden_size = config.integer("hidden_size", least=1)
    heads = config.integer("n_mamba_heads", default=8, least=1)
    width = config.integer("mamba_expand", default=2, least=1) * hidden_size
    return _mamba.Mamba2(
        hidden_size=hidden_size,
        heads=heads,
        head_dim=config.integer("mamba_headdim", default=width // heads, least=1),
        groups=config.integer("mamba_ngroups", default=1, least=1),
        state_size=config.integer("mamba_d_state", default=64, least=1),
        kernel=config.integer("mamba_d_conv", default=4, least=1),
        conv_bias=config.flag("use_conv_bias", default=True),
        bias=config.flag("add_bias_linear"),
    )


def _blocks_of(path: str, config: Config, sizes: Shared, hybrid: Layers) -> list[Weight]:
    """The shared blocks, which stand where they are first used, and one adapter for every use."""
    owners = hybrid[: config.integer("num_mem_blocks", default=1, least=1)]
    hidden_size, biased = sizes.hidden_size, config.flag("add_bias_linear")
    attention, mlp = f"{path}.self_attn", f"{path}.feed_forward"
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    wide = 2 * sizes.intermediate_size
    linears: tuple[tuple[str, int, int, Shard, int], ...] = (
        (f"{attention}.q_proj", queries, sizes.width, "column", 0),
        (f"{attention}.k_proj", keys, sizes.width, "kv", sizes.kv_heads),
        (f"{attention}.v_proj", keys, sizes.width, "kv", sizes.kv_heads),
        (f"{attention}.o_proj", hidden_size, queries, "row", 0),
        (f"{mlp}.gate_up_proj", wide, hidden_size, "column", 0),
        (f"{mlp}.down_proj", hidden_size, sizes.intermediate_size, "row", 0),
    )
    weights: list[Weight] = []
    for name, rows, columns, shard, heads in linears:
        plain = name.startswith(mlp)
        part: Part = "mlp" if plain else "attention"
        weights += _parts.linear(
            name, rows, columns, part, shard, layers=owners, bias=biased and plain, heads=heads
        )
    weights += _adapter(f"{mlp}.gate_up_proj_adapter_list", wide, hidden_size, sizes.rank, hybrid)
    if config.flag("use_shared_attention_adapter"):
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            adapter = f"{attention}.linear_{name}_adapter_list"
            weights += _adapter(adapter, rows, sizes.width, sizes.rank, hybrid)
    weights += _parts.norm(f"{path}.input_layernorm", sizes.width, layers=owners)
    return weights + _parts.norm(f"{path}.pre_ff_layernorm", hidden_size, layers=owners)


def _adapter(path: str, rows: int, columns: int, rank: int, layers: Layers) -> list[Weight]:
    """A low-rank addition to a shared matrix; both halves are divided by their outputs."""
    return [
        *_parts.linear(f"{path}.0", rank, columns, "other", "column", layers=layers),
        *_parts.linear(f"{path}.1", rows, rank, "other", "column", layers=layers),
    ]
