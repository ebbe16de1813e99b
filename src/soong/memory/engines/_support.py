"""Whether an engine can run a number format and architecture on a GPU at all, and the reason when not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from soong.memory import towers
from soong.memory.engines import _registry
from soong.memory.engines._constants import engine_tables, version_tuple
from soong.memory.kernel_layouts import BLACKWELL, HOPPER
from soong.models.architecture import CompressedCache, LatentCache

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel, Workload
    from soong.models.quantization import Format, Quantization

Capability = tuple[int, int]

BFLOAT16_LEAST: Capability = (8, 0)
SPARSE_LATENT_LEAST: Capability = (9, 0)
ACT_ORDER_UNTIL = (0, 30)
"""From this version vLLM does not sort groups by activation: `quantization/utils/gptq_utils.py`,
`compressed_tensors/compressed_tensors.py` of 0.30.0; those of 0.29.0 do."""

MARLIN_GPTQ = frozenset({(4, True), (8, True)})
"""Bits, and whether zero points say the same, of TYPE_MAP: vLLM 0.22 `quantization/auto_gptq.py`, which is all of GPTQ
from then on, SGLang 0.5.20 `quantization/gptq/gptq.py`."""

PLAIN_GPTQ_BITS = frozenset({2, 3, 4, 8})
"""Of the kernel before: vLLM 0.21 `quantization/gptq.py`, SGLang 0.5.19."""

MARLIN_GPTQ_SINCE = {"vllm": (0, 22), "sglang": (0, 5, 20)}

FLOAT16_OVERFLOWS = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
"""Model types that overflow in float16: vLLM 0.33 `config/model.py _FLOAT16_NOT_SUPPORTED_MODELS`."""


class _Rule(Struct, frozen=True, gc=False):
    """The least compute capability for a format, and the file that says so."""

    least: Capability
    source: str


_LAYERS = "layers/quantization"
_VLLM_FORMATS: dict[str, _Rule] = {
    "fp8_tensor": _Rule((7, 5), f"vLLM {_LAYERS}/fp8.py"),
    "fp8_channel": _Rule(
        (7, 5), f"vLLM {_LAYERS}/compressed_tensors/schemes/compressed_tensors_w8a16_fp8.py"
    ),
    "fp8_block": _Rule((7, 5), f"vLLM {_LAYERS}/fp8.py"),
    "mxfp8": _Rule((7, 5), f"vLLM {_LAYERS}/compressed_tensors/schemes/compressed_tensors_w8a8_mxfp8.py"),
    "int8_channel": _Rule(
        (7, 5), f"vLLM {_LAYERS}/compressed_tensors/schemes/compressed_tensors_w8a8_int8.py"
    ),
    "packed": _Rule((7, 5), f"vLLM {_LAYERS}/compressed_tensors/schemes/compressed_tensors_wNa16.py"),
    "gptq": _Rule((6, 0), f"vLLM {_LAYERS}/auto_gptq.py"),
    "awq": _Rule((7, 5), f"vLLM {_LAYERS}/auto_awq.py"),
    "nvfp4": _Rule((7, 5), f"vLLM {_LAYERS}/modelopt.py"),
    "mxfp4": _Rule((8, 0), f"vLLM {_LAYERS}/mxfp4.py"),
    "bnb_4bit": _Rule((7, 0), f"vLLM {_LAYERS}/bitsandbytes.py"),
    "bnb_8bit": _Rule((7, 0), f"vLLM {_LAYERS}/bitsandbytes.py"),
    "torchao": _Rule((7, 5), f"vLLM {_LAYERS}/torchao.py"),
}
_VLLM_STRICTER: tuple[tuple[tuple[int, ...], dict[str, _Rule]], ...] = (
    (
        (0, 12),
        {
            "packed": _Rule(
                (8, 0), f"vLLM 0.11 {_LAYERS}/compressed_tensors/schemes/compressed_tensors_wNa16.py"
            )
        },
    ),
    (
        (0, 14),
        {
            "fp8_tensor": _Rule((8, 0), f"vLLM 0.13 {_LAYERS}/fp8.py"),
            "fp8_block": _Rule((8, 0), f"vLLM 0.13 {_LAYERS}/fp8.py"),
            "nvfp4": _Rule((8, 0), f"vLLM 0.13 {_LAYERS}/modelopt.py"),
        },
    ),
    (
        (0, 16),
        {
            "fp8_channel": _Rule(
                (8, 0), f"vLLM 0.15 {_LAYERS}/compressed_tensors/schemes/compressed_tensors_w8a16_fp8.py"
            )
        },
    ),
)
"""What older versions ask, each up to the first that may ask less: the newest read that asks 8.0 is 0.11.0, 0.13.0 and
0.15.0; 0.12.0, 0.15.0 and 0.17.0 ask 7.5."""

_SGLANG_FORMATS: dict[str, _Rule] = {
    "fp8_tensor": _Rule((8, 0), f"SGLang {_LAYERS}/fp8.py"),
    "fp8_channel": _Rule(
        (8, 0), f"SGLang {_LAYERS}/compressed_tensors/schemes/compressed_tensors_w8a16_fp8.py"
    ),
    "fp8_block": _Rule((8, 0), f"SGLang {_LAYERS}/fp8.py"),
    "mxfp8": _Rule((10, 0), f"SGLang {_LAYERS}/fp8.py"),
    "int8_channel": _Rule(
        (8, 0), f"SGLang {_LAYERS}/compressed_tensors/schemes/compressed_tensors_w8a8_int8.py"
    ),
    "packed": _Rule((8, 0), f"SGLang {_LAYERS}/compressed_tensors/schemes/compressed_tensors_wNa16.py"),
    "gptq": _Rule((8, 0), f"SGLang {_LAYERS}/gptq/gptq.py"),
    "awq": _Rule((8, 0), f"SGLang {_LAYERS}/awq/awq.py"),
    "nvfp4": _Rule((8, 0), f"SGLang {_LAYERS}/modelopt_quant.py"),
    "mxfp4": _Rule((8, 0), f"SGLang {_LAYERS}/mxfp4.py"),
    "bnb_4bit": _Rule((7, 0), f"SGLang {_LAYERS}/bitsandbytes.py"),
    "bnb_8bit": _Rule((7, 0), f"SGLang {_LAYERS}/bitsandbytes.py"),
}

VLLM_LEAST: Capability = (7, 5)
"""What vLLM 0.33 asks of a GPU (its installation page), and SGLang asked before 0.5."""

VOLTA_UNTIL = (0, 20)
"""vLLM's installation page asks compute capability 7.0 (0.14), later 7.5. A model in float16 starts on a V100 with
0.18; 0.20 is the first built with CUDA 13, whose compiler has no Volta."""


SGLANG_AMPERE_SINCE = (0, 5)
"""The version whose kernels come without an image for Turing: announced in issue 6006 of sgl-project/sglang, and
seen on T4 (issues 17333, 24224), RTX 2080 (24302) and RTX 2080 Ti (38515). Its own check still lets 7.5 pass.
"""


def reason_against(model: ServedModel, gpu: Gpu, settings: EngineSettings) -> str | None:
    """Why the engine cannot run this model on this GPU, or None when it can.

    A GPU whose compute capability is not known is given the benefit of the doubt.
    """
    heads = model.architecture.attention_heads
    if heads and settings.name != "llama.cpp" and heads % settings.tensor_parallel:
        return f"{heads} attention heads do not divide among {settings.tensor_parallel} GPUs"
    if settings.expert_parallel:
        problem = _against_expert_parallel(model, gpu, settings)
        if problem:
            return problem
    if settings.name == "llama.cpp":
        return _against_llama_cpp(model, settings)
    if settings.text_only:
        problem = towers.reason_against(model.architecture, settings)
        if problem:
            return problem
    foreign = _registry.reason_against(model.architecture, settings) or _foreign_format(model, settings)
    if foreign:
        return foreign
    if gpu.vendor == "amd":
        return _against_amd(model, gpu)
    if gpu.compute_capability is None:
        return None
    return _against_capability(model, gpu.compute_capability, settings)


def against_flags(workload: Workload, settings: EngineSettings) -> str:
    """Why the engine's version refuses the flags themselves, on whatever GPU; empty where it does not.

    Source: vLLM `engine/arg_utils.py` of 0.10.1.1 and 0.10.2 (the flag of the cache's bytes), CacheDType in
    `config/cache.py` of 0.10.2, 0.11.0, 0.17.0 and 0.18.0, `config/scheduler.py` (passes and sequences) from 0.8.5 on.
    """
    if settings.name == "llama.cpp":
        foreign = workload.kv_dtype == "fp8_e5m2"
        return "llama.cpp keeps no cache in fp8_e5m2: --kv-dtype fp8 is its Q8_0" if foreign else ""
    if settings.name != "vllm":
        return ""
    version, named = version_tuple(settings.version), f"vllm {settings.version}"
    if settings.kv_cache_memory_bytes is not None and version < KV_CACHE_BYTES_SINCE:
        return f"{named} has no `--kv-cache-memory-bytes` (first in 0.10.2): leave out --kv-cache-memory"
    since = CACHE_WORDS_SINCE.get(workload.kv_dtype, ())
    if version < since:
        first = ".".join(map(str, since))
        return f"{named} has no KV cache in {workload.kv_dtype} (first in {first}): --kv-dtype auto"
    passes, sequences = settings.max_num_batched_tokens, settings.max_num_seqs
    if passes and sequences and passes < sequences:
        return f"{named} refuses passes of fewer tokens ({passes:,}) than sequences ({sequences:,})"
    return ""


KV_CACHE_BYTES_SINCE = (0, 10, 2)
CACHE_WORDS_SINCE: dict[str, tuple[int, ...]] = {"bfloat16": (0, 11, 0), "float16": (0, 18, 0)}


def _against_expert_parallel(model: ServedModel, gpu: Gpu, settings: EngineSettings) -> str:
    """What speaks against whole experts.

    Source: vLLM 0.33 `config/model.py` _verify_with_expert_parallelism; SGLang 0.5.23
    `arg_groups/model_overrides/gpt_oss.py` (no `triton_kernel` then) and `layers/quantization/mxfp4.py`.
    """
    if settings.name == "llama.cpp":
        return "llama.cpp has no expert parallelism: its GPUs hold layers (leave out `--expert-parallel`)"
    if not model.architecture.experts:
        return "a dense model has no experts to spread (leave out `--expert-parallel`)"
    packed = model.architecture.model_type == "gpt_oss" and any(
        form.kind == "mxfp4" for form in model.quantization.formats
    )
    unpacks = settings.tensor_parallel > 1 and packed and (gpu.compute_capability or HOPPER) < BLACKWELL
    if settings.name == "sglang" and unpacks:
        return "SGLang unpacks MXFP4 experts to 16 bits here once they stay whole (leave out `--expert-parallel`)"
    return ""


def _against_llama_cpp(model: ServedModel, settings: EngineSettings) -> str | None:
    for option, given in _foreign_options(settings):
        if given:
            return (
                f"llama.cpp has no `{option}`, whose memory is fixed by context and sequences: leave it out"
            )
    method, table = model.quantization.method, engine_tables()["llama.cpp"]
    name, read_up_to = model.architecture.name, table["default_version"]
    from_a_file = name == model.architecture.model_type
    if method == "gguf" and from_a_file and name not in table["architectures"]:
        newer = version_tuple(settings.version) > version_tuple(read_up_to)
        return None if newer else f"llama.cpp {settings.version} does not know the architecture `{name}`"
    if method in {"none", "gguf"} or model.quantization.assumed:
        return None
    return f"llama.cpp reads GGUF files, not {model.quantization.label} checkpoints"


def _foreign_options(settings: EngineSettings) -> tuple[tuple[str, object], ...]:
    """Options of the other engines that say nothing to llama.cpp, and whether they are given."""
    return (
        ("--kv-cache-memory", settings.kv_cache_memory_bytes),
        ("--memory-fraction", settings.memory_fraction),
        ("--max-num-seqs", settings.max_num_seqs),
        ("--enforce-eager", settings.enforce_eager),
    )


def _foreign_format(model: ServedModel, settings: EngineSettings) -> str:
    """Why the engine's version does not read the format of these files; empty where it does.

    A catalogue entry's word stands for files that are yet to be chosen: only what no file could mend is said of it.
    """
    quantization = model.quantization
    if quantization.assumed:
        return _against_assumed(model, settings)
    shown = f"{settings.name} {settings.version} does not read"
    if quantization.method != "none" and quantization.named:
        if not _registry.reads_method(settings.name, settings.version, quantization.method):
            return f"{shown} {_spelled(quantization)}"
        if quantization.method == "gguf":
            return ""
    algorithm = quantization.algorithm
    if algorithm and not _registry.reads_modelopt(settings.name, settings.version, algorithm):
        return f"{shown} ModelOpt's {algorithm}"
    if quantization.unread:
        return f"soong does not plan {_spelled(quantization)} checkpoints yet: how they are stored is not modelled"
    for form in quantization.formats:
        if form.kind not in _VLLM_FORMATS:
            return f"{shown} {form.label}"
        problem = _against_integers(form, quantization.method, settings)
        if problem:
            return f"{shown} {form.label} {problem}"
    return ""


def _against_assumed(model: ServedModel, settings: EngineSettings) -> str:
    """What no file of this format could mend: an engine that has lost bitsandbytes."""
    bitsandbytes = any(form.kind.startswith("bnb") for form in model.quantization.formats)
    if bitsandbytes and not _registry.reads_method(settings.name, settings.version, "bitsandbytes"):
        return f"{settings.name} {settings.version} does not read {model.quantization.label}"
    return ""


def _spelled(quantization: Quantization) -> str:
    """The format for people, by the method's own word where its label does not say it."""
    label, method = quantization.label, quantization.method
    if not quantization.formats and method != "gguf":
        return method
    return label if method.split("-")[0] in label.lower() else f"{label} ({method})"


def _against_integers(form: Format, method: str, settings: EngineSettings) -> str:
    """What the engine cannot do with packed integers: groups in activation order, odd bits, zero points that differ."""
    version = version_tuple(settings.version)
    if form.act_order and settings.name == "vllm" and version >= ACT_ORDER_UNTIL:
        return "with groups in activation order"
    if form.kind != "gptq" or method != "gptq" or (form.bits, form.symmetric) in MARLIN_GPTQ:
        return ""
    marlin_alone = version >= MARLIN_GPTQ_SINCE[settings.name]
    if form.bits in PLAIN_GPTQ_BITS and not marlin_alone:
        return ""
    return "" if form.symmetric and form.bits in {4, 8} else _odd_integers(form)


def _odd_integers(form: Format) -> str:
    return "with zero points of their own (`sym: false`)" if form.bits in {4, 8} else f"in {form.bits:g} bits"


def _against_amd(model: ServedModel, gpu: Gpu) -> str | None:
    kinds = {form.kind for form in model.quantization.formats}
    if kinds & {"bnb_4bit", "bnb_8bit", "nvfp4"}:
        return f"{model.quantization.label} kernels are for NVIDIA GPUs"
    if any(kind.startswith("fp8") for kind in kinds) and "fp8" not in gpu.native_formats:
        return f"{gpu.name} does not compute {model.quantization.label}"
    return None


def _against_capability(model: ServedModel, capability: Capability, settings: EngineSettings) -> str | None:
    version = version_tuple(settings.version)
    older = settings.name == "vllm" and version < VOLTA_UNTIL
    newer = settings.name == "sglang" and version >= SGLANG_AMPERE_SINCE
    least: Capability = (8, 0) if newer else (7, 0) if older else VLLM_LEAST
    shown = f"{capability[0]}.{capability[1]}"
    if capability < least:
        needed = f"{least[0]}.{least[1]}"
        other = " (`--engine vllm` takes it)" if newer and capability >= VLLM_LEAST else ""
        return f"{settings.name} {settings.version} needs compute capability {needed}, the GPU has {shown}{other}"
    found = _against_format(model, capability, settings, version)
    if found:
        return found
    sparse = any(
        isinstance(cache, CompressedCache) or (isinstance(cache, LatentCache) and cache.indexer_layers)
        for cache in model.architecture.caches
    )
    if sparse and capability < SPARSE_LATENT_LEAST:
        return f"sparse attention needs compute capability 9.0 (vLLM platforms/cuda.py), the GPU has {shown}"
    return _against_bfloat16(model, capability, settings)


def _against_format(
    model: ServedModel, capability: Capability, settings: EngineSettings, version: tuple[int, ...]
) -> str:
    table = _VLLM_FORMATS if settings.name == "vllm" else _SGLANG_FORMATS
    if settings.name == "vllm":
        for until, stricter in _VLLM_STRICTER:
            table = {**table, **stricter} if version < until else table
    for form in model.quantization.formats:
        rule = table.get(form.kind)
        if rule is not None and capability < rule.least:
            least = f"{rule.least[0]}.{rule.least[1]}"
            return (
                f"{form.label} needs compute capability {least} ({rule.source}), "
                f"the GPU has {capability[0]}.{capability[1]}"
            )
    return ""


def casts_to_float16(model: ServedModel, gpu: Gpu) -> bool:
    """Whether the engines serve this bfloat16 model in float16, since the GPU has no bfloat16.

    Source: vLLM 0.33 `config/model.py` _resolve_auto_dtype (a warning, then float16), SGLang 0.5.23
    `model_runner_components/load_model_utils.py` ("Use float16 due to lack of bfloat16 support").
    """
    capability = gpu.compute_capability
    return capability is not None and capability < BFLOAT16_LEAST and model.architecture.dtype == "bfloat16"


def _against_bfloat16(model: ServedModel, capability: Capability, settings: EngineSettings) -> str | None:
    if capability >= BFLOAT16_LEAST or model.architecture.dtype != "bfloat16" or settings.dtype == "float32":
        return None
    if model.architecture.model_type in FLOAT16_OVERFLOWS:
        return "no bf16 on this GPU, and the model overflows in float16"
    return None
