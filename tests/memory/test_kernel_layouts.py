"""Every quantised format against the parameters that vLLM's own model classes allocate, and the rules between them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from soong.gpus.catalogue import find_gpu
from soong.memory import engines
from soong.memory.dividing import tensor_parallel_problem, version_tuple
from soong.memory.engines import _sglang_experts
from soong.memory.footprint import EngineSettings, ServedModel
from soong.memory.weights import WeightShare, weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import Quantization, read_quantization, uniform
from soong.models.resolve import resolve
from soong.plan.candidates import served_model

GOLDEN: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[1] / "golden" / "quantised_layouts.toml").read_text("utf-8")
)


def quantised(row: dict[str, Any], **more: Any) -> WeightShare:
    config = Config({**GOLDEN["shapes"][row["shape"]], "quantization_config": row["quantization"]})
    architecture = read_architecture(config)
    storage = read_quantization(config, dtype=architecture.dtype)
    options: dict[str, Any] = {"tensor_parallel": 1, "engine": "vllm", "engine_version": "0.32.0", **more}
    return weights_per_gpu(architecture, storage, **options)


def row_named(name: str, shape: str) -> dict[str, Any]:
    return next(row for row in GOLDEN["row"] if (row["name"], row["shape"]) == (name, shape))


@pytest.mark.parametrize("row", GOLDEN["row"], ids=lambda row: f"{row['shape']}-{row['name']}")
def test_each_rank_holds_the_parameters_that_vllm_shapes(row: dict[str, Any]) -> None:
    held = {size: quantised(row, tensor_parallel=int(size)).total_bytes for size in row["ranks"]}
    assert held == pytest.approx(row["ranks"], rel=1e-4)


def test_room_for_expert_biases_is_given_back() -> None:
    """16 experts, 3 layers, 2 × 768 and 2,048 biases of 16 bits: vLLM 0.32 allocates them before it reads the files."""
    row = row_named("gptq128", "mixture")
    loaded = quantised(row)
    assert loaded.released_bytes == 16 * 3 * (2 * 768 + 2048) * 2
    assert quantised(row, engine_version="0.19.0").released_bytes == 0
    assert loaded.loaded_bytes == quantised(row, engine_version="0.19.0").loaded_bytes


def test_experts_whose_groups_are_cut_leave_marlin() -> None:
    """768 ÷ 8 = 96 columns: groups of 128 become 32, and symmetric zero points are dropped."""
    cut = quantised(row_named("gptq128", "mixture"), tensor_parallel=8)
    assert cut.released_bytes == 0
    assert cut.parts["experts"] == 16 * 3 * 3 * 2048 * 96 * (4 + 16 / 32) / 8


@pytest.mark.parametrize(
    ("engine", "version", "refused"),
    [("vllm", "0.32.0", False), ("vllm", "0.19.0", True), ("sglang", "", True)],
)
def test_cut_blocks_of_experts_are_refined_since_0_32(engine: str, version: str, *, refused: bool) -> None:
    row = row_named("fp8block", "mixture")
    shape = {**GOLDEN["shapes"]["mixture"], "head_dim": 128, "num_key_value_heads": 16}
    config = Config({**shape, "quantization_config": row["quantization"]})
    architecture = read_architecture(config)
    storage = read_quantization(config, dtype=architecture.dtype)
    problem = tensor_parallel_problem(architecture, 8, storage, engine=engine, engine_version=version)
    assert ("cuts its quantization groups of 128" in (problem or "")) is refused


def test_tensor_cores_read_scales_in_tiles_of_the_fused_matrix() -> None:
    """Query, key and value are one matrix of 384 rows on each of 8 GPUs, three whole tiles, though keys are 64."""
    row = row_named("ct-nvfp4", "mixture")
    hopper = quantised(row, tensor_parallel=8)
    blackwell = quantised(row, tensor_parallel=8, compute_capability=(10, 0))
    assert blackwell.total_bytes == hopper.total_bytes
    assert blackwell.padding_bytes == 0


def test_nested_maxima_of_bitsandbytes_are_unpacked_since_0_9_2() -> None:
    """TinyLlama 1.1B packed on loading by vLLM 0.8.3 printed 0.7318 GiB, Qwen3-4B by 0.18 printed 2.7 GiB."""
    tiny = {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
        "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000, "torch_dtype": "bfloat16",
        "max_position_embeddings": 2048,
    }  # fmt: skip
    four = {
        "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": True, "max_position_embeddings": 262144, "torch_dtype": "bfloat16",
    }  # fmt: skip
    assert packed_on_loading(tiny, "bitsandbytes", "0.8.3") == pytest.approx(0.7318, rel=0.003)
    assert packed_on_loading(four, "bitsandbytes", "0.18.0") == pytest.approx(2.70, abs=0.006)


def test_fp8_on_loading_has_one_scale_a_matrix() -> None:
    """Qwen3-30B-A3B with `--quantization fp8` on two GPUs, vLLM 0.19.1: 14.53 GiB (vLLM issue 39682)."""
    mixture = {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 40960,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    assert packed_on_loading(mixture, "fp8", "0.19.1", ranks=2) == pytest.approx(14.53, abs=0.006)


MIXTURE_30B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 262144,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "quantization_config": {
        "quant_method": "fp8", "weight_block_size": [128, 128],
        "modules_to_not_convert": [f"model.layers.{layer}.mlp.gate" for layer in range(48)] + ["lm_head"],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("capability", "gib"),
    [
        # Qwen3-Coder-30B-A3B-Instruct-FP8 by vLLM 0.19.0 on an RTX 3090.
        ((8, 6), 29.54),
        # Qwen3-30B-A3B-Instruct-2507-FP8, of the same shape, on FP8 tensor cores: vLLM issue 25928.
        ((9, 0), 29.0972),
    ],
)
def test_marlin_scales_every_row_of_an_fp8_block(capability: tuple[int, int], gib: float) -> None:
    config = Config(MIXTURE_30B)
    architecture = read_architecture(config)
    storage = read_quantization(config, dtype=architecture.dtype)
    options: dict[str, Any] = {"tensor_parallel": 1, "engine_version": "0.19.0"}
    held = weights_per_gpu(architecture, storage, engine="vllm", compute_capability=capability, **options)
    assert held.loaded_bytes / 2**30 == pytest.approx(gib, rel=0.001)
    sglang = [
        weights_per_gpu(
            architecture, storage, engine="sglang", compute_capability=each, **options
        ).total_bytes
        for each in (capability, (9, 0))
    ]
    assert sglang[0] == sglang[1]


def packed_on_loading(shape: dict[str, Any], word: str, version: str, ranks: int = 1) -> float:
    storage: Quantization = uniform(word, on_loading=True)
    share = weights_per_gpu(
        read_architecture(Config(shape)),
        storage,
        tensor_parallel=ranks,
        engine="vllm",
        engine_version=version,
    )
    return share.loaded_bytes / 2**30


@pytest.mark.parametrize(
    ("version", "group", "read"), [("0.29.0", 128, True), ("0.30.0", 128, False), ("0.30.0", -1, True)]
)
def test_groups_in_activation_order_are_refused_since_0_30(version: str, group: int, *, read: bool) -> None:
    stated = {"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": True, "sym": True}
    config = Config({**GOLDEN["shapes"]["dense"], "quantization_config": stated})
    architecture = read_architecture(config)
    storage = read_quantization(config, dtype=architecture.dtype)
    model = ServedModel(key=f"{version}{group}", architecture=architecture, quantization=storage)
    settings = EngineSettings(name="vllm", version=version)
    problem = engines.supports(model, find_gpu("h100-80gb-sxm5"), settings)
    assert ("activation order" not in (problem or "")) is read


QWEN3_VL_30B = {
    "model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoeForConditionalGeneration"],
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "qwen3_vl_moe_text", "dtype": "bfloat16", "hidden_size": 2048, "head_dim": 128,
        "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32,
        "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1,
        "max_position_embeddings": 262144, "vocab_size": 151936,
    },
    "vision_config": {
        "model_type": "qwen3_vl_moe", "deepstack_visual_indexes": [8, 16, 24], "depth": 27, "hidden_size": 1152,
        "intermediate_size": 4304, "num_heads": 16, "num_position_embeddings": 2304, "out_hidden_size": 2048,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize(("ranks", "version", "gib"), [(1, "0.11.0", 58.2294), (2, "0.12.0", 29.3114)])
def test_room_for_the_features_of_several_layers_is_loaded_too(ranks: int, version: str, gib: float) -> None:
    """Two start-up logs of Qwen3-VL-30B-A3B (github.com/Zzsf11/VideoCuttingAgent): 3 × 8,192 tokens × 2,048 numbers.

    Without that room, and with the short position tables of later versions, they are 0.29 GiB short.
    """
    config = Config(QWEN3_VL_30B)
    architecture = read_architecture(config)
    share = weights_per_gpu(
        architecture,
        read_quantization(config, dtype=architecture.dtype),
        tensor_parallel=ranks,
        engine="vllm",
        engine_version=version,
    )
    assert architecture.input_buffer_numbers == 3 * 2048
    loaded = share.loaded_bytes + 2 * architecture.input_buffer_numbers * 8192
    assert loaded / 2**30 == pytest.approx(gib, rel=0.001)


@pytest.mark.parametrize(
    ("text", "version"),
    [("0.33.0", (0, 33, 0)), ("0.19.2rc1.dev206+g95", (0, 19, 2)), ("0.9", (0, 9, 0)), ("nightly", (999,))],
)
def test_versions_as_engines_spell_them(text: str, version: tuple[int, ...]) -> None:
    assert version_tuple(text) == version


@pytest.mark.parametrize(("version", "width"), [("0.26.0", 512), ("0.27.0", 384)])
def test_experts_of_tensorrt_are_filled_up_to_128_since_0_27(version: str, width: int) -> None:
    """`layers/fused_moe/oracle/mxfp4.py` (256 in 0.26): DeepSeek-V4-Pro's 3,072 ÷ 8 = 384; 61 layers of 384 experts."""
    model = served_model(resolve("deepseek-v4-pro", allow_network=False))
    assert model is not None
    found = weights_per_gpu(
        model.architecture,
        model.quantization,
        tensor_parallel=8,
        engine="vllm",
        engine_version=version,
        compute_capability=(10, 0),
    )
    assert found.parts["experts"] == 61 * 384 * 3 * 7168 * width * (4 + 8 / 32) / 8


@pytest.mark.parametrize(("version", "gpu", "kept"), [
    ("0.5.8", "mi300x-192gb", False), ("0.5.9", "mi300x-192gb", True), ("0.5.9", "h100-80gb-sxm5", False),
])  # fmt: skip
def test_packed_experts_keep_their_indices_on_amd_s_cards(version: str, gpu: str, kept: bool) -> None:
    """SGLang 0.5.9 `compressed_tensors_wNa16_moe.py`: for each expert's two tensors a group and a place in 32 bits, as
    many as its inputs: 16 experts of 2,048 and 768 ÷ 2, in 3 layers."""
    row = row_named("ct-w4a16-32", "mixture")
    config = Config({**GOLDEN["shapes"]["mixture"], "quantization_config": row["quantization"]})
    architecture = read_architecture(config)
    model = ServedModel(
        key="packed", architecture=architecture, quantization=read_quantization(config, dtype="bfloat16")
    )
    settings = EngineSettings(name="sglang", version=version, tensor_parallel=2)
    found = _sglang_experts.kept_bytes(model, find_gpu(gpu), settings)
    assert found == kept * 3 * 16 * 2 * 4 * (2048 + 768 // 2)
