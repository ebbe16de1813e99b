"""llama.cpp with all layers on the GPU: tensors as the GGUF stores them, caches, compute buffers.

The cache is allocated whole at start: `--ctx-size` tokens shared by the slots of `--parallel`, padded to 256
(`src/llama-context.cpp`); sliding layers keep their window and one micro batch per slot
(`src/llama-kv-cache-iswa.cpp`); recurrent layers one float32 state per slot
(`src/llama-memory-recurrent.cpp`). The token embedding stays in the host's memory (`src/llama-model.cpp`)
unless it is the output projection too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong.memory.engines import _facts
from soong.memory.engines._constants import engine_tables, rules
from soong.memory.footprint import Footprint
from soong.memory.kv_cache import kv_bytes_per_token, state_bytes_per_sequence

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel, Workload

NAME = "llama.cpp"
FP32_BYTES = 4
F16_BYTES = 2
GIB = 1 << 30
KV_TYPES = {"auto": "float16", "bfloat16": "bfloat16", "float16": "float16", "fp8": "int8"}
"""llama.cpp has no FP8 cache; its 8-bit type is q8_0, 34 bytes for 32 numbers."""

Q8_0_NUMERATOR, Q8_0_DENOMINATOR = 34, 32

_gathered: dict[tuple[Any, ...], _facts.Facts] = {}


def footprint(model: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings) -> Footprint:
    """One GPU's memory under llama.cpp, every layer offloaded; several GPUs share the layers evenly.

    Args:
        model: what is served.
        gpu: one of the GPUs.
        workload: what must fit.
        settings: engine, version and flags.

    Returns:
        The footprint; `starts` is False where the buffers exceed the GPU.
    """
    kv_type = KV_TYPES.get(workload.kv_dtype, "float16")
    gpus = settings.tensor_parallel * settings.pipeline_parallel
    key = (model.key, kv_type, settings.version, gpu.compute_capability)
    facts = _facts.kept(_gathered, key, lambda: _gather(model, gpu, settings, kv_type))
    constants = rules(NAME, settings.version)
    weights = -(-_weights_bytes(model, facts) // gpus)
    runtime = int(constants["driver_context_bytes"])
    activations = _compute_buffer_bytes(facts, constants, workload)
    per_sequence = _cache_bytes(facts, constants, workload.context_tokens)
    state = -(-sum(kind.layers * kind.state_bytes for kind in facts.kinds) * workload.sequences // gpus)
    pool = -(-per_sequence * workload.sequences // gpus)
    free = gpu.memory_bytes - runtime - weights - activations - pool - state
    need = gpu.memory_bytes - free
    room = free + pool
    one = -(-per_sequence // gpus)
    refusal = "" if free >= 0 else f"out of memory: {-free / GIB:.2f} GiB more than the GPU has"
    limit = model.architecture.context_limit_tokens
    per_token = kv_bytes_per_token(facts.kinds)
    longest = room * gpus // per_token if per_token else limit
    return Footprint(
        total_bytes=gpu.memory_bytes,
        runtime_bytes=runtime,
        weights_bytes=weights,
        kv_pool_bytes=pool,
        state_bytes=state,
        activations_bytes=activations,
        cuda_graphs_bytes=0,
        free_bytes=free,
        memory_fraction=None,
        kv_pool_tokens=None if refusal else _padded(workload.context_tokens, constants) * workload.sequences,
        max_concurrency=None,
        kv_bytes_per_token=-(-per_token // gpus),
        state_bytes_per_sequence=-(-state_bytes_per_sequence(facts.kinds) // gpus),
        workload_kv_bytes=pool + state,
        need_bytes=need,
        max_context_tokens=None if longest is None else max(0, min(longest, limit or longest)),
        max_sequences=max(0, room // one) if one else None,
        starts=not refusal,
        refusal=refusal,
        uncertainty_bytes=_uncertainty(runtime, weights, activations),
        pool_uncertainty_bytes=0,
    )


def _gather(model: ServedModel, gpu: Gpu, settings: EngineSettings, kv_type: str) -> _facts.Facts:
    from msgspec.structs import replace

    alone = replace(settings, tensor_parallel=1, pipeline_parallel=1)
    facts = _facts.gather(model, gpu, alone, kv_type)
    return facts._replace(kinds=tuple(_as_stored(kind, kv_type) for kind in facts.kinds))


def _as_stored(kind: Any, kv_type: str) -> Any:
    """q8_0 adds a 16-bit scale to every 32 numbers."""
    if kv_type != "int8":
        return kind
    return kind._replace(token_bytes=kind.token_bytes * Q8_0_NUMERATOR // Q8_0_DENOMINATOR)


def _weights_bytes(model: ServedModel, facts: _facts.Facts) -> int:
    """Tensors on the GPU: a GGUF's own sizes, less the embedding where it stands apart."""
    if model.weights_bytes is None or model.weights_basis != "headers":
        return facts.weights_bytes - facts.embedding_bytes
    parameters = model.architecture.parameters
    if not parameters:
        return model.weights_bytes
    share = facts.embedding_bytes / F16_BYTES / parameters
    return int(model.weights_bytes * (1 - share))


def _padded(tokens: int, constants: dict[str, Any]) -> int:
    step = int(constants["cell_padding_tokens"])
    return -(-tokens // step) * step


def _cache_bytes(facts: _facts.Facts, constants: dict[str, Any], context_tokens: int) -> int:
    """Keys and values of one slot, all layers."""
    cells = _padded(context_tokens, constants)
    total = 0
    for kind in facts.kinds:
        kept = cells // kind.ratio
        if kind.window:
            kept = min(cells, _padded(kind.window + constants["micro_batch_tokens"], constants))
        total += kind.layers * kind.token_bytes * kept
    return total


def _compute_buffer_bytes(facts: _facts.Facts, constants: dict[str, Any], workload: Workload) -> int:
    """The graph's scratch for one micro batch: float32 logits, the widest layer, and the attention mask."""
    tokens = constants["micro_batch_tokens"]
    logits = tokens * facts.vocab_size * FP32_BYTES
    width = constants["residual_copies"] * facts.hidden_size + constants["mlp_copies"] * facts.mlp_width
    layer = tokens * width * FP32_BYTES
    mask = tokens * _padded(workload.context_tokens, constants) * F16_BYTES
    return int(max(logits, layer) + mask)


def _uncertainty(runtime: int, weights: int, activations: int) -> int:
    table = engine_tables()[NAME]["uncertainty"]
    return int(
        table["activations_fraction"] * activations
        + table["runtime_fraction"] * runtime
        + table["weights_fraction"] * weights
        + table["unseen_gpu_bytes"]
    )


def launch_argv(model_name: str, workload: Workload, settings: EngineSettings) -> tuple[str, ...]:
    """The command that starts the server as it was planned. A name with one slash is a Hub repository."""
    source = "--hf-repo" if model_name.count("/") == 1 and not model_name.endswith(".gguf") else "--model"
    argv = ["llama-server", source, model_name, "--n-gpu-layers", "999"]
    argv += [
        "--ctx-size",
        str(workload.context_tokens * workload.sequences),
        "--parallel",
        str(workload.sequences),
    ]
    if KV_TYPES.get(workload.kv_dtype) == "int8":
        argv += ["--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--flash-attn", "on"]
    if settings.tensor_parallel * settings.pipeline_parallel > 1:
        argv += ["--split-mode", "layer"]
    return tuple(argv)
