"""Plans for llama.cpp: which file is planned, where it is loaded from, and how the figures are told."""

from __future__ import annotations

import re
from typing import Any

import pytest

import soong
from soong.models.catalogue import all_models
from soong.models.gguf_mixture import is_mixture
from soong.plan.explain import explain

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def plan(model: str, **options: Any) -> Any:
    return soong.plan_model(model, allow_network=False, **{"engine": "llama.cpp", **options})


def test_a_catalogue_model_is_planned_as_the_file_that_llama_cpp_would_take() -> None:
    found = plan("qwen3-8b", gpu="a6000-48gb")
    assert found.model.quantization_label == "Q4_K_M"
    assert found.candidates[0].engine_argv[1:3] == ("--hf-repo", "Qwen/Qwen3-8B-GGUF:Q4_K_M")


def test_gpt_oss_is_planned_in_its_own_type_and_weighs_what_the_file_weighs() -> None:
    """`gpt-oss-20b-mxfp4.gguf` is listed with 12.1 GB, vocabulary included."""
    found = plan("gpt-oss-20b", gpu="a6000-48gb")
    assert found.candidates[0].engine_argv[1:3] == ("--hf-repo", "ggml-org/gpt-oss-20b-GGUF:mxfp4")
    assert found.model.weights_bytes == pytest.approx(12.1e9, rel=0.005)


def test_a_mixture_without_a_known_file_has_no_command_and_says_why() -> None:
    chosen = plan("olmo-2-13b", gpu="a6000-48gb", quantization="Q4_K_M").candidates[0]
    assert chosen.verdict == "fits"
    assert chosen.engine_argv == ()
    assert any("convert_hf_to_gguf.py" in reason for reason in chosen.reasons)


def test_another_mixture_than_the_known_one_has_no_command() -> None:
    assert plan("phi-4", gpu="a6000-48gb", quantization="Q5_K_M").candidates[0].engine_argv == ()


def test_models_packed_for_other_engines_are_planned_too() -> None:
    for model in ("deepseek-r1", "glm-4.7", "kimi-k2"):
        assert all(candidate.verdict != "unsupported" for candidate in plan(model).candidates)


def test_heads_that_do_not_divide_are_no_hindrance() -> None:
    found = plan("qwen3-14b", gpu="a6000-48gb", gpu_count=3, quantization="Q8_0").candidates[0]
    assert found.tensor_parallel == 3
    assert "1,1,1" in found.engine_argv


def test_a_gpu_that_is_too_small_is_told_how_many_layers_fit() -> None:
    found = plan("llama-3.1-70b", gpu="a10-24gb").candidates[0]
    assert found.verdict == "too-small"
    assert re.search(r"fits with `-ngl \d\d` of 81 layers, the rest on the CPU", " ".join(found.reasons))


def test_other_engines_keep_the_files_they_had() -> None:
    found = plan("gpt-oss-20b", engine="vllm", gpu="h100-80gb-sxm5")
    assert found.model.serve_from == "openai/gpt-oss-20b"


def test_every_row_names_a_mixture_a_repository_and_its_source() -> None:
    rows = [row for model in all_models() for row in model.gguf]
    assert len(rows) > 40
    for row in rows:
        assert is_mixture(row.quantization)
        assert row.quantization == row.quantization.upper()
        assert REPOSITORY.fullmatch(row.repository)
        assert row.source
        assert row.as_of


@pytest.mark.parametrize("model", ["qwen3-8b", "gemma-3-27b", "granite-4.0-h-small", "deepseek-v2-lite"])
def test_the_explanation_is_llama_cpp_s_and_adds_up(model: str) -> None:
    found = plan(model, gpu="h100-80gb-sxm5", sequences=3, kv_dtype="fp8")
    candidate = found.candidates[0]
    text = "\n".join(explain(found, candidate))
    for foreign in ("rotary", "PyTorch", "profile run", "tensor parallel", "bfloat16"):
        assert foreign not in text
    sizes = {
        name.strip(): int(size.replace(",", ""))
        for name, size in re.findall(r"^  (\w[\w ]+?)\s+(-?[\d,]+) bytes", text, re.MULTILINE)
    }
    parts = ("model buffer", "KV buffer", "compute buffer", "CUDA context")
    assert sum(sizes[part] for part in parts) + sizes.get("RS buffer", 0) == sizes["need"]
    assert sizes["need"] == candidate.footprint.need_bytes
