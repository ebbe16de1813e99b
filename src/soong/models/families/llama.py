"""Llama and the dense decoders that are built like it, each with its few departures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _decoder, _parts
from soong.models.families._decoder import Build

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

FOUR_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
FUSED_QKV = ("self_attn.qkv_proj",) * 3
FUSED_UP = ("gate_up_proj",) * 2

LLAMA = Build(mlp_bias="mlp_bias")
GEMMA = Build(tied=True, defaults={"head_dim": 256})
QWEN2 = Build(qkv_bias=True, out_bias=False, window_switch="use_sliding_window")
OLMO2 = Build(head_norm="all", norms=POST_NORMS)
GLM = Build(
    defaults={"attention_bias": True, "head_dim": 128, "num_key_value_heads": 2}, out_bias=False, up=FUSED_UP
)
COHERE = Build(
    tied=True,
    norms=("input_layernorm",),
    head_norm="each",
    head_norm_switch="use_qk_norm",
    head_norm_split=True,
)

BUILDS: dict[str, Build] = {
    "llama": LLAMA,
    "granite": LLAMA,
    "internlm3": Build(qkv_bias="qkv_bias", out_bias="bias", mlp_bias="bias"),
    "cwm": LLAMA,
    # No default window: what leaves the key out today means full attention, whatever the class assumes.
    "mistral": Build(qkv_bias=False, out_bias=False, window_rule="all", defaults={"num_key_value_heads": 8}),
    "ministral": Build(qkv_bias=False, out_bias=False, window_rule="all"),
    "ministral3": Build(
        qkv_bias=False,
        out_bias=False,
        window_rule="all",
        defaults={"head_dim": 128, "num_key_value_heads": 8},
    ),
    "qwen2": QWEN2,
    "mimo": QWEN2,
    "qwen3": Build(head_norm="head", window_switch="use_sliding_window", defaults={"head_dim": 128}),
    "smollm3": Build(tied=True, mlp_bias="mlp_bias", window_switch="use_sliding_window"),
    "seed_oss": Build(
        out_bias="attention_out_bias",
        mlp_bias="mlp_bias",
        defaults={"attention_bias": True, "head_dim": 128, "num_key_value_heads": 8},
    ),
    "arcee": Build(mlp_bias="mlp_bias", up=("up_proj",)),
    "nemotron": Build(mlp_bias="mlp_bias", up=("up_proj",), norm_bias=True),
    "apertus": Build(
        head_norm="head", up=("up_proj",), norms=("attention_layernorm", "feedforward_layernorm")
    ),
    "olmo": Build(norms=(), final_norm=""),
    "olmo2": OLMO2,
    "olmo3": Build(head_norm="all", norms=POST_NORMS, window_every=4, defaults={"sliding_window": 4096}),
    "exaone4": Build(
        qkv_bias=False,
        out_bias=False,
        head_norm="head",
        norms=POST_NORMS,
        window_every=4,
        defaults={"sliding_window": 4096},
    ),
    "ernie4_5": Build(
        tied=True,
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        defaults={"head_dim": 128, "num_key_value_heads": 2},
    ),
    "hunyuan_v1_dense": Build(
        head_norm="head", head_norm_names=("self_attn.query_layernorm", "self_attn.key_layernorm")
    ),
    "glm": GLM,
    "glm4": Build(
        defaults=GLM.defaults,
        out_bias=False,
        up=FUSED_UP,
        norms=(
            "input_layernorm",
            "post_attention_layernorm",
            "post_self_attn_layernorm",
            "post_mlp_layernorm",
        ),
    ),
    "gemma": GEMMA,
    "gemma2": Build(
        tied=True,
        norms=FOUR_NORMS,
        window_every=2,
        defaults={
            "head_dim": 256,
            "num_key_value_heads": 4,
            "num_attention_heads": 8,
            "sliding_window": 4096,
        },
    ),
    # Gemma 3's multimodal repositories leave most of the text model's sizes to the class.
    "gemma3_text": Build(
        tied=True,
        norms=FOUR_NORMS,
        head_norm="head",
        window_every=6,
        defaults={
            "vocab_size": 262208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 4096,
            "max_position_embeddings": 131072,
        },
    ),
    "phi": Build(
        qkv_bias=True,
        out="self_attn.dense",
        out_bias=True,
        mlp_bias=True,
        head_bias=True,
        up=("fc1",),
        down="fc2",
        norms=("input_layernorm",),
        norm_bias=True,
        final_norm="final_layernorm",
        head_norm="head",
        head_norm_names=("self_attn.q_layernorm", "self_attn.k_layernorm"),
        head_norm_switch="qk_layernorm",
        head_norm_bias=True,
    ),
    "phi3": Build(qkv=FUSED_QKV, qkv_bias=False, out_bias=False, up=FUSED_UP, window_rule="all"),
    "stablelm": Build(
        qkv_bias="use_qkv_bias",
        out_bias=False,
        norm_bias=True,
        head_norm="each",
        head_norm_names=("self_attn.q_layernorm.norms.0", "self_attn.k_layernorm.norms.0"),
        head_norm_switch="qk_layernorm",
    ),
    "starcoder2": Build(
        tied=True,
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        up=("c_fc",),
        down="c_proj",
        norm_bias=True,
        window_rule="all",
        defaults={"use_bias": True, "num_key_value_heads": 2},
    ),
    "vaultgemma": Build(
        tied=True,
        norms=("input_layernorm", "pre_feedforward_layernorm"),
        window_every=2,
        defaults={"head_dim": 256, "num_key_value_heads": 4, "sliding_window": 4096},
    ),
    "jais2": Build(
        mlp_bias="mlp_bias",
        up=("up_proj",),
        norm_bias=True,
        defaults={"attention_bias": True, "mlp_bias": True},
    ),
    "helium": Build(mlp_bias="mlp_bias", defaults={"head_dim": 128}),
    "iquestcoder": LLAMA,
    "cohere": COHERE,
    # vLLM 0.33 `models/commandr.py`: a sliding layer also sees the token at the window's edge.
    "cohere2": Build(
        tied=True,
        norms=("input_layernorm",),
        window_every=4,
        window_extra=1,
        defaults={"sliding_window": 4096},
    ),
    "minicpm": Build(tied=True),
    "granite_swa": Build(tied=True, mlp_bias="mlp_bias", defaults={"sliding_window": 128}),
    "hyperclovax": Build(
        mlp_bias="mlp_bias",
        norms=("input_layernorm", "post_attention_layernorm", "post_norm1", "post_norm2"),
    ),
    "solar": Build(mlp_bias="mlp_bias", window_rule="all"),
    "telechat": Build(
        root="transformer",
        body="h.{}",
        embed="word_embeddings",
        final_norm="ln_f",
        qkv=("self_attention.query", "self_attention.key_value", "self_attention.key_value"),
        qkv_bias=False,
        out="self_attention.dense",
        out_bias=True,
    ),
    "teleflm": Build(mlp_bias="mlp_bias"),
    "telechat3": Build(mlp_bias="mlp_bias"),
    "panguembedded": Build(qkv_bias="bias", out_bias="bias"),
    "plamo3": Build(
        body="layers.layers.{}",
        qkv=("mixer.qkv_proj",) * 3,
        qkv_bias=False,
        out="mixer.o_proj",
        out_bias=False,
        head_norm="head",
        head_norm_names=("mixer.q_norm", "mixer.k_norm"),
        up=FUSED_UP,
        norms=("pre_mixer_norm", "post_mixer_norm", "pre_mlp_norm", "post_mlp_norm"),
        window_every=8,
        defaults={"head_dim": 128, "sliding_window": 2048, "num_key_value_heads": 4},
    ),
    "orion": Build(norm_bias=True),
    "nanochat": Build(norms=(), final_norm="", up=("fc1",), down="fc2"),
    "bitnet": Build(
        tied=True, norms=("input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm")
    ),
}
"""`model_type` to build. Source: transformers 5 `modeling_*.py` of that name, vLLM 0.33 `models/`."""


def read(config: Config, prefix: str = "model") -> Architecture:
    """The architecture of a dense decoder that is built like Llama; of any other type as Llama itself."""
    model_type = config.text("model_type")
    if model_type == "minicpm" and config.integer("num_experts", default=0):
        from soong.models.families import moe

        return moe.read(config, prefix)
    decoder = _decoder.open_decoder(config, _build(config, model_type), prefix)
    if model_type == "apertus":
        return _decoder.assemble(decoder, extra=_learned_activation(decoder))
    if model_type == "bitnet":
        inner = f"{decoder.body}.mlp.ffn_sub_norm"
        return _decoder.assemble(
            decoder, extra=_parts.norm(inner, decoder.base.intermediate_size, layers=decoder.layers)
        )
    if model_type == "mimo":
        return _read_mimo(decoder)
    if model_type == "granite_swa":
        return _decoder.assemble(decoder, extra=_decoder.sinks(decoder))
    if model_type == "telechat":
        return _decoder.assemble(decoder, extra=_down_bias(decoder))
    return _decoder.assemble(decoder)


def _down_bias(decoder: _decoder.Decoder) -> list[Weight]:
    """TeleChat2 has a bias where the MLP comes back, but none where it opens: vLLM 0.33 `models/telechat2.py`."""
    path, size = f"{decoder.body}.mlp.down_proj.bias", decoder.base.hidden_size
    return [_parts.vector(path, size, "mlp", layers=decoder.layers)]


def _build(config: Config, model_type: str) -> Build:
    build = BUILDS.get(model_type.lower(), LLAMA)
    if model_type == "hyperclovax" and not config.flag("use_post_norm"):
        from msgspec.structs import replace

        return replace(build, norms=LLAMA.norms)
    if model_type == "stablelm" and config.flag("use_parallel_residual"):
        # Attention and MLP then share the one norm before them.
        from msgspec.structs import replace

        return replace(build, norms=("input_layernorm",))
    return build


def _learned_activation(decoder: _decoder.Decoder) -> list[Weight]:
    """The slopes of xIELU, learned per layer: transformers `activations.py` `XIELUActivation`."""
    names = ("alpha_p", "alpha_n")
    return [
        _parts.vector(f"{decoder.body}.mlp.act_fn.{name}", 1, "mlp", layers=decoder.layers) for name in names
    ]


def _read_mimo(decoder: _decoder.Decoder) -> Architecture:
    """MiMo is Qwen2 with draft layers that join the embedding and the hidden state: vLLM 0.33 `models/mimo_mtp.py`."""
    from soong.models.families import _draft

    count = _decoder.draft_layers(decoder.config, "num_nextn_predict_layers", layers=decoder.base.layers)
    layers, body = tuple(range(count)), "model.mtp_layers.{}"
    hidden_size = decoder.base.hidden_size
    weights: list[Weight] = []
    if layers:
        weights = [
            *_parts.linear(
                f"{body}.input_proj", hidden_size, 2 * hidden_size, "mtp", "replicated", layers=layers
            ),
            *_decoder.attention_weights(decoder, decoder.heads, layers, body=body),
            *_decoder.mlp_weights(decoder, decoder.base.intermediate_size, layers, body=body),
            *_decoder.norm_weights(decoder, layers, body=body),
        ]
        for name in ("token_layernorm", "hidden_layernorm", "final_layernorm"):
            weights += _parts.norm(f"{body}.{name}", hidden_size, layers=layers)
    return _decoder.assemble(decoder, extra=_draft.draft(weights), mtp_layers=count)
