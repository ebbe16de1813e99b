"""GLM-5.3-Flash: Kimi's delta attention in most layers, sparse MLA without positions in the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import StateCache, StateTensor
from soong.models.families import _blocks, _common, _mla, _moe, _multimodal, _parts, glm_vision, kimi_linear

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Cache, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]

DEFAULT_STREAMS = 4


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a GLM-5.3-Flash config. Source: vLLM 0.32 `models/glm5next/common/`."""
    if "text_config" not in config:
        return _text(config, prefix)
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(config, section, prefix="model.language_model", model_type="glm5_next_text")
    vision = config.section("vision_config")
    wide = vision.integer("projection_intermediate_size", default=10240, least=1)
    tower = glm_vision.reader_tower(
        "model.visual", vision, type(config)({"intermediate_size": wide}, "vision_config")
    )
    return _multimodal.joined(config, text, tower)


def _text(config: Config, prefix: str) -> Architecture:
    base = _common.read_base(config)
    layers = tuple(range(base.layers))
    kinds = config.texts("layer_types")
    delta = tuple(layer for layer in layers if layer < len(kinds) and kinds[layer] == "linear_attention")
    sparse_attention = _blocks.others(layers, delta)
    sizes, indexer = _mla.read_latent(config), _mla.read_indexer(config)
    mixture = _moe.read_mixture(config, balanced=True)
    dense, sparse = _moe.sparse_layers(config, base.layers)
    linear, body = config.section("linear_attn_config"), f"{prefix}.layers.{{}}"
    weights = (
        _parts.embedding(f"{prefix}.embed_tokens", base.vocab_size, base.hidden_size),
        *kimi_linear.delta_attention(f"{body}.self_attn", linear, base.hidden_size, layers=delta),
        *_mla.latent_attention(f"{body}.self_attn", sizes, layers=sparse_attention),
        *_indexer(f"{body}.self_attn.indexer", config, indexer, sizes, sparse_attention),
        *_parts.gated_mlp(
            f"{body}.mlp",
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            layers=dense,
        ),
        *_moe.mixture(f"{body}.mlp", mixture, base.hidden_size, layers=sparse),
        *_parts.norm(f"{body}.input_layernorm", base.hidden_size, layers=layers),
        *_parts.norm(f"{body}.post_attention_layernorm", base.hidden_size, layers=layers),
        *_connections(body, config, base.hidden_size, layers),
        *_parts.norm(f"{prefix}.norm", base.hidden_size),
        *_parts.lm_head(base.vocab_size, base.hidden_size, tied=base.tied),
    )
    return _common.architecture(
        config,
        base,
        heads=sizes.heads,
        weights=weights,
        caches=_caches(config, sizes, len(sparse_attention), len(delta)),
        experts=mixture.experts,
        experts_per_token=mixture.per_token,
    )


def _indexer(
    path: str, config: Config, indexer: _mla.Indexer | None, sizes: _mla.Latent, layers: Layers
) -> list[Weight]:
    """DSA's, whose keys of a few tokens are pooled to one by a learned gate."""
    if indexer is None:
        return []
    weights = _mla.indexer_weights(path, indexer, sizes, layers=layers)
    if config.flag("index_kpool_compress"):
        pooled = config.integer("index_kpool", default=4, least=1)
        weights += [
            _parts.matrix(
                f"{path}.index_kpool_compress_ape",
                (pooled, indexer.head_dim),
                "attention",
                layers=layers,
                dtype="float32",
            ),
            _parts.matrix(
                f"{path}.index_kpool_compress_gate",
                (indexer.head_dim, sizes.hidden_size),
                "attention",
                layers=layers,
            ),
        ]
    return weights


def _connections(body: str, config: Config, hidden_size: int, layers: Layers) -> list[Weight]:
    """DeepSeek's manifold-constrained hyper-connections: three numbers a stream, a matrix between streams."""
    if not config.flag("mhc"):
        return []
    streams = config.integer("hc_mult", default=DEFAULT_STREAMS, least=1)
    rows = streams * (2 + streams)
    weights = []
    for name in ("hc_attn", "hc_ffn"):
        shape = (rows, streams * hidden_size)
        weights.append(_parts.matrix(f"{body}.{name}_fn", shape, "other", layers=layers, dtype="float32"))
        weights.append(_parts.vector(f"{body}.{name}_base", rows, "other", layers=layers, dtype="float32"))
        weights.append(_parts.vector(f"{body}.{name}_scale", 3, "other", layers=layers, dtype="float32"))
    return weights


def _caches(config: Config, sizes: _mla.Latent, latent: int, delta: int) -> tuple[Cache, ...]:
    caches: tuple[Cache, ...] = (_mla.latent_cache(sizes, latent),) if latent else ()
    if not delta:
        return caches
    linear = config.section("linear_attn_config")
    heads, dim = linear.integer("num_heads", least=1), linear.integer("head_dim", least=1)
    past = linear.integer("short_conv_kernel_size", default=4, least=1) - 1
    tensors = (
        StateTensor(name="conv", shape=(past, 3 * heads * dim), split=1),
        StateTensor(name="recurrent", shape=(heads, dim, dim), dtype="float32"),
    )
    state = StateCache(kind=kimi_linear.state_kind(linear), layers=delta, tensors=tensors)
    return (*caches, state, *_pooled_keys(config, latent))


def _pooled_keys(config: Config, layers: int) -> tuple[StateCache, ...]:
    """DSA's keys in FP8 with their scale, one for a few tokens, and the plain ones that are next."""
    indexer = _mla.read_indexer(config)
    if indexer is None or not layers:
        return ()
    pooled = config.integer("index_kpool", default=4, least=1)
    ring = StateTensor(name="next", shape=(pooled, 2 * indexer.head_dim), split=-1)
    scale = 4 * -(-indexer.head_dim // 128)
    token_bytes = (indexer.head_dim + scale) // pooled
    return (StateCache(kind="ring", layers=layers, tensors=(ring,), token_bytes=token_bytes),)
