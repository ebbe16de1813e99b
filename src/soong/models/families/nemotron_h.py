"""Nemotron-H, Nano v2 and Nemotron 3: each layer is one mixer: Mamba-2, attention, an MLP or experts.

Nemotron 3 Super and Ultra run their routed experts on a narrower latent width and carry a draft layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import ConfigError
from soong.models.architecture import Weight
from soong.models.config_json import MOST_LAYERS
from soong.models.families import _blocks, _common, _draft, _mamba, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Shard
    from soong.models.config_json import Config

Layers = tuple[int, ...]

LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
"""`hybrid_override_pattern` spells the layers so (transformers `configuration_nemotron_h.py`)."""

WORDS = {"linear_attention": "mamba", "full_attention": "attention", "sparse": "moe", "dense": "mlp"}
"""What lists of layers say since transformers 5.19."""


def read(config: Config, prefix: str = "backbone") -> Architecture:
    """The architecture of a Nemotron-H config.

    Source: vLLM 0.33 `models/nemotron_h.py`, `nemotron_h_mtp.py`; transformers `modeling_nemotron_h.py`.
    """
    kinds = _kinds(config, "hybrid_override_pattern", "layers_block_type")
    config = type(config)({**config.values, "num_hidden_layers": len(kinds)}, config.address)
    base = _common.read_base(config)
    repeats = config.integer("num_nextn_predict_layers", default=0)
    draft_kinds = _kinds(config, "mtp_hybrid_override_pattern", "mtp_layers_block_type") if repeats else ()
    if repeats * len(draft_kinds) > MOST_LAYERS:
        raise ConfigError(
            f"`{config.where('num_nextn_predict_layers')}` is {repeats:,}, which no real model has"
        )
    weights = [
        _parts.embedding(f"{prefix}.embeddings", base.vocab_size, base.hidden_size),
        *_mixers(f"{prefix}.layers.{{}}", config, kinds),
        *_parts.norm(f"{prefix}.norm_f", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    ]
    if draft_kinds:
        weights += _draft.draft(_draft_weights("mtp.layers.{}", config, draft_kinds, repeats))
    return _common.architecture(
        config,
        base,
        heads=config.integer("num_attention_heads", default=0),
        weights=tuple(weights),
        caches=_caches(config, kinds),
        intermediate_size=max(
            base.intermediate_size, config.integer("moe_shared_expert_intermediate_size", default=0)
        ),
        experts=config.integer("n_routed_experts", default=0) if "moe" in kinds else 0,
        experts_per_token=config.integer("num_experts_per_tok", default=0) if "moe" in kinds else 0,
        mtp_layers=repeats,
    )


def _kinds(config: Config, pattern_key: str, list_key: str) -> tuple[str, ...]:
    """The kind of each layer, from a pattern of letters or a list of words."""
    pattern = config.text(pattern_key)
    if len(pattern) > MOST_LAYERS:
        raise ConfigError(
            f"`{config.where(pattern_key)}` names {len(pattern):,} layers, which no real model has"
        )
    kinds = tuple(LETTERS.get(letter, letter) for letter in pattern)
    kinds = kinds or tuple(WORDS.get(word, word) for word in config.texts(list_key))
    if not kinds:
        raise ConfigError(
            f"config.json lacks `{config.where(pattern_key)}`", why="the layers cannot be told apart"
        )
    for kind in kinds:
        if kind not in LETTERS.values():
            raise ConfigError(f"`{config.where(pattern_key)}` names a layer of unknown kind: {kind[:20]!r}")
    return kinds


def _mixers(body: str, config: Config, kinds: tuple[str, ...]) -> list[Weight]:
    hidden_size = config.integer("hidden_size", least=1)
    path = f"{body}.mixer"
    mlp, moe = _blocks.layers_of(kinds, "mlp"), _blocks.layers_of(kinds, "moe")
    weights = _parts.norm(f"{body}.norm", hidden_size, layers=tuple(range(len(kinds))))
    if "mamba" in kinds:
        weights += _mamba.mamba2_weights(path, _mamba_sizes(config), layers=_blocks.layers_of(kinds, "mamba"))
    weights += _blocks.attention_weights(path, config, _blocks.layers_of(kinds, "attention"))
    if mlp:
        weights += _mlp(path, config, config.integer("intermediate_size", least=1), mlp)
    if moe:
        weights += _experts(path, config, moe)
    return weights


def _mamba_sizes(config: Config) -> _mamba.Mamba2:
    """Unlike other families, these keep the recurrent state in float32 unless the config says otherwise.

    Source: vLLM 0.33 `models/config.py` `NemotronHForCausalLMConfig`.
    """
    asked = _common.DTYPES.get(config.text("mamba_ssm_cache_dtype"), "float32")
    return _mamba.Mamba2(
        hidden_size=config.integer("hidden_size", least=1),
        heads=config.integer("mamba_num_heads", least=1),
        head_dim=config.integer("mamba_head_dim", least=1),
        groups=config.integer("n_groups", default=8, least=1),
        state_size=config.integer("ssm_state_size", least=1),
        kernel=config.integer("conv_kernel", default=4, least=1),
        conv_bias=config.flag("use_conv_bias", default=True),
        bias=config.flag("use_bias"),
        state_dtype=asked,
    )


def _mlp(prefix: str, config: Config, wide: int, layers: Layers) -> list[Weight]:
    """An MLP without a gate (squared ReLU)."""
    hidden_size, bias = config.integer("hidden_size", least=1), config.flag("mlp_bias")
    return [
        *_parts.linear(f"{prefix}.up_proj", wide, hidden_size, "mlp", "column", layers=layers, bias=bias),
        *_parts.linear(f"{prefix}.down_proj", hidden_size, wide, "mlp", "row", layers=layers, bias=bias),
    ]


def _experts(prefix: str, config: Config, layers: Layers) -> list[Weight]:
    """Router with a balancing bias, ungated experts, a shared expert, and the way to the latent width."""
    hidden_size, count = config.integer("hidden_size", least=1), config.integer("n_routed_experts", least=1)
    latent = config.integer("moe_latent_size", default=0)
    shared = config.integer("moe_shared_expert_intermediate_size", default=0)
    weights = _parts.router(f"{prefix}.gate", count, hidden_size, layers=layers)
    bias = f"{prefix}.gate.e_score_correction_bias"
    weights.append(_parts.vector(bias, count, "router", layers=layers, dtype="float32"))
    weights += _routed(f"{prefix}.experts.0", config, latent or hidden_size, layers)
    shared *= config.integer("n_shared_experts", default=0)
    if shared:
        weights += _mlp(f"{prefix}.shared_experts", config, shared, layers)
    if latent:
        down, up = f"{prefix}.fc1_latent_proj", f"{prefix}.fc2_latent_proj"
        weights += _parts.linear(down, latent, hidden_size, "experts", "replicated", layers=layers)
        weights += _parts.linear(up, hidden_size, latent, "experts", "replicated", layers=layers)
    return weights


def _routed(prefix: str, config: Config, width: int, layers: Layers) -> list[Weight]:
    wide = config.integer("moe_intermediate_size", least=1)
    splits: tuple[tuple[str, tuple[int, int], Shard], ...] = (
        ("up_proj", (wide, width), "column"),
        ("down_proj", (width, wide), "row"),
    )
    return [
        Weight(
            path=f"{prefix}.{name}",
            shape=shape,
            part="experts",
            shard=shard,
            layers=layers,
            copies=config.integer("n_routed_experts", least=1),
            active_copies=config.integer("num_experts_per_tok", least=1),
            linear=True,
        )
        for name, shape, shard in splits
    ]


def _draft_weights(body: str, config: Config, kinds: tuple[str, ...], repeats: int) -> list[Weight]:
    """Draft layers: the first of each round joins embedding and hidden state, the last normalises."""
    hidden_size = config.integer("hidden_size", least=1)
    first = tuple(range(0, len(kinds) * repeats, len(kinds)))
    last = tuple(layer + len(kinds) - 1 for layer in first)
    return [
        *_mixers(body, config, kinds * repeats),
        *_parts.norm(f"{body}.enorm", hidden_size, layers=first),
        *_parts.norm(f"{body}.hnorm", hidden_size, layers=first),
        *_parts.linear(f"{body}.eh_proj", hidden_size, 2 * hidden_size, "mtp", "column", layers=first),
        *_parts.norm(f"{body}.final_layernorm", hidden_size, layers=last),
    ]


def _caches(config: Config, kinds: tuple[str, ...]) -> tuple[Cache, ...]:
    caches = _blocks.attention_caches(config, kinds.count("attention"))
    if "mamba" not in kinds:
        return caches
    return (*caches, _mamba.mamba2_cache(_mamba_sizes(config), kinds.count("mamba")))
