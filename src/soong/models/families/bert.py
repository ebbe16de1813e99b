"""Encoders that embed, rank and classify: BERT, RoBERTa, XLM-RoBERTa, ModernBERT, Nomic and GTE. They keep no cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.models.architecture import AttentionCache
from soong.models.families import _common, _heads, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]

ROTARY_TYPES = frozenset({"nomic_bert", "new", "gte"})
"""Model types that always turn queries and keys instead of adding positions."""

GTE_TYPES = frozenset({"new", "gte"})
GATES = frozenset({"silu", "swiglu", "geglu"})
"""Activations with a gate: vLLM 0.33 `models/bert_with_rope.py` BertWithRopeBlock."""

MODERN_DEFAULTS = {"hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22}
BERT_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}


class Encoder(NamedTuple):
    """What all of these encoders say: sizes, layers and the path of a layer."""

    config: Config
    hidden: int
    inner: int
    layers: Layers
    body: str


def read(config: Config) -> Architecture:
    """The architecture of an encoder.

    Source: vLLM 0.33 `models/bert.py`, `roberta.py`, `bert_with_rope.py`, `modernbert.py`, `colbert.py`.
    """
    kind = config.text("model_type")
    modern = kind == "modernbert"
    encoder = _open(config, MODERN_DEFAULTS if modern else BERT_DEFAULTS)
    if modern:
        weights = _modern(encoder)
    elif kind in ROTARY_TYPES or config.text("position_embedding_type") in {"rotary", "rope"}:
        weights = _rotary(encoder)
    else:
        weights = _absolute(encoder)
    base = _common.Base(
        layers=len(encoder.layers),
        hidden_size=encoder.hidden,
        intermediate_size=encoder.inner,
        vocab_size=config.integer("vocab_size", least=1),
        tied=True,
    )
    heads = config.integer("num_attention_heads", "n_head", default=12, least=1)
    weights += _head(encoder, base.vocab_size)
    size = encoder.hidden // heads
    # vLLM keeps nothing of a text; SGLang makes its layers a pool all the same.
    cache = AttentionCache(
        layers=0, kv_heads=heads, key_dim=size, value_dim=size, idle_layers=len(encoder.layers)
    )
    return _common.architecture(config, base, heads=heads, weights=tuple(weights), caches=(cache,))


def _open(config: Config, defaults: dict[str, int]) -> Encoder:
    depth = defaults["num_hidden_layers"]
    if "num_hidden_layers" in config or "n_layer" in config:
        depth = config.layers("num_hidden_layers", "n_layer")
    return Encoder(
        config,
        config.integer("hidden_size", "n_embd", default=defaults["hidden_size"], least=1),
        config.integer("intermediate_size", "n_inner", default=defaults["intermediate_size"], least=1),
        tuple(range(depth)),
        "encoder.layer.{}",
    )


def _table(path: str, rows: int, hidden: int) -> Weight:
    """A table of vectors, which vLLM pads and divides like a vocabulary, positions and kinds of segments too."""
    return _parts.matrix(path, (rows, hidden), "embedding", "vocab")


def _absolute(encoder: Encoder) -> list[Weight]:
    """BERT and RoBERTa: positions are added, norms stand behind, every matrix has a bias."""
    config, hidden, inner, layers, body = encoder
    rows = {
        "word_embeddings": config.integer("vocab_size", least=1),
        "position_embeddings": config.integer("max_position_embeddings", default=512),
        "token_type_embeddings": config.integer("type_vocab_size", default=2),
    }
    return [
        *(_table(f"embeddings.{name}", count, hidden) for name, count in rows.items()),
        *_parts.norm("embeddings.LayerNorm", hidden, bias=True),
        *_attention(f"{body}.attention.self", encoder, out=f"{body}.attention.output.dense", bias=True),
        *_parts.linear(
            f"{body}.intermediate.dense", inner, hidden, "mlp", "column", layers=layers, bias=True
        ),
        *_parts.linear(f"{body}.output.dense", hidden, inner, "mlp", "row", layers=layers, bias=True),
        *_parts.norm(f"{body}.attention.output.LayerNorm", hidden, layers=layers, bias=True),
        *_parts.norm(f"{body}.output.LayerNorm", hidden, layers=layers, bias=True),
    ]


def _attention(
    path: str, encoder: Encoder, *, out: str, bias: bool, names: tuple[str, ...] = ("query", "key", "value")
) -> list[Weight]:
    hidden, layers = encoder.hidden, encoder.layers
    weights = []
    for name in names:
        rows = hidden * 3 // len(names)
        weights += _parts.linear(
            f"{path}.{name}", rows, hidden, "attention", "column", layers=layers, bias=bias
        )
    return [
        *weights,
        *_parts.linear(out, hidden, hidden, "attention", "row", layers=layers, bias=bias),
    ]


def _rotary(encoder: Encoder) -> list[Weight]:
    """Nomic, GTE and Jina v3: rotary positions, an MLP with or without a gate, experts in every second layer."""
    config, hidden, _, layers, body = encoder
    kind = config.text("model_type")
    bias = config.flag("qkv_proj_bias") if kind == "nomic_bert" else config.flag("bias", default=True)
    segments = config.integer("type_vocab_size", default=2)
    weights = [_table("embeddings.word_embeddings", config.integer("vocab_size", least=1), hidden)]
    if segments:
        weights.append(_table("embeddings.token_type_embeddings", segments, hidden))
    every = config.integer("moe_every_n_layers", default=0)
    sparse = tuple(layer for layer in layers if every and layer % every == 1)
    dense = tuple(layer for layer in layers if layer not in set(sparse))
    return [
        *weights,
        *_parts.norm("embeddings.LayerNorm", hidden, bias=True),
        *_attention(f"{body}.attn", encoder, out=f"{body}.attn.out_proj", bias=bias, names=("qkv_proj",)),
        *_rotary_mlp(encoder, dense, bias=bias),
        *(_experts(encoder, sparse) if sparse else ()),
        *_parts.norm(f"{body}.attn_ln", hidden, layers=layers, bias=True),
        *_parts.norm(f"{body}.mlp_ln", hidden, layers=layers, bias=True),
    ]


def _rotary_mlp(encoder: Encoder, layers: Layers, *, bias: bool) -> list[Weight]:
    config, hidden, inner, _, body = encoder
    gte = config.text("model_type") in GTE_TYPES
    gated = gte or config.text("activation_function", config.text("hidden_act")) in GATES
    weights = []
    for name in ("gate_proj", "up_proj") if gated else ("up_proj",):
        path = f"{body}.mlp.{name}"
        weights += _parts.linear(path, inner, hidden, "mlp", "column", layers=layers, bias=bias and not gte)
    return weights + _parts.linear(
        f"{body}.mlp.down_proj", hidden, inner, "mlp", "row", layers=layers, bias=bias
    )


def _experts(encoder: Encoder, layers: Layers) -> list[Weight]:
    """Nomic's experts: plain MLPs in one tensor each way, and one bias for all: NomicMoE."""
    config, hidden, inner, _, body = encoder
    count = config.integer("num_experts", least=1)
    path = f"{body}.mlp"
    return [
        *_parts.router(f"{path}.router", count, hidden, layers=layers),
        _parts.matrix(f"{path}.w1", (inner, count * hidden), "experts", "column", layers=layers),
        _parts.matrix(f"{path}.w2", (inner, count * hidden), "experts", "column", layers=layers),
        _parts.vector(f"{path}.bias", hidden, "experts", layers=layers),
    ]


def _modern(encoder: Encoder) -> list[Weight]:
    """ModernBERT: no biases, a gated MLP, norms before, the first layer's inputs normed already."""
    config, hidden, inner, layers, _ = encoder
    body = "layers.{}"
    bias = config.flag("norm_bias")
    attention, mlp = config.flag("attention_bias"), config.flag("mlp_bias")
    return [
        _table("embeddings.tok_embeddings", config.integer("vocab_size", least=1), hidden),
        *_parts.norm("embeddings.norm", hidden, bias=bias),
        *_attention(f"{body}.attn", encoder, out=f"{body}.attn.Wo", bias=attention, names=("Wqkv",)),
        *_parts.linear(f"{body}.mlp.Wi", 2 * inner, hidden, "mlp", "column", layers=layers, bias=mlp),
        *_parts.linear(f"{body}.mlp.Wo", hidden, inner, "mlp", "row", layers=layers, bias=mlp),
        *_parts.norm(f"{body}.mlp_norm", hidden, layers=layers, bias=bias),
        *(_parts.norm(f"{body}.attn_norm", hidden, layers=layers[1:], bias=bias) if layers[1:] else ()),
        *_parts.norm("final_norm", hidden, bias=bias),
    ]


def _head(encoder: Encoder, vocab_size: int) -> list[Weight]:
    """What the class has behind the encoder; heads that classify are in float32."""
    config, hidden = encoder.config, encoder.hidden
    names = config.texts("architectures")
    name = names[0] if names else ""
    kind = config.text("model_type")
    if kind == "bert" and (name.endswith("ForMaskedLM") or name == "BertSpladeSparseEmbeddingModel"):
        return [
            *_linear("mlm_head.dense", hidden, hidden),
            *_parts.norm("mlm_head.layer_norm", hidden, bias=True),
            *_linear("mlm_head.decoder", vocab_size, hidden),
        ]
    if name in {"HF_ColBERT", "ColBERTModernBertModel", "ColBERTJinaRobertaModel"}:
        size = config.integer("colbert_dim", "dim", "projection_dim", default=128, least=1)
        return [_parts.matrix("colbert_linear", (size, hidden), "other", dtype="float32")]
    labels = _heads.labels(config)
    if name.endswith("ForTokenClassification"):
        before = _prediction_head(config, hidden, "") if kind == "modernbert" else []
        return [*before, *_linear("classifier", labels, hidden, dtype="float32")]
    if not name.endswith("ForSequenceClassification"):
        return []
    if kind == "modernbert":
        before = _prediction_head(config, hidden, "float32")
    elif kind in GTE_TYPES:
        before = _linear("new.pooler.dense", hidden, hidden, dtype="float32")
    else:
        before = _linear("pooler.dense", hidden, hidden, dtype="float32")
    return [*before, *_linear("classifier", labels, hidden, dtype="float32")]


def _prediction_head(config: Config, hidden: int, dtype: str) -> list[Weight]:
    weights = _linear("head.dense", hidden, hidden, dtype=dtype, bias=config.flag("classifier_bias"))
    weights.append(_parts.vector("head.norm", hidden, "norm", dtype=dtype))
    if config.flag("norm_bias"):
        weights.append(_parts.vector("head.norm.bias", hidden, "norm", dtype=dtype))
    return weights


def _linear(path: str, rows: int, columns: int, *, dtype: str = "", bias: bool = True) -> list[Weight]:
    """A matrix that no engine divides or packs, and its bias."""
    weights = [_parts.matrix(path, (rows, columns), "other", dtype=dtype)]
    if bias:
        weights.append(_parts.vector(f"{path}.bias", rows, "other", dtype=dtype))
    return weights
