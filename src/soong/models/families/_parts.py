"""The bricks that families share: linears, norms, attention, MLPs, mixtures of experts.

Each function returns the weights of one brick for all the layers that have it. Shapes are those of a 16-bit
checkpoint on the Hub; how an engine fuses or packs them is the business of `soong.memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.architecture import Part, Shard, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence

Layers = tuple[int, ...]


def linear(
    path: str,
    out_size: int,
    in_size: int,
    part: Part,
    shard: Shard,
    *,
    layers: Layers = (),
    bias: bool = False,
    heads: int = 0,
    served: bool = True,
) -> list[Weight]:
    """A matrix of `out_size` × `in_size` and, where there is one, its bias.

    A row-split linear keeps its whole bias on every GPU, since the bias is added once, after the sum.
    """
    weights = [
        Weight(
            path=path,
            shape=(out_size, in_size),
            part=part,
            shard=shard,
            layers=layers,
            heads=heads,
            linear=True,
            served=served,
        )
    ]
    if bias:
        bias_shard: Shard = "replicated" if shard == "row" else shard
        weights.append(
            vector(f"{path}.bias", out_size, part, bias_shard, layers=layers, heads=heads, served=served)
        )
    return weights


def vector(
    path: str,
    size: int,
    part: Part,
    shard: Shard = "replicated",
    *,
    layers: Layers = (),
    heads: int = 0,
    dtype: str = "",
    served: bool = True,
) -> Weight:
    """A vector: a bias, a norm's scale, a sink."""
    return Weight(
        path=path,
        shape=(size,),
        part=part,
        shard=shard,
        layers=layers,
        heads=heads,
        dtype=dtype,
        served=served,
    )


def matrix(
    path: str,
    shape: tuple[int, ...],
    part: Part,
    shard: Shard = "replicated",
    *,
    layers: Layers = (),
    heads: int = 0,
    dtype: str = "",
) -> Weight:
    """A tensor of any rank that quantization leaves alone: a convolution, a recurrence, a small projection."""
    return Weight(path=path, shape=shape, part=part, shard=shard, layers=layers, heads=heads, dtype=dtype)


def norm(
    path: str, size: int, *, layers: Layers = (), bias: bool = False, served: bool = True
) -> list[Weight]:
    """A normalisation's scale (RMSNorm) and, for LayerNorm, its bias."""
    weights = [vector(path, size, "norm", layers=layers, served=served)]
    if bias:
        weights.append(vector(f"{path}.bias", size, "norm", layers=layers, served=served))
    return weights


def embedding(path: str, vocab_size: int, hidden_size: int) -> Weight:
    """The token embedding."""
    return Weight(path=path, shape=(vocab_size, hidden_size), part="embedding", shard="vocab")


def lm_head(
    vocab_size: int, hidden_size: int, *, tied: bool, bias: bool = False, path: str = "lm_head"
) -> list[Weight]:
    """The output projection; nothing where it shares the embedding's memory."""
    weights = []
    if not tied:
        weights.append(
            Weight(path=path, shape=(vocab_size, hidden_size), part="lm_head", shard="vocab", linear=True)
        )
    if bias:
        weights.append(vector(f"{path}.bias", vocab_size, "lm_head", "vocab"))
    return weights


def grouped_attention(
    prefix: str,
    *,
    hidden_size: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    layers: Layers,
    value_dim: int = 0,
    bias: bool = False,
    out_bias: bool = False,
    names: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
) -> list[Weight]:
    """MHA, GQA or MQA with separate projections. `value_dim` is set where values are smaller than keys."""
    query, key, value, out = (f"{prefix}.{name}" for name in names)
    value_dim = value_dim or head_dim
    return [
        *linear(query, heads * head_dim, hidden_size, "attention", "column", layers=layers, bias=bias),
        *linear(
            key, kv_heads * head_dim, hidden_size, "attention", "kv", layers=layers, bias=bias, heads=kv_heads
        ),
        *linear(
            value,
            kv_heads * value_dim,
            hidden_size,
            "attention",
            "kv",
            layers=layers,
            bias=bias,
            heads=kv_heads,
        ),
        *linear(out, hidden_size, heads * value_dim, "attention", "row", layers=layers, bias=out_bias),
    ]


def gated_mlp(
    prefix: str,
    *,
    hidden_size: int,
    intermediate_size: int,
    layers: Layers,
    bias: bool = False,
    part: Part = "mlp",
) -> list[Weight]:
    """SwiGLU and its like: gate, up and down."""
    return [
        *linear(
            f"{prefix}.gate_proj", intermediate_size, hidden_size, part, "column", layers=layers, bias=bias
        ),
        *linear(
            f"{prefix}.up_proj", intermediate_size, hidden_size, part, "column", layers=layers, bias=bias
        ),
        *linear(f"{prefix}.down_proj", hidden_size, intermediate_size, part, "row", layers=layers, bias=bias),
    ]


def experts(
    prefix: str,
    *,
    count: int,
    per_token: int,
    hidden_size: int,
    intermediate_size: int,
    layers: Layers,
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
) -> list[Weight]:
    """Routed experts, each a gated MLP; tensor parallel divides every expert's intermediate size."""
    gate, up, down = (f"{prefix}.0.{name}" for name in names)
    wide, narrow = (intermediate_size, hidden_size), (hidden_size, intermediate_size)
    bricks: tuple[tuple[str, tuple[int, int], Shard], ...] = (
        (gate, wide, "column"),
        (up, wide, "column"),
        (down, narrow, "row"),
    )
    return [
        Weight(
            path=path,
            shape=shape,
            part="experts",
            shard=shard,
            layers=layers,
            copies=count,
            active_copies=per_token,
            linear=True,
        )
        for path, shape, shard in bricks
    ]


def router(path: str, count: int, hidden_size: int, *, layers: Layers, bias: bool = False) -> list[Weight]:
    """The matrix that chooses experts; every GPU holds it, and quantization leaves it alone."""
    weights = [Weight(path=path, shape=(count, hidden_size), part="router", layers=layers)]
    if bias:
        weights.append(vector(f"{path}.bias", count, "router", layers=layers))
    return weights
