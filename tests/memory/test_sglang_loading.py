"""What SGLang's start-up logs print of loading and of the pool that follows, on cards and versions of many kinds."""

from __future__ import annotations

from typing import Any

import pytest

from soong.gpus.gpu import Gpu
from soong.memory import engines
from soong.memory.allocator import CachingAllocator
from soong.memory.footprint import EngineSettings, Footprint, ServedModel, Workload
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization.reading import read_quantization

MIB, GIB = 1 << 20, 1 << 30

CARDS: dict[str, dict[str, Any]] = {
    "h100": {"memory_bytes": 81090 * MIB, "compute_capability": (9, 0), "interconnect": "NVLink 4"},
    "rtxpro6000": {
        "memory_bytes": 97250 * MIB,
        "compute_capability": (12, 0),
        "interconnect": "PCIe 5.0 x16",
    },
    "rtx5090": {"memory_bytes": 32102 * MIB, "compute_capability": (12, 0), "interconnect": "PCIe 5.0 x16"},
    "gb300": {"memory_bytes": 283136 * MIB, "compute_capability": (10, 3), "interconnect": "NVLink 5"},
}

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "num_key_value_heads": 8, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_8B = QWEN3 | {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
}  # fmt: skip
QWEN3_14B = QWEN3 | {
    "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 40, "num_attention_heads": 40,
}  # fmt: skip
QWEN3_32B = QWEN3 | {
    "hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64,
}  # fmt: skip
QWEN25_3B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 2048,
    "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
    "tie_word_embeddings": True, "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3_30B_FP8 = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 128, "hidden_size": 2048,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128,
    "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "vocab_size": 151936,
    "max_position_embeddings": 40960, "torch_dtype": "bfloat16", "decoder_sparse_step": 1, "mlp_only_layers": [],
    "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
        "modules_to_not_convert": ["lm_head"],
    },
}  # fmt: skip
KIMI_TEXT = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 384, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "first_k_dense_replace": 1, "num_hidden_layers": 61, "num_attention_heads": 64,
    "num_key_value_heads": 64, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 163840, "max_position_embeddings": 262144,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
KIMI_NVFP4 = KIMI_TEXT | {
    "quantization_config": {
        "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "model.layers.*.self_attn*"],
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "weights": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16},
            "input_activations": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16},
        }},
    },
}  # fmt: skip
KIMI_K25_INT4 = {
    "architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25", "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "text_config": KIMI_TEXT | {
        "quantization_config": {
            "quant_method": "compressed-tensors", "format": "pack-quantized",
            "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*",
                       "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
            "config_groups": {"group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group",
                            "symmetric": True, "actorder": None, "dynamic": False},
            }},
        },
    },
    "vision_config": {
        "vt_hidden_size": 1152, "vt_intermediate_size": 4304, "vt_num_attention_heads": 16,
        "vt_num_hidden_layers": 27, "patch_size": 14, "merge_kernel_size": [2, 2], "mm_hidden_size": 1152,
        "init_pos_emb_height": 64, "init_pos_emb_width": 64, "init_pos_emb_time": 4, "text_hidden_size": 7168,
    },
}  # fmt: skip


def _footprint(values: dict[str, Any], card: str, context: int, **flags: Any) -> Footprint:
    config = Config(values)
    architecture = read_architecture(config)
    model = ServedModel(
        key=f"{values['model_type']} {len(str(values))}",
        architecture=architecture,
        quantization=read_quantization(config, dtype=architecture.dtype),
    )
    gpu = Gpu(
        id=card, name=card, vendor="nvidia", label_gb=80, bandwidth_bytes_per_second=0, dense_flops={},
        native_formats=(), source="", as_of="", **CARDS[card],
    )  # fmt: skip
    settings = EngineSettings(name="sglang", **flags)
    return engines.footprint(model, gpu, Workload(context_tokens=context), settings)


@pytest.mark.parametrize(
    ("values", "card", "flags", "printed_gib", "within"),
    [
        # github.com/TonyLi15/sglang-benchmark benchmarks/results/agg_local.jsonl: one GPU, its first kernels too
        (QWEN25_3B, "h100", {"version": "0.5.5"}, 5.97, 0.012),
        # a Qwen3-14B on four 24 GB cards with 0.5: "avail mem=16.00 GB, mem usage=7.08 GB"
        (QWEN3_14B, "rtx5090", {"version": "0.5.2", "tensor_parallel": 4}, 7.08, 0.006),
        # github.com/magik6k/glm-kimi-sm120-rtx6000bw logs/sglang-k2-nvfp4-sm120fix.log: 2.4 GiB of it are holes
        (KIMI_NVFP4, "rtxpro6000", {"version": "0.5.8", "tensor_parallel": 8}, 73.87, 0.0075 * 73.87),
        # github.com/magik6k/glm-kimi-sm120-rtx6000bw logs/sglang-k25-int4-sm120fix.log: half of the tower stands whole
        (KIMI_K25_INT4, "rtxpro6000", {"version": "0.5.8", "tensor_parallel": 8}, 72.33, 0.0075 * 72.33),
    ],
)
def test_weights_as_printed(
    values: dict[str, Any], card: str, flags: dict[str, Any], printed_gib: float, within: float
) -> None:
    found = _footprint(values, card, 8192, **flags)
    assert found.loaded_bytes / GIB == pytest.approx(printed_gib, abs=within)


@pytest.mark.parametrize(
    ("values", "card", "flags", "tokens", "within"),
    [
        # server log of a smoke test, 2026-08-27: 78.48 GiB free of an H100, "#tokens: 392920"
        (QWEN3_30B_FP8, "h100", {"version": "0.5.18", "memory_fraction": 0.83}, 392920, 0.001),
        # github.com/cl-vv-h/SGLang_Tutor .claude/skills/clean-startup-log/SKILL.md, no flags: 275.75 GiB free
        (QWEN3_8B, "gb300", {"version": "0.5.11", "memory_fraction": 0.905}, 1707904, 0.002),
        # Qwen3-32B on four RTX 5090 with 0.5.13.post1
        (
            QWEN3_32B,
            "rtx5090",
            {"version": "0.5.13", "memory_fraction": 0.88, "tensor_parallel": 4},
            187069,
            0.01,
        ),
    ],
)
def test_pool_of_a_launch_as_printed(
    values: dict[str, Any], card: str, flags: dict[str, Any], tokens: int, within: float
) -> None:
    assert _footprint(values, card, 40960, **flags).kv_pool_tokens == pytest.approx(tokens, rel=within)


def test_data_centre_blackwell_keeps_no_placeholders_of_scales() -> None:
    flags = {"version": "0.5.8", "tensor_parallel": 8}
    holes = (
        _footprint(KIMI_NVFP4, "rtxpro6000", 8192, **flags).loaded_bytes
        - _footprint(KIMI_NVFP4, "gb300", 8192, **flags).loaded_bytes
    )
    assert 2 * GIB < holes < 3 * GIB


def test_a_segment_stays_while_one_tensor_of_it_lives() -> None:
    """PyTorch's rules: 84 MiB come whole from the driver; what is put into a freed half keeps all of it."""
    allocator = CachingAllocator()
    first = allocator.take(84 * MIB)
    allocator.give(first)
    assert allocator.held_bytes() == 0
    half, other = allocator.take(42 * MIB), allocator.take(42 * MIB)
    assert allocator.reserved_bytes == 84 * MIB
    allocator.give(half)
    assert allocator.held_bytes() == 84 * MIB
    allocator.give(other)
    assert allocator.held_bytes() == 0


def test_free_neighbours_are_one_block_again() -> None:
    allocator = CachingAllocator()
    blocks = [allocator.take(4 * MIB) for _ in range(5)]
    assert allocator.reserved_bytes == 20 * MIB
    for block in (blocks[1], blocks[3], blocks[2]):
        allocator.give(block)
    allocator.take(11 * MIB)
    assert allocator.reserved_bytes == 20 * MIB  # the three are one block of 12 MiB
    allocator.take(4 * MIB)
    assert allocator.reserved_bytes == 40 * MIB  # what is left of it is too small
