"""DeepSeek's mixture of experts: many small routed experts and a few shared ones that every token passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soong.models.families import _parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.models.architecture import Weight
    from soong.models.config_json import Config

Layers = tuple[int, ...]


class Mixture(NamedTuple):
    """The sizes of a mixture. `balanced`: the router has a bias per expert that balances their load."""

    experts: int
    per_token: int
    intermediate_size: int
    shared_intermediate_size: int
    balanced: bool


def read_mixture(config: Config, *, balanced: bool) -> Mixture:
    """The mixture in DeepSeek's words; `experts` is 0 where the model is dense."""
    intermediate_size = config.integer("moe_intermediate_size", default=0)
    return Mixture(
        experts=config.integer("n_routed_experts", "num_experts", default=0),
        per_token=config.integer("num_experts_per_tok", "num_experts_per_token", default=0),
        intermediate_size=intermediate_size,
        shared_intermediate_size=intermediate_size
        * config.integer("n_shared_experts", "num_shared_experts", default=0),
        balanced=balanced,
    )


def mixture(
    prefix: str,
    sizes: Mixture,
    hidden_size: int,
    *,
    layers: Layers,
    expert_hidden_size: int = 0,
    precise: bool = False,
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
) -> list[Weight]:
    """Router, routed and shared experts. `expert_hidden_size`: where routed experts work on a smaller width.

    precise: the engine keeps the router in float32.

    Source: vLLM 0.33 `models/deepseek_v2.py` `DeepseekV2MoE`; the balancing bias is float32 there and in
    checkpoints.
    """
    shape, dtype = (sizes.experts, hidden_size), "float32" if precise else ""
    weights = [_parts.matrix(f"{prefix}.gate", shape, "router", layers=layers, dtype=dtype)]
    if sizes.balanced:
        bias = f"{prefix}.gate.e_score_correction_bias"
        weights.append(_parts.vector(bias, sizes.experts, "router", layers=layers, dtype="float32"))
    weights += _parts.experts(
        f"{prefix}.experts",
        count=sizes.experts,
        per_token=sizes.per_token,
        hidden_size=expert_hidden_size or hidden_size,
        intermediate_size=sizes.intermediate_size,
        layers=layers,
        names=names,
    )
    if sizes.shared_intermediate_size:
        weights += _parts.gated_mlp(
            f"{prefix}.shared_experts",
            hidden_size=hidden_size,
            intermediate_size=sizes.shared_intermediate_size,
            layers=layers,
        )
    return weights


def sparse_layers(config: Config, layers: int) -> tuple[Layers, Layers]:
    """The dense layers and those with experts: dense first, then one in every `moe_layer_freq`."""
    first = config.integer("first_k_dense_replace", default=0)
    every = config.integer("moe_layer_freq", default=1, least=1)
    sparse = tuple(layer for layer in range(layers) if layer >= first and layer % every == 0)
    chosen = set(sparse)
    return tuple(layer for layer in range(layers) if layer not in chosen), sparse
