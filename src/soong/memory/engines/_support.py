"""Whether an engine can run a number format and architecture on a GPU at all, and the reason when not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from soong.memory.engines._constants import version_tuple
from soong.memory.kernel_layouts import BLACKWELL, HOPPER
from soong.models.architecture import CompressedCache, LatentCache

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel

Capability = tuple[int, int]

BFLOAT16_LEAST: Capability = (8, 0)
SPARSE_LATENT_LEAST: Capability = (9, 0)
PLUGINS_SINCE = (0, 32)
"""From this version bitsandbytes and GGUF are no part of vLLM (`layers/quantization/` lists neither).

Nor does it sort groups by activation any more: `quantization/utils/gptq_utils.py`, `compressed_tensors.py`.
"""

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
}
_VLLM_OLDER_FORMATS: dict[str, _Rule] = {
    "fp8_tensor": _Rule((8, 0), f"vLLM 0.10 {_LAYERS}/fp8.py"),
    "fp8_channel": _Rule((8, 0), f"vLLM 0.10 {_LAYERS}/compressed_tensors"),
    "fp8_block": _Rule((8, 0), f"vLLM 0.10 {_LAYERS}/fp8.py"),
    "nvfp4": _Rule((8, 0), f"vLLM 0.10 {_LAYERS}/modelopt.py"),
    "packed": _Rule((8, 0), f"vLLM 0.10 {_LAYERS}/compressed_tensors"),
}
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

TURING_FP8_SINCE = (0, 20)
"""The newest vLLM source read that asks 8.0 of FP8 is 0.10, the oldest that asks 7.5 is 0.32; between, the
stricter
rule holds up to here."""

VOLTA_UNTIL = (0, 11)
"""vLLM asks compute capability 7.5 in the installation page of its later versions, 7.0 before."""


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
        return _against_llama_cpp(model)
    foreign = _foreign_format(model, settings)
    if foreign:
        return foreign
    if gpu.vendor == "amd":
        return _against_amd(model, gpu)
    if gpu.compute_capability is None:
        return None
    return _against_capability(model, gpu.compute_capability, settings)


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


def _against_llama_cpp(model: ServedModel) -> str | None:
    method = model.quantization.method
    if method in {"none", "gguf"} or model.quantization.assumed:
        return None
    return f"llama.cpp reads GGUF files, not {model.quantization.label} checkpoints"


def _foreign_format(model: ServedModel, settings: EngineSettings) -> str:
    quantization = model.quantization
    known = _VLLM_FORMATS
    if quantization.method == "gguf" and not _plugin_gone(settings):
        return ""
    for form in quantization.formats:
        if not quantization.assumed and form.act_order and _plugin_gone(settings):
            return f"{settings.name} {settings.version} does not read {form.label} with groups in activation order"
        plugin = form.kind.startswith("bnb") and _plugin_gone(settings)
        if not quantization.assumed and (form.kind not in known or plugin):
            return f"{settings.name} {settings.version} does not read {form.label}"
    return ""


def _plugin_gone(settings: EngineSettings) -> bool:
    return settings.name == "vllm" and version_tuple(settings.version) >= PLUGINS_SINCE


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
    least: Capability = (7, 0) if older else (7, 5)
    shown = f"{capability[0]}.{capability[1]}"
    if capability < least:
        needed = f"{least[0]}.{least[1]}"
        return f"{settings.name} {settings.version} needs compute capability {needed}, the GPU has {shown}"
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
    if settings.name == "vllm" and version < TURING_FP8_SINCE:
        table = {**table, **_VLLM_OLDER_FORMATS}
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
