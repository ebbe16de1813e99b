"""What the engine models need to know of a model, gathered once per model, tensor parallel and cache type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from soong.memory.dividing import decoder_layers
from soong.memory.kernel_layouts import ADA, BLACKWELL, HOPPER, SMALL_BLACKWELL
from soong.memory.kv_cache import LayerKind, layer_kinds, resolve_kv_dtype
from soong.memory.weights import as_loaded, batch_buffer_bytes, weights_per_gpu
from soong.models.answers import keeps_nothing, writes_text
from soong.models.architecture import AttentionCache, LatentCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel, Workload
    from soong.memory.weights import WeightShare
    from soong.models.architecture import Architecture

MOST_PREPARED = 4096
"""Prepared models kept in memory; a batch over a whole catalogue stays below it."""

MOST_TERMS = 32
"""Divisions of memory kept for each prepared model: one for each size of GPU, batch and fraction tried."""

VOCABULARY_PADDING = 64
"""vLLM 0.33 `layers/vocab_parallel_embedding.py DEFAULT_VOCAB_PADDING_SIZE`; SGLang has the same."""


Prepared = TypeVar("Prepared")


class Facts(msgspec.Struct, frozen=True, gc=False):
    """Sizes of one GPU's share.

    weights_bytes: as the engine prints it after loading. tensor_bytes: the tensors of it alone.
    batch_buffer_bytes: what is allocated beside them for each token of a batch, and printed with them.
    compiled_embedding_bytes: this GPU's rows of the token embedding where a compiled model looks tokens up itself;
    models that take images are handed embedded tokens.
    layers: with a cache of their own; idle_layers: that read another's. packed_experts: a mixture's, in 4 bits.
    attention_width: query heads × the size of a value, of this GPU. mlp_width: widest MLP's intermediate
    size.
    expert_width: an expert's intermediate size, of this GPU; experts_per_token: 0 for dense models and for mixtures
    whose kernel keeps no workspace (MXFP4).
    latent_width: numbers that one latent vector unpacks to, of this GPU's heads. name: the architecture's class.
    residual_width: of all residual streams side by side; the hidden size where there is one.
    writes_text: not vectors or scores. whole_prompts: a pass reads prompts whole, as encoders must.
    vision_shape, whole_items: as the architecture has them.
    vision_...: of the vision tower, whole: hidden size, what its MLP takes in (gate and up) and gives back.
    """

    weights_bytes: int
    tensor_bytes: int
    embedding_bytes: int
    kinds: tuple[LayerKind, ...]
    layers: int
    hidden_size: int
    vocab_size: int
    attention_width: int
    mlp_width: int
    expert_width: int
    experts_per_token: int
    mixture: bool
    multimodal: bool
    vision_parameters: int
    name: str = ""
    model_type: str = ""
    quantized: bool = False
    latent_width: int = 0
    vision_hidden_size: int = 0
    vision_mlp_rows: int = 0
    vision_mlp_width: int = 0
    whole_items: bool = False
    vision_shape: tuple[int, int] | None = None
    quantization_method: str = "none"
    batch_buffer_bytes: int = 0
    compiled_embedding_bytes: int = 0
    residual_width: int = 0
    idle_layers: int = 0
    packed_experts: bool = False
    writes_text: bool = True
    whole_prompts: bool = False

    @property
    def graph_layers(self) -> int:
        """Layers that a CUDA graph runs through, with a cache of their own or not."""
        return self.layers + self.idle_layers


def kept(
    store: dict[tuple[Any, ...], Prepared], key: tuple[Any, ...], make: Callable[[], Prepared]
) -> Prepared:
    """The value stored under `key`, made on first use; the store is emptied when it grows too large."""
    found = store.get(key)
    if found is None:
        if len(store) >= MOST_PREPARED:
            store.clear()
        found = store[key] = make()
    return found


def kv_dtype(model: ServedModel, workload: Workload, settings: EngineSettings) -> str:
    """The type of keys and values: asked, else what the repository asks, else the type the model runs in.

    Models stored in 32 bits run in 16 by default: vLLM 0.33 `config/model.py _resolve_auto_dtype`, SGLang the same.
    """
    own = model.architecture.dtype if settings.dtype == "auto" else settings.dtype
    if own == "float32" and settings.dtype == "auto":
        own = "bfloat16"
    loaded = as_loaded(model.quantization, settings.name)
    asks = model.kv_dtype or loaded.kv_cache_dtype if loaded is model.quantization else ""
    return resolve_kv_dtype(workload.kv_dtype, asks, own)


def raw_latent(facts: Facts) -> Facts:
    """The facts with FP8 entries of sparse MLA without scales, as TensorRT-LLM's kernels keep them."""
    kinds = tuple(
        msgspec.structs.replace(kind, token_bytes=kind.shape[1]) if kind.name == "latent" else kind
        for kind in facts.kinds
    )
    return msgspec.structs.replace(facts, kinds=kinds)


def gather(model: ServedModel, gpu: Gpu, settings: EngineSettings, kv_type: str) -> Facts:
    """The facts of a model on one of `tensor_parallel` GPUs (and the fullest pipeline stage)."""
    architecture = model.architecture
    tensor_parallel, stages = settings.tensor_parallel, settings.pipeline_parallel
    kinds = layer_kinds(architecture, tensor_parallel=tensor_parallel, kv_dtype=kv_type)
    if stages > 1:
        kinds = tuple(msgspec.structs.replace(kind, layers=-(-kind.layers // stages)) for kind in kinds)
    share = _share(model, gpu, settings)
    expert_width, per_token = _experts(model, gpu)
    vision_hidden_size, vision_mlp_rows, vision_mlp_width = _vision_tower(architecture)
    vocab_size = -(-architecture.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
    embedding = 2 * vocab_size // tensor_parallel * architecture.hidden_size
    return Facts(
        weights_bytes=share.loaded_bytes,
        tensor_bytes=share.total_bytes,
        batch_buffer_bytes=batch_buffer_bytes(architecture, settings.name, settings.version),
        compiled_embedding_bytes=0 if architecture.multimodal else embedding,
        embedding_bytes=_embedding_bytes(architecture),
        kinds=kinds,
        layers=sum(kind.layers for kind in kinds if kind.name not in {"indexer", "compressed"}),
        idle_layers=_idle_layers(architecture, stages),
        packed_experts=_packed_experts(model),
        hidden_size=architecture.hidden_size,
        vocab_size=vocab_size,
        attention_width=_attention_width(architecture, tensor_parallel),
        mlp_width=-(-architecture.intermediate_size // tensor_parallel),
        expert_width=-(-expert_width // (1 if settings.expert_parallel else tensor_parallel)),
        experts_per_token=per_token,
        mixture=architecture.experts > 0,
        multimodal=architecture.multimodal,
        vision_parameters=sum(w.elements * w.count for w in architecture.weights if w.part == "vision"),
        name=architecture.name,
        model_type=architecture.model_type,
        quantized=model.quantization.method != "none",
        latent_width=-(-_latent_width(architecture) // tensor_parallel),
        vision_hidden_size=vision_hidden_size,
        vision_mlp_rows=vision_mlp_rows,
        vision_mlp_width=vision_mlp_width,
        whole_items=architecture.whole_items,
        vision_shape=architecture.vision_shape,
        quantization_method=model.quantization.method,
        residual_width=_residual_width(architecture),
        writes_text=writes_text(architecture),
        whole_prompts=not kinds or any(kind.name == "cross" for kind in kinds),
    )


_shares: dict[tuple[Any, ...], WeightShare] = {}


def _share(model: ServedModel, gpu: Gpu, settings: EngineSettings) -> WeightShare:
    """The weights of one GPU; kernels lay packed weights out by the GPU's generation, plain ones are alike on all."""
    capability = gpu.compute_capability or HOPPER
    generation = (
        sum(capability >= first for first in (ADA, HOPPER, BLACKWELL, SMALL_BLACKWELL))
        if model.quantization.formats
        else 0
    )
    key = (
        model.key, settings.name, settings.version, settings.tensor_parallel, settings.pipeline_parallel, generation,
        gpu.vendor, settings.expert_parallel,
    )  # fmt: skip
    return kept(
        _shares,
        key,
        lambda: weights_per_gpu(
            model.architecture,
            model.quantization,
            tensor_parallel=settings.tensor_parallel,
            engine=settings.name,
            engine_version=settings.version,
            compute_capability=gpu.compute_capability,
            pipeline_parallel=settings.pipeline_parallel,
            vendor=gpu.vendor,
            expert_parallel=settings.expert_parallel,
        ),
    )


def _idle_layers(architecture: Architecture, stages: int) -> int:
    if keeps_nothing(architecture):
        return decoder_layers(architecture)
    idle = sum(cache.idle_layers for cache in architecture.caches if isinstance(cache, AttentionCache))
    return -(-idle // stages)


def _packed_experts(model: ServedModel) -> bool:
    return model.architecture.experts > 0 and any(
        form.kind in {"packed", "gptq", "awq"} for form in model.quantization.formats
    )


def _latent_width(architecture: Architecture) -> int:
    """Keys and values of all heads that MLA's `kv_b_proj` unpacks from one latent vector."""
    return max((w.shape[0] for w in architecture.weights if w.path.endswith("kv_b_proj")), default=0)


HYPER_CONNECTION_PATHS = (".hc_", "hyper_connection.")
"""In the paths of the weights that mix several residual streams."""


def _residual_width(architecture: Architecture) -> int:
    """All residual streams side by side: what the weights of hyper-connections read."""
    widths = (
        weight.shape[1]
        for weight in architecture.weights
        if len(weight.shape) > 1 and any(word in weight.path for word in HYPER_CONNECTION_PATHS)
    )
    return max(widths, default=architecture.hidden_size)


def _vision_tower(architecture: Architecture) -> tuple[int, int, int]:
    """Hidden size of the tower's blocks, numbers an MLP makes of a row (gate and up), and those it gives back."""
    blocks = [w for w in architecture.weights if w.part == "vision" and w.linear and len(w.layers) > 1]
    hidden = min((side for weight in blocks for side in weight.shape), default=0)
    ups = {w.path: w.shape[0] for w in blocks if w.shape[1] == hidden and _in_mlp(w.path)}
    downs = [w.shape[1] for w in blocks if w.shape[0] == hidden and _in_mlp(w.path)]
    return hidden, sum(ups.values()), max(downs, default=0)


def _in_mlp(path: str) -> bool:
    return "mlp" in path or "feed_forward" in path


def _embedding_bytes(architecture: Architecture) -> int:
    """The token embedding where it stands apart from the output projection, in 16 bits."""
    apart = any(weight.part == "lm_head" for weight in architecture.weights)
    return 2 * sum(w.elements for w in architecture.weights if w.part == "embedding") if apart else 0


def _experts(model: ServedModel, gpu: Gpu) -> tuple[int, int]:
    """An expert's intermediate size and the experts per token; zeros where the kernel keeps no workspace.

    MXFP4 runs in Triton or in TensorRT-LLM's kernels on Hopper and data-centre Blackwell, in Marlin's elsewhere (vLLM
    0.33 `layers/fused_moe/oracle/mxfp4.py`); logs of gpt-oss on H100 show none, Marlin's is like that of all others.
    """
    major = (gpu.compute_capability or (9, 0))[0]
    if major in {9, 10} and any(form.kind == "mxfp4" for form in model.quantization.formats):
        return 0, 0
    rows = (
        weight.shape[-1]
        for weight in model.architecture.weights
        if weight.part == "experts" and weight.shard == "row"
    )
    width = max(rows, default=0)
    return (width, model.architecture.experts_per_token) if width else (0, 0)


def _attention_width(architecture: Architecture, tensor_parallel: int) -> int:
    heads = -(-architecture.attention_heads // tensor_parallel)
    widths = [cache.value_dim for cache in architecture.caches if isinstance(cache, AttentionCache)]
    widths += [cache.latent_dim for cache in architecture.caches if isinstance(cache, LatentCache)]
    return heads * max(widths, default=0)
