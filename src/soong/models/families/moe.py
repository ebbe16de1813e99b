"""Mixtures of experts with plain attention: Mixtral, Qwen, GLM, MiniMax and their kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong.errors import ConfigError
from soong.models.families import _decoder, _draft, _parts
from soong.models.families._decoder import Build, Decoder, Layers
from soong.models.families.llama import QWEN2

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """How a family's experts are called in the checkpoint and sized in the config.

    path, gate, experts: the block within a layer, its router, its list of experts. names: gate, up and down.
    count, per_token, width: keys of the config, in the order they are looked for.
    correction: where the float32 bias per expert stands that balances their load; "" for none.
    shared: path of the expert that every token passes; shared_width: the key of its size; shared_count: the key of how
    many such experts stand side by side, each of the routed experts' size. shared_gate: a gate of one number before it.
    """

    path: str = "mlp"
    gate: str = "gate"
    experts: str = "experts"
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    count: tuple[str, ...] = ("num_experts", "n_routed_experts", "num_local_experts")
    per_token: tuple[str, ...] = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token")
    width: tuple[str, ...] = ("moe_intermediate_size", "intermediate_size")
    correction: str = ""
    shared: str = "shared_experts"
    shared_width: str = ""
    shared_count: str = ""
    shared_gate: bool = False
    precise: bool = False


class Experts(NamedTuple):
    """The sizes of a mixture."""

    number: int
    per_token: int
    width: int
    shared_width: int


MIXTRAL_MIX = Mix(path="block_sparse_moe", names=("w1", "w3", "w2"), width=("intermediate_size",))
QWEN2_MIX = Mix(shared="shared_expert", shared_width="shared_expert_intermediate_size", shared_gate=True)
DEEPSEEK_MIX = Mix(correction="gate.e_score_correction_bias", shared_count="n_shared_experts")
GLM_MIX = Mix(correction="gate.e_score_correction_bias", shared_count="n_shared_experts", precise=True)

FAMILIES: dict[str, tuple[Build, Mix]] = {
    "mixtral": (
        Build(qkv_bias=False, out_bias=False, window_rule="all", defaults={"num_key_value_heads": 8}),
        MIXTRAL_MIX,
    ),
    "qwen2_moe": (
        Build(
            qkv_bias="qkv_bias",
            out_bias=False,
            window_rule="none",  # vLLM 0.32 `models/qwen2_moe.py` passes no window to a layer
            defaults={"qkv_bias": True},
        ),
        QWEN2_MIX,
    ),
    "qwen3_moe": (
        Build(
            head_norm="head",
            window_switch=QWEN2.window_switch,
            window_rule="all",  # its configuration class makes no list: transformers `configuration_qwen3_moe.py`
            defaults={"num_key_value_heads": 4},
        ),
        Mix(),
    ),
    "phimoe": (
        Build(
            head_bias="lm_head_bias", norm_bias=True, window_rule="all", defaults={"num_key_value_heads": 8}
        ),
        MIXTRAL_MIX,
    ),
    "granitemoe": (Build(), Mix(path="block_sparse_moe", gate="router.layer", width=("intermediate_size",))),
    "granitemoeshared": (
        Build(),
        Mix(
            path="block_sparse_moe",
            gate="router.layer",
            width=("intermediate_size",),
            shared="shared_mlp",
            shared_width="shared_intermediate_size",
        ),
    ),
    "granitemoe_swa": (
        Build(),
        Mix(path="block_sparse_moe", gate="router.layer", width=("intermediate_size",)),
    ),
    "minicpm": (Build(tied=True), Mix(width=("intermediate_size",), names=("w1", "w3", "w2"))),
    "aria_text": (
        Build(),
        Mix(
            gate="router",
            names=("fc1_gate", "fc1_up", "fc2"),
            count=("moe_num_experts",),
            per_token=("moe_topk",),
            width=("intermediate_size",),
            shared_count="moe_num_shared_experts",
        ),
    ),
    "olmoe": (Build(head_norm="all"), Mix(width=("intermediate_size",))),
    "flex_olmo": (
        Build(head_norm="all", norms=("post_attention_layernorm", "post_feedforward_layernorm")),
        Mix(width=("intermediate_size",)),
    ),
    "minimax_m2": (
        Build(head_norm="all", head_norm_split=True, defaults={"head_dim": 128, "num_key_value_heads": 8}),
        Mix(
            path="block_sparse_moe",
            names=("w1", "w3", "w2"),
            width=("intermediate_size",),
            correction="e_score_correction_bias",
            precise=True,
        ),
    ),
    "glm4_moe": (
        Build(out_bias=False, head_norm="head", head_norm_switch="use_qk_norm", defaults={"head_dim": 128}),
        GLM_MIX,
    ),
    "dots1": (Build(head_norm="head", window_switch="use_sliding_window"), DEEPSEEK_MIX),
    "ernie4_5_moe": (
        Build(
            tied=True,
            qkv_bias="use_bias",
            out_bias="use_bias",
            mlp_bias="use_bias",
            defaults={"moe_num_shared_experts": 2},
        ),
        Mix(
            count=("moe_num_experts",),
            per_token=("moe_k",),
            correction="moe_statics.e_score_correction_bias",
            shared_count="moe_num_shared_experts",
            precise=True,
        ),
    ),
    "exaone_moe": (
        Build(
            qkv_bias=False,
            out_bias=False,
            head_norm="head",
            window_every=4,
            defaults={"sliding_window": 4096},
        ),
        Mix(correction="e_score_correction_bias", shared_count="num_shared_experts"),
    ),
    "hy_v3": (
        Build(head_norm="head", defaults={"head_dim": 128, "num_key_value_heads": 8}),
        Mix(correction="expert_bias", shared="shared_mlp", shared_count="num_shared_experts", precise=True),
    ),
    "solar_open": (Build(qkv_bias=False, out_bias=False, defaults={"head_dim": 128}), GLM_MIX),
    "mellum": (Build(head_norm="head", defaults={"head_dim": 128, "num_key_value_heads": 4}), Mix()),
    "afmoe": (
        Build(
            qkv_bias=False,
            out_bias=False,
            head_norm="head",
            window_every=4,
            norms=("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"),
            defaults={"sliding_window": 1024},
        ),
        Mix(gate="router.gate", correction="expert_bias", shared_count="num_shared_experts", precise=True),
    ),
    "hunyuan_v1_moe": (
        Build(head_norm="head", head_norm_names=("self_attn.query_layernorm", "self_attn.key_layernorm")),
        Mix(
            gate="gate.wg",
            per_token=("moe_topk",),
            width=("moe_intermediate_size", "intermediate_size"),
            shared="shared_mlp",
            shared_count="num_shared_expert",
        ),
    ),
}
"""`model_type` to build and mixture. Source: vLLM 0.33 `models/` of that name, transformers `modeling_*.py`."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a mixture of experts with plain attention."""
    model_type = config.text("model_type")
    build, mix = FAMILIES[model_type]
    decoder = _decoder.open_decoder(config, build, prefix)
    sizes = read_experts(decoder.config, mix)
    dense, sparse = _split(decoder, model_type)
    drafts = _draft_numbers(decoder, model_type)
    weights = [
        *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, dense),
        *mixture_weights(decoder, mix, sizes, sparse),
    ]
    extra = _draft.draft(_draft_weights(decoder, mix, sizes, drafts)) if drafts else []
    if model_type == "afmoe":
        extra += _output_gate(decoder)
    if model_type == "granitemoe_swa":
        extra += _decoder.sinks(decoder)
    return _decoder.assemble(
        decoder,
        feed_forward=weights,
        extra=extra,
        experts=sizes.number,
        experts_per_token=sizes.per_token,
        mtp_layers=len(drafts),
        intermediate_size=max(
            decoder.base.intermediate_size if dense else 0, sizes.width, sizes.shared_width
        ),
    )


def read_experts(config: Config, mix: Mix) -> Experts:
    """The sizes of the mixture that a config describes.

    Raises:
        ConfigError: there are no experts, or a token uses more than there are.
    """
    count, per_token = _first(config, mix.count), _first(config, mix.per_token)
    width = _first(config, mix.width)
    if per_token > count:
        raise ConfigError(f"`{config.where(mix.per_token[0])}` is larger than the number of experts")
    shared = config.integer(mix.shared_width, default=0) if mix.shared_width else 0
    if mix.shared_count:
        shared = (shared or width) * _optional(config, mix.shared_count)
    return Experts(count, per_token, width, shared)


def _first(config: Config, keys: tuple[str, ...]) -> int:
    """The first of the keys, or the first number of the list that Hunyuan gives one of per layer."""
    for key in keys:
        if isinstance(config.values.get(key), list):
            return max(config.integers(key), default=0)
    return config.integer(*keys, least=1)


def _optional(config: Config, key: str) -> int:
    return (
        _first(config, (key,)) if isinstance(config.values.get(key), list) else config.integer(key, default=0)
    )


def mixture_weights(
    decoder: Decoder, mix: Mix, sizes: Experts, layers: Layers, *, body: str = ""
) -> list[Weight]:
    """Router, routed experts and shared expert of some layers; nothing for no layers."""
    if not layers:
        return []
    hidden_size, path = decoder.base.hidden_size, f"{body or decoder.body}.{mix.path}"
    gate, shape, precise = f"{path}.{mix.gate}", (sizes.number, hidden_size), "float32" if mix.precise else ""
    weights = [
        _parts.matrix(gate, shape, "router", layers=layers, dtype=precise),
        *_parts.experts(
            f"{path}.{mix.experts}",
            count=sizes.number,
            per_token=sizes.per_token,
            hidden_size=hidden_size,
            intermediate_size=sizes.width,
            layers=layers,
            names=mix.names,
        ),
    ]
    if mix.correction:
        name = f"{path}.{mix.correction}"
        weights.append(_parts.vector(name, sizes.number, "router", layers=layers, dtype="float32"))
    if sizes.shared_width:
        shared = f"{path}.{mix.shared}"
        weights += _parts.gated_mlp(
            shared, hidden_size=hidden_size, intermediate_size=sizes.shared_width, layers=layers
        )
        if mix.shared_gate:
            weights.append(_parts.matrix(f"{shared}_gate", (1, hidden_size), "router", layers=layers))
    return weights


def _split(decoder: Decoder, model_type: str) -> tuple[Layers, Layers]:
    """The dense layers and those with experts."""
    config, layers = decoder.config, decoder.layers
    kinds = _decoder.layer_kinds(config, "mlp_layer_types", len(layers))
    if kinds:
        sparse = tuple(layer for layer in layers if kinds[layer] == "sparse")
        return _without(layers, sparse), sparse
    first = config.integer("first_k_dense_replace", "num_dense_layers", default=0)
    every = config.integer("decoder_sparse_step", default=1, least=1)
    last, plain = len(layers), set(config.integers("mlp_only_layers"))
    if model_type == "ernie4_5_moe":
        first, every, last = _ernie_range(config, len(layers))
    sparse = tuple(
        layer for layer in layers if first <= layer < last and layer not in plain and (layer + 1) % every == 0
    )
    return _without(layers, sparse), sparse


def _output_gate(decoder: Decoder) -> list[Weight]:
    """A gate for each element of the attention's output: vLLM 0.33 `models/afmoe.py`."""
    heads = decoder.heads
    return _parts.linear(
        f"{decoder.body}.self_attn.gate_proj",
        heads.query * heads.size,
        heads.hidden_size,
        "attention",
        "column",
        layers=decoder.layers,
    )


def _ernie_range(config: Config, layers: int) -> tuple[int, int, int]:
    """First layer with experts, one in how many, end: transformers `modeling_ernie4_5_moe.py`."""
    last = config.values.get("moe_layer_end_index")
    end = last + 1 if isinstance(last, int) and 0 <= last < layers else layers
    first = config.integer("moe_layer_start_index", default=1)
    return first, config.integer("moe_layer_interval", default=1, least=1), end


def _without(layers: Layers, others: Layers) -> Layers:
    chosen = set(others)
    return tuple(layer for layer in layers if layer not in chosen)


def _draft_numbers(decoder: Decoder, model_type: str) -> Layers:
    """Draft layers follow the last layer: GLM-4.5 to 4.7. MiniMax-M2 announces some, but its checkpoints hold none."""
    if model_type != "glm4_moe":
        return ()
    layers = decoder.base.layers
    count = _decoder.draft_layers(decoder.config, "num_nextn_predict_layers", layers=layers)
    return tuple(range(layers, layers + count))


def _draft_weights(decoder: Decoder, mix: Mix, sizes: Experts, layers: Layers) -> list[Weight]:
    """A whole layer each, with an embedding and a head of its own: vLLM 0.33 `models/glm4_moe_mtp.py`."""
    body, base = decoder.body, decoder.base
    hidden_size, vocab_size = base.hidden_size, base.vocab_size
    weights = [
        *_parts.linear(f"{body}.eh_proj", hidden_size, 2 * hidden_size, "mtp", "replicated", layers=layers),
        *_decoder.attention_weights(decoder, decoder.heads, layers),
        *mixture_weights(decoder, mix, sizes, layers),
        *_decoder.norm_weights(decoder, layers),
        _parts.matrix(f"{body}.embed_tokens", (vocab_size, hidden_size), "mtp", "vocab", layers=layers),
        _parts.matrix(f"{body}.shared_head.head", (vocab_size, hidden_size), "mtp", "vocab", layers=layers),
    ]
    for name in ("enorm", "hnorm", "shared_head.norm"):
        weights += _parts.norm(f"{body}.{name}", hidden_size, layers=layers)
    return weights
