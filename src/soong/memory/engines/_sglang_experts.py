"""What SGLang's expert kernels keep beyond the numbers of the checkpoint: sides filled up, scales twice, copies.

Read beside SGLang 0.4.6, 0.5.3 and 0.5.6 to 0.5.23.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.memory.dividing import local_sides, version_tuple, whole_experts
from soong.memory.kernel_layouts import BLACKWELL, HOPPER, SMALL_BLACKWELL, Rank, packed_bytes, up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, ServedModel
    from soong.models.architecture import Weight
    from soong.models.quantization import Format

NVIDIA = "nvidia"

STEP, GATED_FP4_STEP, GATED_FP4_STEP_SINCE = 128, 64, (0, 5, 23)
"""Multiples of the intermediate size that TensorRT-LLM's kernels take: `layers/moe/fused_moe_triton/layer.py`, and
`layers/quantization/modelopt_quant.py ModelOptNvFp4FusedMoEMethod.create_weights`.
"""

UNQUANTISED_SINCE = {
    "Qwen3MoeForCausalLM": (0, 5, 8),
    "Qwen3VLMoeForConditionalGeneration": (0, 5, 8),
    "Qwen3NextForCausalLM": (0, 5, 8),
    "Qwen3_5MoeForConditionalGeneration": (0, 5, 9),
    "NemotronHForCausalLM": (0, 5, 13),
    "Cohere2MoeForCausalLM": (0, 5, 19),
    "Cohere2VisionForConditionalGeneration": (0, 5, 19),
}
"""Classes whose 16-bit experts run in those kernels by default, and the first version to do so (`server_args.py`,
`arg_groups/nemotron_h_hook.py`, later `arg_groups/overrides.py` and `arg_groups/model_overrides/`).
"""

MODELOPT_SINCE = UNQUANTISED_SINCE | {
    "DeepseekV3ForCausalLM": (0, 5, 6),
    "DeepseekV32ForCausalLM": (0, 5, 6),
    "MistralLarge3ForCausalLM": (0, 5, 8),
    "KimiK25ForConditionalGeneration": (0, 5, 9),
    "GlmMoeDsaForCausalLM": (0, 5, 9),
    "Qwen3MoeForCausalLM": (0, 5, 6),
    "Qwen3VLMoeForConditionalGeneration": (0, 5, 6),
    "Qwen3NextForCausalLM": (0, 5, 6),
    "NemotronHForCausalLM": (0, 5, 11),
    "Glm4MoeForCausalLM": (0, 5, 8),
    "Gemma4ForCausalLM": (0, 5, 13),
    "Gemma4ForConditionalGeneration": (0, 5, 13),
    "Gemma4UnifiedForConditionalGeneration": (0, 5, 13),
}
"""The same for experts that ModelOpt packed."""

FILLED_SINCE = (0, 5, 8)
"""No side was filled up before."""

TRITON_EXPERTS = "GptOssForCausalLM"
"""Its MXFP4 experts run in Triton's own kernels on Hopper (`arg_groups/model_overrides/gpt_oss.py`)."""

SWIZZLED_ROWS, SWIZZLED_BYTES, SWIZZLED_GROUPS, MASKED_GROUPS_SINCE = 256, 64, 2, (0, 5, 19)
"""Multiples of the sides of swizzled numbers, two a byte, and of their scales on Hopper, with eight warps: Triton
`tensor_details/layout_details/hopper_value.py`, `hopper_scale.py`. From 0.5.19 on SGLang fills groups up to four
(`layers/quantization/mxfp4.py _pad_hopper_mxfp4_scale`; 0.5.18 has it not).
"""

BIAS_BYTES_MORE = 2
"""Biases of experts become float32: `layers/quantization/mxfp4.py process_weights_after_loading`."""

INDEXED_SINCE = (0, 5, 9)
"""The first version to run packed experts in Triton on AMD's cards, which keeps the indices by group that Marlin gives
back: `compressed_tensors_wNa16_moe.py CompressedTensorsWNA16TritonMoE`; 0.5.8 has no such class.
"""

CLONED_SHARED_EXPERTS, CLONED_BESIDE = "DeepseekV3ForCausalLM", 256
CLONED_SINCE, CLONED_UNTIL = (0, 4, 5), (0, 4, 7)
"""Versions that put a clone of the shared expert for each GPU of the group among 256 routed ones, from Hopper on
(0.4.6 `models/deepseek_v2.py determine_n_share_experts_fusion`); 0.4.7 has one.
"""


def kept_bytes(model: ServedModel, gpu: Gpu, settings: EngineSettings) -> int:
    """Bytes of one GPU that expert kernels hold beside what the tensors of the checkpoint have.

    Args:
        model: a mixture of experts.
        gpu: one of the GPUs.
        settings: version and flags.
    """
    rank = Rank(
        settings.tensor_parallel, "sglang", version_tuple(settings.version), gpu.compute_capability or HOPPER
    )
    total = _cloned_bytes(model, rank)
    if rank.version >= FILLED_SINCE and in_tensorrt(model, gpu, settings):
        total += _filled_bytes(model, rank, settings)
    if gpu.vendor == NVIDIA:
        total += _triton_bytes(model, rank, settings)
    elif rank.version >= INDEXED_SINCE and model.quantization.method == "compressed-tensors":
        total += _index_bytes(model, rank, settings)
    return total // settings.pipeline_parallel


def _experts(model: ServedModel, settings: EngineSettings) -> Iterator[Weight]:
    held = model.architecture.served_weights()
    weights = whole_experts(held, settings.tensor_parallel) if settings.expert_parallel else held
    return (weight for weight in weights if weight.part == "experts")


def in_tensorrt(model: ServedModel, gpu: Gpu, settings: EngineSettings) -> bool:
    """Whether the experts run in TensorRT-LLM's kernels by default."""
    if gpu.vendor != NVIDIA or not BLACKWELL <= (gpu.compute_capability or HOPPER) < SMALL_BLACKWELL:
        return False
    table = MODELOPT_SINCE if model.quantization.method == "modelopt" else UNQUANTISED_SINCE
    since = table.get(model.architecture.name)
    return since is not None and version_tuple(settings.version) >= since


def _filled_bytes(model: ServedModel, rank: Rank, settings: EngineSettings) -> int:
    """What TensorRT-LLM's kernels add where a GPU's share of an expert is no multiple of their step."""
    total = 0
    for weight in _experts(model, settings):
        for form, layers in model.quantization.spread(weight):
            if len(weight.shape) > 1 and (form is None or model.quantization.method == "modelopt"):
                total += _filled(weight, form, rank) * layers * weight.copies
    return total


def _filled(weight: Weight, form: Format | None, rank: Rank) -> int:
    rows, columns = local_sides(weight, rank.size)
    stacked = weight.path.endswith("gate_up_proj")
    step = STEP
    if form is not None and form.kind == "nvfp4" and rank.version >= GATED_FP4_STEP_SINCE:
        step = GATED_FP4_STEP
    wider = weight.shard == "row"
    filled = (rows, up(columns, step)) if wider else (up(rows, (1 + stacked) * step), columns)
    return _bytes(form, *filled, rank) - _bytes(form, rows, columns, rank)


def _bytes(form: Format | None, rows: int, columns: int, rank: Rank) -> int:
    return 2 * rows * columns if form is None else packed_bytes(form, rows, columns, rank)


def _triton_bytes(model: ServedModel, rank: Rank, settings: EngineSettings) -> int:
    """Scales stay beside their swizzled copies, and biases grow; Triton's kernels alone forget only the numbers."""
    if model.architecture.name != TRITON_EXPERTS or not HOPPER <= rank.capability < BLACKWELL:
        return 0
    total = 0
    for weight in _experts(model, settings):
        rows, columns = local_sides(weight, rank.size)
        for form, layers in model.quantization.spread(weight):
            times = layers * weight.copies
            if len(weight.shape) == 1:
                total += BIAS_BYTES_MORE * rows * times if model.quantization.formats else 0
            elif form is not None and form.kind == "mxfp4":
                groups = SWIZZLED_GROUPS * (1 + (rank.version >= MASKED_GROUPS_SINCE))
                halves = 2 if weight.shard == "column" else 1  # gate and up stand in one tensor
                filled, packed = up(halves * rows, SWIZZLED_ROWS) // halves, columns // 2
                total += filled * up(-(-columns // form.group), groups) * times
                total += (filled * up(packed, SWIZZLED_BYTES) - rows * packed) * times
    return total


def _index_bytes(model: ServedModel, rank: Rank, settings: EngineSettings) -> int:
    """Of each expert's two matrices an index for each input, by group and sorted, in 32 bits."""
    total = 0
    for weight in _experts(model, settings):
        if weight.path.endswith((".up_proj", ".w3")):
            continue  # gate and up stand in one tensor
        columns = local_sides(weight, rank.size)[1]
        for form, layers in model.quantization.spread(weight):
            if form is not None and form.kind == "packed":
                total += 2 * 4 * columns * layers * weight.copies
    return total


def _cloned_bytes(model: ServedModel, rank: Rank) -> int:
    """Clones of the shared expert: as many as GPUs, each divided among them, instead of one."""
    cloned = CLONED_SINCE <= rank.version < CLONED_UNTIL and rank.capability >= HOPPER
    if not cloned or model.architecture.name != CLONED_SHARED_EXPERTS:
        return 0
    total = 0
    if all(weight.copies != CLONED_BESIDE for weight in model.architecture.weights):
        return 0
    for weight in model.architecture.served_weights():
        if "shared_experts" not in weight.path or len(weight.shape) < 2:
            continue
        rows, columns = local_sides(weight, rank.size)
        for form, layers in model.quantization.spread(weight):
            total += _bytes(form, rows, columns, rank) * layers * weight.copies
    return total * (rank.size - 1)
