"""Laguna and Step 3.7: gated attention with more heads in sliding layers, and experts in all but the first layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.errors import ConfigError
from soong.models.families import _decoder, _draft, _parts
from soong.models.families._decoder import Build, Decoder, Heads, Layers
from soong.models.families.moe import Experts, Mix, mixture_weights, read_experts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

BUILD = Build(head_norm="head", defaults={"head_dim": 128, "num_key_value_heads": 8})
LAGUNA_MIX = Mix(
    correction="experts.e_score_correction_bias",
    shared="shared_expert",
    shared_width="shared_expert_intermediate_size",
)
STEP_MIX = Mix(
    path="moe",
    count=("moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts"),
    per_token=("moe_top_k", "num_experts_per_tok"),
    correction="router_bias",
    precise=True,
)

STEP_FIRST_SPARSE = 3
"""The first layer with experts where the config does not say: transformers `configuration_step3p7.py`."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a Laguna or Step 3.7 text config.

    Source: vLLM 0.33 `models/laguna.py`, `models/step3p5.py`, `models/step3p5_mtp.py`; transformers
    `modeling_laguna.py`, `modeling_step3p7.py`.
    """
    step = config.text("model_type") != "laguna"
    decoder = _open(config, prefix, step=step)
    sizes = _read_experts(decoder.config, STEP_MIX if step else LAGUNA_MIX, step=step)
    mix = STEP_MIX if step else LAGUNA_MIX
    heads = _heads_of_layers(decoder, step=step)
    sparse = _sparse_layers(decoder, step=step)
    dense = tuple(layer for layer in decoder.layers if layer not in set(sparse))
    drafts = _draft_numbers(decoder) if step else ()
    weights = [
        *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, dense),
        *_shared_outside(decoder, mix, sizes, sparse, step=step),
    ]
    return _decoder.assemble(
        decoder,
        attention=_attention(decoder, heads, decoder.layers),
        feed_forward=weights,
        extra=_draft.draft(_draft_weights(decoder, heads, drafts)) if drafts else (),
        caches=_decoder.grouped_caches(zip(_decoder.layer_windows(decoder), heads, strict=True)),
        experts=sizes.number,
        experts_per_token=sizes.per_token,
        mtp_layers=len(drafts),
    )


def _open(config: Config, prefix: str, *, step: bool) -> Decoder:
    decoder = _decoder.open_decoder(config, BUILD, prefix)
    if step and "num_attention_groups" in config:
        kv_heads = config.integer("num_attention_groups", least=1)
        decoder = replace(decoder, heads=replace(decoder.heads, kv=kv_heads))
    return decoder


def _read_experts(config: Config, mix: Mix, *, step: bool) -> Experts:
    sizes = read_experts(config, mix)
    if step:
        return sizes._replace(shared_width=config.integer("share_expert_dim", default=sizes.width))
    return sizes


def _heads_of_layers(decoder: Decoder, *, step: bool) -> tuple[Heads, ...]:
    """Every layer's heads: sliding ones have more queries."""
    config, own, layers = decoder.config, decoder.heads, decoder.base.layers
    if not step:
        listed = config.integers("num_attention_heads_per_layer")
        if listed and (len(listed) < layers or min(listed) < 1):
            raise ConfigError(
                f"`{config.where('num_attention_heads_per_layer')}` does not fit the {layers} layers"
            )
        queries: Sequence[int] = listed[:layers] or (own.query,) * layers
    else:
        other = config.section("attention_other_setting").integer(
            "num_attention_heads", default=own.query, least=1
        )
        sliding = config.integer("num_sliding_attention_heads", default=other, least=1)
        kinds = _decoder.layer_kinds(config, "layer_types", layers) or ("",) * layers
        queries = [sliding if kind == "sliding_attention" else own.query for kind in kinds]
    made = {query: replace(own, query=query) for query in set(queries)}
    return tuple(made[query] for query in queries)


def _attention(decoder: Decoder, heads: Sequence[Heads], layers: Layers) -> list[Weight]:
    """Attention of all layers, and the gate on its output: one number per head, or one per element of it."""
    weights: list[Weight] = []
    by_queries: dict[int, list[int]] = {}
    for layer, own in zip(layers, heads, strict=True):
        by_queries.setdefault(own.query, []).append(layer)
    for query, numbers in by_queries.items():
        chosen = tuple(numbers)
        weights += _decoder.attention_weights(decoder, replace(decoder.heads, query=query), chosen)
        gates = _gates(decoder, query)
        if gates:
            weights += _parts.linear(
                f"{decoder.body}.self_attn.g_proj",
                gates,
                decoder.base.hidden_size,
                "attention",
                "column",
                layers=chosen,
            )
    return weights


def _gates(decoder: Decoder, query: int) -> int:
    gating = decoder.config.values.get("gating", True)
    if not gating or decoder.config.values.get("use_head_wise_attn_gate") is False:
        return 0
    return query * decoder.heads.size if gating == "per-element" else query


def _sparse_layers(decoder: Decoder, *, step: bool) -> Layers:
    """The layers with experts: listed, or all but the first."""
    config, layers = decoder.config, decoder.layers
    kinds = _decoder.layer_kinds(config, "mlp_layer_types", len(layers))
    if kinds:
        return tuple(layer for layer in layers if kinds[layer] == "sparse")
    listed = config.values.get("moe_layers_enum")
    if isinstance(listed, str):
        chosen = {
            int(word) for word in listed.replace(",", " ").split() if word.isdecimal() and len(word) < 6
        }
        return tuple(layer for layer in layers if layer in chosen)
    first = config.integer("first_k_dense_replace", default=STEP_FIRST_SPARSE) if step else 1
    return layers[first:]


def _shared_outside(
    decoder: Decoder, mix: Mix, sizes: Experts, layers: Layers, *, step: bool
) -> list[Weight]:
    """The mixture; Step keeps its shared expert beside the block, Laguna within."""
    if not step or not layers:
        return mixture_weights(decoder, mix, sizes, layers)
    shared = _parts.gated_mlp(
        f"{decoder.body}.share_expert",
        hidden_size=decoder.base.hidden_size,
        intermediate_size=sizes.shared_width,
        layers=layers,
    )
    return [*mixture_weights(decoder, mix, sizes._replace(shared_width=0), layers), *shared]


def _draft_numbers(decoder: Decoder) -> Layers:
    layers = decoder.base.layers
    count = _decoder.draft_layers(decoder.config, "num_nextn_predict_layers", layers=layers)
    return tuple(range(layers, layers + count))


def _draft_weights(decoder: Decoder, heads: Sequence[Heads], layers: Layers) -> list[Weight]:
    """Dense layers with sliding attention, each with a norm and a head of its own.

    Source: vLLM 0.33 `models/step3p5_mtp.py`, where layers past the last have no experts.
    """
    body, base = decoder.body, decoder.base
    most = max(heads, key=lambda own: own.query)
    weights = [
        *_parts.linear(
            f"{body}.eh_proj", base.hidden_size, 2 * base.hidden_size, "mtp", "replicated", layers=layers
        ),
        *_attention(decoder, (most,) * len(layers), layers),
        *_decoder.mlp_weights(decoder, base.intermediate_size, layers),
        *_decoder.norm_weights(decoder, layers),
        _parts.matrix(
            f"{body}.transformer.shared_head.output",
            (base.vocab_size, base.hidden_size),
            "mtp",
            "vocab",
            layers=layers,
        ),
    ]
    for name in ("enorm", "hnorm", "transformer.shared_head.norm"):
        weights += _parts.norm(f"{body}.{name}", base.hidden_size, layers=layers)
    return weights
