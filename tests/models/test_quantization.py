"""Quantization configs of every exporter, and the bytes of the checkpoints they describe."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from soong.models.architecture import Weight
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import Quantization, checkpoint_bytes, read_quantization, uniform

GOLDEN: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[1] / "golden" / "weights.toml").read_text("utf-8")
)

NVFP4_GROUP = {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}


def quantization(section: dict[str, Any], **more: Any) -> Quantization:
    return read_quantization(Config({"quantization_config": section, **more}), dtype="bfloat16")


def linear(path: str, *, layers: tuple[int, ...] = (0, 1, 2), part: Any = "mlp", copies: int = 1) -> Weight:
    return Weight(path=path, shape=(512, 512), part=part, layers=layers, linear=True, copies=copies)


def labels(found: Quantization, weight: Weight) -> dict[str, int]:
    return {form.label if form else "16-bit": layers for form, layers in found.spread(weight)}


@pytest.mark.parametrize("row", GOLDEN["published"], ids=lambda row: row["source"].split()[0])
def test_checkpoints_have_the_published_bytes(row: dict[str, Any]) -> None:
    shape = dict(GOLDEN[row["shape"]])
    if "quantization" in row:
        shape["quantization_config"] = row["quantization"]
    config = Config(shape)
    architecture = read_architecture(config)
    held = checkpoint_bytes(architecture, read_quantization(config, dtype=architecture.dtype))
    if "bytes" in row:
        assert held == row["bytes"]
    else:  # a header takes some hundred bytes a tensor
        assert 0 < row["with_headers"] - held < held / 10_000


@pytest.mark.parametrize(
    ("section", "method", "label", "compute"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", "INT4 (AWQ)", "int4"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq", "INT8 (GPTQ)", "int8"),
        ({"quant_method": "auto-round", "bits": 4}, "auto-round", "INT4 (AutoRound)", "int4"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "FP8", "fp8"),
        ({"quant_method": "fbgemm_fp8"}, "fbgemm_fp8", "FP8", "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4", "MXFP4", "fp4"),
        ({"quant_algo": "NVFP4", "quant_method": "modelopt"}, "modelopt", "NVFP4", "fp4"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "modelopt", "FP8", "fp8"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes", "NF4 (bitsandbytes)", "int4"),
        ({"quant_method": "bitnet"}, "bitnet", "1.58-bit (BitNet)", "int4"),
        ({"quant_method": "exl2", "bits": 2.5}, "exl2", "EXL2 2.5 bpw", "int4"),
        ({"bits": 4, "group_size": 64}, "mlx", "INT4 (MLX)", "int4"),
        ({"quant_method": "hqq", "nbits": 4}, "hqq", "4-bit (hqq)", "int4"),
        ({"quant_method": "never-heard-of"}, "never-heard-of", "NEVER-HEARD-OF", "bf16"),
    ],
)
def test_each_exporter_is_named(section: dict[str, Any], method: str, label: str, compute: str) -> None:
    found = quantization(section)
    assert (found.method, found.label) == (method, label)
    if label != "EXL2 2.5 bpw":  # its head has 6 bits
        assert found.compute == compute


def test_the_section_may_stand_in_the_text_config() -> None:
    section = {"quant_method": "awq", "bits": 4, "group_size": 128}
    config = Config({"text_config": {"quantization_config": section}})
    assert read_quantization(config, dtype="bfloat16").label == "INT4 (AWQ)"


def test_no_section_means_plain_tensors() -> None:
    assert read_quantization(Config({}), dtype="float16").label == "FP16"


def test_modelopt_may_speak_in_a_file_of_its_own() -> None:
    stated = Config(
        {
            "quantization": {
                "quant_algo": "NVFP4",
                "kv_cache_quant_algo": "FP8",
                "exclude_modules": ["lm_head"],
            }
        }
    )
    found = read_quantization(Config({}), stated, dtype="bfloat16")
    assert (found.label, found.kv_cache_dtype) == ("NVFP4", "fp8")
    assert labels(found, linear("lm_head", layers=(), part="lm_head")) == {"16-bit": 1}


@pytest.mark.parametrize(
    ("producer", "named"), [({}, True), ({"producer": {"name": "modelopt"}}, True), ({"producer": {}}, False)]
)
def test_a_side_file_without_its_producer_is_an_excerpt(producer: dict[str, Any], *, named: bool) -> None:
    """vLLM 0.33 `modelopt.py` takes the method from `producer.name`; excerpts of the file often leave that out."""
    stated = Config({**producer, "quantization": {"quant_algo": "NVFP4"}})
    assert read_quantization(Config({}), stated, dtype="bfloat16").named is named


def test_exact_names_leave_single_layers_alone() -> None:
    ignored = ["model.layers.1.mlp.up_proj", "lm_head"]
    found = quantization(
        {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ignored}
    )
    assert labels(found, linear("model.layers.{}.mlp.up_proj")) == {"16-bit": 1, "FP8": 2}
    assert labels(found, linear("model.layers.{}.mlp.down_proj")) == {"FP8": 3}


def test_layer_1_is_not_layer_10() -> None:
    found = quantization({"quant_method": "fp8", "ignored_layers": ["model.layers.1"]})
    assert labels(found, linear("model.layers.{}.mlp.up_proj", layers=(1, 10, 11))) == {"16-bit": 1, "FP8": 2}


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("model.vision_tower", "vision_tower.blocks.{}.attn.q_proj"),
        ("gate", "model.layers.{}.mlp.gate"),
        ("re:.*self_attn.*", "model.layers.{}.self_attn.q_proj"),
        ("re:visual.*", "model.visual.blocks.{}.attn.proj"),
        ("model.language_model.layers.0.mlp*", "language_model.model.layers.0.mlp.up_proj"),
        ("*.mlp.shared_expert.*", "model.layers.{}.mlp.shared_expert.up_proj"),
        ("language_model.model.layers.0.self_attn*", "model.layers.0.self_attn.q_proj"),
        ("re:.*attn.qkv_proj", "model.layers.{}.attn.k_proj"),
    ],
)
def test_spellings_of_the_same_module_agree(entry: str, path: str) -> None:
    found = quantization({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": [entry]})
    layers = (0, 1) if "{}" in path else ()
    assert set(labels(found, linear(path, layers=layers))) == {"16-bit"}


def test_a_last_part_does_not_match_inside_a_word() -> None:
    found = quantization({"quant_method": "awq", "modules_to_not_convert": ["gate"]})
    assert set(labels(found, linear("model.layers.{}.mlp.gate_proj"))) == {"INT4 (AWQ)"}


def test_mixed_precision_names_its_layers() -> None:
    layers = {
        "model.language_model.layers.0.linear_attn.out_proj": {"quant_algo": "FP8"},
        "model.language_model.layers.0.mlp.experts": {"quant_algo": "W4A16_NVFP4", "group_size": 16},
    }
    found = quantization(
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    )
    assert found.label == "FP8 + NVFP4"
    assert labels(found, linear("model.layers.{}.linear_attn.out_proj")) == {"FP8": 1, "16-bit": 2}
    experts = linear("model.language_model.layers.{}.mlp.experts.0.up_proj", part="experts", copies=8)
    assert labels(found, experts) == {"NVFP4": 1, "16-bit": 2}


def test_groups_may_target_regular_expressions() -> None:
    found = quantization(
        {
            "quant_method": "compressed-tensors",
            "config_groups": {
                "group_0": {
                    "targets": ["re:.*layers\\.(1|2)\\.mlp.*"],
                    "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                },
                "group_1": {"format": "nvfp4-pack-quantized", **NVFP4_GROUP},
            },
            "ignore": ["lm_head"],
        }
    )
    assert labels(found, linear("model.layers.{}.mlp.up_proj")) == {"FP8": 2, "NVFP4": 1}


def test_gptq_leaves_out_what_its_dynamic_rules_deny() -> None:
    found = quantization({"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*attn.*": {}, "lm_head": {}}})
    assert set(labels(found, linear("model.layers.{}.self_attn.q_proj"))) == {"16-bit"}
    assert set(labels(found, linear("model.layers.{}.mlp.up_proj"))) == {"INT4 (GPTQ)"}


def test_deepseek_v4_keeps_its_experts_in_mxfp4() -> None:
    found = quantization({"quant_method": "fp8", "weight_block_size": [128, 128]}, expert_dtype="fp4")
    assert labels(found, linear("layers.{}.ffn.experts.0.w1", part="experts")) == {"MXFP4": 3}
    assert labels(found, linear("layers.{}.ffn.shared_experts.w1")) == {"FP8": 3}


def test_broken_patterns_are_passed_over() -> None:
    found = quantization({"quant_method": "awq", "modules_to_not_convert": ["re:(", "re:.*up_proj"]})
    assert set(labels(found, linear("model.layers.{}.mlp.up_proj"))) == {"16-bit"}


@pytest.mark.parametrize(
    ("name", "label"), [("int4", "INT4 (AWQ)"), ("fp8", "FP8"), ("fp16", "FP16"), ("bf16", "BF16")]
)
def test_a_bare_word_is_an_assumption(name: str, label: str) -> None:
    found = uniform(name)
    assert (found.label, found.assumed) == (label, True)


def test_a_long_list_of_modules_is_read_and_asked_quickly() -> None:
    ignored = [f"model.layers.{layer}.mlp.part_{part}" for layer in range(100) for part in range(10)]
    found = quantization({"quant_method": "fp8", "modules_to_not_convert": ignored})
    weights = [linear(f"model.layers.{{}}.mlp.part_{part}", layers=tuple(range(100))) for part in range(20)]
    start = time.perf_counter()
    for weight in weights:
        found.spread(weight)
    assert time.perf_counter() - start < 0.02


@pytest.mark.parametrize(
    ("stated", "cache"), [("static", ""), ("FP8", "fp8"), ({"num_bits": 8, "type": "float"}, "fp8")]
)
def test_a_cache_is_fp8_where_engines_read_that_from_the_config(stated: object, cache: str) -> None:
    section = {"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": stated}
    config = Config({"model_type": "cohere", "quantization_config": section})
    assert read_quantization(config, dtype="bfloat16").kv_cache_dtype == cache
