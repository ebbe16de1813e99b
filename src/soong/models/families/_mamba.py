"""Mamba 1 and Mamba 2 mixers: what they weigh and what state they keep.

Tensor parallel divides the heads. The groups of Mamba-2, which heads share, are divided too, or replicated
once the GPUs outnumber them, so their rows of a fused tensor are listed apart, under the same path.
Source: vLLM 0.33 `layers/mamba/mamba_mixer.py`, `mamba_mixer2.py`, `mamba_utils.py`; A is float32 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.models.architecture import StateCache, StateTensor, Weight
from soong.models.families import _parts

if TYPE_CHECKING:
    from soong.models.architecture import Part, Shard

Layers = tuple[int, ...]


class Mamba2(NamedTuple):
    """The sizes of a Mamba-2 mixer. `state_dtype`: "" for the model's. `norm`: one before the output."""

    hidden_size: int
    heads: int
    head_dim: int
    groups: int
    state_size: int
    kernel: int
    conv_bias: bool
    bias: bool
    norm: bool = True
    state_dtype: str = ""

    @property
    def width(self) -> int:
        """All heads side by side."""
        return self.heads * self.head_dim

    @property
    def group_width(self) -> int:
        """The input and output matrices (B and C) of all groups."""
        return 2 * self.groups * self.state_size


def mamba2_weights(prefix: str, sizes: Mamba2, *, layers: Layers) -> list[Weight]:
    """The weights of Mamba-2 mixers."""
    if not layers:
        return []
    weights: list[Weight] = []
    for rows, shard, groups in _split_rows(sizes, 2 * sizes.width + sizes.heads):
        weights += _parts.linear(
            f"{prefix}.in_proj",
            rows,
            sizes.hidden_size,
            "attention",
            shard,
            layers=layers,
            bias=sizes.bias,
            heads=groups,
        )
    for rows, shard, groups in _split_rows(sizes, sizes.width):
        conv = (rows, 1, sizes.kernel)
        weights += _conv(f"{prefix}.conv1d", conv, layers, shard=shard, groups=groups, bias=sizes.conv_bias)
    for name, dtype in (("A_log", "float32"), ("D", ""), ("dt_bias", "")):
        weights.append(
            _parts.vector(f"{prefix}.{name}", sizes.heads, "state", "column", layers=layers, dtype=dtype)
        )
    if sizes.norm:
        weights.append(_parts.vector(f"{prefix}.norm", sizes.width, "norm", "column", layers=layers))
    return [
        *weights,
        *_parts.linear(
            f"{prefix}.out_proj",
            sizes.hidden_size,
            sizes.width,
            "attention",
            "row",
            layers=layers,
            bias=sizes.bias,
        ),
    ]


def _split_rows(sizes: Mamba2, head_rows: int) -> tuple[tuple[int, Shard, int], ...]:
    """The rows of a fused tensor that follow the heads, and those that follow the groups."""
    return (head_rows, "column", 0), (sizes.group_width, "kv", sizes.groups)


def _conv(
    path: str,
    shape: tuple[int, int, int],
    layers: Layers,
    *,
    shard: Shard = "column",
    groups: int = 0,
    bias: bool,
) -> list[Weight]:
    weights = [_parts.matrix(path, shape, "state", shard, layers=layers, heads=groups)]
    if bias:
        weights.append(_parts.vector(f"{path}.bias", shape[0], "state", shard, layers=layers, heads=groups))
    return weights


def mamba2_cache(sizes: Mamba2, layers: int) -> StateCache:
    """The last inputs of the convolution, and one matrix per head."""
    past = max(sizes.kernel - 1, 0)
    tensors = (
        StateTensor(name="conv", shape=(past, sizes.width), split=1),
        StateTensor(name="conv_groups", shape=(past, sizes.group_width), split=1, groups=sizes.groups),
        StateTensor(
            name="ssm", shape=(sizes.heads, sizes.head_dim, sizes.state_size), dtype=sizes.state_dtype
        ),
    )
    return StateCache(kind="mamba2", layers=layers, tensors=tensors)


class Mamba1(NamedTuple):
    """The sizes of a Mamba-1 mixer. `norms`: Jamba normalises the time step and both matrices."""

    hidden_size: int
    width: int
    state_size: int
    rank: int
    kernel: int
    conv_bias: bool
    bias: bool
    norms: bool = False


def mamba1_weights(prefix: str, sizes: Mamba1, *, layers: Layers) -> list[Weight]:
    """The weights of Mamba-1 mixers."""
    if not layers:
        return []
    hidden_size, width, rank, states = sizes.hidden_size, sizes.width, sizes.rank, sizes.state_size
    part: Part = "attention"
    weights = [
        *_parts.linear(
            f"{prefix}.in_proj", 2 * width, hidden_size, part, "column", layers=layers, bias=sizes.bias
        ),
        *_conv(f"{prefix}.conv1d", (width, 1, sizes.kernel), layers, bias=sizes.conv_bias),
        *_parts.linear(f"{prefix}.x_proj", rank + 2 * states, width, part, "row", layers=layers),
        *_parts.linear(f"{prefix}.dt_proj", width, rank, part, "column", layers=layers, bias=True),
        _parts.matrix(f"{prefix}.A_log", (width, states), "state", "column", layers=layers, dtype="float32"),
        _parts.vector(f"{prefix}.D", width, "state", "column", layers=layers),
        *_parts.linear(f"{prefix}.out_proj", hidden_size, width, part, "row", layers=layers, bias=sizes.bias),
    ]
    if sizes.norms:
        for name, size in (("dt", rank), ("b", states), ("c", states)):
            weights += _parts.norm(f"{prefix}.{name}_layernorm", size, layers=layers)
    return weights


def mamba1_cache(sizes: Mamba1, layers: int) -> StateCache:
    """The last inputs of the convolution, and one vector per channel."""
    tensors = (
        StateTensor(name="conv", shape=(max(sizes.kernel - 1, 0), sizes.width), split=1),
        StateTensor(name="ssm", shape=(sizes.width, sizes.state_size)),
    )
    return StateCache(kind="mamba1", layers=layers, tensors=tensors)
