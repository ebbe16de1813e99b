"""Gemma that sees and hears: Gemma 3 (SigLIP), Gemma 4 (its own vision and audio towers), PaliGemma."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_GEMMA_4 = _towers.Layer(
    qkv=("q_proj.linear", "k_proj.linear", "v_proj.linear"),
    out="o_proj.linear",
    up=("gate_proj.linear", "up_proj.linear"),
    down="down_proj.linear",
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    head_norms=("q_norm", "k_norm"),
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
    norm_bias=False,
    split=False,
    mlp_split=False,
)


GEMMA_3 = {"gemma3", "shieldgemma2"}


def read(config: Config) -> Architecture:
    """The architecture of a multimodal Gemma config.

    Source of the shapes: transformers `modeling_gemma3.py`, `modeling_gemma4.py`, `modeling_paligemma.py`; of
    their sharding: vLLM `gemma3_mm.py`, `paligemma.py`, and `gemma4_mm.py`, which runs transformers' own
    towers, whole on every GPU.
    """
    kind = config.text("model_type")
    section = _multimodal.text_section(config)
    if kind == "gemma4_unified":
        text = _multimodal.read_text(
            config, section, prefix="language_model.model", model_type="gemma4_unified_text"
        )
        return _multimodal.joined(config, text, _unified(config, text.hidden_size))
    if kind == "diffusion_gemma":
        text = _multimodal.read_text(config, section, prefix="model", model_type="diffusion_gemma_text")
        extra = [*_self_conditioning(config, text), *towers_of_gemma_4(config, text.hidden_size)]
        return _multimodal.joined(config, text, extra)
    if kind == "gemma4":
        text = _multimodal.read_text(config, section, prefix="model.language_model", model_type="gemma4_text")
        return _multimodal.joined(config, text, towers_of_gemma_4(config, text.hidden_size))
    default = "gemma3_text" if kind in GEMMA_3 else "gemma"
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type=section.text("model_type", default)
    )
    vision = config.section("vision_config")
    tower = _towers.image_text_tower("vision_tower.vision_model", vision, kind="siglip_vision_model")
    width = vision.integer("hidden_size", default=768)
    if kind in GEMMA_3:
        projector = [
            _towers.table(
                "multi_modal_projector.mm_input_projection_weight", (width, text.hidden_size), "projector"
            ),
            *_towers.norm("multi_modal_projector.mm_soft_emb_norm", width, "projector", bias=False),
        ]
    else:
        projector = _towers.linear("multi_modal_projector.linear", text.hidden_size, width, "projector")
    return _multimodal.joined(config, text, [*tower, *projector], head="language_model.lm_head")


def _unified(config: Config, text_size: int) -> list[Weight]:
    """Patches and sounds that go straight to the decoder, through one matrix: vLLM 0.33 `gemma4_unified.py`."""
    weights: list[Weight] = []
    if "vision_config" in config:
        vision, path = config.section("vision_config"), "vision_embedder"
        width = vision.integer("mm_embed_dim", default=3840, least=1)
        positions = vision.integer("mm_posemb_size", default=1120, least=1)
        side = _towers.edge(vision, "patch_size", 16)
        side *= vision.integer("pooling_kernel_size", default=3, least=1)
        numbers = _towers.COLOURS * side**2
        weights += [
            _towers.table(f"{path}.pos_embedding", (positions, 2, width)),
            *_towers.norm(f"{path}.patch_ln1", numbers),
            *_towers.linear(f"{path}.patch_dense", width, numbers, "vision", "column"),
            *_towers.norm(f"{path}.patch_ln2", width),
            *_towers.norm(f"{path}.pos_norm", width),
            *_towers.linear("embed_vision.embedding_projection", text_size, width, "projector", bias=False),
        ]
    if "audio_config" in config:
        heard = config.section("audio_config").integer("audio_embed_dim", default=640, least=1)
        weights += _towers.linear(
            "embed_audio.embedding_projection", text_size, heard, "projector", bias=False
        )
    return weights


def _self_conditioning(config: Config, text: Architecture) -> list[Weight]:
    """What mixes the last guess into the next step, whole on every GPU: vLLM 0.33 `diffusion_gemma.py`."""
    path, hidden = "self_conditioning", text.hidden_size
    inner = config.integer("self_conditioning_size", default=text.intermediate_size, least=1)
    wide, narrow = (inner, hidden), (hidden, inner)
    return [
        _parts.vector(f"{path}.pre_norm", hidden, "norm"),
        *(
            _parts.matrix(f"{path}.{name}", shape, "other")
            for name, shape in (("gate_proj", wide), ("up_proj", wide), ("down_proj", narrow))
        ),
    ]


def towers_of_gemma_4(config: Config, text_size: int) -> list[Weight]:
    """Gemma 4's towers with their projections: those that the config describes."""
    weights: list[Weight] = []
    if "vision_config" in config:
        vision = config.section("vision_config")
        width = vision.integer("hidden_size", default=768, least=1)
        weights += _vision_4("model.vision_tower", vision)
        weights += _towers.linear(
            "model.embed_vision.embedding_projection", text_size, width, "projector", bias=False
        )
    if "audio_config" in config:
        audio = config.section("audio_config")
        width = audio.integer("output_proj_dims", "hidden_size", default=1536, least=1)
        if "output_proj_dims" not in audio:
            width = 1536
        weights += _audio_4("model.audio_tower", audio, width)
        weights += _towers.linear(
            "model.embed_audio.embedding_projection", text_size, width, "projector", bias=False
        )
    return weights


def _vision_4(prefix: str, vision: Config) -> list[Weight]:
    """Gemma 4's tower; defaults of transformers `Gemma4VisionConfig`."""
    size = _towers.sizes(vision, hidden=768, inner=3072, depth=16, heads=12)
    patch = _towers.edge(vision, "patch_size", 16)
    positions = vision.integer("position_embedding_size", default=10240)
    standard = ("std_bias", "std_scale") if vision.flag("standardize") else ()
    return [
        *(_towers.vector(f"{prefix}.{name}", size.hidden) for name in standard),
        _towers.table(f"{prefix}.patch_embedder.position_embedding_table", (2, positions, size.hidden)),
        *_towers.linear(
            f"{prefix}.patch_embedder.input_proj",
            size.hidden,
            _towers.COLOURS * patch**2,
            "vision",
            bias=False,
        ),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", _GEMMA_4, size),
    ]


def _audio_4(prefix: str, audio: Config, out: int) -> list[Weight]:
    """Gemma 4's conformer; defaults of transformers `Gemma4AudioConfig`."""
    width = audio.integer("hidden_size", default=1024, least=1)
    heads = audio.integer("num_attention_heads", default=8, least=1)
    layers = tuple(range(_towers.depth(audio, "num_hidden_layers", default=12)))
    channels = _towers.positive(audio, "subsampling_conv_channels", (128, 32))
    subsample = f"{prefix}.subsample_conv_projection"
    weights = [
        *_towers.convolution(f"{subsample}.layer0.conv", (channels[0], 1, 3, 3), "audio", bias=False),
        _towers.vector(f"{subsample}.layer0.norm", channels[0], "audio"),
        *_towers.convolution(
            f"{subsample}.layer1.conv", (channels[-1], channels[0], 3, 3), "audio", bias=False
        ),
        _towers.vector(f"{subsample}.layer1.norm", channels[-1], "audio"),
        # Two strides of 2 leave a quarter of the 128 mel bins, each with the last layer's channels.
        *_towers.linear(f"{subsample}.input_proj_linear", width, channels[-1] * 32, "audio", bias=False),
        *_towers.linear(f"{prefix}.output_proj", out, width, "audio"),
    ]
    path = f"{prefix}.layers.{{}}"
    for name, rows, columns in _audio_matrices(width):
        weights += _towers.linear(f"{path}.{name}", rows, columns, "audio", layers=layers, bias=False)
    kernel = audio.integer("conv_kernel_size", default=5, least=1)
    weights.append(
        _towers.table(f"{path}.lconv1d.depthwise_conv1d", (width, 1, kernel), "audio", layers=layers)
    )
    weights.append(_towers.vector(f"{path}.self_attn.per_dim_scale", width // heads, "audio", layers=layers))
    weights += [_towers.vector(f"{path}.{name}", width, "audio", layers=layers) for name in _AUDIO_NORMS]
    return weights


_AUDIO_NORMS = (
    "feed_forward1.pre_layer_norm",
    "feed_forward1.post_layer_norm",
    "feed_forward2.pre_layer_norm",
    "feed_forward2.post_layer_norm",
    "lconv1d.pre_layer_norm",
    "lconv1d.conv_norm",
    "norm_pre_attn",
    "norm_post_attn",
    "norm_out",
)


def _audio_matrices(width: int) -> list[tuple[str, int, int]]:
    """Name, output and input size of a conformer layer's matrices."""
    wide = 4 * width
    matrices = [(f"self_attn.{name}", width, width) for name in _AUDIO_ATTENTION]
    for half in ("feed_forward1", "feed_forward2"):
        matrices += [(f"{half}.ffw_layer_1.linear", wide, width), (f"{half}.ffw_layer_2.linear", width, wide)]
    return [
        *matrices,
        ("lconv1d.linear_start.linear", 2 * width, width),
        ("lconv1d.linear_end.linear", width, width),
    ]


_AUDIO_ATTENTION = ("q_proj.linear", "k_proj.linear", "v_proj.linear", "post.linear", "relative_k_proj")
