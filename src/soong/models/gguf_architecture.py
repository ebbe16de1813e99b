"""The architecture that a GGUF file describes: weights from its table of tensors, caches from its metadata.

Tensors keep the names of the file (`blk.{}.attn_q`). Which layers attend and which are recurrent is read from
the tensors they have, so that a model type that nobody has heard of is still counted. Sources: llama.cpp
`src/llama-hparams.cpp` (n_embd_k_gqa, n_embd_r, n_embd_s, set_swa_pattern), `src/llama-arch.cpp` (names),
`src/llama-model.cpp` (load_hparams: the window patterns below).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from soong.errors import ConfigError
from soong.models.architecture import (
    Architecture,
    AttentionCache,
    LatentCache,
    StateCache,
    StateTensor,
    Weight,
)
from soong.models.config_json import Config
from soong.models.gguf import GGML_TYPES
from soong.models.quantization.formats import Format
from soong.models.quantization.matching import Names
from soong.models.quantization.quantization import Quantization, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.models.architecture import Cache, Part, Shard
    from soong.models.gguf import GgufFile, GgufTensor

PLAIN_TYPES = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "int64", "I64": "int64", "I32": "float32",
    "I16": "float16", "I8": "int8",
}  # fmt: skip
"""Types that are not packed, as a type of ours of the same size."""

TYPE_BITS = {name: size * 8 / block for name, block, size in GGML_TYPES.values()}
"""Bits of one number, scales included; exact, since rows divide into blocks."""

WINDOW_PERIODS = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "olmo2": 4, "exaone4": 4, "afmoe": 4,
    "smallthinker": 4, "plamo3": 8, "llama4": 4, "exaone-moe": 4, "cohere2moe": 4, "laguna": 4, "mellum": 4,
    "muse-glimmer": 4, "gemma-embedding": 6, "modern-bert": 3, "lfm2": 0,
}  # fmt: skip
"""Every n-th layer sees all tokens, the others a window, where the file has no pattern of its own; 0: none sees all.

Source: llama.cpp `src/models/`, the calls of load_swa_pattern.
"""

FULL_LAYER_FIRST = frozenset({"smallthinker", "cohere2moe", "laguna", "modern-bert"})
"""The first of each n layers is the one that sees all."""

DEFAULT_WINDOWS = {"gemma2": 4096, "smallthinker": 4096}
WINDOW_IGNORED = frozenset({"phi3", "phimoe", "llama", "mistral", "qwen2", "qwen3", "qwen2moe", "qwen3moe"})
"""llama.cpp keeps all tokens of these, whatever window their files mention."""

EXAONE4_WITH_WINDOWS_LAYERS = 64
"""Of EXAONE 4 only the model of 64 layers slides: `src/models/exaone4.cpp`."""

GEMMA3N_OWN_LAYERS = 20
"""Later layers use the keys and values of earlier ones: `src/models/gemma3n.cpp`."""

LLAMA4_CHUNK_TOKENS = 8192
DEFAULT_FULL_INTERVAL = 4
"""qwen3next and qwen35: every fourth layer attends, where `full_attention_interval` is missing."""

_LAYER = re.compile(r"blk\.(\d{1,4})\.(.+)")
_STATE_MARKS = ("ssm_", "shortconv.", "time_mix_")


def read_architecture(file: GgufFile) -> Architecture:
    """The model in a GGUF file.

    Raises:
        ConfigError: the file names no architecture, or a size is missing, of a wrong type, or absurd.
    """
    name = file.architecture_name
    if not name:
        raise ConfigError("the GGUF file names no `general.architecture`", why="its layers stay unknown")
    prefix = f"{name}."
    values = {key[len(prefix) :]: value for key, value in file.metadata.items() if key.startswith(prefix)}
    config = Config(values, name)
    layers = config.layers("block_count")
    per_layer = _names_per_layer(file.tensors, layers)
    heads = _for_layers(config, "attention.head_count", layers, default=0)
    return Architecture(
        name=name,
        model_type=name,
        dtype=_plain_dtype(file),
        context_limit_tokens=config.integer("context_length", default=0) or None,
        hidden_size=config.integer("embedding_length", default=0),
        vocab_size=_vocab_size(file, config),
        intermediate_size=max(_for_layers(config, "feed_forward_length", layers, default=0), default=0),
        attention_heads=max(heads, default=0),
        weights=_weights(file.tensors, config),
        caches=_caches(config, name, layers, per_layer),
        experts=config.integer("expert_count", default=0),
        experts_per_token=config.integer("expert_used_count", default=0),
        mtp_layers=config.integer("nextn_predict_layers", default=0),
    )


def read_quantization(file: GgufFile) -> Quantization:
    """The storage of a GGUF file, exact tensor by tensor; the type of most bytes is the default."""
    modules: dict[str, list[str]] = {}
    for tensor in file.tensors:
        if tensor.type not in PLAIN_TYPES:
            modules.setdefault(tensor.type, []).append(_module(tensor.name))
    packed_bytes = {name: size for name, size in file.bytes_by_type.items() if name in modules}
    default = max(packed_bytes, key=lambda name: packed_bytes[name], default=None)
    rules = [Rule(Names(names), _format(kind)) for kind, names in modules.items() if kind != default]
    plain = [_module(tensor.name) for tensor in file.tensors if tensor.type in PLAIN_TYPES]
    rules.append(Rule(Names(name for name in plain if _purpose(name)[0] == "embedding"), None))
    return Quantization(
        method="gguf",
        label=file.label,
        dtype=_plain_dtype(file),
        default=_format(default) if default else None,
        rules=tuple(rules),
        covers_towers=True,
        covers_head=True,
        covers_embedding=True,
    )


def _format(type_name: str) -> Format:
    return Format(kind="bits", bits=TYPE_BITS[type_name], label=type_name)


def _module(tensor_name: str) -> str:
    return tensor_name.removesuffix(".weight")


def _plain_dtype(file: GgufFile) -> str:
    """The 16-bit type of the unpacked tensors; float32 only where nothing else is in the file."""
    types = file.bytes_by_type
    if types.keys() == {"F32"}:
        return "float32"
    return "bfloat16" if types.get("BF16", 0) > types.get("F16", 0) else "float16"


def _vocab_size(file: GgufFile, config: Config) -> int:
    embedding = next((tensor for tensor in file.tensors if tensor.name == "token_embd.weight"), None)
    if embedding is not None and embedding.shape:
        return embedding.shape[0]
    return config.integer("vocab_size", default=0)


def _weights(tensors: Sequence[GgufTensor], config: Config) -> tuple[Weight, ...]:
    """Tensors of one name, shape and plain type, of all the layers that have it, as one weight."""
    groups: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
    for tensor in tensors:
        found = _LAYER.fullmatch(tensor.name)
        template = f"blk.{{}}.{found[2]}" if found else tensor.name
        key = (_module(template), tensor.shape, PLAIN_TYPES.get(tensor.type, ""))
        groups.setdefault(key, []).extend([int(found[1])] if found else [])
    served_layers = config.layers("block_count") - config.integer("nextn_predict_layers", default=0)
    sizes = _Sizes(
        served_layers=served_layers,
        experts_per_token=config.integer("expert_used_count", default=0),
        kv_heads=max(_kv_heads(config, config.layers("block_count")), default=0),
    )
    return tuple(
        _weight(path, shape, dtype, tuple(numbers), sizes) for (path, shape, dtype), numbers in groups.items()
    )


class _Sizes(NamedTuple):
    served_layers: int
    experts_per_token: int
    kv_heads: int


def _weight(path: str, shape: tuple[int, ...], dtype: str, layers: tuple[int, ...], sizes: _Sizes) -> Weight:
    part, shard = _purpose(path)
    copies, active = 1, None
    if part == "experts" and "_exps" in path and len(shape) >= 2:
        copies, shape, active = shape[0], shape[1:], sizes.experts_per_token or None
    return Weight(
        path=path,
        shape=shape,
        part=part,
        shard=shard,
        layers=layers,
        copies=copies,
        active_copies=active,
        heads=sizes.kv_heads if shard == "kv" else 0,
        dtype=dtype,
        linear=not dtype and part != "embedding",
        served=not layers or layers[0] < sizes.served_layers,
    )


_PURPOSES: tuple[tuple[str, Part, Shard], ...] = (
    (r"token_embd|per_layer_token_embd|position_embd|token_types", "embedding", "vocab"),
    (r"output(\.bias)?", "lm_head", "vocab"),
    (r".*nextn\..*", "mtp", "replicated"),
    (r"v\..*|a\..*", "vision", "replicated"),
    (r"mm\..*", "projector", "replicated"),
    (r".*norm(_\w+)?(\.bias)?", "norm", "replicated"),
    (r".*(ffn_gate_inp|exp_probs_b).*", "router", "replicated"),
    (r".*(ffn_down)_(exps|chexps).*", "experts", "row"),
    (r".*_(exps|chexps).*", "experts", "column"),
    (r".*(ssm_|shortconv|time_mix|wkv).*", "state", "replicated"),
    (r".*attn_(output|out).*", "attention", "row"),
    (r".*attn_(k|v)(\.bias)?", "attention", "kv"),
    (r".*(attn_|indexer).*", "attention", "column"),
    (r".*ffn_down.*", "mlp", "row"),
    (r".*(ffn_|channel_mix).*", "mlp", "column"),
)
"""What a tensor is for, by its name; the first that matches. Names: `llama-arch.cpp` LLM_TENSOR_NAMES."""


def _purpose(path: str) -> tuple[Part, Shard]:
    for pattern, part, shard in _PURPOSES:
        if re.fullmatch(pattern, path):
            return part, shard
    return "other", "replicated"


def _names_per_layer(tensors: Sequence[GgufTensor], layers: int) -> list[set[str]]:
    names: list[set[str]] = [set() for _ in range(layers)]
    for tensor in tensors:
        found = _LAYER.fullmatch(tensor.name)
        if found and int(found[1]) < layers:
            names[int(found[1])].add(_module(found[2]))
    return names


def _for_layers(config: Config, key: str, layers: int, *, default: int) -> tuple[int, ...]:
    """A size that is one number for all layers or a list with one for each."""
    value = config.values.get(key)
    if not isinstance(value, tuple):
        return (config.integer(key, default=default),) * layers
    sizes = Config({key: list(value)}, config.address).integers(key)
    if len(sizes) < layers or min(sizes, default=0) < 0:
        raise ConfigError(f"`{config.where(key)}` has {len(sizes)} entries for {layers} layers")
    return sizes[:layers]


def _caches(config: Config, name: str, layers: int, per_layer: list[set[str]]) -> tuple[Cache, ...]:
    own_layers = layers - config.integer("nextn_predict_layers", default=0)
    unstated = max(0, own_layers - GEMMA3N_OWN_LAYERS) if name == "gemma3n" else 0
    shared = config.integer("attention.shared_kv_layers", default=unstated)
    recurrent = [index for index in range(own_layers) if _is_recurrent(per_layer[index])]
    kv_heads = _kv_heads(config, layers)
    interval = _full_interval(config, name, recurrent, own_layers)
    attending = [
        index
        for index in range(max(0, own_layers - shared))
        if kv_heads[index] and _attends(per_layer[index]) and (not interval or (index + 1) % interval == 0)
    ]
    caches: list[Cache] = []
    if attending:
        caches += _attention_caches(config, name, layers, kv_heads, attending)
    if recurrent:
        state_layers = [index for index in recurrent if not interval or (index + 1) % interval]
        caches.append(_state_cache(config, name, len(state_layers), per_layer[recurrent[0]]))
    return tuple(caches)


def _kv_heads(config: Config, layers: int) -> tuple[int, ...]:
    heads = _for_layers(config, "attention.head_count", layers, default=0)
    if "attention.head_count_kv" not in config:
        return heads
    return _for_layers(config, "attention.head_count_kv", layers, default=0)


def _is_recurrent(names: set[str]) -> bool:
    return any(name.startswith(_STATE_MARKS) for name in names)


def _attends(names: set[str]) -> bool:
    separate = {"attn_k", "attn_kv_a_mqa", "attn_kv_b", "attn_k_b", "attn_kv"}
    return bool(names & separate) or ("attn_qkv" in names and not _is_recurrent(names))


def _full_interval(config: Config, name: str, recurrent: list[int], layers: int) -> int:
    """Every n-th layer attends, the rest are recurrent; 0 where the tensors alone decide."""
    interval = config.integer("full_attention_interval", default=0)
    listed = "attention.recurrent_layers" in config  # then the tensors tell the same
    if interval or listed or name not in {"qwen3next", "qwen35", "qwen35moe"}:
        return 0 if listed else interval
    return DEFAULT_FULL_INTERVAL if recurrent and len(recurrent) < layers else 0


def _attention_caches(
    config: Config, name: str, layers: int, kv_heads: tuple[int, ...], attending: list[int]
) -> list[Cache]:
    latent = config.integer("attention.kv_lora_rank", default=0)
    if latent and ("attention.key_length_mla" in config or set(kv_heads) <= {0, 1}):
        rope = config.integer("rope.dimension_count", default=64)
        return [LatentCache(layers=len(attending), latent_dim=latent, rope_dim=rope)]
    sizes = _head_sizes(config, layers)
    window = _window(config, name)
    slides = _slides(config, name, layers) if window else [False] * layers
    groups: dict[AttentionCache, int] = {}
    for index in attending:
        sliding = slides[index]
        chunked = sliding and name == "llama4"
        kind = AttentionCache(
            layers=0,
            kv_heads=kv_heads[index],
            key_dim=sizes[sliding][0],
            value_dim=sizes[sliding][1],
            window=window if sliding and not chunked else 0,
            chunk=window if chunked else 0,
        )
        groups[kind] = groups.get(kind, 0) + 1
    return [_of_layers(kind, count) for kind, count in groups.items()]


def _of_layers(kind: AttentionCache, count: int) -> AttentionCache:
    return AttentionCache(
        layers=count,
        kv_heads=kind.kv_heads,
        key_dim=kind.key_dim,
        value_dim=kind.value_dim,
        window=kind.window,
        chunk=kind.chunk,
    )


def _head_sizes(config: Config, layers: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Key and value sizes of a head: of layers that see all tokens, and of those that see a window."""
    heads = max(_for_layers(config, "attention.head_count", layers, default=0), default=0)
    quotient = config.integer("embedding_length", least=1) // heads if heads else 0
    key_dim = config.integer("attention.key_length", default=quotient)
    value_dim = config.integer("attention.value_length", default=quotient)
    sliding_key = config.integer("attention.key_length_swa", default=key_dim)
    return (key_dim, value_dim), (
        sliding_key,
        config.integer("attention.value_length_swa", default=value_dim),
    )


def _window(config: Config, name: str) -> int:
    exaone = name == "exaone4" and config.layers("block_count") != EXAONE4_WITH_WINDOWS_LAYERS
    if name in WINDOW_IGNORED or exaone:
        return 0
    if name == "llama4":
        return LLAMA4_CHUNK_TOKENS
    return config.integer("attention.sliding_window", default=DEFAULT_WINDOWS.get(name, 0))


def _slides(config: Config, name: str, layers: int) -> list[bool]:
    """Which layers see a window alone. Source: `llama-hparams.cpp` set_swa_pattern."""
    pattern = config.values.get("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and pattern:
        return [bool(pattern[index % len(pattern)]) for index in range(layers)]
    period = WINDOW_PERIODS.get(name, 1)
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        period = max(0, pattern)
    if period == 0:
        return [True] * layers
    full = 0 if name in FULL_LAYER_FIRST else period - 1
    return [index % period != full for index in range(layers)]


def _state_cache(config: Config, name: str, layers: int, names: set[str]) -> StateCache:
    """Source: `llama-hparams.cpp` n_embd_r and n_embd_s; llama.cpp keeps both in float32."""
    hidden = config.integer("embedding_length", default=0)
    kernel = config.integer("ssm.conv_kernel", default=0)
    if "shortconv.l_cache" in config:
        taps = config.integer("shortconv.l_cache", least=1)
        return _state("shortconv", layers, hidden * (taps - 1), 0)
    if "wkv.head_size" in config:
        shifts = config.integer("token_shift_count", default=2)
        return _state("lightning", layers, shifts * hidden, hidden * config.integer("wkv.head_size"))
    if "kda.head_dim" in config:
        size = config.integer("kda.head_dim", least=1)
        heads = max(_for_layers(config, "attention.head_count", config.layers("block_count"), default=0))
        return _state("kda", layers, 3 * max(0, kernel - 1) * heads * size, size * size * heads)
    inner, state = config.integer("ssm.inner_size", default=0), config.integer("ssm.state_size", default=0)
    groups = config.integer("ssm.group_count", default=0)
    kind = "gdn" if name.startswith("qwen3") else ("mamba1" if "ssm_x" in names else "mamba2")
    return _state(kind, layers, max(0, kernel - 1) * (inner + 2 * groups * state), state * inner)


def _state(kind: str, layers: int, conv_elements: int, state_elements: int) -> StateCache:
    sizes = (("conv", conv_elements), ("state", state_elements))
    tensors = tuple(StateTensor(name=name, shape=(size,), dtype="float32") for name, size in sizes if size)
    return StateCache(kind=kind, layers=layers, tensors=tensors)  # type: ignore[arg-type]
