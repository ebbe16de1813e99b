"""The bricks of vision and audio towers: patch convolutions, position tables, encoder layers, projectors.

Towers differ in names, biases, norms and gates, hardly in build, so one `Layer` describes how a tower's
encoder layer is
made and `encoder` turns it into weights. Engines divide most towers by tensor parallelism like decoders;
towers that an engine runs as plain modules are marked `split=False`, and every GPU holds all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import ConfigError
from soong.models.architecture import Part, Shard, Weight
from soong.models.families import _parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.models.config_json import Config

Layers = tuple[int, ...]

COLOURS = 3
"""Channels of an image: the default of every vision configuration class in transformers."""


KERNEL_STEP = 64
"""What vLLM's quantised kernels want sides to be a multiple of."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """How one tower's encoder layer is built and what its parts are called.

    qkv: the three projections, or one name where the checkpoint holds them fused.
    up: one matrix into the wide space, or two where the MLP is gated.
    norms: LayerNorms where `norm_bias`, else RMSNorms. head_norms: norms of the size of one head.
    scales: vectors of the hidden size (layer scale). key_bias: False where only queries and values have one
    (Whisper). split, mlp_split: whether tensor parallelism divides the attention and the MLP.
    """

    attention: str = "self_attn."
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    out: str = "out_proj"
    mlp: str = "mlp."
    up: tuple[str, ...] = ("fc1",)
    down: str = "fc2"
    norms: tuple[str, ...] = ("layer_norm1", "layer_norm2")
    head_norms: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    qkv_bias: bool = True
    key_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    norm_bias: bool = True
    split: bool = True
    mlp_split: bool = True


CLIP = Layer()
"""CLIP, SigLIP and their heirs."""

WHISPER = Layer(mlp="", norms=("self_attn_layer_norm", "final_layer_norm"), key_bias=False)
"""transformers `modeling_whisper.py` `WhisperEncoderLayer`."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What a tower's config says in numbers. `attention_size`: heads x head size, the hidden size if 0."""

    hidden: int
    inner: int
    depth: int
    attention_size: int = 0
    head_dim: int = 0
    part: Part = "vision"


def sizes(config: Config, *, part: Part = "vision", **defaults: int) -> Sizes:
    """Sizes under their usual names; `defaults` are the configuration class's own."""
    hidden = config.integer("hidden_size", default=defaults.get("hidden"), least=1)
    heads = config.integer("num_attention_heads", "num_heads", default=defaults.get("heads"), least=1)
    return Sizes(
        hidden=hidden,
        inner=config.integer("intermediate_size", default=defaults.get("inner"), least=1),
        depth=depth(config, "num_hidden_layers", "depth", default=defaults.get("depth")),
        head_dim=config.integer("head_dim", default=0) or hidden // heads,
        part=part,
    )


def depth(config: Config, *keys: str, default: int | None = None) -> int:
    """The number of encoder layers."""
    if default is not None and not any(key in config for key in keys):
        return default
    return config.layers(*keys)


def edge(config: Config, key: str, default: int) -> int:
    """The edge of an image or patch in pixels, which some configs write as a pair."""
    if isinstance(config.values.get(key), list):
        return positive(config, key, (default,))[0]
    return config.integer(key, default=default, least=1)


def positive(config: Config, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A short list of sizes, such as a kernel's.

    Raises:
        ConfigError: one of them is below 1.
    """
    values = config.integers(key) or default
    if min(values) < 1:
        raise ConfigError(f"`{config.where(key)}` must hold sizes of at least 1")
    return values


def grid(config: Config, *, image: int, patch: int) -> int:
    """Patches in a square image; `image` and `patch` are the defaults of both edges in pixels."""
    return (edge(config, "image_size", image) // edge(config, "patch_size", patch)) ** 2


def encoder(path: str, layer: Layer, size: Sizes, *, served: int | None = None) -> list[Weight]:
    """All layers of an encoder; `path` has `{}` where the layer number goes.

    `served`: how many layers an engine loads, where it stops at the deepest layer whose output is used.
    """
    loaded = size.depth if served is None else min(served, size.depth)
    weights = _layers(path, layer, size, tuple(range(loaded)), served=True) if loaded else []
    if loaded < size.depth:
        weights += _layers(path, layer, size, tuple(range(loaded, size.depth)), served=False)
    return weights


def _layers(path: str, layer: Layer, size: Sizes, layers: Layers, *, served: bool) -> list[Weight]:
    return [
        *_attention(f"{path}.{layer.attention}", layer, size, layers, served=served),
        *mlp(f"{path}.{layer.mlp}", layer, size, layers, served=served),
        *(
            weight
            for name in layer.norms
            for weight in norm(
                f"{path}.{name}", size.hidden, size.part, layers=layers, bias=layer.norm_bias, served=served
            )
        ),
        *(
            vector(f"{path}.{name}", size.hidden, size.part, layers=layers, served=served)
            for name in layer.scales
        ),
    ]


def _attention(prefix: str, layer: Layer, size: Sizes, layers: Layers, *, served: bool) -> list[Weight]:
    width = size.attention_size or size.hidden
    rows = width * 3 // len(layer.qkv)
    column: Shard = "column" if layer.split else "replicated"
    weights = []
    for index, name in enumerate(layer.qkv):
        bias = layer.qkv_bias and (layer.key_bias or index != 1)
        weights += linear(
            prefix + name, rows, size.hidden, size.part, column, layers=layers, bias=bias, served=served
        )
    out: Shard = "row" if layer.split else "replicated"
    weights += linear(
        prefix + layer.out,
        size.hidden,
        width,
        size.part,
        out,
        layers=layers,
        bias=layer.out_bias,
        served=served,
    )
    for name in layer.head_norms:
        weights.append(vector(prefix + name, size.head_dim, size.part, layers=layers, served=served))
    return weights


def whole_unless(heads: int, weights: list[Weight]) -> list[Weight]:
    """Weights that stand whole where the GPUs cannot share so many heads evenly.

    Source: vLLM 0.33 `models/vision.py` is_vit_use_data_parallel, for the towers that tell it their heads.
    """
    return [
        weight if weight.shard == "replicated" else msgspec.structs.replace(weight, whole_unless=heads)
        for weight in weights
    ]


def mlp(prefix: str, layer: Layer, size: Sizes, layers: Layers = (), *, served: bool = True) -> list[Weight]:
    """The plain or gated MLP of one or all layers."""
    column: Shard = "column" if layer.mlp_split else "replicated"
    row: Shard = "row" if layer.mlp_split else "replicated"
    weights = []
    for name in layer.up:
        weights += linear(
            prefix + name,
            size.inner,
            size.hidden,
            size.part,
            column,
            layers=layers,
            bias=layer.mlp_bias,
            served=served,
        )
    weights += linear(
        prefix + layer.down,
        size.hidden,
        size.inner,
        size.part,
        row,
        layers=layers,
        bias=layer.mlp_bias,
        served=served,
    )
    return weights


def linear(
    path: str,
    out_size: int,
    in_size: int,
    part: Part,
    shard: Shard = "replicated",
    *,
    layers: Layers = (),
    bias: bool = True,
    served: bool = True,
) -> list[Weight]:
    """A matrix; towers nearly always have biases, unlike decoders.

    What stands whole on every GPU is a plain module in vLLM's model classes, which no quantization reaches.
    """
    weights = _parts.linear(path, out_size, in_size, part, shard, layers=layers, bias=bias, served=served)
    if shard != "replicated":
        return weights
    return [msgspec.structs.replace(weight, linear=False) for weight in weights]


def ratio(config: Config, key: str, default: float) -> float:
    """A factor between sizes, such as an MLP's width per hidden size.

    Raises:
        ConfigError: it is not above zero.
    """
    value = config.number(key, default)
    if value <= 0:
        raise ConfigError(f"`{config.where(key)}` must be above zero, not {value}")
    return value


def convolution(
    path: str,
    shape: Sequence[int],
    part: Part = "vision",
    *,
    bias: bool = True,
    layers: Layers = (),
    served: bool = True,
) -> list[Weight]:
    """A convolution of shape (out, in, *kernel), which no engine divides and no quantization packs."""
    weights = [Weight(path=path, shape=tuple(shape), part=part, layers=layers, served=served)]
    if bias:
        weights.append(vector(f"{path}.bias", shape[0], part, layers=layers, served=served))
    return weights


def table(
    path: str, shape: Sequence[int], part: Part = "vision", *, layers: Layers = (), served: bool = True
) -> Weight:
    """Learned positions, class tokens and other tensors that are added, not multiplied."""
    return Weight(path=path, shape=tuple(shape), part=part, layers=layers, served=served)


def vector(
    path: str, size: int, part: Part = "vision", *, layers: Layers = (), served: bool = True
) -> Weight:
    """A vector that every GPU holds."""
    return _parts.vector(path, size, part, layers=layers, served=served)


def norm(
    path: str,
    size: int,
    part: Part = "vision",
    *,
    layers: Layers = (),
    bias: bool = True,
    served: bool = True,
) -> list[Weight]:
    """A LayerNorm, or an RMSNorm where it has no bias, counted with its tower."""
    weights = [vector(path, size, part, layers=layers, served=served)]
    if bias:
        weights.append(vector(f"{path}.bias", size, part, layers=layers, served=served))
    return weights


def two_linears(
    prefix: str,
    in_size: int,
    hidden: int,
    out_size: int,
    *,
    bias: bool = True,
    split: bool = True,
    names: tuple[str, str] = ("linear_1", "linear_2"),
) -> list[Weight]:
    """The usual projector: a matrix, an activation, a matrix."""
    first, second = names
    column: Shard = "column" if split else "replicated"
    row: Shard = "row" if split else "replicated"
    return [
        *linear(f"{prefix}.{first}", hidden, in_size, "projector", column, bias=bias),
        *linear(f"{prefix}.{second}", out_size, hidden, "projector", row, bias=bias),
    ]


def patches(config: Config, hidden: int, *, frames: int = 0, patch: int = 14) -> tuple[int, ...]:
    """The shape of a patch convolution; `frames` is the default of its temporal size, 0 where it has none."""
    colours = config.integer("in_channels", "in_chans", "num_channels", default=COLOURS, least=1)
    side = edge(config, "patch_size", patch)
    if not frames:
        return (hidden, colours, side, side)
    return (hidden, colours, config.integer("temporal_patch_size", default=frames, least=1), side, side)


def image_text_tower(
    prefix: str, config: Config, *, kind: str, deepest: int | None = None, post_norm: bool = True
) -> list[Weight]:
    """A CLIP or SigLIP vision tower at `prefix`, defaults from their configuration classes.

    `deepest`: layers that an engine loads; `post_norm`: whether it loads the last norm.
    Source: transformers `modeling_clip.py`, `modeling_siglip.py` and their configuration files; vLLM
    `clip.py`, `siglip.py`.
    """
    clip = kind == "clip_vision_model"
    size = sizes(config, hidden=768, inner=3072, depth=12, heads=12)
    patch = 32 if clip else 16
    hidden = size.hidden
    positions = grid(config, image=224, patch=patch) + clip
    weights = [
        *convolution(
            f"{prefix}.embeddings.patch_embedding", patches(config, hidden, patch=patch), bias=not clip
        ),
        table(f"{prefix}.embeddings.position_embedding", (positions, hidden)),
        *_even_kernels(encoder(f"{prefix}.encoder.layers.{{}}", CLIP, size, served=deepest), size, clip=clip),
        *norm(f"{prefix}.post_layernorm", hidden, served=post_norm),
    ]
    if clip:
        weights.append(vector(f"{prefix}.embeddings.class_embedding", hidden))
        weights += norm(f"{prefix}.pre_layrnorm", hidden)
    elif config.flag("vision_use_head", default=True):
        weights += _pooling_head(f"{prefix}.head", size)
    return weights


def _even_kernels(weights: list[Weight], size: Sizes, *, clip: bool) -> list[Weight]:
    """SigLIP's MLP stays unpacked where a side is no multiple of 64: vLLM 0.33 `siglip.py` SiglipMLP."""
    if clip or (size.hidden % KERNEL_STEP == 0 and size.inner % KERNEL_STEP == 0):
        return weights
    return [
        msgspec.structs.replace(weight, linear=False) if ".mlp." in weight.path else weight
        for weight in weights
    ]


def _pooling_head(prefix: str, size: Sizes) -> list[Weight]:
    """SigLIP's attention pooling: in most checkpoints, but engines skip it, since decoders read patches."""
    hidden = size.hidden
    return [
        table(f"{prefix}.probe", (1, 1, hidden), served=False),
        table(f"{prefix}.attention.in_proj_weight", (3 * hidden, hidden), served=False),
        vector(f"{prefix}.attention.in_proj_bias", 3 * hidden, served=False),
        *linear(f"{prefix}.attention.out_proj", hidden, hidden, "vision", served=False),
        *norm(f"{prefix}.layernorm", hidden, served=False),
        *mlp(f"{prefix}.mlp.", CLIP, size, served=False),
    ]


def audio_sizes(audio: Config) -> Sizes:
    """The sizes of a Whisper-like encoder; defaults of the omni models' audio configs (Whisper large)."""
    width = audio.integer("d_model", "hidden_size", default=1280, least=1)
    return Sizes(
        hidden=width,
        inner=audio.integer("encoder_ffn_dim", "intermediate_size", default=5120, least=1),
        depth=depth(audio, "encoder_layers", "num_hidden_layers", default=32),
        part="audio",
    )


def audio_tower(prefix: str, audio: Config, *, split: bool = True) -> list[Weight]:
    """Whisper's convolutions and encoder layers; positions and the closing norm differ between models.

    `split`: False where an engine runs the class of transformers, whole on every GPU.
    """
    size = audio_sizes(audio)
    layer = WHISPER if split else msgspec.structs.replace(WHISPER, split=False, mlp_split=False)
    bins = audio.integer("num_mel_bins", default=128, least=1)
    return [
        *convolution(f"{prefix}.conv1", (size.hidden, bins, 3), "audio"),
        *convolution(f"{prefix}.conv2", (size.hidden, size.hidden, 3), "audio"),
        *encoder(f"{prefix}.layers.{{}}", layer, size),
    ]
