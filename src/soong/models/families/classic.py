"""Decoders with names of their own: fused projections, learned positions, plain MLPs, biases everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from soong.models.architecture import Weight
from soong.models.families import _decoder, _parts
from soong.models.families._decoder import Build, Decoder

if TYPE_CHECKING:
    from soong.models.architecture import Architecture
    from soong.models.config_json import Config

OPT_POSITION_OFFSET = 2
"""Rows of OPT's position table before the first position: transformers `OPTLearnedPositionalEmbedding`."""

QKV = ("attention.query_key_value",) * 3
GPT2 = Build(
    tied=True,
    root="transformer",
    body="h.{}",
    embed="wte",
    final_norm="ln_f",
    qkv=("attn.c_attn",) * 3,
    out="attn.c_proj",
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    up=("c_fc",),
    down="c_proj",
    norms=("ln_1", "ln_2"),
    norm_bias=True,
)
FALCON = Build(
    tied=True,
    root="transformer",
    body="h.{}",
    embed="word_embeddings",
    final_norm="ln_f",
    qkv=("self_attention.query_key_value",) * 3,
    out="self_attention.dense",
    qkv_bias="bias",
    out_bias="bias",
    mlp_bias="bias",
    up=("dense_h_to_4h",),
    down="dense_4h_to_h",
    norms=("input_layernorm",),
    norm_bias=True,
    defaults={"max_position_embeddings": 2048},
)

BUILDS: dict[str, Build] = {
    "gpt2": GPT2,
    "gpt-sw3": GPT2,
    "gpt_bigcode": GPT2,
    "falcon": FALCON,
    "bloom": replace(
        FALCON,
        defaults={},
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        norms=("input_layernorm", "post_attention_layernorm"),
    ),
    "gptj": replace(
        GPT2,
        tied=False,
        qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        out="attn.out_proj",
        qkv_bias=False,
        out_bias=False,
        head_bias=True,
        up=("fc_in",),
        down="fc_out",
        norms=("ln_1",),
    ),
    "gpt_neox": Build(
        root="gpt_neox",
        embed="embed_in",
        final_norm="final_layer_norm",
        head="embed_out",
        qkv=QKV,
        out="attention.dense",
        mlp_bias=True,
        up=("dense_h_to_4h",),
        down="dense_4h_to_h",
        norm_bias=True,
        defaults={"attention_bias": True},
    ),
    "mpt": Build(
        tied=True,
        root="transformer",
        body="blocks.{}",
        embed="wte",
        final_norm="norm_f",
        qkv=("attn.Wqkv",) * 3,
        out="attn.out_proj",
        qkv_bias=False,
        out_bias=False,
        mlp="ffn.",
        up=("up_proj",),
        norms=("norm_1", "norm_2"),
    ),
    "opt": Build(
        tied=True,
        root="model.decoder",
        final_norm="final_layer_norm",
        qkv_bias="enable_bias",
        out="self_attn.out_proj",
        out_bias="enable_bias",
        mlp_bias="enable_bias",
        mlp="",
        up=("fc1",),
        down="fc2",
        norms=("self_attn_layer_norm", "final_layer_norm"),
        norm_bias=True,
        defaults={"enable_bias": True},
    ),
    "qwen": Build(
        root="transformer",
        body="h.{}",
        embed="wte",
        final_norm="ln_f",
        qkv=("attn.c_attn",) * 3,
        out="attn.c_proj",
        qkv_bias=True,
        out_bias=False,
        up=("w1", "w2"),
        down="c_proj",
        norms=("ln_1", "ln_2"),
    ),
    "baichuan": Build(qkv=("self_attn.W_pack",) * 3, qkv_bias=False, out_bias=False),
    "internlm2": Build(
        embed="tok_embeddings",
        head="output",
        qkv=("attention.wqkv",) * 3,
        out="attention.wo",
        qkv_bias="bias",
        out_bias="bias",
        mlp="feed_forward.",
        up=("w1", "w3"),
        down="w2",
        norms=("attention_norm", "ffn_norm"),
    ),
    "exaone": Build(
        root="transformer",
        body="h.{}",
        embed="wte",
        final_norm="ln_f",
        qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        out="attn.attention.out_proj",
        up=("c_fc_0", "c_fc_1"),
        down="c_proj",
        norms=("ln_1", "ln_2"),
    ),
    "chatglm": Build(
        root="transformer",
        body="encoder.layers.{}",
        embed="embedding.word_embeddings",
        final_norm="encoder.final_layernorm",
        head="transformer.output_layer",
        qkv=("self_attention.query_key_value",) * 3,
        out="self_attention.dense",
        qkv_bias="add_qkv_bias",
        out_bias="add_bias_linear",
        mlp_bias="add_bias_linear",
        up=("dense_h_to_4h",) * 2,
        down="dense_4h_to_h",
    ),
    "phi3small": Build(
        tied=True,
        final_norm="final_layernorm",
        qkv=("self_attn.query_key_value",) * 3,
        out="self_attn.dense",
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        up=("up_proj",) * 2,
        norm_bias=True,
    ),
}
"""`model_type` to build. Source: vLLM 0.33 `models/` of that name, transformers, the authors' own code."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a decoder of the older kinds."""
    model_type = config.text("model_type")
    decoder = _decoder.open_decoder(config, BUILDS[model_type], prefix)
    decoder = _SETTLE.get(model_type, _as_is)(decoder)
    weights = _decoder.mlp_weights(decoder, _width(decoder, model_type), decoder.layers)
    if model_type == "gpt_bigcode":
        # vLLM 0.32 runs the class of transformers, whose plan for tensor parallel leaves the MLP out.
        weights = [replace(weight, shard="replicated") for weight in weights]
    return _decoder.assemble(
        decoder,
        feed_forward=weights,
        extra=_extra(decoder, model_type),
        intermediate_size=_width(decoder, model_type),
        **_mask(decoder, model_type),
    )


def _mask(decoder: Decoder, model_type: str) -> dict[str, Any]:
    """The causal mask that transformers' GPT-BigCode keeps as a table of truth values, one byte each."""
    if model_type != "gpt_bigcode":
        return {}
    return {"rotary_bytes": decoder.config.integer("n_positions", default=1024) ** 2}


def _width(decoder: Decoder, model_type: str) -> int:
    """The inner size of the MLP: often left out where it is four times the hidden size."""
    config, base = decoder.config, decoder.base
    if model_type == "qwen":
        # The config counts the gate and the value together.
        return base.intermediate_size // 2
    if model_type == "phi3small":
        return config.integer("ff_intermediate_size", least=1)
    if model_type == "mpt":
        return int(config.number("expansion_ratio", 4) * base.hidden_size)
    return base.intermediate_size or 4 * base.hidden_size


def _extra(decoder: Decoder, model_type: str) -> list[Weight]:
    """Tables and norms beside the layers."""
    config, hidden_size = decoder.config, decoder.base.hidden_size
    if model_type in {"gpt2", "gpt-sw3", "gpt_bigcode"}:
        return [_positions("transformer.wpe", config.integer("n_positions", default=1024), hidden_size)]
    if model_type == "opt":
        return _opt_extra(decoder)
    if model_type == "mpt" and _learned_positions(config):
        return [_positions("transformer.wpe", config.integer("max_seq_len", default=2048), hidden_size)]
    if model_type == "bloom":
        return _parts.norm("transformer.word_embeddings_layernorm", hidden_size, bias=True)
    return []


def _positions(path: str, rows: int, width: int) -> Weight:
    return Weight(path=path, shape=(rows, width), part="embedding")


def _learned_positions(config: Config) -> bool:
    attention = config.section("attn_config")
    return config.flag("learned_pos_emb", default=True) and not (
        attention.flag("alibi") or attention.flag("rope")
    )


def _opt_extra(decoder: Decoder) -> list[Weight]:
    """Positions, and the matrices that OPT-350M has between its narrow embedding and the layers."""
    config, hidden_size = decoder.config, decoder.base.hidden_size
    rows = config.integer("max_position_embeddings", default=2048) + OPT_POSITION_OFFSET
    weights = [_positions("model.decoder.embed_positions", rows, hidden_size)]
    narrow = config.integer("word_embed_proj_dim", default=hidden_size)
    if narrow != hidden_size:
        weights.append(_parts.matrix("model.decoder.project_in", (hidden_size, narrow), "other"))
        weights.append(_parts.matrix("model.decoder.project_out", (narrow, hidden_size), "other"))
    return weights


def _as_is(decoder: Decoder) -> Decoder:
    return decoder


def _kv_heads(decoder: Decoder, kv: int) -> Decoder:
    return replace(decoder, heads=replace(decoder.heads, kv=kv))


def _settle_falcon(decoder: Decoder) -> Decoder:
    """The three builds of Falcon: many heads, one shared key and value, or groups with a second norm.

    Source: vLLM 0.33 `models/falcon.py`, transformers `modeling_falcon.py` `FalconDecoderLayer`.
    """
    config, build = decoder.config, decoder.build
    new = config.flag("new_decoder_architecture")
    if new:
        two = config.integer("num_ln_in_parallel_attn", default=2) == 2
        norms = ("ln_attn", "ln_mlp") if two else ("input_layernorm",)
    elif config.flag("parallel_attn", default=True):
        norms = ("input_layernorm",)
    else:
        norms = ("input_layernorm", "post_attention_layernorm")
    decoder = replace(decoder, build=replace(build, norms=norms))
    if new:
        return decoder
    return _kv_heads(decoder, 1 if config.flag("multi_query", default=True) else decoder.heads.query)


def _settle_bigcode(decoder: Decoder) -> Decoder:
    return _kv_heads(decoder, 1) if decoder.config.flag("multi_query", default=True) else decoder


def _settle_chatglm(decoder: Decoder) -> Decoder:
    if not decoder.config.flag("multi_query_attention"):
        return decoder
    return _kv_heads(decoder, decoder.config.integer("multi_query_group_num", default=1, least=1))


def _settle_mpt(decoder: Decoder) -> Decoder:
    config = decoder.config
    biased = not config.flag("no_bias", default=True)
    build = replace(decoder.build, qkv_bias=biased, out_bias=biased, mlp_bias=biased, norm_bias=biased)
    decoder = replace(decoder, build=build)
    groups = config.section("attn_config").integer("kv_n_heads", default=0)
    return _kv_heads(decoder, groups) if groups else decoder


_SETTLE = {
    "falcon": _settle_falcon,
    "gpt_bigcode": _settle_bigcode,
    "chatglm": _settle_chatglm,
    "mpt": _settle_mpt,
}
