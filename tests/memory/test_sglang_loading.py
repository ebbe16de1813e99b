"""What SGLang's start-up logs print of loading and of the pool that follows, on cards and versions of many kinds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from soong.gpus.gpu import Gpu
from soong.memory import engines
from soong.memory.allocator import CachingAllocator
from soong.memory.footprint import EngineSettings, Footprint, ServedModel, Workload
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization.reading import read_quantization
from soong.plan.planner import make_plan
from soong.plan.request import read_request

if TYPE_CHECKING:
    from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30

CARDS: dict[str, dict[str, Any]] = {
    "h100": {"memory_bytes": 81090 * MIB, "compute_capability": (9, 0), "interconnect": "NVLink 4"},
    "rtxpro6000": {
        "memory_bytes": 97250 * MIB,
        "compute_capability": (12, 0),
        "interconnect": "PCIe 5.0 x16",
    },
    "rtx5090": {"memory_bytes": 32102 * MIB, "compute_capability": (12, 0), "interconnect": "PCIe 5.0 x16"},
    "h200": {"memory_bytes": 143156 * MIB, "compute_capability": (9, 0), "interconnect": "NVLink 4"},
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
GPT_OSS_120B = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": True, "head_dim": 64,
    "hidden_size": 2880, "intermediate_size": 2880, "num_attention_heads": 64, "num_experts_per_tok": 4,
    "num_hidden_layers": 36, "num_key_value_heads": 8, "num_local_experts": 128, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18, "vocab_size": 201088,
    "tie_word_embeddings": False, "max_position_embeddings": 131072,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
    ]},
}  # fmt: skip
GEMMA_3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 8,
        "num_hidden_layers": 34, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
        "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False,
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
GLM_52 = {
    "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "dtype": "bfloat16",
    "hidden_size": 6144, "intermediate_size": 12288, "moe_intermediate_size": 2048, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "num_hidden_layers": 78,
    "num_attention_heads": 64, "num_key_value_heads": 64, "kv_lora_rank": 512, "q_lora_rank": 2048,
    "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "head_dim": 192, "vocab_size": 154880,
    "index_head_dim": 128, "index_n_heads": 32, "index_topk": 2048, "tie_word_embeddings": False,
    "index_topk_freq": 4, "index_skip_topk_offset": 3,
    "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 75, "max_position_embeddings": 1048576,
    "rope_parameters": {"rope_theta": 8000000, "rope_type": "default"},
    "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
        "modules_to_not_convert": ["lm_head", "re:.*indexer.w[ke].*", "re:.*gate"],
    },
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

LAGUNA_INT4 = {
    "architectures": ["LagunaForCausalLM"], "model_type": "laguna", "vocab_size": 100352, "hidden_size": 3072,
    "intermediate_size": 12288, "num_hidden_layers": 48, "num_attention_heads": 48, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 262144, "num_experts": 256, "num_experts_per_tok": 10,
    "moe_intermediate_size": 1024, "shared_expert_intermediate_size": 1024, "gating": "per-head",
    "mlp_layer_types": ["dense"] + ["sparse"] * 47, "num_attention_heads_per_layer": [48, 72, 72, 72] * 12,
    "layer_types": (["full_attention"] + ["sliding_attention"] * 3) * 12, "sliding_window": 512,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    "rope_parameters": {
        "full_attention": {
            "rope_theta": 500000.0, "rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 8192,
            "partial_rotary_factor": 0.5,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    },
    "quantization_config": {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}}},
        "ignore": [
            "lm_head", "re:.*model.layers.0.mlp.*", "re:.*self_attn.*", "re:.*mlp.gate$", "re:.*mlp.shared_expert.*",
        ],
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
        # github.com/sostrowsk/dgx-spark-local-llm sglang-int4.log: 67.17 without the experts' indices, given back
        (LAGUNA_INT4, "rtxpro6000", {"version": "0.5.23"}, 67.56, 0.002 * 67.56),
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


@pytest.mark.parametrize(
    ("version", "tensor_parallel", "more"),
    [
        ("0.5.8", 4, 1 / 3),  # 192 rows become 256
        ("0.5.23", 8, 1 / 3),  # 96 become 128
        ("0.5.23", 2, 0),
        ("0.5.6", 8, 0),  # Triton still
    ],
)
def test_sixteen_bit_experts_are_filled_up_for_tensorrt(
    version: str, tensor_parallel: int, more: float
) -> None:
    values = {key: value for key, value in QWEN3_30B_FP8.items() if key != "quantization_config"}
    experts = 48 * 128 * 3 * 2048 * 768 * 2 // tensor_parallel
    flags = {"version": version, "tensor_parallel": tensor_parallel}
    on_hopper = _footprint(values, "h100", 8192, **flags).loaded_bytes
    assert _footprint(values, "gb300", 8192, **flags).loaded_bytes - on_hopper == pytest.approx(
        more * experts, abs=1
    )


@pytest.mark.parametrize(("version", "more"), [("0.4.4", 0), ("0.4.6", 7), ("0.4.7", 0)])
def test_deepseek_v3_had_a_clone_of_the_shared_expert_for_each_gpu(version: str, more: int) -> None:
    """A log of R1 with 0.4.6 and eight GPUs, "Cloning 8 replicas": 81.66 GiB, 79.54 without them."""
    flags, values = {"tensor_parallel": 8}, KIMI_TEXT | {"n_routed_experts": 256}
    shared = 60 * 3 * 7168 * 2048 * 2 // 8
    plain = _footprint(values, "h200", 8192, version="0.4.8", **flags).loaded_bytes
    found = _footprint(values, "h200", 8192, version=version, **flags).loaded_bytes
    assert found - plain == more * shared


def test_layers_that_share_a_choice_had_an_indexer_before_0_5_18() -> None:
    """A launch of GLM-5.2-FP8 on eight RTX PRO 6000 with 0.5.14: "mem usage=89.44 GB", 88.83 without those 57."""
    early, later = (
        _footprint(GLM_52, "rtxpro6000", 8192, version=version, tensor_parallel=8, kv_cache_memory_bytes=GIB)
        for version in ("0.5.17", "0.5.18")
    )
    numbers = 57 * (4096 * 2048 + 128 * 6144 + 32 * 6144)
    assert numbers < early.loaded_bytes - later.loaded_bytes < 1.3 * numbers
    assert early.kv_bytes_per_token - later.kv_bytes_per_token == 57 * 132


def test_blocks_of_fp8_are_turned_for_decoding_in_16_bits_since_0_4_7() -> None:
    in_blocks = KIMI_TEXT | {"quantization_config": QWEN3_30B_FP8["quantization_config"]}
    early, later = (
        _footprint(in_blocks, "h200", 8192, version=version, tensor_parallel=8).loaded_bytes
        for version in ("0.4.6", "0.4.7")
    )
    assert later - early == 61 * 8 * (128 + 128) * 512


@pytest.mark.parametrize(
    ("values", "captured_in"),
    [
        (KIMI_TEXT, {"0.5.14", "0.5.18", "0.5.19"}),
        (KIMI_K25_INT4, {"0.5.16", "0.5.17", "0.5.18", "0.5.19"}),
    ],
    ids=["text", "images"],
)
def test_mla_prefill_is_captured_by_version(values: dict[str, Any], captured_in: set[str]) -> None:
    """What a captured prefill reserves, 1.5 GiB with MLA, is missing from the default fraction.

    SGLang's own tests had 595007 tokens of Kimi-K2.5 on eight H200 on 2026-07-17, before 0.5.16: with that reserve.
    """
    flags = {"tensor_parallel": 8}
    least = _footprint(values, "h200", 8192, version="0.5.15", **flags).memory_fraction
    assert least is not None
    for version in ("0.5.14", "0.5.15", "0.5.16", "0.5.17", "0.5.18", "0.5.19"):
        fraction = _footprint(values, "h200", 8192, version=version, **flags).memory_fraction
        assert fraction is not None
        assert (least - fraction > 0.009) == (version in captured_in), version


def test_gemma_3_has_no_tables_and_then_unscaled_ones() -> None:
    """github.com/sgl-project/sglang/pull/4826: "mem usage=8.13 GB" on an H200, of 8.01 GiB of tensors."""
    early, later, tabled = (
        _footprint(GEMMA_3_4B, "h200", 8192, version=version).loaded_bytes
        for version in ("0.4.6", "0.5.9", "0.5.10")
    )
    assert early / GIB == pytest.approx(8.13, abs=0.02)
    assert tabled - later == 2 * 131072 * 256 * 4


def test_matrices_made_fp8_on_loading_keep_segments(tmp_path: Path) -> None:
    """A log of Qwen3-8B with --quantization fp8: "mem usage=9.09 GB"; the tensors are 8.79 GiB."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B))
    asked = {
        "model": str(tmp_path / "config.json"), "engine": "sglang", "engine_version": "0.5.11",
        "gpu": "rtx4090-24gb", "quantization": "fp8",
    }  # fmt: skip
    found = make_plan(read_request(asked), allow_network=False).candidates[0].footprint
    assert found is not None
    assert found.loaded_bytes / GIB == pytest.approx(9.09, abs=0.01)


@pytest.mark.parametrize(
    ("card", "flags", "tokens"),
    [
        # sgl-project/sglang, floors of its own tests as of 2026-07-17, 99 % of what three runs had: swizzled on Hopper
        ("h100", {"tensor_parallel": 4, "memory_fraction": 0.826}, 2899124),
        ("h200", {"tensor_parallel": 8, "memory_fraction": 0.93}, 15375204),
    ],
)
def test_pool_of_gpt_oss_as_measured(card: str, flags: dict[str, Any], tokens: int) -> None:
    found = _footprint(GPT_OSS_120B, card, 131072, version="0.5.17", **flags)
    assert found.kv_pool_tokens == pytest.approx(tokens, rel=0.005)


@pytest.mark.parametrize(
    ("card", "older", "newer", "more"),
    [
        # 0.5.19 layers/quantization/mxfp4.py _pad_hopper_mxfp4_scale: a quarter of 720 inputs of a matrix is 22.5
        # groups of 32, filled up to 24 since; 2,880 are 90, now 92; of each a byte for 2,880 outputs, or 2 x 768
        ("h100", "0.5.18", "0.5.19", 36 * 128 * (3072 - 1536) * 2),
        # 0.5.14 server_args.py: Marlin, with sides of 3,072 and 768, where 0.5.13 takes Triton, with 2,880 and 768
        ("rtxpro6000", "0.5.13", "0.5.14", 36 * 128 * 3 * (3072 - 2880) * 768 * 17 // 32),
    ],
)
def test_experts_of_gpt_oss_are_filled_up_by_version(card: str, older: str, newer: str, more: int) -> None:
    before, after = (
        _footprint(GPT_OSS_120B, card, 8192, version=version, tensor_parallel=4) for version in (older, newer)
    )
    found = after.loaded_bytes - before.loaded_bytes
    assert found == pytest.approx(more, rel=0.02)  # what stands free after loading differs


@pytest.mark.parametrize(
    ("card", "version", "least_gib", "most_gib"),
    [
        ("gb300", "0.5.0", 0, 0),
        ("rtxpro6000", "0.5.8", 2, 3),  # holes
        ("gb300", "0.5.3", 2, 9),  # CUTLASS by default: holes, too
        # copies of all scales, a byte for 16 numbers of 60 x 384 x 3 x 7168 x 256, that TensorRT-LLM never reads
        ("gb300", "0.5.8", 7.4, 7.4),
        ("gb300", "0.5.12", 0, 0),
        ("h100", "0.5.20", 7.4, 7.4),  # nor does Marlin
    ],
)
def test_copies_of_nvfp4_scales_stay_by_kernel_and_version(
    card: str, version: str, least_gib: float, most_gib: float
) -> None:
    flags = {"version": version, "tensor_parallel": 8}
    plain = _footprint(KIMI_NVFP4, "gb300", 8192, version="0.5.12", tensor_parallel=8).loaded_bytes
    more = _footprint(KIMI_NVFP4, card, 8192, **flags).loaded_bytes - plain
    assert least_gib <= round(more / GIB, 1) <= most_gib


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
