"""Gated DeltaNet: linear attention with a decaying state per value head and a short convolution before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.models.architecture import StateCache, StateTensor
from soong.models.families import _common, _parts

if TYPE_CHECKING:
    from soong.models.architecture import Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


class Delta(NamedTuple):
    """The sizes of a Gated DeltaNet. `state_dtype`: what the config asks the engine to keep the state in."""

    hidden_size: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    state_dtype: str

    @property
    def key_width(self) -> int:
        """All key heads side by side."""
        return self.key_heads * self.key_dim

    @property
    def value_width(self) -> int:
        """All value heads side by side."""
        return self.value_heads * self.value_dim

    @property
    def conv_width(self) -> int:
        """Queries, keys and values, which pass the convolution together."""
        return 2 * self.key_width + self.value_width


def read_delta(config: Config) -> Delta:
    """The Gated DeltaNet that a config describes."""
    return Delta(
        hidden_size=config.integer("hidden_size", least=1),
        key_heads=config.integer("linear_num_key_heads", least=1),
        value_heads=config.integer("linear_num_value_heads", least=1),
        key_dim=config.integer("linear_key_head_dim", least=1),
        value_dim=config.integer("linear_value_head_dim", least=1),
        kernel=config.integer("linear_conv_kernel_dim", default=4, least=1),
        state_dtype=_common.DTYPES.get(config.text("mamba_ssm_dtype"), ""),
    )


def delta_weights(prefix: str, sizes: Delta, *, layers: Layers, fused: bool) -> list[Weight]:
    """The weights of Gated DeltaNet layers.

    `fused`: queries, keys, values and gates stand in two tensors (Qwen3-Next) and not in four (Qwen3.5).
    Source: vLLM 0.33 `layers/mamba/gdn/qwen_gdn_linear_attn.py`, which keeps `A_log` in float32.
    """
    heads = sizes.value_heads
    if fused:
        rows = {"in_proj_qkvz": sizes.conv_width + sizes.value_width, "in_proj_ba": 2 * heads}
    else:
        rows = {
            "in_proj_qkv": sizes.conv_width,
            "in_proj_z": sizes.value_width,
            "in_proj_b": heads,
            "in_proj_a": heads,
        }
    weights: list[Weight] = []
    for name, size in rows.items():
        weights += _parts.linear(
            f"{prefix}.{name}", size, sizes.hidden_size, "attention", "column", layers=layers
        )
    conv = (sizes.conv_width, 1, sizes.kernel)
    return [
        *weights,
        _parts.matrix(f"{prefix}.conv1d", conv, "state", "column", layers=layers),
        _parts.vector(f"{prefix}.dt_bias", heads, "state", "column", layers=layers),
        _parts.vector(f"{prefix}.A_log", heads, "state", "column", layers=layers, dtype="float32"),
        *_parts.norm(f"{prefix}.norm", sizes.value_dim, layers=layers),
        *_parts.linear(
            f"{prefix}.out_proj", sizes.hidden_size, sizes.value_width, "attention", "row", layers=layers
        ),
    ]


def delta_cache(sizes: Delta, layers: int) -> StateCache:
    """The last inputs of the convolution and one matrix per value head.

    Source: vLLM 0.33 `layers/mamba/mamba_utils.py` `gated_delta_net_state_shape`; the state's type is the
    config's `mamba_ssm_dtype`, else the model's (`models/config.py` `Qwen3_5ForConditionalGenerationConfig`).
    """
    tensors = (
        StateTensor(name="conv", shape=(sizes.kernel - 1, sizes.conv_width), split=1),
        StateTensor(
            name="recurrent",
            shape=(sizes.value_heads, sizes.value_dim, sizes.key_dim),
            dtype=sizes.state_dtype,
        ),
    )
    return StateCache(kind="gdn", layers=layers, tensors=tensors)
